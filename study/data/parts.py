"""What every reader hands on: images and labels as stored, not yet judged or scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from study.data.picture import Fit

if TYPE_CHECKING:
    from study.space.search_space import SearchSpace


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels as stored, and where each was found, for the messages about them.

    ``files`` are the names of picture files, one an image, as seen from the folder of the data.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    images_in: str
    labels_in: str
    files: NDArray[np.str_] | None = None


Parts = tuple[Part, Part | None]
"""The training part, and the test part where the files bring one."""


@dataclass(frozen=True)
class Told:
    """Who is told while pictures are read: in lines what was done, and how far what is done is.

    ``progress`` is told what is done, in a word or two, and with how many of how many.
    """

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None


@dataclass(frozen=True)
class Reading:
    """How picture files become images of one size, and whether labels are ``numbers``, not classes.

    ``size`` is height and width, None: the median of the training part's. What was read is kept in
    the folder ``cache``, None: nowhere.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "pad"
    numbers: bool = False
    cache: Path | None = None
    told: Told = field(default_factory=Told)

    @classmethod
    def of(cls, space: SearchSpace, cache: Path | None = None, told: Told | None = None) -> Self:
        """As a space has it."""
        numbers = space.task == "regression"
        return cls(space.size, space.fit or "pad", numbers, cache, told or Told())
