"""What repeats say: means with standard errors, and differences in pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """A configuration's score: the mean over its repeats (a fraction) with its standard error.

    The error is None where nothing tells it: one repeat of what is no share of images.
    """

    repeats: int
    mean: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference of two configurations over the repeats both have, first minus second."""

    pairs: int
    mean: float
    standard_error: float | None

    @property
    def tie(self) -> bool:
        """Whether it is within one standard error of nothing; where none is known, nobody knows."""
        return self.standard_error is None or abs(self.mean) <= self.standard_error


def image_floor(accuracy: float, images: int | None) -> float:
    """The least standard deviation of one run's accuracy that ``images`` validation images allow.

    The spread of an accuracy over seeds alone is close to sqrt(error / 2n) (the images are the
    same ones); the error is taken as at least one image, so a perfect score is not a certain one.
    """
    if not images:
        return 0.0
    variance = max(accuracy * (1 - accuracy), (1 / images) * (1 - 1 / images))
    return math.sqrt(variance / (2 * images))


Group = tuple[Sequence[float], Sequence[float] | None]
"""One configuration's repeats, and those of another one that they are paired with."""


class Spread:
    """Standard errors of means and of paired differences, with a way out for few repeats.

    With two or more repeats that differ, the sample's own standard error. With one repeat, or with
    repeats that happen to agree exactly, the variance pooled over what this object was shown so
    far (``learn``). In both cases never below what the number of validation images allows. A single
    repeat without any of these has an error that nobody knows, None.
    """

    def __init__(self, images: int | None) -> None:
        self.images = images
        self._unread: list[Iterable[Group]] = []
        self._scores = _Pool()
        self._differences = _Pool()

    def learn(self, groups: Iterable[Group]) -> None:
        """Pool these groups too; they are read when a pooled variance is asked for, if ever."""
        self._unread.append(groups)

    def score(self, values: Sequence[float]) -> Score:
        """The mean of ``values`` (accuracies, fractions) and its standard error."""
        mean = math.fsum(values) / len(values)
        floor = image_floor(mean, self.images)
        return Score(len(values), mean, self._error(values, self._scores, floor))

    def difference(self, values: Sequence[float], others: Sequence[float]) -> Difference:
        """The mean of ``values - others``, repeat by repeat, and its standard error."""
        pairs = _pairs(values, others)
        mean = math.fsum(pairs) / len(pairs)
        level = (math.fsum(values) + math.fsum(others)) / (2 * len(pairs))
        floor = math.sqrt(2) * image_floor(level, self.images)
        return Difference(len(pairs), mean, self._error(pairs, self._differences, floor))

    def _error(self, values: Sequence[float], pool: _Pool, floor: float) -> float | None:
        variance = sample_variance(values) or self._pooled(pool)
        if variance is None and not self.images and len(values) == 1:
            return None
        return max(math.sqrt(variance or 0.0), floor) / math.sqrt(len(values))

    def _pooled(self, pool: _Pool) -> float | None:
        while self._unread:
            for values, against in self._unread.pop(0):
                self._scores.add(values)
                if against is not None:
                    self._differences.add(_pairs(values, against))
        return pool.variance


class _Pool:
    """A variance pooled over groups: squared deviations over degrees of freedom."""

    def __init__(self) -> None:
        self._squares = 0.0
        self._freedom = 0

    def add(self, values: Sequence[float]) -> None:
        self._squares += sample_variance(values) * (len(values) - 1)
        self._freedom += len(values) - 1

    @property
    def variance(self) -> float | None:
        return self._squares / self._freedom if self._freedom else None


def _pairs(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(values, others, strict=True)]


def sample_variance(values: Sequence[float]) -> float:
    """The variance with n - 1 degrees of freedom; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    squares = math.fsum([(value - mean) ** 2 for value in values])
    # Equal accuracies can differ in the last bit of their mean: that is no spread.
    return 0.0 if squares < 1e-24 else squares / (len(values) - 1)
