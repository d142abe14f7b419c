"""A picture file as a model takes it: opened, converted, brought to a size.

Notes say what was changed. A picture is an image file of `KINDS`; the first frame counts. Training
and prediction read pictures by the same function, so that a model meets what it knows.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from study.data.pixels import BYTES, Kind, Range, Scales, extremes, kind_of, levels, scale_by
from study.data.reading import readable, refusal
from study.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Endings of pictures, and what Pillow calls each format. A file may be of any of these formats."""

Shape = tuple[int, int, int]
"""Height, width and channels (1 or 3)."""

Fit = Literal["pad", "crop", "stretch"]
"""How a picture of other proportions fills the shape: ground around it, its middle, or squashed."""

FITS: tuple[Fit, ...] = get_args(Fit)

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # messages of damaged files are ours

_GREY = ("1", "L", "La", "LA", "I", "F")  # Pillow's modes without colours, and I;16
_FINER = 2  # a JPEG is decoded at no less than this many times the wanted size
_TURNED = 5  # from this orientation (EXIF) on, width and height are swapped
_ORIENTATION = 0x0112

_MOST, _LARGE = 90e6, 8e6  # pixels that are decoded at all, and that are decoded one at a time
_ONE_LARGE = threading.Lock()

_INK = 20 / 28  # of a side: MNIST scales ink to 20 pixels of 28 and centres its mass
_DISTINCT = 1 / 3  # of the largest distance from the ground: what differs by more is ink
_FAINT = 16  # of 255: where nothing differs from the ground by more there is no ink


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """A picture whose header has been read; `DataError` for another, damaged or too large file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with readable(path), Image.open(path, formats=sorted(set(KINDS.values()))) as image:
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except UnidentifiedImageError:
        raise refusal(
            path, "not a picture of a supported kind, or a damaged one", "save it as PNG"
        ) from None
    except Exception:  # noqa: BLE001 - Pillow raises what it likes for a damaged file
        raise refusal(path, "cannot be read (damaged)", "copy or save it again") from None


def _too_large(path: Path) -> DataError:
    return refusal(path, f"more than {_MOST / 1e6:.0f} million pixels", "make it smaller")


@dataclass(frozen=True)
class Look:
    """A picture at first sight: height, width and channels, and how its pixels are stored.

    ``extremes`` are those of pixels that are not 8 bits: which of their numbers is white depends
    on the other pictures.
    """

    shape: Shape
    kind: Kind
    extremes: Range | None


def look(path: Path) -> Look:
    """Look at the header of a picture, and at the pixels where they are not bytes."""
    with _opened(path) as image:
        kind, found = _depth(path, image)
        grey = image.mode in _GREY or image.mode.startswith("I")
        return Look((*_upright(image), 1 if grey else 3), kind, found)


def order(*sizes: Sequence[int]) -> str:
    """The words " (height x width)" for a message about sizes, unless all of them are square."""
    return "" if all(height == width for height, width in sizes) else " (height x width)"


def _depth(path: Path, image: Image) -> tuple[Kind, Range | None]:
    if not _is_deep(image):
        return "bytes", None
    with _loaded(path, image):
        pixels = np.asarray(image)
    return kind_of(pixels), extremes(pixels, str(path))


def _is_deep(image: Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


@contextmanager
def _loaded(path: Path, image: Image) -> Iterator[None]:
    """Decode a picture; of large ones one at a time, as each takes some hundred megabytes."""
    if image.width * image.height > _MOST:
        raise _too_large(path)
    with _ONE_LARGE if image.width * image.height > _LARGE else nullcontext():
        image.load()
        yield


def _upright(image: Image) -> tuple[int, int]:
    """Height and width of an opened picture, upright."""
    from PIL import Image as Images

    turned = Images.Image.getexif(image).get(_ORIENTATION, 0) >= _TURNED  # PNG's own decodes it
    if turned and image.format != "TIFF":  # Pillow turns the size of a TIFF itself
        return image.width, image.height
    return image.height, image.width


def read(
    path: Path, shape: Shape, fit: Fit = "pad", scales: Scales = BYTES, *, center: bool = False
) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels (height, width, channels) of a picture, and notes on what was changed.

    ``scales`` say which numbers are black and white. Raises `DataError` where the file is no
    picture, is damaged or too large, or cannot be read.
    """
    from PIL import ImageOps

    with _opened(path) as image:
        notes = ["the first of several frames"] if getattr(image, "is_animated", False) else []
        was = _upright(image)
        if not center:
            _coarsen(image, shape)
        with _loaded(path, image):
            ImageOps.exif_transpose(image, in_place=True)
            plain = _of_mode(image, "L" if shape[2] == 1 else "RGB", scales, str(path), notes)
            return converted(plain, shape, fit, notes, center=center, was=was), notes


def _coarsen(image: Image, shape: Shape) -> None:
    """Let a large JPEG be decoded at a half, a quarter or an eighth of its size."""
    scale = _FINER * max(shape[:2]) / min(image.size)
    if scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def converted(
    image: Image,
    shape: Shape,
    fit: Fit,
    notes: list[str],
    *,
    center: bool = False,
    was: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """An image of mode L or RGB as pixels of ``shape``; what was changed is added to ``notes``.

    ``pad`` keeps the proportions and fills the rest with the colour of the image's border,
    ``crop`` keeps them and cuts off the excess, ``stretch`` does not keep them. ``center`` crops
    to the ink and places it as MNIST does. ``was`` is the height and width that a note names.
    """
    height, width, channels = shape
    image = _plain(image, "L" if channels == 1 else "RGB", notes)
    size, before = (width, height), was or (image.height, image.width)
    named, now = (f"{high}x{wide}" for high, wide in (before, (height, width)))
    now += order(before, (height, width))
    distance = _from_ground(image) if center else np.zeros((1, 1), np.float32)
    if distance.max() > _FAINT:
        notes.append(f"{named} cropped to the ink and made {now}")
        image = _centred(image, distance, size)
    elif center:
        notes.append("no ink to centre")
    if before != (height, width) and image.size != size:
        how = {"pad": ", padded", "crop": ", cropped", "stretch": ", stretched"}[fit]
        same = before[1] * height == before[0] * width
        notes.append(f"{named} made {now}{'' if same else how}")
    if image.size != size:
        image = _fitted(image, size, fit)
    return np.asarray(image, np.uint8).reshape(shape)


def _fitted(image: Image, size: tuple[int, int], fit: Fit) -> Image:
    """The image at ``size`` (width, height)."""
    if fit == "stretch":
        from PIL import Image as Images

        return image.resize(size, Images.Resampling.BILINEAR)
    scaled = _scaled(image, size, max if fit == "crop" else min)
    place = ((size[0] - scaled.width) // 2, (size[1] - scaled.height) // 2)
    if scaled.size == size:
        return scaled
    return _placed(scaled, place, size, _ground(image))


def _of_mode(image: Image, wanted: str, scales: Scales, where: str, notes: list[str]) -> Image:
    """The image as grey (``L``) or colour (``RGB``) of 8 bits, without transparency."""
    from PIL import Image as Images

    if _is_deep(image):
        pixels = np.asarray(image)
        scale = scale_by(scales, kind_of(pixels), extremes(pixels, where), where)
        notes.append(f"pixels of {scale[0]:g} to {scale[1]:g} made 8 bits")
        image = Images.fromarray(np.rint(levels(pixels, scale)).astype(np.uint8))
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
    image = _plain(image, wanted, notes)
    white = scales.get("bytes", (0, 255))[1]
    if white < 255 and np.asarray(image).max() <= white:  # masks of 0 and 1
        image = image.point(lambda level: round(level * 255 / white))
    return image


def _plain(image: Image, wanted: str, notes: list[str]) -> Image:
    """The image in mode ``wanted``."""
    if image.mode != wanted:
        names = {"1": "black and white", "P": "palette", "L": "grey", "RGB": "colour"}
        notes.append(f"{names.get(image.mode, image.mode)} made {names[wanted]}")
        image = image.convert("RGB").convert(wanted)
    return image


def _is_dark(grey: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> bool:
    """Whether the visible part is dark on average; False if nothing is visible."""
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
    mass = _scaled(_image(np.where(ink, distance, 0)).crop(box), room)
    inside = _scaled(image.crop(box), room)
    weights = np.asarray(mass, np.float64)

    def start(length: int, axis: int) -> int:
        along = weights.sum(axis=axis)
        centre = float(np.average(np.arange(len(along)) + 0.5, weights=along))
        return min(max(round(length / 2 - centre), 0), length - len(along))

    return _placed(inside, (start(width, 0), start(height, 1)), size, _ground(image))


def _image(pixels: NDArray[np.float32]) -> Image:
    from PIL import Image as Images

    return Images.fromarray(np.rint(pixels).astype(np.uint8))


def _scaled(
    image: Image, size: tuple[int, int], choose: Callable[[float, float], float] = min
) -> Image:
    """The image in its own proportions, as large as ``size`` (width, height) allows; max: holds."""
    from PIL import Image as Images

    scale = choose(size[0] / image.width, size[1] / image.height)
    scaled = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(scaled, Images.Resampling.BILINEAR)


def _placed(
    image: Image, place: tuple[int, int], size: tuple[int, int], ground: tuple[int, ...]
) -> Image:
    """A canvas of ``size`` (width, height) in the colour of the ground, with the image on it."""
    from PIL import Image as Images

    canvas = Images.new(image.mode, size, ground if len(ground) > 1 else ground[0])
    canvas.paste(image, place)
    return canvas
