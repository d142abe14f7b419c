"""The configurations that a race chooses among, and the prior correlations between them.

All of a small space. Of a large one those evaluated so far, neighbours of the best and random ones,
drawn anew from a seed as the study grows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.plan.points import Out, at, count, drawn_fitting, fits, fitting_size, points, share
from study.plan.results import Configuration, configuration
from study.space.search_space import Hyperparameter, SearchSpace

Array = NDArray[np.float64]

WHOLE = 512
"""All configurations of a space of at most this size are candidates."""

_DRAWN = 256
_LEVELS = 33
"""Levels that a range is divided into for the correlation of its values."""


class Candidates:
    """Configurations with their places, and their correlations through each hyperparameter.

    ``effects`` is of shape (hyperparameters, configurations, configurations); each is centred over
    the hyperparameter's values, so that main effects are orthogonal. ``pairs`` is the sum of the
    products of two.
    """

    def __init__(self, space: SearchSpace, configurations: Sequence[Configuration]) -> None:
        self.configurations = tuple(configurations)
        self.index = {one: place for place, one in enumerate(self.configurations)}
        effects = []
        for parameter in space.hyperparameters:
            levels = _levels(parameter, [dict(c).get(parameter.name) for c in self.configurations])
            kind = *_kind(parameter), bool(parameter.only_if)
            effects.append(_correlation(*kind)[np.ix_(levels, levels)])
        self.effects: Array = np.stack(effects)
        total = self.effects.sum(0)
        self.pairs: Array = (total**2 - (self.effects**2).sum(0)) / 2

    def __len__(self) -> int:
        return len(self.configurations)


class CandidateSet:
    """Makes the candidates of a space; the same arguments give the same ones."""

    def __init__(self, space: SearchSpace, seed: int, out: Out = fits) -> None:
        self.space, self.seed, self.out = space, seed, out
        self.size = fitting_size(space, out)
        small = self.size is not None and self.size <= WHOLE
        every = [one for one in points(space) if not out(one)] if small else []
        self._all = Candidates(space, every) if every else None

    def draw(
        self, evaluated: Sequence[Configuration], best: Sequence[Configuration], number: int
    ) -> Candidates:
        """All of a small space; of a large one a selection.

        The ``evaluated``, the neighbours of the ``best``, and random ones drawn by ``number``.
        """
        if self._all:
            return self._all
        rng = np.random.default_rng([self.seed, number])
        near = itertools.chain.from_iterable(self._neighbours(one) for one in best)
        random = (drawn_fitting(self.space, rng, self.out) for _ in range(_DRAWN))
        return Candidates(self.space, tuple(dict.fromkeys([*evaluated, *near, *random])))

    def _neighbours(self, base: Configuration) -> list[Configuration]:
        """Those that differ in one hyperparameter: any option, or a step along a range."""
        found = []
        for parameter in self.space.hyperparameters:
            if parameter.name not in dict(base):
                continue
            if parameter.options:
                values = list(parameter.options)
            else:
                here = share(parameter, dict(base)[parameter.name])
                steps = (here + step for step in (-0.2, -0.05, 0.05, 0.2))
                values = [at(parameter, min(max(step, 0.0), 1.0)) for step in steps]
            changed = [dict(base) | {parameter.name: value} for value in values]
            whole = map(self.space.completed, changed)
            found += [configuration(one) for one in whole if self.space.is_whole(one)]
        return [one for one in found if not self.out(one)]


def initial_design(
    candidates: Candidates, first: Configuration | None, number: int, seed: int
) -> list[int]:
    """Places of ``number`` configurations that together show effects and pairs the best.

    One after the other the one that the others say the least about (a pivoted Cholesky factor of
    the prior): on a grid this comes close to an orthogonal array. Ties are broken by the seed.
    """
    total = candidates.effects.sum(0)
    kernel = total + 0.3 * candidates.pairs + 0.3 * np.eye(len(total)) + 1.0
    rng = np.random.default_rng([seed, 0])
    jitter = 1e-3 * rng.random(len(total))
    left = np.diag(kernel) + jitter
    rows = np.zeros((0, len(total)))
    chosen: list[int] = []
    if first is not None and first in candidates.index:
        left[candidates.index[first]] += len(total)
    for _ in range(min(number, len(total))):
        place = int(np.argmax(left))
        row = kernel[place] - rows[:, place] @ rows
        row /= np.sqrt(row[place])
        rows = np.vstack([rows, row])
        left = np.where(np.arange(len(total)) == place, -np.inf, left - row**2)
        chosen.append(place)
    return chosen


def degrees_of_freedom(space: SearchSpace) -> int:
    """The number of parameters of an additive model: a mean, and levels less one of each.

    Of numbers, which lie on a line, four levels are enough.
    """
    named = (p.options and isinstance(p.options[0], str) for p in space.hyperparameters)
    counts = [count(p) or 4 for p in space.hyperparameters]
    return 1 + sum(
        (number if own else min(number, 4)) - 1 for number, own in zip(counts, named, strict=True)
    )


def _kind(parameter: Hyperparameter) -> tuple[int, float]:
    """How many levels a hyperparameter has, and how much of its effect is each level's own.

    The rest runs along the line of its numbers; truths and texts lie on none.
    """
    if not parameter.options:
        return _LEVELS, 0.1
    return len(parameter.options), 1.0 if isinstance(parameter.options[0], bool | str) else 0.5


def _levels(parameter: Hyperparameter, values: Sequence[Any]) -> list[int]:
    """The place of each value; the last one is of None, where a hyperparameter does not apply."""
    if not parameter.options:
        return [
            _LEVELS if value is None else round(share(parameter, value) * (_LEVELS - 1))
            for value in values
        ]
    options: list[object] = list(parameter.options)
    if _kind(parameter)[1] < 1:
        options.sort()
    places = {option: place for place, option in enumerate([*options, None])}
    return [places[value] for value in values]


@functools.cache
def _correlation(levels: int, own: float, conditional: bool) -> Array:  # noqa: FBT001
    """How alike the effects of two levels are: centred, with a mean variance of 1.

    A ``conditional`` hyperparameter has one level more, where it does not apply: like no other.
    """
    way = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))) / max(1, levels - 1)
    kernel = own * np.eye(levels) + (1 - own) * np.exp(-((way / 0.7) ** 2))
    if conditional:
        levels += 1
        kernel = np.pad(kernel, (0, 1))
        kernel[-1, -1] = 1.0
    centre = np.eye(levels) - 1 / levels
    kernel = centre @ kernel @ centre
    scaled: Array = kernel / max(np.diag(kernel).mean(), 1e-12)
    return scaled
