"""Kaggle's digit CSVs: a header `label,pixel0,...`, then a line of numbers an image."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from study.data.files import readable, refusal
from study.errors import DataError

Shape = tuple[int, int, int]

NUMBER = re.compile(r"\s*[+-]?(\d+[.]?\d*|[.]\d+)(e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)


def read(
    path: Path, *, labelled: bool, shape: Shape | None = None, numbers: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Images (n, height, width, channels) as stored, and labels where the first column has them.

    ``labelled``: it must; ``numbers``: they are no classes. An image is of ``shape`` where its
    number of pixels is that, else it is square: n * n pixels, or n * n * 3, channel last. Raises
    `DataError`, with the number of a line.
    """
    try:
        with readable(path), path.open(encoding="utf-8-sig") as lines:
            header = [name.strip().strip('"') for name in lines.readline().split(",")]
            labels = header[0].lower() == "label"
            if labelled and not labels:
                raise refusal(
                    path,
                    "empty or without a label column",
                    "the first line must be label,pixel0,... or, of a list of pictures, path,label",
                )
            if _are_pixels(header):
                raise refusal(
                    path,
                    "its first line is of numbers",
                    "put a header above it (pixel0,pixel1,...), or the first image would be lost",
                )
            images = _shape(path, len(header) - labels, shape)
            table = _numbers(path, lines, len(header))
    except UnicodeDecodeError as error:
        raise refusal(path, "not a text file", "give a CSV with a header line") from error
    if not labels:
        return table.reshape(-1, *images), None
    first = table[:, 0]
    if numbers:
        return table[:, 1:].reshape(-1, *images), first.astype(np.float64)
    broken = first[(first != np.rint(first)) | (np.abs(first) >= 2**53)]
    if broken.size:
        cure = 'number the classes, or give a space task = "regression"'
        raise refusal(path, f"label {broken[0]:g} is not a whole number", cure)
    return table[:, 1:].reshape(-1, *images), first.astype(np.int64)


def _shape(path: Path, pixels: int, wanted: Shape | None) -> Shape:
    if wanted and pixels == math.prod(wanted):
        return wanted
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side > 0 and side * side * channels == pixels:
            return side, side, channels
    other = f"; the model takes {math.prod(wanted)}, and they" if wanted else ""
    raise refusal(
        path,
        f"{pixels} pixels a line{other} make no square image of 1 or 3 channels",
        "give one column a pixel",
    )


def _are_pixels(header: Sequence[str]) -> bool:
    """Whether a first line is an image; one that counts the columns, as pandas writes, is none."""
    if not all(NUMBER.fullmatch(name) for name in header):
        return False
    values = [float(name) for name in header]
    counted = values in (list(range(len(values))), list(range(1, len(values) + 1)))
    return max(values) <= 255 and not counted


def _numbers(path: Path, lines: TextIO, columns: int) -> NDArray[Any]:
    """The lines below the header (n, columns): whole numbers if all of them are."""
    start, error = lines.tell(), None
    for kind in (np.int32, np.float64):
        lines.seek(start)
        try:
            with warnings.catch_warnings(action="error", category=UserWarning):
                table = np.loadtxt(lines, dtype=kind, delimiter=",", comments=None, ndmin=2)
        except UserWarning:
            raise refusal(path, "no image below the header", "copy or export it again") from None
        except UnicodeDecodeError:
            raise
        except ValueError as found:
            error = found
            continue
        if table.shape[1] == columns and np.isfinite(table).all():
            return table
    raise _bad_line(path, columns) from error


def _bad_line(path: Path, columns: int) -> DataError:
    """Reads once more, slowly, for the line: numpy counts neither the header nor empty lines."""
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            cells = line.rstrip("\n").split(",")
            if number == 1 or not line.strip():
                continue
            if len(cells) != columns:
                wrong = f"{len(cells)} values where the header has {columns}"
            elif odd := [cell for cell in cells if not NUMBER.fullmatch(cell)]:
                wrong = f"{odd[0][:20]!r} is not a number"
            else:
                continue
            return DataError(f"{path}, line {number}: {wrong}; correct or remove the line")
    return refusal(path, "holds a number too large for a pixel", "correct it")
