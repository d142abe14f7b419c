"""Effects of hyperparameters and interactions of pairs, as the trials of a race show them.

They are terms of the race's model (`race.model.Kernel`): the effect of a hyperparameter's value is
its mean over the whole space, and the interaction of a pair is the rest beyond the sum of the two.
The number of levels is bounded for a space of any size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.plan.race import Race
from study.plan.race.model import LEVEL, Array, Places
from study.plan.race.result import Posterior
from study.plan.results import StoredTrial
from study.report.canvas import spaced
from study.space.metric import Metric
from study.space.search_space import Value

Both = tuple[Places, Places]

MOST_LEVELS = 33
"""Values of a hyperparameter that are reported; of more, evenly spaced ones."""

_PAIRED = 9  # and of one in a pair


@dataclass(frozen=True, slots=True)
class Level:
    """A value, and the typical accuracy of configurations that have it, with its 95 % interval."""

    value: Value
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """A hyperparameter with its values in order; ``size`` is how far its accuracies are apart.

    ``size`` is a standard deviation over values, a fraction like the accuracies.
    """

    name: str
    levels: tuple[Level, ...]
    size: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hyperparameters, and how much accuracy their interaction moves (standard deviations).

    ``shown`` is the posterior mean, ``possible`` includes the posterior uncertainty (RMS).
    """

    names: tuple[str, str]
    shown: float
    possible: float


@dataclass(frozen=True, slots=True)
class Effects:
    """Every hyperparameter and every pair, those that do the most first."""

    main: tuple[Effect, ...]
    pairs: tuple[Pair, ...]


def effects(plan: Race, trials: Sequence[StoredTrial]) -> Effects | None:
    """Effects and interactions by the runs that choose; None before a run has reached a rung."""
    posterior = plan.posterior(trials)
    if posterior is None:
        return None
    space, parts = plan.space, _Parts(posterior, plan.metric)
    names = [parameter.name for parameter in space.hyperparameters]
    levels = [parts.levels([dict(c).get(name) for c in parts.configurations]) for name in names]
    main = [parts.effect(number, names[number], levels[number]) for number in range(len(names))]
    pairs = [
        parts.pair((one, other), (names[one], names[other]), (levels[one], levels[other]))
        for one, other in itertools.combinations(range(len(names)), 2)
    ]
    return Effects(
        tuple(sorted(main, key=lambda effect: -effect.size)),
        tuple(sorted(pairs, key=lambda pair: -pair.shown)),
    )


class _Parts:
    """The terms of the model, given its observations."""

    def __init__(self, posterior: Posterior, metric: Metric) -> None:
        levels = posterior.levels
        kernel, theta, self._metric = levels.kernel, levels.theta, metric
        self.configurations = posterior.candidates.configurations
        self._variance, self._effects = np.exp(theta), kernel.effects
        self._pairs = self._variance[kernel.count] / max(1, kernel.count * (kernel.count - 1) // 2)
        self._inverse, self._alpha = levels.inverse, levels.alpha
        self._where = posterior.cells[0]
        level = posterior.middle + LEVEL * float(self._alpha.sum())
        self._error = float(np.exp(level + 0.5 * self._variance[-1]))

    def levels(self, values: list[Value | None]) -> Places:
        """For each value that some configuration has, in order, the first such configuration."""
        held = [(place, value) for place, value in enumerate(values) if value is not None]
        first = {value: place for place, value in reversed(held)}
        order = sorted(first, key=lambda v: (isinstance(v, str), v))  # numbers in their order
        return np.array([first[v] for v in spaced(order, MOST_LEVELS)], dtype=np.intp)

    def effect(self, number: int, name: str, places: Places) -> Effect:
        prior = self._variance[number] * self._effects[number]
        mean, deviation = self._posterior(prior[places][:, self._where], prior[places, places])
        curves = [self._accuracy(mean + side * deviation) for side in (0, 1.96, -1.96)]
        levels = [
            Level(dict(self.configurations[place])[name], float(middle), float(low), float(high))
            for place, middle, low, high in zip(places, *curves, strict=True)
        ]
        return Effect(name, tuple(levels), float(np.std(curves[0])))

    def pair(self, numbers: tuple[int, int], names: tuple[str, str], levels: Both) -> Pair:
        few = [np.array(spaced(list(places), _PAIRED), dtype=np.intp) for places in levels]
        rows, own = [], []
        for number, places in zip(numbers, few, strict=True):
            rows.append(self._effects[number][places][:, self._where])
            own.append(self._effects[number][places, places])
        prior = (rows[0][:, None] * rows[1]).reshape(-1, len(self._where)) * self._pairs
        mean, deviation = self._posterior(prior, np.outer(*own).ravel() * self._pairs)
        shown = float(np.sqrt(np.mean(mean**2)))
        possible = float(np.sqrt(np.mean(mean**2 + deviation**2)))
        return Pair(names, self._error * shown, self._error * possible)

    def _posterior(self, covariance: Array, own: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of terms, by their prior covariance with observations."""
        left = own - np.einsum("ij,jk,ik->i", covariance, self._inverse, covariance, optimize=True)
        return covariance @ self._alpha, np.sqrt(np.maximum(left, 0.0))

    def _accuracy(self, effect: Array) -> Array:
        """The value of the metric with this effect on the logarithm of its error."""
        error = self._error * np.exp(effect)
        if self._metric.is_accuracy:
            error = np.minimum(error, 1.0)
        value: Array = error if self._metric.direction == "minimize" else 1 - error
        return value
