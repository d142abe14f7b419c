"""Folders of IDX files, as MNIST and its relatives are published: plain or packed by gzip."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data.files import refusal
from study.data.parts import Part, Parts
from study.errors import DataError

NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte(?:\.gz)?")
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def files(folder: Path) -> dict[tuple[str, str], Path]:
    """Files such as train-images-idx3-ubyte, plain or .gz, the dotted spelling too.

    By part (train, t10k) and kind (images, labels). Where a file is there both plain and packed,
    the plain one counts.
    """
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.iterdir()):
        match = NAME.fullmatch(file.name)
        if match and file.is_file():
            found.setdefault((match[1], match[2]), file)
    return found


def read(folder: Path, found: dict[tuple[str, str], Path]) -> Parts:
    """The parts in ``files(folder)``; raises `DataError` naming one that is damaged or missing."""
    has_test = any(part == "t10k" for part, _ in found)
    return _part(folder, found, "train"), _part(folder, found, "t10k") if has_test else None


def _part(folder: Path, found: dict[tuple[str, str], Path], part: str) -> Part:
    for kind in ("images", "labels"):
        if (part, kind) not in found:
            raise DataError(f"{folder}: no file {part}-{kind}-idx*-ubyte[.gz]; add it")
    images, labels = found[part, "images"], found[part, "labels"]
    return Part(_array(images), _array(labels), str(images), str(labels))


def _array(path: Path) -> NDArray[Any]:
    """One IDX file: two zero bytes, type code, number of axes, sizes (big endian), the data."""
    content = _bytes(path)
    zeros, code, axes = content[:2], *content[2:4].ljust(2, b"\0")
    if zeros != b"\0\0" or code not in TYPES or not 1 <= axes <= 4:
        raise refusal(path, "empty or not an IDX file", "copy or download it again")
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:start].ljust(4 * axes, b"\0"))
    dtype = np.dtype(TYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise refusal(
            path,
            f"holds {len(content)} bytes where its header says {expected}: truncated or damaged",
            "copy or download it again",
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as packed:
            return packed.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refusal(path, "truncated or not a gzip file", "copy or download it again") from error
