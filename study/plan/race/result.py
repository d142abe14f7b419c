"""The posterior of a race: its leader, the probability that it is good enough, two intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from study.plan.race.candidates import Candidates
from study.plan.race.model import Array, FinalLevels, Kernel, Places, fit
from study.plan.race.observations import ObservationModel
from study.plan.results import Configuration, StoredTrial

Reason = Literal["sure", "budget", "exhausted"]
"""Why a race has ended; exhausted: every run that could change the answer is trained."""

_CONTENDERS = 64
_DRAWS = 1000
_TOP = 10
_PAIRS = 2  # complete repeats that a rival has in common with the leader before a race is sure
_POSSIBLE = 0.005  # the probability to be better from which on a candidate is such a rival
_FITTED = 96
"""Trials that the variances are fitted to; of more, every second, third and so on."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A leading configuration: its probability to be the best, its value (median) and error."""

    configuration: Configuration
    probability: float
    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class RaceResult:
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


class Posterior:
    """The posterior of all candidates: the leader, by ``choosing`` trials; how sure, by all.

    ``measured`` are trials that had no part in choosing; candidates at the places ``failed`` have a
    failed run and cannot lead.
    """

    def __init__(
        self,
        candidates: Candidates,
        observations: ObservationModel,
        choosing: Sequence[StoredTrial],
        measured: Sequence[StoredTrial],
        seed: int,
        failed: frozenset[int] = frozenset(),
    ) -> None:
        self.candidates, self.observations = candidates, observations
        self.seed, self.failed = seed, failed
        rungs = np.array(observations.rungs, dtype=float)
        early = np.log(rungs[-1] / rungs)
        every = max(1, math.ceil(len(choosing) / _FITTED))
        cells, z = observations.observe(choosing[::every], candidates)
        expected = observations.expected(math.exp(z.mean()))
        self.kernel = Kernel(candidates.effects, early / max(early[0], 1e-9), *expected)
        self.theta = fit(self.kernel, cells, z - z.mean())
        self.cells, self.z = observations.observe(choosing, candidates)
        self.trials = [*choosing, *measured]
        self.chosen = FinalLevels(self.kernel, self.theta, self.cells, self.z)
        self.leader = self._leader()
        self.measured = bool(measured)

    def _leader(self) -> int:
        """The best of those with a complete trial; of all, before there is one.

        A promise of early epochs is worth trying, but is no answer by itself.
        """
        ended = self.cells.configuration[self.cells.rung == len(self.observations.rungs) - 1]
        among = np.unique(ended) if len(ended) else np.arange(len(self.candidates))
        among = among[~np.isin(among, list(self.failed))]
        return int(among[np.argmin(self.chosen.mean[among])])

    @property
    def configuration(self) -> Configuration:
        """The leader's."""
        return self.candidates.configurations[self.leader]

    @cached_property
    def all_trials(self) -> FinalLevels:
        """The final levels by the measured trials too."""
        cells, z = self.observations.observe(self.trials, self.candidates)
        return FinalLevels(self.kernel, self.theta, cells, z)

    def contenders(self, levels: FinalLevels) -> Places:
        """Places of those with the best lower confidence bounds, the leader first."""
        lucky = levels.mean - 2 * levels.deviations
        lucky[self.leader] = -np.inf
        lucky[list(self.failed)] = np.inf
        return np.argsort(lucky, kind="stable")[: len(lucky) - len(self.failed)]

    @cached_property
    def _by_choice(self) -> tuple[Places, Array]:
        return self._drawn(self.chosen)

    @cached_property
    def _by_all(self) -> tuple[Places, Array]:
        return self._drawn(self.all_trials) if self.measured else self._by_choice

    def _drawn(self, levels: FinalLevels) -> tuple[Places, Array]:
        """Contenders, and errors on new images that they may have, of shape (draws, contenders)."""
        places = self.contenders(levels)[:_CONTENDERS]
        spread = levels.spread[np.ix_(places, places)]
        root = np.linalg.cholesky(spread + 1e-9 * np.eye(len(places)))
        # The mean accuracy over repeats is that of their spread too.
        level = levels.mean[places] + 0.5 * self.kernel.within(self.theta)
        normal = _normal(self.seed, 1 + len(places))
        # More repeats would not tell how hard this sample of images is for all.
        sampled = self.observations.sampling_deviation(math.exp(level[0]))
        error: Array = np.exp(level + normal[:, 1:] @ root.T + sampled * normal[:, :1])
        return places, error

    def probability(self, tolerance: float, *, measured: bool = False) -> float:
        """The probability that the leader is within ``tolerance`` of the best."""
        _, error = self._by_all if measured else self._by_choice
        return float(np.mean(error[:, 0] - error.min(1) <= tolerance))

    def complete(self, place: int) -> frozenset[int]:
        """The repeats of a candidate that choose and are trained to the end."""
        last = self.cells.rung == len(self.observations.rungs) - 1
        return frozenset(self.cells.repeat[last & (self.cells.configuration == place)].tolist())

    def unproven(self, tolerance: float) -> list[int]:
        """The leader and rivals that may be better by more than the tolerance, lacking pairs.

        A race is not sure before each of them is trained to its end on two repeats of the leader's.
        """
        places, error = self._by_choice
        own = self.complete(self.leader)
        if len(own) < _PAIRS:
            return [self.leader]
        better = (error[:, :1] - error > tolerance).mean(axis=0)
        rivals = [int(place) for place in places[better > _POSSIBLE]]
        return [place for place in rivals if len(self.complete(place) & own) < _PAIRS]

    def result(self, tolerance: float, confidence: float, epochs: int, budget: int) -> RaceResult:
        places, error = self._by_all
        distance = error[:, 0] - error.min(1)
        shown = 1 - np.minimum(error * math.exp(self.observations.final_shift(self.trials)), 1.0)
        first = np.bincount(error.argmin(1), minlength=len(places)) / len(error)
        low, high = np.quantile(shown[:, 0], (0.025, 0.975))
        # The leader's row is the first; of the others those that are the likeliest to be the best.
        told = [0, *(1 + np.argsort(-first[1:], kind="stable"))]
        # Early epochs promise too much: no value is stated without a complete run.
        told = [n for n in told if n == 0 or self.complete(int(places[n]))][: _TOP + 1]
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
        return RaceResult(
            leader=found[0],
            probability=float(np.mean(distance <= tolerance)),
            interval=self._with_the_mean(float(low), float(high)),
            distance=(0.0, float(np.quantile(distance, 0.95))),
            top=tuple(sorted(found, key=lambda one: -one.probability)[:_TOP]),
            tolerance=tolerance,
            confidence=confidence,
            epochs=epochs,
            budget=budget,
        )

    def _with_the_mean(self, low: float, high: float) -> tuple[float, float]:
        """The interval, widened to contain the mean of the leader's own complete trials."""
        values = [
            trial.value
            for trial in self.trials
            if trial.configuration == self.configuration and trial.value is not None
        ]
        if not values:
            return low, high
        mean = math.fsum(values) / len(values)
        return min(low, mean), max(high, mean)


@lru_cache(maxsize=4)
def _normal(seed: int, number: int) -> Array:
    """Standard normal draws, of shape (draws, number): the same ones at each look."""
    return np.random.default_rng([seed, number]).standard_normal((_DRAWS, number))
