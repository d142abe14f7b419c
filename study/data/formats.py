"""A name or a path -> plain arrays: the embedded digits, MNIST, .npz, IDX folders, digit CSVs.

A reader answers for the file (there, whole, of its format); what the arrays hold is judged by
`study.data.dataset`. Every failure is a `DataError` of one line that names the file.
"""

import io
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from study.data import idx, npz, table
from study.data.backend import imported_quietly
from study.data.files import readable
from study.data.parts import Part, Parts
from study.errors import DataError

ACCEPTED = "an .npz file in Keras' layout, a digit .csv, or a folder of IDX files"


def read(source: str) -> Parts:
    """The parts of `digits` or `mnist`, or of what is stored at a path: see `ACCEPTED`.

    Raises `DataError` for a path that is missing, unreadable, damaged or of another format.
    """
    named = {"digits": digits, "mnist": mnist}
    if source in named:
        return named[source]()
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib raises for an unknown ~user
    with readable(path):
        if path.is_dir():
            return read_idx(path)
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder; give digits, mnist, or the path of {ACCEPTED}"
            )
        suffix = path.suffix.lower()
        if suffix not in (".npz", ".csv"):
            raise DataError(f"{path}: not a kind of file that is read here; give {ACCEPTED}")
        return read_npz(path) if suffix == ".npz" else read_csv(path)


def _through_keras() -> Any:
    with imported_quietly():
        from keras.datasets import mnist as keras_mnist

    with redirect_stdout(io.StringIO()):  # a failed download is told in one sentence
        return keras_mnist.load_data()


def mnist(download: Callable[[], Any] = _through_keras) -> Parts:
    """MNIST through Keras, which keeps a verified copy once it has been downloaded.

    Raises `DataError` where `download` fails for whatever reason.
    """
    try:
        (x_train, y_train), (x_test, y_test) = download()
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise DataError(
            f"mnist: cannot be downloaded ({' '.join(str(error).split())}); "
            f"give the path of an mnist.npz instead"
        ) from error
    return (
        Part(x_train, y_train, "mnist, x_train", "mnist, y_train"),
        Part(x_test, y_test, "mnist, x_test", "mnist, y_test"),
    )


def digits() -> Parts:
    """The 8x8 digits inside scikit-learn, each pixel three wide and a border of two: 28x28."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return Part(images, labels, "digits", "digits"), None


def read_idx(folder: Path) -> Parts:
    """A folder of IDX files."""
    found = idx.files(folder)
    if not found:
        raise DataError(
            f"{folder}: a folder without IDX files; it must hold train-images-idx3-ubyte[.gz] "
            f"and train-labels-idx1-ubyte[.gz]"
        )
    return idx.read(folder, found)


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


def read_csv(path: Path) -> Parts:
    """A digit CSV with a label column; it brings no test part."""
    images, labels = table.read(path, labelled=True)
    assert labels is not None
    return Part(images, labels, str(path), f"{path}, column label"), None
