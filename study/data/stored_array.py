"""An array of float32 in a ``.npy`` file that ends with the SHA-256 of what is before it.

It is read as a map of the file, after the header, the length and the hash were checked. Nothing is
unpickled, and no link is followed.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_DTYPE = np.dtype("<f4")
_DIGEST = hashlib.sha256().digest_size


def write(file: BinaryIO, shape: tuple[int, ...], parts: Iterable[NDArray[np.float32]]) -> None:
    """Write an array of ``shape`` that comes in parts, in order, along its first axis."""
    header = _header(shape)
    digest = hashlib.sha256(header)
    file.write(header)
    for part in parts:
        content = np.ascontiguousarray(part, _DTYPE).data
        digest.update(content)
        file.write(content)
    file.write(digest.digest())


def read(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """The array of a file that `write` has written; None where it is another one, or damaged.

    Raises OSError where there is no such file.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        header = _header(shape)
        length = len(header) + math.prod(shape) * _DTYPE.itemsize
        if os.fstat(opened).st_size != length + _DIGEST:
            return None
        mapped = mmap.mmap(opened, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(opened)
    view = memoryview(mapped)
    whole = hashlib.sha256(view[:length]).digest() == view[length:]
    if view[: len(header)] != header or not whole:
        return None
    return np.frombuffer(view[len(header) : length], _DTYPE).reshape(shape)


def _header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a ``.npy`` file, a multiple of 64 bytes."""
    file = io.BytesIO()
    described = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()
