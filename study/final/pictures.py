"""Images to predict as a model takes them: picture files, folders of them, CSV and npz.

Another size, another colour depth and transparency are converted, and a note says so.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.data import arrays, listing, picture, pixels, table
from study.data.picture import Fit, Shape
from study.data.pixels import BYTES, Scales
from study.data.reading import readable
from study.errors import DataError, ModelError
from study.files import printable

KINDS = ", ".join((*picture.KINDS, ".csv", ".npz"))

_AT_ONCE, _PIXELS = 500, 2**24  # images of a table, and pixels of them, that are converted at once

_ARRAYS = ("x_test", "images", "x")  # names of an archive's images, the first of them that is there


@dataclass(frozen=True)
class Batch:
    """Images of one file: pixels (n, height, width, channels) of 0..255, and notes on all of them.

    ``names`` are for people, ``ids`` for a submission: the number of a row, or a picture's name.
    """

    pixels: NDArray[np.float32]
    names: Sequence[str]
    ids: Sequence[int | str]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """Files to read, each with its id in a submission; ``skipped`` names what else a folder has."""

    files: Sequence[tuple[Path, str]]
    skipped: Sequence[str]


def find(paths: Iterable[Path]) -> Found:
    """The files of paths; of a folder all pictures in it and below it, 2.png before 10.png.

    The id of a picture is its name, in a folder its path from there. Raises ``ModelError`` or
    ``DataError`` for a path that is missing, that cannot be read or has no picture.
    """
    files: list[tuple[Path, str]] = []
    skipped: list[str] = []
    for path in paths:
        if not os.path.lexists(path):
            raise ModelError(
                f"{printable(path)}: no such file or folder; give one of {KINDS}, or a folder"
            )
        with readable(path):
            if not path.is_dir():
                files.append((path, path.name))
                continue
            inside = list(listing.walk(path))
        images = sorted(filter(listing.is_picture, inside), key=_natural)
        if not images:
            raise ModelError(
                f"{printable(path)}: a folder without pictures; it must hold "
                f"{', '.join(picture.KINDS)}"
            )
        files += [(file, file.relative_to(path).as_posix()) for file in images]
        if others := listing.others_in(inside):
            skipped.append(f"{printable(path)}: {others}")
    return Found(files, skipped)


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def read(
    path: Path,
    shape: Shape,
    fit: Fit = "pad",
    scales: Scales = BYTES,
    *,
    name: str = "",
    invert: bool = False,
    center: bool = False,
) -> Iterator[Batch]:
    """The images of a file, each as ``shape``, brought to it by ``fit``; some at a time.

    ``scales`` are those of training, and ``name`` is the id of a picture. ``invert`` swaps dark and
    bright, ``center`` crops to the ink and centres it. Raises ``ModelError`` or ``DataError``
    naming the file that cannot be read.
    """
    kind = path.suffix.lower()
    if kind in picture.KINDS:
        image, notes = picture.read(path, shape, fit, scales, center=center)
        batches = iter([Batch(image[np.newaxis].astype(np.float32), [str(path)], [name], notes)])
    elif kind in (".npz", ".csv"):
        batches = _rows(path, shape, fit, scales, center=center)
    else:
        raise ModelError(
            f"{printable(path)}: not a kind of file that is read here; give one of {KINDS}"
        )
    for batch in batches:
        levels = 255 - batch.pixels if invert else batch.pixels
        yield Batch(levels, batch.names, batch.ids, batch.notes)


def _rows(path: Path, shape: Shape, fit: Fit, scales: Scales, *, center: bool) -> Iterator[Batch]:
    """The images of a table, some at a time; one note on the conversions of all of these."""
    common: list[str] = []
    if path.suffix.lower() == ".npz":
        rows = arrays.npz_rows(path, partial(_images_of, path))
        where = f"{path}, {rows.name}"
        images, in_parts = pixels.as_images(rows.like, where), rows.read
    else:
        images, labels = table.pixels(path, labelled=False, shape=shape)
        where, in_parts = str(path), partial(arrays.in_parts, images)
        common += [] if labels is None else ["the column label is not used"]
    largest = max(math.prod(shape), math.prod(images.shape[1:]))
    size = max(1, min(_AT_ONCE, _PIXELS // largest))
    lowest, highest = zip(*(pixels.extremes(some, where) for some in in_parts(size)), strict=True)
    scale = pixels.scale_by(scales, pixels.kind_of(images), (min(lowest), max(highest)), where)
    if scale not in ((0, 1), (0, 255)):
        common.append(f"pixels of {scale[0]:g} to {scale[1]:g}")
    numbers = itertools.count(1)
    for part in in_parts(size):
        some = pixels.levels(part.reshape(-1, *images.shape[1:]), scale)
        ids = list(itertools.islice(numbers, len(some)))
        notes: list[str] = []
        if some.shape[1:] != shape or center:
            some = _fitted(some, shape, fit, notes, center=center)
        names = [f"{path}, {number}" for number in ids]
        yield Batch(some, names, ids, [*common, *dict.fromkeys(notes)])


def _images_of(path: Path, names: Sequence[str]) -> list[str]:
    """The name of an archive's images: x_test, images or x, or its only array."""
    found = [name for name in _ARRAYS if name in names] or list(names)
    if found[0] not in _ARRAYS and len(names) > 1:
        raise DataError(f"{path}: has {', '.join(names)}; call the images x_test")
    return found[:1]


def _fitted(
    images: NDArray[np.float32], shape: Shape, fit: Fit, notes: list[str], *, center: bool
) -> NDArray[np.float32]:
    from PIL import Image

    bytes_ = np.rint(images).astype(np.uint8)
    plain = [one[..., 0] if one.shape[2] == 1 else one for one in bytes_]
    done = [
        picture.converted(Image.fromarray(one), shape, fit, notes, center=center) for one in plain
    ]
    return np.stack(done).astype(np.float32)
