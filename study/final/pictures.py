"""Anybody's images as a model takes them: PNG, JPEG, CSV and npz; nothing is ever unpickled.

Another size, another colour depth and transparency are converted, and a note says so.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import npz, pixels, table
from study.errors import DataError, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg")
TABLES = (".csv", ".npz")
KINDS = ", ".join((*PICTURES, *TABLES))

_ARRAYS = ("x_test", "images", "x")  # names of an archive's images, the first of them that is there


@dataclass(frozen=True)
class Batch:
    """Images of one source: pixels (n, height, width, channels) of 0..255, a name and notes."""

    pixels: NDArray[np.float32]
    names: Sequence[str]
    notes: Sequence[str] = ()


def batches(
    paths: Iterable[Path], shape: tuple[int, int, int], *, invert: bool = False
) -> Iterator[Batch]:
    """The images of files and folders, each as ``shape`` (height, width, channels).

    ``invert`` swaps dark and bright. Raises ``ModelError`` naming the file that cannot be read.
    """
    for path in paths:
        with _readable(path):
            files = _files(path)
        for file in files:
            batch = _batch(file, shape)
            yield Batch(255 - batch.pixels, batch.names, batch.notes) if invert else batch


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [file for file in path.iterdir() if file.suffix.lower() in PICTURES]
    if not found:
        raise ModelError(f"{path}: a folder without images; it must hold {', '.join(PICTURES)}")
    return sorted(found, key=_counted)


def _counted(path: Path) -> list[tuple[int, str]]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file or folder; give one of {KINDS}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None


def _batch(path: Path, shape: tuple[int, int, int]) -> Batch:
    kind = path.suffix.lower()
    with _readable(path):
        if kind in PICTURES:
            return _picture(path, shape)
        if kind == ".npz":
            return _fitted(path, _npz(path), shape)
        if kind == ".csv":
            return _csv(path, shape)
    raise ModelError(f"{path}: not a kind of file that is read here; give one of {KINDS}")


def _picture(path: Path, shape: tuple[int, int, int]) -> Batch:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=["PNG", "JPEG"]) as opened,
        ):
            converted, notes = _converted(ImageOps.exif_transpose(opened), shape)
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError):
        raise ModelError(f"{path}: not a PNG or JPEG image, or a damaged one") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ModelError(f"{path}: too large for an image; make it smaller") from None
    return Batch(converted[np.newaxis], [str(path)], notes)


def _converted(image: Image, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], list[str]]:
    """An opened image as pixels of the wanted shape, and what was changed."""
    from PIL import Image as Images

    height, width, channels = shape
    wanted, notes = "L" if channels == 1 else "RGB", []
    said = {"L": "grey", "RGB": "colour"}
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("16 bits a pixel made 8")
        levels = np.asarray(image, np.float64) / 257  # Pillow itself would cut them off at 255
        image = Images.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        notes.append("transparent parts made black")
        image = image.convert("RGBA")
        black = Images.new("RGBA", image.size, (0, 0, 0, 255))
        image = Images.alpha_composite(black, image).convert("RGB")
        image = image.convert(wanted)
    if image.mode != wanted:
        was = {"1": "black and white", "P": "palette", "L": "grey", "RGB": "colour"}
        notes.append(f"{was.get(image.mode, image.mode)} made {said[wanted]}")
        image = image.convert("RGB").convert(wanted)
    if image.size != (width, height):
        notes.append(f"{image.height}x{image.width} made {height}x{width}")
        image = image.resize((width, height), Images.Resampling.BILINEAR)
    return np.asarray(image, np.float32).reshape(shape), notes


def _npz(path: Path) -> NDArray[np.float32]:
    """The images of an archive: x_test, images or x, or its only array."""

    def choose(names: Sequence[str]) -> list[str]:
        found = [name for name in _ARRAYS if name in names] or list(names)
        if found[0] not in _ARRAYS and len(names) > 1:
            raise DataError(f"{path}: has {', '.join(names)}; call the images x_test")
        return found[:1]

    ((name, array),) = npz.read(path, choose).items()
    return _pixels(array, f"{path}, {name}")


def _pixels(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Pixels as 0..255: whole numbers stay, floats within 0..1 are multiplied."""
    images = pixels.as_images(array, where)
    return images.astype(np.float32) * np.float32(255 / pixels.divisor(images, where))


def _csv(path: Path, shape: tuple[int, int, int]) -> Batch:
    """Kaggle's layout; a label column is left out."""
    images, labels = table.read(path, labelled=False, shape=shape)
    batch = _fitted(path, _pixels(images, str(path)), shape)
    notes = [] if labels is None else ["the column label is not used"]
    return Batch(batch.pixels, batch.names, [*notes, *batch.notes])


def _fitted(path: Path, images: NDArray[np.float32], shape: tuple[int, int, int]) -> Batch:
    """The rows of a table as images of the wanted shape."""
    names = [f"{path}, {number}" for number in range(1, len(images) + 1)]
    if images.shape[1:] == shape:
        return Batch(images, names)
    from PIL import Image

    bytes_ = np.rint(images).astype(np.uint8)
    done = [
        _converted(Image.fromarray(np.squeeze(one, 2) if one.shape[2] == 1 else one), shape)
        for one in bytes_
    ]
    return Batch(np.stack([image for image, _ in done]), names, done[0][1])
