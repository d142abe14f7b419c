"""Listed pictures -> images of one size: looked at first, then decoded side by side, as bytes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from study.data import picture
from study.data.files import readable, shown
from study.data.listing import Listed, Listing, labels_of, numbers_of
from study.data.parts import Part, Parts, Reading
from study.data.picture import Shape
from study.data.pixels import aligned
from study.data.splitting import test_part
from study.errors import DataError

T = TypeVar("T")

BROKEN = 0.01
"""The share of the pictures that may be broken and left out."""

_NAMED = 10  # broken pictures that are named one by one


def read(listing: Listing, source: Path, reading: Reading) -> Parts:
    """The pictures of a listing as images; a stratified fifth is the test part where it has none.

    The part is drawn before anything is decoded, so that images are in memory once. Raises
    `DataError` where more than `BROKEN` of the pictures cannot be read.
    """
    for note in listing.notes:
        reading.told.say(note)
    listed = [*listing.train, *(listing.test or ())]
    with warnings.catch_warnings(action="ignore"):  # of Pillow, about files that it can read
        work = _Work(listed, source, reading)
        shapes = work.look()
        there = [place for place, shape in enumerate(shapes) if shape]
        train = [place for place in there if place < len(listing.train)]
        test = [place for place in there if place >= len(listing.train)]
        work.require_whole()
        shape = _common([shape for place in train if (shape := shapes[place])], source, reading)
        if listing.test is None:
            drawn = test_part(work.labels[train], shown(source))
            train, test = ([train[i] for i in part] for part in (drawn.train, drawn.validation))
        _require_memory(len(train) + len(test), shape, source)
        parts = [work.decode(part, shape) for part in (train, test)]
    work.require_whole()
    work.name_broken()
    return parts[0], parts[1]


def _common(shapes: Sequence[Shape], source: Path, reading: Reading) -> Shape:
    """The shape that pictures of these shapes are brought to; said where they differ from it."""
    channels = max(shape[2] for shape in shapes)
    sides = np.array([shape[:2] for shape in shapes])
    height, width = reading.size or (round(float(side)) for side in np.median(sides, axis=0))
    if (sides != (height, width)).any():
        ends = [sides.min(axis=0).tolist(), sides.max(axis=0).tolist()]
        found = " to ".join(dict.fromkeys("x".join(map(str, end)) for end in ends))
        median = "" if reading.size else ", the median (size = [HEIGHT, WIDTH] in a space sets it)"
        reading.told.say(
            f"{shown(source)}: pictures of {found} are made {height}x{width}"
            f"{picture.order(*ends, (height, width))}{median}, fit = {reading.fit}"
        )
    return height, width, channels


def _require_memory(count: int, shape: Shape, source: Path) -> None:
    """Half of the machine's memory is left to what trains."""
    needed = count * shape[0] * shape[1] * shape[2]
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there / 2:
        raise DataError(
            f"{shown(source)}: {count} pictures of {shape[0]}x{shape[1]}{picture.order(shape[:2])} "
            f"are {needed / 1e9:.0f} GB, and this machine has {there / 1e9:.0f} GB; give a space a "
            "size, as in size = [64, 64]"
        )


class _Work:
    """Pictures that are looked at and then decoded, and what became of those that cannot be."""

    def __init__(self, listed: Listed, source: Path, reading: Reading) -> None:
        self.labels: NDArray[Any] = np.array(
            numbers_of(listed) if reading.numbers else labels_of(listed)
        )
        self._listed, self._source, self._reading = listed, source, reading
        self._broken: dict[int, str] = {}
        self._decoded = 0

    def look(self) -> list[Shape | None]:
        """The shape of each picture; None of a broken one."""
        shapes: list[Shape | None] = []
        for shape in self._each(range(len(self._listed)), lambda _, path: picture.look(path)):
            shapes.append(shape)
            self._reading.told.progress("Looking at pictures", len(shapes), len(self._listed))
        return shapes

    def decode(self, places: Sequence[int], shape: Shape) -> Part:
        """The pictures at ``places`` in their order, without the broken ones."""
        images = aligned((len(places), *shape))

        def one(row: int, path: Path) -> bool:
            images[row] = picture.read(path, shape, self._reading.fit)[0]
            return True

        kept: list[int] = []
        for row, whole in enumerate(self._each(places, one)):
            if whole:
                if row != len(kept):  # there is one that is left out before it
                    images[len(kept)] = images[row]
                kept.append(places[row])
            self._decoded += 1
            self._reading.told.progress("Reading pictures", self._decoded, len(self._listed))
        where, folder = shown(self._source), self._source
        if not folder.is_dir():  # it is a list, and its folder holds the files
            folder = folder.parent
        files = [shown(os.path.relpath(self._listed[place][0], folder)) for place in kept]
        return Part(images[: len(kept)], self.labels[kept], where, where, np.array(files, np.str_))

    def _each(self, places: Sequence[int], do: Callable[[int, Path], T]) -> Iterator[T | None]:
        """What ``do`` gives for each picture, in order; Pillow lets other threads run meanwhile."""

        def guarded(row: int, place: int) -> T | None:
            path = self._listed[place][0]
            try:
                with readable(path):
                    return do(row, path)
            except DataError as error:
                self._broken[place] = str(error)
                return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(guarded, range(len(places)), places)

    def require_whole(self) -> None:
        """Refuse where more than `BROKEN` of the pictures cannot be read."""
        count, total = len(self._broken), len(self._listed)
        if count > BROKEN * total:
            raise DataError(
                f"{self._broken[min(self._broken)]}; {count} of {total} pictures cannot be read, "
                f"and at most {BROKEN:.0%} may be left out"
            )

    def name_broken(self) -> None:
        """Say which pictures are left out."""
        reasons = [reason for _, reason in sorted(self._broken.items())]
        for reason in reasons[:_NAMED]:
            self._reading.told.say(f"Left out: {reason}")
        if len(reasons) > _NAMED:
            self._reading.told.say(f"Left out: {len(reasons) - _NAMED} more pictures")
