"""What a race says of its leader, and the posterior behind the probability that it states.

The leader's accuracy is that of its fresh repeats, which had no part in choosing it, and others are
compared by their own runs (`contenders`). A probability is stated only of being close to the best
of those that were trained to the end in pairs with the leader: what the model expects of all others
tells where epochs go, and is no statement.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from study.plan.contenders import PAIRS, Contender
from study.plan.race.candidates import Candidates
from study.plan.race.model import Array, Cells, FinalLevels, Growth, Kernel, Places, fitted
from study.plan.results import Configuration
from study.plan.statistics import Score

Reason = Literal["sure", "budget", "exhausted"]
"""Why a race has ended; exhausted: every run that could change the answer is trained."""

_CONTENDERS = 64
_DRAWS = 1000
_POSSIBLE = 0.005  # the probability to be better from which on a candidate is a rival
_CHECKED = 6  # pairs of rungs before the model of curves is checked
_EXPLAINED = 0.2  # the share of the variance of ends that the first rung has to explain
_FEW = 4  # complete configurations that the variances need to be trusted by half
_SURPRISED = 3.0  # the mean square of standardised residuals at which the model has failed


@dataclass(frozen=True, slots=True)
class RaceResult:
    """How sure a race is of its leader.

    ``probability`` is that of being within the tolerance of the best of those ``compared``, on new
    images: the configurations with two or more complete repeats of the leader's, itself among them.
    ``distance`` to the best is a 95 % interval. Both are None where none is compared. ``score`` is
    the leader's on fresh repeats, and ``interval`` one of 95 % on new images, None before there is
    one. Values and differences are of the metric that is compared, of accuracies fractions.
    ``curves``: whether early epochs say enough of the end; else only complete runs count. ``unit``
    of what was spent is epochs or seconds. ``reason`` says why the race has ended.
    """

    leader: Configuration
    probability: float | None
    compared: tuple[Configuration, ...]
    score: Score | None
    interval: tuple[float, float] | None
    distance: tuple[float, float] | None
    contenders: tuple[Contender, ...]
    tolerance: float
    confidence: float
    spent: float
    budget: float
    unit: Literal["epochs", "seconds"] = "epochs"
    curves: bool = True
    reason: Reason | None = None

    @property
    def left(self) -> float:
        """What is left of the budget."""
        return max(0.0, self.budget - self.spent)


class Posterior:
    """The posterior of all candidates, by runs that choose.

    ``curves`` holds the logarithm of the error at each rung that a run has reached, by
    configuration and repeat. ``pending`` are cells of runs that are being trained; candidates at
    the places ``failed`` cannot lead. ``noise`` is the variance of a run that its images allow.
    """

    def __init__(
        self,
        candidates: Candidates,
        curves: Mapping[tuple[Configuration, int], Sequence[float]],
        pending: Cells,
        last: int,
        noise: float,
        *,
        failed: frozenset[int] = frozenset(),
        pooled: float = 1.0,
    ) -> None:
        self.candidates, self.last, self.failed = candidates, last, failed
        self.pooled = pooled
        self.curves_fit = True
        self._fit(curves, pending, noise)
        if not self._checked() and self.ended:
            self.curves_fit = False
            complete = {key: held for key, held in curves.items() if len(held) > last}
            self._fit(complete, np.zeros((3, 0), dtype=np.intp), noise)
        self.leader = self._leader()

    def _fit(
        self,
        curves: Mapping[tuple[Configuration, int], Sequence[float]],
        pending: Cells,
        noise: float,
    ) -> None:
        self.growth = Growth(list(curves.values()), self.last + 1)
        places = [
            (self.candidates.index[one], repeat, len(held) - 1)
            for (one, repeat), held in curves.items()
        ]
        self.cells = np.array(places, dtype=np.intp).reshape(-1, 3).T
        z = np.array([self.growth.end(len(held) - 1, held[-1]) for held in curves.values()])
        self.first = np.array([held[0] for held in curves.values()])
        self.middle = float(np.median(z))
        scale = max(float(np.var(z)), 1e-3)
        kernel = Kernel(self.candidates, self.growth, noise or 0.1 * scale, scale)
        self.levels = fitted(kernel, self.cells, z - self.middle, pending)
        self.ended: dict[int, set[int]] = {}
        for place, repeat, rung in places:
            if rung == self.last:
                self.ended.setdefault(place, set()).add(repeat)

    def _checked(self) -> bool:
        """Whether early epochs tell something of the end, and the residuals are as expected."""
        if not self.last or min(self.growth.pairs[:-1]) < _CHECKED:
            return True
        shown = float(self.growth.slope[0]) ** 2 * float(np.var(self.first))
        explained = shown / max(shown + float(self.growth.variance[0]), 1e-12)
        done = self.levels.surprise[self.cells[2] == self.last]
        surprised = float(np.mean(done**2)) if len(done) >= _CHECKED else 1.0
        return explained >= _EXPLAINED and surprised <= _SURPRISED

    def _leader(self) -> int:
        """The best of those with a complete run; of all, before there is one."""
        among = np.array(sorted(self.ended) or range(len(self.candidates)), dtype=np.intp)
        among = among[~np.isin(among, list(self.failed))]
        if not len(among):
            return 0
        return int(among[np.argmin(self.levels.mean[among])])

    def led_by(self, one: int) -> Posterior:
        """The same with another leader."""
        other = copy.copy(self)
        other.__dict__.pop("_drawn", None)
        other.leader = one
        return other

    def better(self, one: int, other: int) -> float:
        """The probability that one is better than another on the images that there are."""
        spread = self.levels.spread
        variance = float(spread[one, one] + spread[other, other] - 2 * spread[one, other])
        gap = float(self.levels.mean[one] - self.levels.mean[other])
        return 0.5 * math.erfc(gap / math.sqrt(2 * max(variance, 1e-12)))

    @property
    def configuration(self) -> Configuration:
        """The leader's."""
        return self.candidates.configurations[self.leader]

    @property
    def sampling(self) -> float:
        """The standard deviation of a configuration's level over pools of images.

        More repeats do not tell it: they share the pool. A run's variance at its end has as many
        images; over the pool it is smaller in proportion.
        """
        return math.sqrt(math.exp(self.levels.theta[-1]) * self.pooled)

    def contenders(self, levels: FinalLevels) -> Places:
        """Places of those with the best lower confidence bounds, the leader first."""
        lucky = levels.mean - 2 * levels.deviations
        lucky[self.leader] = -np.inf
        lucky[list(self.failed)] = np.inf
        return np.argsort(lucky, kind="stable")[: len(lucky) - len(self.failed)]

    @cached_property
    def _drawn(self) -> tuple[Places, Array]:
        """Contenders, and errors on new images that they may have, of shape (draws, contenders).

        Draws have the tails of a t distribution, and a spread that is wider than the model's where
        residuals of complete runs have shown it, or where there are few complete runs.
        """
        places = self.contenders(self.levels)[:_CONTENDERS]
        spread = self.levels.spread[np.ix_(places, places)]
        root = np.linalg.cholesky(spread + 1e-9 * np.eye(len(places)))
        freedom = 2 + len(self.ended)
        normal, own, tails = _draws(len(places), freedom)
        done = self.levels.surprise[self.cells[2] == self.last]
        shown = max(1.0, float((done**2).sum() + _FEW) / (len(done) + _FEW))
        wider = math.sqrt(shown * (1 + _FEW / max(1, len(self.ended))))
        level = self.middle + self.levels.mean[places] + wider * tails * (normal @ root.T)
        # Of errors: the mean over runs is above the exponential of the mean logarithm.
        run = 0.5 * math.exp(self.levels.theta[-1])
        error: Array = np.exp(np.minimum(level + run, 50.0))
        return places, error * np.exp(self.sampling * own - 0.5 * self.sampling**2)

    @property
    def compared(self) -> frozenset[int]:
        """The leader and those with two or more of its complete repeats; none without a rival."""
        own = self.ended.get(self.leader, set())
        found = frozenset(one for one, held in self.ended.items() if len(held & own) >= PAIRS)
        return found if len(found) > 1 else frozenset()

    def probability(self, tolerance: float) -> float | None:
        """The probability that the leader is within ``tolerance`` of the best of the compared."""
        return float(np.mean(self._distances() <= tolerance)) if self.compared else None

    def distance(self) -> tuple[float, float] | None:
        """A 95 % interval of the distance to the best of the compared."""
        return (0.0, float(np.quantile(self._distances(), 0.95))) if self.compared else None

    def _distances(self) -> Array:
        places, error = self._drawn
        distances: Array = error[:, 0] - error[:, np.isin(places, [*self.compared])].min(1)
        return distances

    def expected(self, tolerance: float) -> float:
        """The model's probability that the leader is within ``tolerance`` of the best of all."""
        _, error = self._drawn
        return float(np.mean(error[:, 0] - error.min(1) <= tolerance))

    def unproven(self, tolerance: float) -> list[int]:
        """The leader, the closest rival and all that may be better by more, lacking pairs.

        A race is not sure before each of them is trained to its end on two repeats of the leader's.
        """
        places, error = self._drawn
        own = self.ended.get(self.leader, set())
        if len(own) < PAIRS:
            return [self.leader]
        possible = (error[:, :1] - error > tolerance).mean(axis=0) > _POSSIBLE
        possible[1:2] = True
        rivals = [int(place) for place in places[possible]]
        return [place for place in rivals if len(self.ended.get(place, set()) & own) < PAIRS]


@lru_cache(maxsize=4)
def _draws(number: int, freedom: int) -> tuple[Array, Array, Array]:
    """Normal draws, twice, of shape (draws, number), and the scales of t: the same at each look."""
    rng = np.random.default_rng([number, freedom])
    one, other = rng.standard_normal((2, _DRAWS, number))
    return one, other, np.sqrt(freedom / rng.chisquare(freedom, _DRAWS))[:, None]
