"""A name or a path -> plain arrays: which reader reads it.

A reader answers for the file (there, whole, of its format); what the arrays hold is judged by
`study.data.dataset`. Every failure is a `DataError` of one line that names the file.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from study.data import cache, decode, idx, keras_data, listing, npz, table
from study.data.files import readable, shown
from study.data.listing import Listing
from study.data.parts import Part, Parts, Reading
from study.errors import DataError

NAMED = ("digits", *keras_data.NAMED)

ACCEPTED = (
    "an .npz file in Keras' layout, a .csv of digits or of picture files, a folder of IDX files, "
    "or a folder with a folder of pictures for each class"
)


def read(source: str, reading: Reading) -> Parts:
    """The parts of data that has a name (`NAMED`), or of what is stored at a path: `ACCEPTED`.

    Raises `DataError` for a path that is missing, unreadable, damaged or of another format.
    """
    if source == "digits":
        return digits()
    if source in keras_data.NAMED:
        return keras_data.read(source)
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib raises for an unknown ~user
    with readable(path):
        if path.is_dir():
            return read_folder(path, reading)
        if not path.exists():
            raise DataError(
                f"{shown(path)}: no such file or folder; give {', '.join(NAMED)}, or the path of "
                f"{ACCEPTED}"
            )
        suffix = path.suffix.lower()
        if suffix not in (".npz", ".csv"):
            raise DataError(f"{path}: not a kind of file that is read here; give {ACCEPTED}")
        return read_npz(path) if suffix == ".npz" else read_csvs(path, None, reading)


def digits() -> Parts:
    """The 8x8 digits inside scikit-learn, each pixel three wide and a border of two: 28x28."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return Part(images, labels, "digits", "digits"), None


def read_folder(folder: Path, reading: Reading) -> Parts:
    """A folder of IDX files, with Kaggle's `train.csv`, or of class folders."""
    if found := idx.files(folder):
        return idx.read(folder, found)
    train, test = folder / "train.csv", folder / "test.csv"
    if train.is_file():
        return read_csvs(train, test if test.is_file() else None, reading)
    if listing.class_folders(folder):
        return _pictures(listing.in_folders(folder), folder, reading)
    if pictures := listing.pictures_in(folder):
        raise DataError(
            f"{shown(folder)}: {pictures} pictures and no class folder; put the pictures of each "
            "class into a folder of its name, or list them in a CSV of path,label"
        )
    raise DataError(
        f"{shown(folder)}: a folder with nothing that is read here; it must hold a folder of "
        f"pictures for each class, a train.csv, or IDX files (train-images-idx3-ubyte[.gz], ...)"
    )


def _pictures(listed: Listing, source: Path, reading: Reading) -> Parts:
    if not reading.numbers:
        listed.require_classes(source)
    return cache.through(listed, source, reading, lambda: decode.read(listed, source, reading))


def read_npz(path: Path) -> Parts:
    """Arrays x_train, y_train and, as a pair, x_test, y_test."""

    def choose(names: Sequence[str]) -> list[str]:
        wanted = ["x_train", "y_train"]
        if {"x_test", "y_test"} & set(names):
            wanted += ["x_test", "y_test"]
        if missing := sorted(set(wanted) - set(names)):
            raise DataError(
                f"{path}: lacks {', '.join(missing)} (it has {sorted(names)}); "
                f"save it in Keras' layout: x_train, y_train[, x_test, y_test]"
            )
        return wanted

    arrays = npz.read(path, choose)
    parts = [
        Part(arrays[x], arrays[y], f"{path}, {x}", f"{path}, {y}")
        for x, y in (("x_train", "y_train"), ("x_test", "y_test"))
        if x in arrays
    ]
    return parts[0], parts[1] if len(parts) > 1 else None


def read_csvs(train: Path, test: Path | None, reading: Reading) -> Parts:
    """CSVs of digits or of picture files; one to test on that has no labels is not used."""
    notes = []
    if test and not {*listing.LABEL_COLUMNS} & {*listing.header(test)}:
        notes, test = [f"{shown(test)} has no labels and is not used"], None
    if {*listing.FILE_COLUMNS} & {*listing.header(train)}:
        listed = Listing(listing.in_csv(train), listing.in_csv(test) if test else None, notes)
        return _pictures(listed, train, reading)
    for note in notes:
        reading.told.say(note)
    read = _digits_in(train, reading)
    return read, _digits_in(test, reading) if test else None


def _digits_in(path: Path, reading: Reading) -> Part:
    images, labels = table.read(path, labelled=True, numbers=reading.numbers)
    assert labels is not None
    return Part(images, labels, str(path), f"{path}, column label")
