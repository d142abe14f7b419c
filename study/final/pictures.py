"""Anybody's images as a model takes them: PNG, JPEG, CSV and npz; nothing is ever unpickled.

Another size, another colour depth and transparency are converted, and a note says so.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data.formats import NPZ_DAMAGE
from study.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg")
TABLES = (".csv", ".npz")
KINDS = ", ".join((*PICTURES, *TABLES))

_NUMBER = re.compile(r"[+-]?(\d+[.]?\d*|[.]\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
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
            pixels, notes = _converted(ImageOps.exif_transpose(opened), shape)
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError):
        raise ModelError(f"{path}: not a PNG or JPEG image, or a damaged one") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ModelError(f"{path}: too large for an image; make it smaller") from None
    return Batch(pixels[np.newaxis], [str(path)], notes)


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


def _npz(path: Path) -> NDArray[Any]:
    """The images of an archive: x_test, images or x, or its only array."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = archive.files
            name = next((n for n in _ARRAYS if n in names), names[0] if len(names) == 1 else None)
            if name is None:
                raise ModelError(f"{path}: has {', '.join(names)}; call the images x_test")
            images: NDArray[Any] = archive[name]
            if not isinstance(images, np.ndarray):
                raise ModelError(f"{path}: {name} is no array; save one with np.savez")
    except OSError:
        raise
    except NPZ_DAMAGE as error:
        pickled = "Object arrays" in str(error) or "pickle" in str(error).lower()
        wrong = "holds pickled objects, which are never loaded" if pickled else "not an .npz file"
        raise ModelError(f"{path}: {wrong}; save number arrays with np.savez") from None
    if images.ndim == 3 and images.dtype.kind in "iuf":
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.dtype.kind not in "iuf" or images.shape[3] not in (1, 3):
        raise ModelError(
            f"{path}: an array of {images.dtype} of shape {images.shape}; images are (n, height, "
            "width) or (n, height, width, channels) with 1 or 3 channels"
        )
    return _scaled(path, images)


def _scaled(path: Path, images: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels as 0..255: whole numbers stay, floats within 0..1 are multiplied."""
    if not images.size:
        raise ModelError(f"{path}: no images; add some")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # NaN is neither
        raise ModelError(f"{path}: pixels lie within [{low}, {high}]; they must lie within 0..255")
    fractions = images.dtype.kind == "f" and high <= 1
    return (images * np.float32(255 if fractions else 1)).astype(np.float32)


def _csv(path: Path, shape: tuple[int, int, int]) -> Batch:
    """Kaggle's layout: a header, a line of pixels an image; a label column is left out."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            header = [name.strip().strip('"') for name in lines.readline().rstrip("\n").split(",")]
            with warnings.catch_warnings(action="error", category=UserWarning):
                table = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not a text file; give a CSV with a header line") from None
    except UserWarning:
        raise ModelError(f"{path}: no image below the header") from None
    except ValueError as error:
        said = " ".join(str(error).split())[:120]
        raise ModelError(
            f"{path}: a line is not of numbers or of another length ({said})"
        ) from None
    if _are_pixels(header):
        raise ModelError(
            f"{path}: its first line is of numbers; put a header above it (pixel0,pixel1,...), or "
            "the first image would be lost"
        )
    named = header[0].lower() == "label"
    if table.shape[1] != len(header):
        raise ModelError(f"{path}: {table.shape[1]} values a line under {len(header)} names")
    images = table[:, 1:] if named else table
    if np.array_equal(images, np.rint(images)):  # pixels of 0..255, even where all are 0 or 1
        images = images.astype(np.int64)
    batch = _fitted(path, _scaled(path, _square(path, images, shape)), shape)
    notes = ["the column label is not used"] if named else []
    return Batch(batch.pixels, batch.names, [*notes, *batch.notes])


def _are_pixels(header: Sequence[str]) -> bool:
    """Whether a first line is an image; one that counts the columns, as pandas writes, is none."""
    if not all(_NUMBER.fullmatch(name) for name in header):
        return False
    values = [float(name) for name in header]
    counted = values in (list(range(len(values))), list(range(1, len(values) + 1)))
    return max(values) <= 255 and not counted


def _square(path: Path, rows: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    pixels = rows.shape[1]
    if pixels == math.prod(shape):
        return rows.reshape(-1, *shape)
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side and side * side * channels == pixels:
            return rows.reshape(-1, side, side, channels)
    raise ModelError(
        f"{path}: {pixels} pixels a line; the model takes {math.prod(shape)}, and they make no "
        "square image either"
    )


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
    return Batch(np.stack([pixels for pixels, _ in done]), names, done[0][1])
