"""The points of a search space: how many there are, each by its number, and some at random."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from study.errors import SpaceError
from study.plan.results import Configuration, configuration
from study.space.search_space import Hyperparameter, SearchSpace, Value

_COUNTED = 20_000  # configurations of a space with limits up to which each is looked at
_DRAWS = 1_000

Out = Callable[[Configuration], str | None]
"""Why a configuration is not trained, in one line: it exceeds a limit; None if it fits."""


def fits(_: Configuration) -> str | None:
    """There are no limits."""
    return None


def size(space: SearchSpace) -> int | None:
    """How many configurations the space has; None where a hyperparameter is a real number."""
    parameters = space.hyperparameters
    if None in map(count, parameters):
        return None
    conditions = {name for parameter in parameters for name in parameter.only_if}

    @functools.cache
    def below(place: int, known: Configuration) -> int:
        """The configurations of the hyperparameters from a place on, where conditions are known."""
        if place == len(parameters):
            return 1
        first, params = parameters[place], dict(known)
        if not first.applies(params):
            return below(place + 1, known)
        number = count(first) or 0
        if first.name not in conditions:
            return number * below(place + 1, known)
        return sum(
            below(place + 1, (*known, (first.name, value(first, other)))) for other in range(number)
        )

    return below(0, configuration(space.fixed))


def count(parameter: Hyperparameter) -> int | None:
    """How many values a hyperparameter has; None for a range of real numbers."""
    if parameter.options:
        return len(parameter.options)
    (low, high), step = parameter.bounds, parameter.step
    if isinstance(low, int) and isinstance(high, int):
        return (high - low) // int(step or 1) + 1
    return None if step is None else round((high - low) / step) + 1


def value(parameter: Hyperparameter, place: int) -> Value:
    """A value of a hyperparameter that has a number of them, from the first."""
    if parameter.options:
        return parameter.options[place]
    low, high = parameter.bounds
    return min(low + place * (parameter.step or 1), high)


def points(space: SearchSpace) -> Iterator[Configuration]:
    """Every configuration, the last hyperparameter fastest; none where one is a real number."""
    if size(space) is None:
        return
    parameters = space.hyperparameters

    def below(place: int, params: dict[str, Value]) -> Iterator[Configuration]:
        if place == len(parameters):
            yield configuration(params)
        elif parameters[place].applies(params):
            for number in range(count(parameters[place]) or 0):
                one = {parameters[place].name: value(parameters[place], number)}
                yield from below(place + 1, params | one)
        else:
            yield from below(place + 1, params)

    yield from below(0, dict(space.fixed))


def fitting_size(space: SearchSpace, out: Out) -> int | None:
    """How many configurations are not ``out``; None where there are too many to look at each."""
    whole = size(space)
    if out is fits:
        return whole
    if whole is None or whole > _COUNTED:
        return None
    return sum(out(one) is None for one in points(space))


def drawn_fitting(space: SearchSpace, rng: np.random.Generator, out: Out) -> Configuration:
    """A random configuration that is not ``out``; SpaceError where none is found."""
    for _ in range(_DRAWS):
        one = drawn(space, rng)
        if out(one) is None:
            return one
    raise SpaceError(
        f"limits: none of {_DRAWS:,} random configurations fits ({out(one)}); raise a limit"
    )


def drawn(space: SearchSpace, rng: np.random.Generator) -> Configuration:
    """A random configuration; a range on a log scale is drawn evenly on it."""
    params = dict(space.fixed)
    for parameter in space.hyperparameters:
        if parameter.applies(params):
            params[parameter.name] = _drawn(parameter, rng)
    return configuration(params)


def _drawn(parameter: Hyperparameter, rng: np.random.Generator) -> Value:
    number = count(parameter)
    if number is not None and not parameter.log:
        return value(parameter, int(rng.integers(number)))
    return at(parameter, rng.random())


def at(parameter: Hyperparameter, share: float) -> Value:
    """The value of a range at this share of its way, on a log scale where it has one."""
    low, high = parameter.bounds
    there = low * (high / low) ** share if parameter.log else low + share * (high - low)
    there = min(max(there, low), high)
    if isinstance(low, int):
        return round(there)
    step = parameter.step
    return there if step is None else value(parameter, round((there - low) / step))


def share(parameter: Hyperparameter, point: Value) -> float:
    """How far along its range a point lies, from 0 to 1."""
    low, high = parameter.bounds
    assert not isinstance(point, str)
    if parameter.log:
        return math.log(point / low) / math.log(high / low)
    return (point - low) / (high - low)
