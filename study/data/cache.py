"""What was made of picture files, kept as an `.npz` in Keras' layout until a file changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from study.data import npz
from study.data.files import shown
from study.data.listing import Listing
from study.data.parts import Part, Parts, Reading
from study.data.pixels import chosen
from study.errors import DataError
from study.files import written_whole

_FORMAT = "2"  # of what pictures are made into: another number, and all are read again
_NAMES = ("x_train", "y_train", "x_test", "y_test", "test_files")


def through(listing: Listing, source: Path, reading: Reading, read: Callable[[], Parts]) -> Parts:
    """The parts that ``read`` makes of a listing, kept for the next time.

    They are kept under the fingerprint of what was read: each file's name, label, size and time of
    change. A cache that is damaged, or that cannot be written, costs the time of reading again.
    """
    if reading.cache is None:
        return read()
    key = _key(listing, source, reading)
    path = reading.cache / f"{_name(source, reading)}.npz"
    if (known := _kept(path, key, source)) is not None:
        return known
    train, test = read()
    assert test is not None
    made = (train.images, train.labels, test.images, test.labels, test.files)
    arrays: dict[str, Any] = dict(zip(_NAMES, made, strict=True))
    try:
        with written_whole(path) as file:
            np.savez(file, **arrays, read=np.array(key))
    except OSError as error:
        reading.told.say(
            f"{shown(path)}: cannot be kept ({error.strerror}); it is read again next time"
        )
    return train, test


def _kept(path: Path, key: str, source: Path) -> Parts | None:
    try:
        if str(npz.read(path, lambda _: ["read"])["read"]) != key:
            return None
        found = npz.read(path, lambda _: _NAMES)
    except DataError:
        return None
    where, images = shown(source), found.pop("x_train")
    images = chosen(images, np.arange(len(images)))  # aligned, for training without a copy
    train = Part(images, found["y_train"], where, where)
    return train, Part(found["x_test"], found["y_test"], where, where, found["test_files"])


def _name(source: Path, reading: Reading) -> str:
    """A file for each source and way to read it, so that a changed source replaces its own."""
    where = hashlib.sha256(os.fsencode(os.path.realpath(source))).hexdigest()[:8]
    size = "x".join(map(str, reading.size)) if reading.size else "median"
    return f"{size}-{reading.fit}-{where}{_numbers(reading)}"


def _numbers(reading: Reading) -> str:
    return "-numbers" if reading.numbers else ""


def _key(listing: Listing, source: Path, reading: Reading) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {reading.size} {reading.fit}{_numbers(reading)}".encode())
    for part in (listing.train, listing.test or ()):
        digest.update(f"\n{len(part)} pictures".encode())
        for path, label in part:
            with suppress(OSError):  # a file that is gone is a broken one
                is_ = path.stat()
                changed = max(is_.st_mtime_ns, is_.st_ctime_ns)  # contents, or who may read it
                digest.update(f"\n{is_.st_size} {changed} {label}\0".encode())
            digest.update(os.fsencode(os.path.relpath(path, source)))  # by whatever link it came
    return digest.hexdigest()
