"""NumPy's archives: the arrays that are asked for, and nothing is ever unpickled."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data.files import readable, refusal
from study.errors import DataError

Arrays = dict[str, NDArray[Any]]


def read(path: Path, choose: Callable[[Sequence[str]], Iterable[str]]) -> Arrays:
    """The arrays of a file whose names ``choose`` picks among all of them.

    Raises `DataError` for a file that is unreadable, damaged or pickled; ``choose`` may, too.
    """
    try:
        with readable(path), path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            archive = np.load(file, allow_pickle=False)  # given a path, it leaves a bad file open
            names = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else ()
            arrays = {name: archive[name] for name in choose(names)} if names else {}
    except DataError:
        raise
    except Exception as error:  # numpy raises what it likes for a damaged file
        raise _explained(path, error) from error
    if not arrays:
        raise refusal(path, "holds no named arrays", "save them by name with np.savez")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: {name} is no array; save it with np.savez")
    return arrays


def _explained(path: Path, error: Exception) -> DataError:
    """A pickle is named as such: its cure is to save again, not to copy again."""
    with readable(path), path.open("rb") as file:
        start = file.read(1)
    if "Object arrays" in str(error) or start == pickle.PROTO:
        return refusal(
            path, "holds pickled objects, which are never loaded", "save plain number arrays"
        )
    if isinstance(error, MemoryError):
        return refusal(
            path, "damaged, or too large for the memory", "copy it again or save fewer images"
        )
    return refusal(path, "empty, damaged or not an .npz file", "copy, download or save it again")
