"""An object whose arrays lie in a file of memory, which every process maps and none copies.

On Linux that file is memory alone (`memfd_create`), elsewhere a temporary file without a name. A
process that maps it gets the object with its arrays where they lie; what it writes to them stays
its own, page by page.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from dataclasses import dataclass
from typing import Any

_ALIGNED = 4096  # TensorFlow trains on bytes without a copy if they begin at a multiple of 64


@dataclass(frozen=True)
class Shared:
    """An object in shared memory: its pickle, and where each of its arrays begins and ends."""

    pickled: bytes
    places: tuple[tuple[int, int], ...]

    def open(self, file: int) -> Any:
        """The object, its arrays mapped from the open ``file``."""
        if not self.places:
            return pickle.loads(self.pickled)  # noqa: S301 - the driver has written it
        mapped = memoryview(mmap.mmap(file, self.places[-1][1], access=mmap.ACCESS_COPY))
        buffers = [mapped[first:last] for first, last in self.places]
        return pickle.loads(self.pickled, buffers=buffers)  # noqa: S301 - as above


def share(value: object) -> tuple[Shared, int]:
    """Put the arrays of ``value`` into a new file; returns how to open it, and its descriptor."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    file = _new_file()
    places, end = [], 0
    for buffer in buffers:
        content = buffer.raw()
        if not content.nbytes:
            places.append((end, end))
            continue
        first = -(-end // _ALIGNED) * _ALIGNED
        end = first + content.nbytes
        places.append((first, end))
        os.lseek(file, first, os.SEEK_SET)
        with open(file, "wb", closefd=False) as opened:
            opened.write(content)
    return Shared(pickled, tuple(places)), file


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("study")
    with tempfile.TemporaryFile() as opened:
        return os.dup(opened.fileno())
