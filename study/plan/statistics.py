"""What repeats say: means with standard errors and intervals, and paired differences with a test.

The variance of runs is pooled over all options and stages seen so far. Three repeats have two
degrees of freedom: by their own spread alone, one of three equal options looks different in 61 % of
stages.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Of intervals, and of the test that a claim ("better", "worse") needs."""


@dataclass(frozen=True, slots=True)
class Looks:
    """How often a study was changed after its results could be seen, which each claim pays for.

    ``removed`` configurations were left out then, perhaps because of their results.
    """

    changes: int = 0
    removed: int = 0

    def comparisons(self, options: int) -> int:
        """The differences that are tested together, by Bonferroni's rule.

        Every pair of ``options`` and of those that were removed, twice as many after each change:
        all claims of a study's life together are wrong with less than twice the probability of
        those of a study that never changed.
        """
        number = options + self.removed
        return max(1, number * (number - 1) // 2) * self.looks

    @property
    def looks(self) -> int:
        """By what the probability of an error is divided at this look: 1, 2, 4, ..."""
        return int(2**self.changes)


UNCHANGED = Looks()


@dataclass(frozen=True, slots=True)
class Score:
    """A configuration's score: the mean over its repeats (a fraction) with its standard error.

    The error is None if nothing tells it: one repeat, and a metric that is no share of images.
    ``interval`` is a 95 % interval of the mean on new images: it includes that repeats share a pool
    of images. None for a single repeat of an unknown error.
    """

    repeats: int
    mean: float
    standard_error: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference of two configurations over the repeats both have, first minus second.

    ``freedom`` are the degrees of freedom of the standard error, ``comparisons`` how many
    differences are tested together.
    """

    pairs: int
    mean: float
    standard_error: float | None
    freedom: int = 0
    comparisons: int = 1

    @property
    def tie(self) -> bool:
        """Whether abs(mean) is at most the standard error; True if that is unknown.

        The rule that a sweep selects by; no claim.
        """
        return self.standard_error is None or abs(self.mean) <= self.standard_error

    @property
    def needed(self) -> float | None:
        """The abs(mean) above which the two differ: a paired t-test at 95 %, by Bonferroni.

        None if no error is known.
        """
        if self.standard_error is None or not self.freedom:
            return None
        level = 1 - (1 - CONFIDENCE) / self.comparisons / 2
        return _quantile(self.freedom, level) * self.standard_error

    @property
    def clear(self) -> bool:
        """Whether the two differ, by the test of `needed` over all comparisons."""
        return self.needed is not None and abs(self.mean) > self.needed


def image_floor(accuracy: float, images: int | None) -> float:
    """The least standard deviation of one run's accuracy that ``images`` validation images allow.

    The spread of an accuracy over seeds alone is close to sqrt(error / 2n) (the images are the
    same ones); the error is taken as at least one image, so a perfect score is not a certain one.
    """
    return math.sqrt(_binomial(accuracy, images) / (2 * images)) if images else 0.0


Group = tuple[Sequence[float], Sequence[float] | None]
"""One configuration's repeats, and those of another one that they are paired with."""


class Spread:
    """Standard errors of means and of paired differences, by variances pooled over a study.

    ``images`` are the validation images of a repeat, drawn from a ``pool`` of that many; ``looks``
    make intervals wider. Of
    accuracies the variance is in proportion to accuracy * (1 - accuracy). The pool holds what
    ``learn`` was given; without it a sample's own variance counts. Errors are never below what the
    number of images allows. A single repeat without any of these has an unknown error, None.
    """

    def __init__(
        self, images: int | None, pool: int | None = None, looks: Looks = UNCHANGED
    ) -> None:
        self.images, self.pool, self.looks = images, pool, looks
        self._unread: list[Iterable[Group]] = []
        self._scores = _Pool()
        self._differences = _Pool()

    def learn(self, groups: Iterable[Group]) -> None:
        """Pool these groups too; they are read when a variance is asked for, if ever."""
        self._unread.append(groups)

    def score(self, values: Sequence[float]) -> Score:
        """The mean of ``values`` (accuracies, fractions), its standard error and its interval."""
        mean = math.fsum(values) / len(values)
        floor = image_floor(mean, self.images)
        error, freedom = self._error(values, self._scores, self._scale(mean), floor)
        interval = None
        if error is not None and freedom:
            shared = _binomial(mean, self.images) / self.pool if self.pool else 0.0
            level = 1 - (1 - CONFIDENCE) / 2 / self.looks.looks
            half = _quantile(freedom, level) * math.sqrt(error**2 + shared)
            interval = mean - half, mean + half
        return Score(len(values), mean, error, interval)

    def difference(
        self, values: Sequence[float], others: Sequence[float], comparisons: int = 1
    ) -> Difference:
        """The mean of ``values - others``, repeat by repeat, and its standard error."""
        pairs = _pairs(values, others)
        mean = math.fsum(pairs) / len(pairs)
        scale, level = self._scales(values, others)
        floor = math.sqrt(2) * image_floor(level, self.images)
        error, freedom = self._error(pairs, self._differences, scale, floor)
        return Difference(len(pairs), mean, error, freedom, comparisons)

    def _error(
        self, values: Sequence[float], pool: _Pool, scale: float, floor: float
    ) -> tuple[float | None, int]:
        self._read()
        variance = pool.variance * scale if pool.freedom else sample_variance(values)
        freedom = max(pool.freedom, len(values) - 1)
        if not variance and not self.images and len(values) == 1:
            return None, 0
        return max(math.sqrt(variance), floor) / math.sqrt(len(values)), freedom

    def _scale(self, level: float) -> float:
        """What the variance of a run is in proportion to."""
        return _binomial(level, self.images) if self.images else 1.0

    def _scales(self, values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
        one, other = math.fsum(values) / len(values), math.fsum(others) / len(others)
        return self._scale(one) + self._scale(other), (one + other) / 2

    def _read(self) -> None:
        while self._unread:
            for values, against in self._unread.pop(0):
                scale = self._scale(math.fsum(values) / len(values))
                self._scores.add(values, scale)
                if against is not None:
                    scale, _ = self._scales(values, against)
                    self._differences.add(_pairs(values, against), scale)


class _Pool:
    """A variance pooled over groups: squared deviations over degrees of freedom."""

    def __init__(self) -> None:
        self._squares = 0.0
        self.freedom = 0

    def add(self, values: Sequence[float], scale: float) -> None:
        self._squares += sample_variance(values) * (len(values) - 1) / scale
        self.freedom += len(values) - 1

    @property
    def variance(self) -> float:
        return self._squares / self.freedom if self.freedom else 0.0


def _binomial(accuracy: float, images: int | None) -> float:
    """Accuracy * (1 - accuracy), with an error of at least one image."""
    least = (1 / images) * (1 - 1 / images) if images else 0.0
    return max(accuracy * (1 - accuracy), least)


@functools.cache
def _quantile(freedom: int, level: float) -> float:
    """Of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


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


WINDOW = 3
"""Epochs over which a gap is averaged: as many as a sweep takes the mean of to score a run."""


def mean_gap(curve: Sequence[float], reference: Sequence[float], window: int = WINDOW) -> float:
    """How far ``curve`` is behind ``reference`` (fractions) over its last ``window`` epochs."""
    epochs = slice(max(0, len(curve) - window), len(curve))
    pairs = zip(reference[epochs], curve[epochs], strict=True)
    return math.fsum(other - own for other, own in pairs) / (epochs.stop - epochs.start)
