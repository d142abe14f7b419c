"""CSV files: of pixels as Kaggle has its digits, or lines of anything else.

The delimiter is a comma, semicolon or tab, whichever the first line has most of; the encoding is
UTF-8, or UTF-16 with a byte order mark.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from study.data.reading import readable, refusal
from study.errors import DataError
from study.files import printable

Shape = tuple[int, int, int]

NUMBER = re.compile(r"\s*[+-]?(\d+[.]?\d*|[.]\d+)(e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)

_LONGEST = 2**24  # characters of a line; an image of 1000x1000x3 has 12 million
_AT_ONCE = 2**22  # cells that are parsed at once


@dataclass
class _Table:
    """An opened CSV behind its header; iterating gives its lines."""

    path: Path
    file: TextIO
    delimiter: str
    header: list[str]
    number: int = 1

    def __iter__(self) -> Iterator[str]:
        while line := _line(self.path, self.file):
            self.number += 1
            yield line

    def cells(self, line: str) -> list[str]:
        return next(csv.reader([line], delimiter=self.delimiter), [])


def _line(path: Path, file: TextIO) -> str:
    line = file.readline(_LONGEST)
    if len(line) == _LONGEST:
        wrong = f"a line of more than {_LONGEST} characters"
        raise refusal(path, wrong, "give a CSV with a line for each image")
    return line


@contextmanager
def _opened(path: Path) -> Iterator[_Table]:
    """A CSV whose header has been read. Raises `DataError` with the reason if it is not text."""
    try:
        with readable(path):
            with path.open("rb") as binary:
                mark = binary.read(2)
            utf_16 = mark in (b"\xff\xfe", b"\xfe\xff")
            with path.open(encoding="utf-16" if utf_16 else "utf-8-sig", newline="") as file:
                first = _line(path, file)
                if "\0" in first:
                    raise refusal(path, "not a text file", "give a CSV with a header line")
                delimiter = max(",;\t", key=first.count)
                header = next(csv.reader([first], delimiter=delimiter), [])
                yield _Table(path, file, delimiter, [cell.strip().lower() for cell in header])
    except UnicodeError:
        raise refusal(path, _not_utf_8(path), "save it as CSV UTF-8") from None
    except csv.Error as error:
        raise refusal(path, f"not a CSV ({error})", "give a CSV with a header line") from error


def _not_utf_8(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
            if b"\0" in line:
                break
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number} is not UTF-8 (byte {line[error.start]:#x}; maybe cp1252)"
    return "not a text file"


def header(path: Path) -> Sequence[str]:
    """The names of a CSV's columns in small letters; () for a file that is no CSV."""
    try:
        with _opened(path) as table:
            return table.header
    except DataError:
        return ()


def rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line below the header: where it is, for messages, and its cells by column.

    Raises `DataError` for two columns of one name, and with the number of a line that has more or
    fewer cells than the header.
    """
    with _opened(path) as table:
        named = [name for name in table.header if name]
        if twice := [name for name in named if named.count(name) > 1]:
            raise refusal(path, f"has two columns {printable(twice[0])}", "rename or remove one")
        lines = csv.reader(table, delimiter=table.delimiter)
        for cells in filter(None, lines):
            where = f"{printable(path)}, line {table.number}"
            if wrong := _wrong_count(cells, table.header):
                raise DataError(f"{where}: {wrong}; correct or remove the line")
            yield where, dict(zip(table.header, map(str.strip, cells), strict=True))


def pixels(
    path: Path, *, labelled: bool, shape: Shape | None = None, regression: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Images (n, height, width, channels) as stored, and labels if the first column is `label`.

    ``labelled``: it must be. With ``regression`` labels are numbers, else classes. An image is of
    ``shape`` where its number of pixels is that, else it is square: n * n pixels, or n * n * 3,
    channel last. Raises `DataError`, with the number of a line.
    """
    with _opened(path) as table:
        labels = bool(table.header) and table.header[0] == "label"
        if labelled and not labels:
            raise refusal(
                path,
                "empty or without a label column",
                "the first line must be label,pixel0,... or, of a list of pictures, path,label",
            )
        if _are_pixels(table.header):
            raise refusal(
                path,
                "its first line is of numbers",
                "put a header above it (pixel0,pixel1,...), or the first image would be lost",
            )
        images = _shape(path, len(table.header) - labels, shape)
        blocks = list(_blocks(table, labels=labels))
    if not blocks:
        raise refusal(path, "no image below the header", "copy or export it again")
    found = np.concatenate([block for block, _ in blocks]).reshape(-1, *images)
    if not labels:
        return found, None
    first = np.concatenate([label for _, label in blocks]).astype(np.float64)
    if regression:
        return found, first
    broken = first[(first != np.rint(first)) | (np.abs(first) >= 2**53)]
    if broken.size:
        cure = 'number the classes, or give a space task = "regression"'
        raise refusal(path, f"label {broken[0]:g} is not a whole number", cure)
    return found, first.astype(np.int64)


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
    """Whether a first line is an image, and not the numbers of the columns, as pandas writes."""
    if not header or not all(NUMBER.fullmatch(name) for name in header):
        return False
    values = [float(name) for name in header]
    counted = values in (list(range(len(values))), list(range(1, len(values) + 1)))
    return max(values) <= 255 and not counted


def _blocks(table: _Table, *, labels: bool) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pixels (n, pixels) and labels (n, 0 or 1) of some lines at a time; bytes where they are."""
    lines, size = iter(table), max(1, _AT_ONCE // len(table.header))
    while block := list(islice(lines, size)):
        if not any(line.strip() for line in block):
            continue
        numbers = _numbers(block, table)
        pixels = numbers[:, int(labels) :]
        if pixels.dtype.kind == "i" and pixels.min() >= 0 and pixels.max() <= 255:
            pixels = pixels.astype(np.uint8)
        yield pixels, numbers[:, : int(labels)].reshape(-1)


def _numbers(block: list[str], table: _Table) -> NDArray[Any]:
    """The cells of some lines (n, columns): whole numbers if all of them are.

    NumPy's reader, as it needs no memory for an object a column; pandas does, for each of 150,528.
    """
    for kind in (np.int64, np.float64):
        try:
            numbers = np.loadtxt(
                block, kind, delimiter=table.delimiter, comments=None, ndmin=2, quotechar='"'
            )
        except ValueError:
            continue
        if numbers.shape[1] == len(table.header) and np.isfinite(numbers).all():
            return numbers
    for number, line in enumerate(block, start=table.number - len(block) + 1):
        cells = table.cells(line)
        if not line.strip():
            continue
        odd = [cell for cell in cells if not NUMBER.fullmatch(cell)]
        wrong = _wrong_count(cells, table.header) or (odd and f"{odd[0][:20]!r} is not a number")
        if wrong:
            where = f"{printable(table.path)}, line {number}"
            raise DataError(f"{where}: {wrong}; correct or remove the line")
    raise refusal(table.path, "holds a number too large for a pixel", "correct it")


def _wrong_count(cells: Sequence[str], header: Sequence[str]) -> str:
    right = len(cells) == len(header)
    return "" if right else f"{len(cells)} values where the header has {len(header)}"
