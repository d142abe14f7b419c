"""Effects of hyperparameters and interactions of pairs, as the trials of a race show them.

They are terms of the race's own model (`model.Kernel`): the effect of a hyperparameter's value is
its mean over the whole space, and the interaction of a pair is the rest beyond the sum of the two.
The number of levels is bounded, whatever the size of the space.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from study.plan.race.model import Array, Places
from study.plan.race.result import Posterior
from study.space.search_space import SearchSpace, Value

Item = TypeVar("Item")
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


def effects(posterior: Posterior, space: SearchSpace) -> Effects:
    """Effects of hyperparameters and interactions of pairs, by the choosing trials."""
    parts = _Parts(posterior)
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

    def __init__(self, posterior: Posterior) -> None:
        kernel, theta, cells = posterior.kernel, posterior.theta, posterior.cells
        self.configurations = posterior.candidates.configurations
        variance = np.exp(theta[: kernel.split])
        self._variance, self._effects = variance, kernel.effects
        self._pairs = variance[kernel.count] / max(1, kernel.count * (kernel.count - 1) // 2)
        self._inverse = np.linalg.inv(kernel.covariance(theta, cells, cells))
        self._alpha = self._inverse @ (posterior.z - posterior.z.mean())
        self._where, self._growth = cells.configuration, kernel.growth(theta, cells)
        last = cells.rung == len(kernel.early) - 1
        middle = posterior.z.mean() + (1.0 + 0.25 * last) @ self._alpha
        shift = posterior.observations.final_shift(posterior.trials)
        self._error = float(np.exp(middle + shift + 0.5 * kernel.within(theta)))

    def levels(self, values: list[Value | None]) -> Places:
        """For each value that some configuration has, in order, the first such configuration."""
        held = [(place, value) for place, value in enumerate(values) if value is not None]
        first = {value: place for place, value in reversed(held)}
        order = sorted(first, key=lambda v: (isinstance(v, str), v))  # numbers in their order
        return np.array([first[v] for v in _spaced(order, MOST_LEVELS)], dtype=np.intp)

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
        few = [np.array(_spaced(list(places), _PAIRED), dtype=np.intp) for places in levels]
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
        shown = covariance * self._growth
        left = own - np.einsum("ij,jk,ik->i", shown, self._inverse, shown, optimize=True)
        return shown @ self._alpha, np.sqrt(np.maximum(left, 0.0))

    def _accuracy(self, effect: Array) -> Array:
        accuracy: Array = 1 - np.minimum(self._error * np.exp(effect), 1.0)
        return accuracy


def _spaced(items: list[Item], most: int) -> list[Item]:
    """At most ``most`` items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]
