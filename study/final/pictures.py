"""Anybody's images as a model takes them: picture files, CSV and npz; nothing is ever unpickled.

Another size, another colour depth and transparency are converted, and a note says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data import npz, picture, pixels, table
from study.data.picture import Fit, Shape
from study.errors import DataError, ModelError

TABLES = (".csv", ".npz")
KINDS = ", ".join((*picture.KINDS, *TABLES))

_ARRAYS = ("x_test", "images", "x")  # names of an archive's images, the first of them that is there


@dataclass(frozen=True)
class Batch:
    """Images of one source: pixels (n, height, width, channels) of 0..255, a name and notes."""

    pixels: NDArray[np.float32]
    names: Sequence[str]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """Files to read, in the order that people count in; ``skipped`` says what a folder has more."""

    files: Sequence[Path]
    skipped: Sequence[str]


def find(paths: Iterable[Path]) -> Found:
    """The files of paths, of a folder all pictures in it and below it, 2.png before 10.png.

    Raises ``ModelError`` for a path that is missing, that cannot be read or has no picture.
    """
    files: list[Path] = []
    skipped: list[str] = []
    for path in paths:
        with _readable(path):
            if not path.is_dir():
                path.stat()
                files.append(path)
                continue
            inside = list(_walk(path))
        images = [file for file in inside if file.suffix.lower() in picture.KINDS]
        if not images:
            raise ModelError(
                f"{path}: a folder without pictures; it must hold {', '.join(picture.KINDS)}"
            )
        files += sorted(images, key=_counted)
        if more := sorted({file.suffix or file.name for file in {*inside} - {*images}}):
            number = len(inside) - len(images)
            what = "1 file is no picture" if number == 1 else f"{number} files are no pictures"
            skipped.append(f"{path}: {what} ({', '.join(more[:9])}): skipped")
    return Found(files, skipped)


def _walk(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, links followed once; hidden ones are passed over."""
    seen = set()

    def fail(error: OSError) -> None:
        raise error

    for place, below, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        below[:] = [name for name in below if real not in seen and not name.startswith(".")]
        if real not in seen:
            yield from (Path(place, name) for name in names if not name.startswith("."))
        seen.add(real)


def _counted(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def read(
    path: Path, shape: Shape, fit: Fit = "pad", *, invert: bool = False, center: bool = False
) -> Batch:
    """The images of a file, each as ``shape``, brought to it by ``fit``.

    ``invert`` swaps dark and bright, ``center`` crops to the ink and centres it. Raises
    ``ModelError`` or ``DataError`` naming the file that cannot be read.
    """
    with _readable(path):
        batch = _batch(path, shape, fit, center=center)
    return Batch(255 - batch.pixels, batch.names, batch.notes) if invert else batch


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file or folder; give one of {KINDS}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None


def _batch(path: Path, shape: Shape, fit: Fit, *, center: bool) -> Batch:
    kind = path.suffix.lower()
    if kind in picture.KINDS:
        image, notes = picture.read(path, shape, fit, center=center)
        return Batch(image[np.newaxis].astype(np.float32), [str(path)], notes)
    if kind == ".npz":
        return _fitted(path, _npz(path), shape, fit, center=center)
    if kind == ".csv":
        return _csv(path, shape, fit, center=center)
    raise ModelError(f"{path}: not a kind of file that is read here; give one of {KINDS}")


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


def _csv(path: Path, shape: Shape, fit: Fit, *, center: bool) -> Batch:
    """Kaggle's layout; a label column is left out."""
    images, labels = table.read(path, labelled=False, shape=shape)
    batch = _fitted(path, _pixels(images, str(path)), shape, fit, center=center)
    notes = [] if labels is None else ["the column label is not used"]
    return Batch(batch.pixels, batch.names, [*notes, *batch.notes])


def _fitted(
    path: Path, images: NDArray[np.float32], shape: Shape, fit: Fit, *, center: bool
) -> Batch:
    """The rows of a table as images of the wanted shape; one note of the conversions of all."""
    names = [f"{path}, {number}" for number in range(1, len(images) + 1)]
    if images.shape[1:] == shape and not center:
        return Batch(images, names)
    from PIL import Image

    bytes_ = np.rint(images).astype(np.uint8)
    done = [
        picture.converted(
            Image.fromarray(np.squeeze(one, 2) if one.shape[2] == 1 else one),
            shape,
            fit,
            center=center,
        )
        for one in bytes_
    ]
    notes = dict.fromkeys(note for _, notes in done for note in notes)
    return Batch(np.stack([image for image, _ in done]).astype(np.float32), names, list(notes))
