"""Listed pictures -> images of one size, as bytes; kept in a cache until a file changes."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from study.data import arrays, picture
from study.data.listing import Listed, Listing, labels_of, numbers_of
from study.data.picture import Look, Shape
from study.data.pixels import BYTES, Kind, Scales, aligned, scale_of, take
from study.data.reading import ImageOptions, RawSplit, Splits
from study.data.splitting import test_part
from study.errors import DataError
from study.files import printable, written_whole

T = TypeVar("T")

BROKEN = 0.01
"""The share of the pictures that may be broken and left out."""

_NAMED = 100  # broken pictures that are named one by one
_FORMAT = "3"  # of decoded pictures in a cache
_ARRAYS = ("x_train", "y_train", "x_test", "y_test", "test_files")


def read(listing: Listing, source: Path, options: ImageOptions) -> Splits:
    """The pictures of a listing as images, from the cache if no file has changed since.

    The cache is keyed by each file's name, label, size and time of change. A cache that is damaged
    or cannot be written costs the time of reading again. Raises as `decode` does.
    """
    if not options.regression:
        listing = listing.with_class_names(source)
    if options.cache is None:
        return decode(listing, source, options)
    key = _key(listing, source, options)
    path = options.cache / f"{_name(source, options)}.npz"
    if (known := _kept(path, key, source)) is not None:
        return known
    train, test = decode(listing, source, options)
    assert test is not None
    kept = (train.images, train.labels, test.images, test.labels, test.files)
    named: dict[str, Any] = dict(zip(_ARRAYS, kept, strict=True))
    try:
        with written_whole(path) as file:
            np.savez(file, **named, key=np.array(key), scales=np.array(json.dumps(train.scales)))
    except OSError as error:
        options.callbacks.say(
            f"{printable(path)}: cannot be kept ({error.strerror}); it is read again next time"
        )
    return train, test


def _kept(path: Path, key: str, source: Path) -> Splits | None:
    try:
        if str(arrays.read_npz(path, lambda _: ["key"])["key"]) != key:
            return None
        found = arrays.read_npz(path, lambda _: (*_ARRAYS, "scales"))
    except DataError:
        return None
    images = found["x_train"]
    images = take(images, np.arange(len(images)))  # aligned, for training without a copy
    scales: Scales = {kind: tuple(ends) for kind, ends in json.loads(str(found["scales"])).items()}
    where = printable(source)
    return (
        RawSplit(images, found["y_train"], where, where, scales=scales),
        RawSplit(found["x_test"], found["y_test"], where, where, found["test_files"], scales),
    )


def _how(options: ImageOptions) -> str:
    size = "x".join(map(str, options.size)) if options.size else "median"
    return f"{size}-{options.fit}{'-numbers' if options.regression else ''}"


def _name(source: Path, options: ImageOptions) -> str:
    """A file for each source and way to read it, so that a changed source replaces its own."""
    where = hashlib.sha256(os.fsencode(os.path.realpath(source))).hexdigest()[:8]
    return f"{_how(options)}-{where}"


def _key(listing: Listing, source: Path, options: ImageOptions) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {_how(options)}".encode())
    for part in (listing.train, listing.test or ()):
        digest.update(f"\n{len(part)} pictures".encode())
        for path, label in part:
            with suppress(OSError):  # a file that is gone is a broken one
                is_ = path.stat()
                changed = max(is_.st_mtime_ns, is_.st_ctime_ns)  # contents, or who may read it
                digest.update(f"\n{is_.st_size} {changed} {label}\0".encode())
            digest.update(os.fsencode(os.path.relpath(path, source)))  # the same through any link
    return digest.hexdigest()


def decode(listing: Listing, source: Path, options: ImageOptions) -> Splits:
    """The pictures of a listing as images; a stratified fifth is the test part if it has none.

    The part is drawn before anything is decoded, so that images are in memory once. Raises
    `DataError` where more than `BROKEN` of the pictures cannot be read.
    """
    for note in listing.notes:
        options.callbacks.say(note)
    listed = [*listing.train, *(listing.test or ())]
    with warnings.catch_warnings(action="ignore"):  # of Pillow, about files that it can read
        decoder = _Decoder(listed, source, options)
        looks = decoder.look()
        train = [place for place in looks if place < len(listing.train)]
        test = [place for place in looks if place >= len(listing.train)]
        decoder.require_whole()
        shape = _common([looks[place].shape for place in train], source, options)
        if listing.test is None:
            drawn = test_part(decoder.labels[train], printable(source))
            train, test = ([train[i] for i in part] for part in (drawn.train, drawn.validation))
        _require_memory(len(train) + len(test), shape, source)
        scales = _scales([*looks.values()], source)
        splits = decoder.decode((train, test), shape, scales)
        if [*scales] == ["bytes"] and max(split.images.max() for split in splits) == 1:  # masks
            splits = decoder.decode((train, test), shape, {"bytes": (0, 1)})
    decoder.require_whole()
    decoder.name_broken()
    return splits[0], splits[1]


def _scales(looks: Sequence[Look], source: Path) -> Scales:
    """The range of each kind of pixels; of bytes as long as nothing speaks against it."""
    found: dict[Kind, list[float]] = {}
    for look in looks:
        found.setdefault(look.kind, []).extend(look.extremes or ())
    return {
        kind: scale_of(kind, (min(ends), max(ends)), printable(source)) if ends else BYTES["bytes"]
        for kind, ends in found.items()
    }


def _common(shapes: Sequence[Shape], source: Path, options: ImageOptions) -> Shape:
    """The shape that pictures of these shapes are brought to; a log line where they differ."""
    channels = max(shape[2] for shape in shapes)
    sides = np.array([shape[:2] for shape in shapes])
    height, width = options.size or (round(float(side)) for side in np.median(sides, axis=0))
    if (sides != (height, width)).any():
        ends = [sides.min(axis=0).tolist(), sides.max(axis=0).tolist()]
        found = " to ".join(dict.fromkeys("x".join(map(str, end)) for end in ends))
        median = "" if options.size else ", the median (size = [HEIGHT, WIDTH] in a space sets it)"
        options.callbacks.say(
            f"{printable(source)}: pictures of {found} are made {height}x{width}"
            f"{picture.order(*ends, (height, width))}{median}, fit = {options.fit}"
        )
    return height, width, channels


def _require_memory(count: int, shape: Shape, source: Path) -> None:
    """Half of the machine's memory is left for training."""
    needed = count * shape[0] * shape[1] * shape[2]
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there / 2:
        size = f"{shape[0]}x{shape[1]}{picture.order(shape[:2])}"
        raise DataError(
            f"{printable(source)}: {count} pictures of {size} are {needed / 1e9:.0f} GB, and this "
            f"machine has {there / 1e9:.0f} GB; give a space a size, as in size = [64, 64]"
        )


class _Decoder:
    """Looks at pictures, then decodes them, on all cores; collects those that cannot be read."""

    def __init__(self, listed: Listed, source: Path, options: ImageOptions) -> None:
        self.labels: NDArray[Any] = np.array(
            numbers_of(listed) if options.regression else labels_of(listed)
        )
        self._listed, self._source, self._options = listed, source, options
        self._broken: dict[int, str] = {}

    def look(self) -> dict[int, Look]:
        """The first sight of each picture that is not broken, by its place in the list."""
        looks: dict[int, Look] = {}
        places = range(len(self._listed))
        for place, look in enumerate(self._each(places, lambda _, path: picture.look(path))):
            if look is not None:
                looks[place] = look
            self._options.callbacks.progress("Looking at pictures", place + 1, len(self._listed))
        return looks

    def decode(
        self, parts: Sequence[Sequence[int]], shape: Shape, scales: Scales
    ) -> list[RawSplit]:
        """The pictures at the places of each part, in their order, without the broken ones."""
        done = 0
        splits = []
        for places in parts:
            images = aligned((len(places), *shape))

            def one(row: int, path: Path, images: NDArray[np.uint8] = images) -> bool:
                images[row] = picture.read(path, shape, self._options.fit, scales)[0]
                return True

            kept: list[int] = []
            for row, whole in enumerate(self._each(places, one)):
                if whole:
                    if row != len(kept):  # there is one that is left out before it
                        images[len(kept)] = images[row]
                    kept.append(places[row])
                done += 1
                self._options.callbacks.progress("Reading pictures", done, len(self._listed))
            splits.append(self._split(images[: len(kept)], kept, scales))
        return splits

    def _split(self, images: NDArray[np.uint8], kept: Sequence[int], scales: Scales) -> RawSplit:
        where, folder = printable(self._source), self._source
        if not folder.is_dir():  # it is a list, and its folder holds the files
            folder = folder.parent
        files = [printable(os.path.relpath(self._listed[place][0], folder)) for place in kept]
        return RawSplit(images, self.labels[kept], where, where, np.array(files, np.str_), scales)

    def _each(self, places: Sequence[int], do: Callable[[int, Path], T]) -> Iterator[T | None]:
        """The result of ``do`` for each picture, in order; None for one that cannot be read."""

        def guarded(row: int, place: int) -> T | None:
            try:
                return do(row, self._listed[place][0])
            except DataError as error:
                self._broken[place] = str(error)
                return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter's lock
            yield from pool.map(guarded, range(len(places)), places)

    def require_whole(self) -> None:
        """Raise `DataError` where more than `BROKEN` of the pictures cannot be read."""
        count, total = len(self._broken), len(self._listed)
        if count > BROKEN * total:
            if count > 1:
                self.name_broken("Broken")
            raise DataError(
                f"{self._broken[min(self._broken)]}; {count} of {total} pictures cannot be read, "
                f"and at most {BROKEN:.0%} may be left out"
            )

    def name_broken(self, word: str = "Left out") -> None:
        """Name the pictures that cannot be read, one a line."""
        reasons = [reason for _, reason in sorted(self._broken.items())]
        for reason in reasons[:_NAMED]:
            self._options.callbacks.say(f"{word}: {reason}")
        if len(reasons) > _NAMED:
            self._options.callbacks.say(f"{word}: {len(reasons) - _NAMED} more pictures")
