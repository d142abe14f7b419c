"""How sure a race is: its leader, the probability that it is good enough, and two intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from study.plan.candidates import Candidates
from study.plan.posterior import Array, Cells, Kernel, Places, Posterior, fit
from study.plan.results import Configuration, StoredTrial

Reason = Literal["sure", "budget", "exhausted"]
"""Why a race has ended; exhausted: every repeat of those that matter is trained."""

_CONTENDERS = 64
_DRAWS = 1000
_TOP = 10
_EXPECTED = 4  # complete runs that what a slope lets expect counts as
_FITTED = 96
"""Runs that the variances are fitted to: of more, every second, third and so on."""

_WHOLE = 200
"""Up to so many runs count at every rung that they have reached."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A leading configuration: its probability to be the best, its value (median) and error."""

    configuration: Configuration
    probability: float
    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """How sure a race is of its leader.

    ``probability`` is that of being within the tolerance of the best; ``interval`` (of its value)
    and ``distance`` (to the best) are 95 % intervals. They, values and errors are of the metric
    that is compared, of accuracies fractions. ``reason`` says why the race has ended, None while
    it goes on.
    """

    leader: Contender
    probability: float
    interval: tuple[float, float]
    distance: tuple[float, float]
    top: tuple[Contender, ...]
    tolerance: float
    confidence: float
    epochs: int
    budget: int
    reason: Reason | None = None


@dataclass(frozen=True)
class Scale:
    """How curves become values: at which epochs, and on how many validation images.

    ``images`` are those of a repeat, drawn from a ``pool`` of so many (None: what is measured is no
    share of images); an error of ``whole`` counts as 1.
    """

    rungs: tuple[int, ...]
    images: int | None
    pool: int | None = None
    whole: float = 1.0

    def observed(self, rows: Sequence[StoredTrial], candidates: Candidates) -> tuple[Cells, Array]:
        """The cells that these runs have reached, and the logarithm of the error there.

        Of a rung's last quarter of epochs the mean is taken: it is steadier than its last one. Of
        many runs only the last rung counts, which says nearly all.
        """
        cells, values = [], []
        few = len(rows) <= _WHOLE
        for row in rows:
            place = candidates.index[row.configuration]
            reached = [n for n, epochs in enumerate(self.rungs) if epochs <= len(row.reported)]
            for rung in reached if few else reached[-1:]:
                cells.append((place, row.repeat, rung, row.number))
                values.append(self._value(row, self.rungs[rung]))
        return Cells(*np.array(cells, dtype=np.intp).reshape(-1, 4).T), np.array(values)

    def expected(self, error: float) -> tuple[float, float]:
        """What to expect of the logarithm of such an error, as variances: of a run, of a repeat.

        Half of what independent answers would have, for about half of the errors are made on images
        that every run finds hard (docs/log.md).
        """
        if not self.images:
            return 0.012, 0.01
        spread = 0.5 / (error * self.whole * self.images)
        return spread, spread * max(1 - self.images / (self.pool or math.inf), 0.05)

    def sampled(self, error: float) -> float:
        """The standard deviation of the logarithm of such an error over pools of images."""
        return 1 / math.sqrt(error * self.whole * self.pool) if self.pool else 0.0

    def _value(self, row: StoredTrial, epochs: int) -> float:
        if _keeps_best(row):
            return self._log(max(row.reported[:epochs]))
        last = row.reported[epochs - _tail(epochs) : epochs]
        return self._log(math.fsum(last) / len(last))

    def _log(self, accuracy: float) -> float:
        least = 0.3 / self.images if self.images else 1e-5
        return math.log(min(max(1 - accuracy, least), 1.0)) if math.isfinite(accuracy) else 0.0

    def shift(self, rows: Sequence[StoredTrial]) -> float:
        """How far, in the logarithm of the error, a run's value lies from that of its last rung.

        The mean over complete runs, drawn towards what the slope of their curves lets expect.
        """
        whole = [
            row for row in rows if row.value is not None and len(row.reported) >= self.rungs[-1]
        ]
        if not whole or len(self.rungs) < 2:
            return 0.0
        before, last = self.rungs[-2:]
        way = math.log(last / (last - (_tail(last) - 1) / 2)) / math.log(last / before)
        ends = [self._value(row, last) for row in whole]
        slope = [end - self._value(row, before) for row, end in zip(whole, ends, strict=True)]
        off = [self._log(row.value or 0.0) - end for row, end in zip(whole, ends, strict=True)]
        expected = 0.0 if _keeps_best(whole[0]) else way * math.fsum(slope) / len(slope)
        return (math.fsum(off) + _EXPECTED * expected) / (len(off) + _EXPECTED)


def _keeps_best(row: StoredTrial) -> bool:
    """Whether the value of a run is that of its best epoch."""
    return bool(row.params.get("restore_best_weights"))


def _tail(epochs: int) -> int:
    """How many of a rung's last epochs its value is the mean of."""
    return max(1, epochs // 4)


class Belief:
    """What runs say of the candidates: who leads, by those that choose; how sure, by all of them.

    ``measured`` are runs that had no part in choosing.
    """

    def __init__(
        self,
        candidates: Candidates,
        scale: Scale,
        choosing: Sequence[StoredTrial],
        measured: Sequence[StoredTrial],
        seed: int,
        failed: frozenset[int] = frozenset(),
    ) -> None:
        self.candidates, self.scale, self.seed, self.failed = candidates, scale, seed, failed
        rungs = np.array(scale.rungs, dtype=float)
        early = np.log(rungs[-1] / rungs)
        every = max(1, math.ceil(len(choosing) / _FITTED))
        cells, z = scale.observed(choosing[::every], candidates)
        expected = scale.expected(math.exp(z.mean()))
        self.kernel = Kernel(candidates.effects, early / max(early[0], 1e-9), *expected)
        self.theta = fit(self.kernel, cells, z - z.mean())
        self.cells, self.z = scale.observed(choosing, candidates)
        self._rows = [*choosing, *measured]
        self.chosen = Posterior(self.kernel, self.theta, self.cells, self.z)
        self.leader = self._leader()
        self.measured = bool(measured)

    def _leader(self) -> int:
        """The best of those that a run was trained to its end of; of all, before there is one.

        What early epochs promise of the others is tried, and no answer by itself.
        """
        ended = self.cells.configuration[self.cells.rung == len(self.scale.rungs) - 1]
        among = np.unique(ended) if len(ended) else np.arange(len(self.candidates))
        among = among[~np.isin(among, list(self.failed))]
        return int(among[np.argmin(self.chosen.mean[among])])

    @cached_property
    def whole(self) -> Posterior:
        """What the measured runs say too."""
        cells, z = self.scale.observed(self._rows, self.candidates)
        return Posterior(self.kernel, self.theta, cells, z)

    def contenders(self, posterior: Posterior) -> Places:
        """Places of those that would be the best with some luck, the leader first."""
        lucky = posterior.mean - 2 * posterior.deviations
        lucky[self.leader] = -np.inf
        lucky[list(self.failed)] = np.inf
        return np.argsort(lucky, kind="stable")[: min(_CONTENDERS, len(lucky) - len(self.failed))]

    @cached_property
    def _by_choice(self) -> tuple[Places, Array]:
        return self._drawn(self.chosen)

    @cached_property
    def _by_all(self) -> tuple[Places, Array]:
        return self._drawn(self.whole) if self.measured else self._by_choice

    def _drawn(self, posterior: Posterior) -> tuple[Places, Array]:
        """Contenders, and errors on new images that they may have, of shape (draws, contenders)."""
        places = self.contenders(posterior)
        spread = posterior.spread[np.ix_(places, places)]
        root = np.linalg.cholesky(spread + 1e-9 * np.eye(len(places)))
        # The mean accuracy over repeats is that of their spread too.
        level = posterior.mean[places] + 0.5 * self.kernel.within(self.theta)
        normal = _normal(self.seed, 1 + len(places))
        # What all find hard in the images of the repeats, more repeats would not tell.
        sampled = self.scale.sampled(math.exp(level[0]))
        error: Array = np.exp(level + normal[:, 1:] @ root.T + sampled * normal[:, :1])
        return places, error

    def probability(self, tolerance: float, *, measured: bool = False) -> float:
        """That the leader is within ``tolerance`` of the best, by the measured runs too or not."""
        _, error = self._by_all if measured else self._by_choice
        return float(np.mean(error[:, 0] - error.min(1) <= tolerance))

    def verdict(self, tolerance: float, confidence: float, epochs: int, budget: int) -> Verdict:
        places, error = self._by_all
        distance = error[:, 0] - error.min(1)
        shown = 1 - np.minimum(error * math.exp(self.scale.shift(self._rows)), 1.0)
        first = np.bincount(error.argmin(1), minlength=len(places)) / len(error)
        low, high = np.quantile(shown[:, 0], (0.025, 0.975))
        # The leader's row is the first; of the others those that are the likeliest to be the best.
        told = [0, *(1 + np.argsort(-first[1:], kind="stable")[:_TOP])]
        # Of draws that are far from normal before a run has reached its end, these mean something.
        below, middle, above = np.quantile(shown[:, told], (0.16, 0.5, 0.84), axis=0)
        found = [
            Contender(
                self.candidates.configurations[places[place]],
                float(first[place]),
                float(middle[n]),
                float(above[n] - below[n]) / 2,
            )
            for n, place in enumerate(told)
        ]
        return Verdict(
            leader=found[0],
            probability=float(np.mean(distance <= tolerance)),
            interval=(float(low), float(high)),
            distance=(0.0, float(np.quantile(distance, 0.95))),
            top=tuple(sorted(found, key=lambda one: -one.probability)[:_TOP]),
            tolerance=tolerance,
            confidence=confidence,
            epochs=epochs,
            budget=budget,
        )


@lru_cache(maxsize=4)
def _normal(seed: int, number: int) -> Array:
    """Standard normal draws, of shape (draws, number): the same ones at each look."""
    return np.random.default_rng([seed, number]).standard_normal((_DRAWS, number))
