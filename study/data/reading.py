"""What the readers of data share: options, what they return, and how they refuse a file."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError
from study.files import NOT_FETCHED, POINTER, printable

if TYPE_CHECKING:
    from study.data.picture import Fit
    from study.data.pixels import Scales
    from study.space.search_space import SearchSpace

_LARGE, _RATIO = 2**29, 100  # bytes; no images are packed more tightly than this


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Images and labels as stored, neither checked nor scaled; and where they are from, for errors.

    ``files`` are the names of picture files, one per image, relative to the folder of the data.
    ``scales`` is set where the images are bytes that the reader has scaled already.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    images_in: str
    labels_in: str
    files: NDArray[np.str_] | None = None
    scales: Scales | None = None


Splits = tuple[RawSplit, RawSplit | None]
"""The training part, and the test part if the data has one."""


@dataclass(frozen=True)
class ProgressCallbacks:
    """Callbacks for log lines, and for progress as (description, done, total)."""

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None


@dataclass(frozen=True)
class ImageOptions:
    """How picture files become images of one size, and what labels are.

    ``size`` is (height, width), by default the median of the training pictures. ``regression``:
    labels are numbers, not classes. ``cache`` is a folder to keep decoded pictures in.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "pad"
    regression: bool = False
    cache: Path | None = None
    callbacks: ProgressCallbacks = field(default_factory=ProgressCallbacks)

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        cache: Path | None = None,
        callbacks: ProgressCallbacks | None = None,
    ) -> Self:
        """The options of a search space."""
        regression = space.task == "regression"
        fit = space.fit or "pad"
        return cls(space.size, fit, regression, cache, callbacks or ProgressCallbacks())


def refusal(path: Path, wrong: str, cure: str) -> DataError:
    """The error for a file that cannot be used; it names a Git LFS pointer as such."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(POINTER)) == POINTER.encode()
    except OSError:
        pointer = False
    return DataError(f"{printable(path)}: {NOT_FETCHED if pointer else f'{wrong}; {cure}'}")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an `OSError` about a file or folder into a `DataError` that names it.

    A named pipe or a device is refused at once: reading one may never end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DataError(f"{printable(path)}: not a regular file; give a file or a folder")
        yield
    except OSError as error:
        if error.errno is None:  # not the system's, but a library's own
            raise
        raise DataError(
            f"{printable(error.filename or path)}: cannot be read ({error.strerror or error}); "
            f"check that it is whole and that you may read it"
        ) from error


def require_plausible(path: Path, unpacked: int) -> None:
    """Refuse an archive that unpacks to far more than images do, before it fills the memory."""
    packed = path.stat().st_size
    if unpacked > max(_LARGE, _RATIO * packed):
        raise refusal(
            path,
            f"{packed / 1e6:.1f} MB that unpack to {unpacked / 1e9:.1f} GB, which no images do",
            "save it again, not compressed if it really is that large",
        )
