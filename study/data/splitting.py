"""Which images a repeat trains and validates on, and which are the test part, drawn by seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError

if TYPE_CHECKING:
    from study.space.search_space import Validation

Labels = NDArray[np.int32] | NDArray[np.float32]
"""Classes, or numbers."""

Indices = NDArray[np.int64]

TEST_FRACTION = 0.2  # given up by data that brings no test part
TEST_SEED = 20  # fixed: no study may see the test images of another study of the same data
HOLDOUT, FOLDS = 1, 2  # keep the random numbers of the two ways to validate apart


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted indices into a dataset's images: those to train on and those to validate on."""

    train: Indices
    validation: Indices


def split(
    labels: Labels,
    validation: Validation,
    seed: int,
    repeat: int,
    source: str = "the data",
    names: Sequence[int | str] = (),
) -> Split:
    """What a repeat trains and validates on: a function of its arguments alone.

    A holdout is drawn from (seed, repeat), stratified. Of folds, repeat r validates on fold
    r modulo their number; every further round of folds is shuffled anew. A seed of the validation
    itself stands in the place of both. `seed` and `repeat` are not negative. Raises `DataError`,
    beginning with `source`, for classes that are too small; `names[k]` is what class k is called.
    """
    if validation.kind == "none":
        return Split(np.arange(len(labels)), np.arange(0))
    labels = strata(labels)
    if validation.seed is not None:
        seed, repeat = validation.seed, 0
    if validation.kind == "holdout":
        drawn_with = _derive(seed, repeat, HOLDOUT)
        return _draw(labels, validation.fraction, drawn_with, f"{source}: validation", names)
    return _fold(labels, validation.folds, seed, repeat, source, names)


def strata(labels: NDArray[Any]) -> NDArray[Any]:
    """What each part has its share of: the classes or, of numbers, the tenths in their order."""
    if labels.dtype.kind != "f":
        return labels
    ranks = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    return ranks * max(1, min(10, len(labels) // 20)) // len(labels)


def test_part(labels: NDArray[Any], source: str) -> Split:
    """The stratified fifth that data without a test part gives up, as the validation part."""
    what = f"{source}: the test part"
    return _draw(strata(labels), TEST_FRACTION, TEST_SEED, what, np.unique(labels).tolist())


def _derive(seed: int, number: int, purpose: int) -> int:
    """A seed for scikit-learn, the same on every machine and with every numpy."""
    return int(np.random.SeedSequence([seed, number, purpose]).generate_state(1)[0])


def _draw(
    labels: NDArray[Any], fraction: float, seed: int, what: str, names: Sequence[int | str]
) -> Split:
    """A stratified `fraction` as the validation part; no class is missing from the rest."""
    from sklearn.model_selection import train_test_split

    _require(labels, 2, what, names)
    total, classes = len(labels), len(np.unique(labels))
    drawn = math.ceil(fraction * total)
    if min(drawn, total - drawn) >= classes:
        rest, taken = train_test_split(
            np.arange(total), test_size=drawn, random_state=seed, stratify=labels
        )
        if len(np.unique(labels[rest])) == classes:
            return Split(np.sort(rest), np.sort(taken))
    raise DataError(
        f"{what}: {drawn} of {total} images cannot be drawn with all {classes} classes "
        f"on both sides; add images"
    )


def _fold(
    labels: Labels, folds: int, seed: int, repeat: int, source: str, names: Sequence[int | str]
) -> Split:
    from sklearn.model_selection import StratifiedKFold

    _require(labels, folds, f"{source}: validation by {folds} folds", names)
    state = _derive(seed, repeat // folds, FOLDS)
    parts = StratifiedKFold(folds, shuffle=True, random_state=state).split(labels, labels)
    train, validation = next(islice(parts, repeat % folds, None))
    return Split(np.sort(train), np.sort(validation))


def _require(labels: NDArray[Any], images: int, what: str, names: Sequence[int | str]) -> None:
    counts = np.unique(labels, return_counts=True)[1]
    fewest = int(counts.argmin())
    if counts[fewest] < images:
        name = f", {names[fewest]}," if names else ""
        decimal = re.fullmatch(r"-?\d*\.\d+", str(names[fewest])) if names else None
        raise DataError(
            f"{what} needs {images} images of every class, but the smallest class{name} has "
            f"{counts[fewest]}; add images or leave the class out"
            + (', or, if labels are numbers, give a space task = "regression"' if decimal else "")
        )
