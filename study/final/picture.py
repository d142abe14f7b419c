"""A picture file as a model takes it: opened, converted, padded or centred; never unpickled.

What was changed is said in notes. A picture is an image file of `KINDS`; the first frame counts.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from study.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Endings of pictures, and what Pillow calls each format. A file may be of any of these formats."""

Shape = tuple[int, int, int]
"""Height, width and channels (1 or 3)."""

_INK = 20 / 28  # of a side: MNIST scales ink to 20 pixels of 28 and centres its mass
_DISTINCT = 1 / 3  # of the largest distance from the ground: what differs by more is ink
_FAINT = 16  # of 255: where nothing differs from the ground by more there is no ink


def read(
    path: Path, shape: Shape, *, center: bool = False
) -> tuple[NDArray[np.float32], list[str]]:
    """The pixels (height, width, channels) of a picture, 0..255, and notes on what was changed.

    Raises ``ModelError`` where it is none, is damaged or is too large; ``OSError`` as it comes.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=sorted(set(KINDS.values()))) as opened,
        ):
            frames = getattr(opened, "n_frames", 1)
            pixels, notes = converted(ImageOps.exif_transpose(opened), shape, center=center)
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError):
        raise ModelError(
            f"{path}: not a picture of a kind that is read here, or a damaged one; save it as PNG"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ModelError(f"{path}: too large for an image; make it smaller") from None
    return pixels, notes if frames == 1 else [f"the first of {frames} frames", *notes]


def converted(
    image: Image, shape: Shape, *, center: bool = False
) -> tuple[NDArray[np.float32], list[str]]:
    """An opened image as pixels of ``shape``, and what was changed.

    Proportions are kept: what is left of the shape is filled with the colour of the image's border.
    ``center`` crops to the ink and places it as MNIST does.
    """
    height, width, channels = shape
    image, notes = _of_mode(image, "L" if channels == 1 else "RGB")
    was, size = f"{image.height}x{image.width}", (width, height)
    distance = _from_ground(image)
    if center and distance.max() > _FAINT:
        notes.append(f"{was} cropped to the ink and made {height}x{width}")
        image = _centred(image, distance, size)
    elif center:
        notes.append("no ink to centre")
    if image.size != size:
        padded = ", padded" if image.width * height != image.height * width else ""
        notes.append(f"{was} made {height}x{width}{padded}")
        inside = _inside(image, size)
        place = ((width - inside.width) // 2, (height - inside.height) // 2)
        image = _placed(inside, place, size, _ground(image))
    return np.asarray(image, np.float32).reshape(shape), notes


def _of_mode(image: Image, wanted: str) -> tuple[Image, list[str]]:
    """The image as grey (``L``) or colour (``RGB``) of 8 bits, without transparency."""
    from PIL import Image as Images

    notes = []
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("16 bits a pixel made 8")
        levels = np.asarray(image, np.float64) / 257  # Pillow itself would cut them off at 255
        image = Images.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        plain = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            ground = 255 if _is_dark(np.asarray(image.convert("L")), alpha) else 0
            notes.append(f"transparent parts made {'white' if ground else 'black'}")
            below = Images.new("RGBA", image.size, (ground, ground, ground, 255))
            image = Images.alpha_composite(below, image)
        image = image.convert("RGB").convert(plain)
    if image.mode != wanted:
        names = {"1": "black and white", "P": "palette", "L": "grey", "RGB": "colour"}
        notes.append(f"{names.get(image.mode, image.mode)} made {names[wanted]}")
        image = image.convert("RGB").convert(wanted)
    return image, notes


def _is_dark(grey: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> bool:
    """Whether what is visible is dark in the mean; where nothing is, it is not."""
    return bool(alpha.any() and np.average(grey, weights=alpha) < 128)


def _ground(image: Image) -> tuple[int, ...]:
    """The colour of the ground, a number a channel: the median of the outermost pixels."""
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(level) for level in np.median(border, axis=0))


def _from_ground(image: Image) -> NDArray[np.float32]:
    """How far each pixel's brightness (height, width) is from that of the ground, in 0..255."""
    grey = image.convert("L")
    return np.abs(np.asarray(grey, np.float32) - _ground(grey)[0])


def _centred(image: Image, distance: NDArray[np.float32], size: tuple[int, int]) -> Image:
    """The ink scaled to MNIST's part of ``size`` (width, height), its centre of mass in the middle.

    Where that would push ink over the edge it stays at the edge.
    """
    ink = distance > _DISTINCT * distance.max()
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    width, height = size
    room = (round(_INK * width), round(_INK * height))
    mass = _inside(_image(np.where(ink, distance, 0)).crop(box), room)
    inside = _inside(image.crop(box), room)
    weights = np.asarray(mass, np.float64)

    def start(length: int, axis: int) -> int:
        along = weights.sum(axis=axis)
        centre = float(np.average(np.arange(len(along)) + 0.5, weights=along))
        return min(max(round(length / 2 - centre), 0), length - len(along))

    return _placed(inside, (start(width, 0), start(height, 1)), size, _ground(image))


def _image(pixels: NDArray[np.float32]) -> Image:
    from PIL import Image as Images

    return Images.fromarray(np.rint(pixels).astype(np.uint8))


def _inside(image: Image, size: tuple[int, int]) -> Image:
    """The image in its own proportions, as large as ``size`` (width, height) allows."""
    from PIL import Image as Images

    scale = min(size[0] / image.width, size[1] / image.height)
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(fitted, Images.Resampling.BILINEAR)


def _placed(
    image: Image, place: tuple[int, int], size: tuple[int, int], ground: tuple[int, ...]
) -> Image:
    """A canvas of ``size`` (width, height) in the colour of the ground, with the image on it."""
    from PIL import Image as Images

    canvas = Images.new(image.mode, size, ground if len(ground) > 1 else ground[0])
    canvas.paste(image, place)
    return canvas
