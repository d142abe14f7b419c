"""How a study grows: what changed between two spaces, and stored runs read as runs of the new one.

A run is a function of its configuration, its repeat, the seed and the data. A run of the old space
is therefore a run of the new one wherever its values are allowed there. A hyperparameter that the
old space did not have counts with the value that the network gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from study.space.hyperparameter import Hyperparameter
from study.space.keys import Value, shown
from study.space.search_space import SearchSpace

Values = Mapping[str, Any]


def names(space: SearchSpace) -> list[str]:
    """The names of a configuration's values, in their order; not all of them apply to each."""
    return [*space.fixed, *(parameter.name for parameter in space.hyperparameters)]


def translated(params: Values, space: SearchSpace, known: Values) -> dict[str, Value] | None:
    """The values of a stored run in the names and the order of ``space``; None if it has no such.

    ``known`` are the values that a run has of what its ``params`` do not name.
    """
    wanted = names(space)
    if any(name not in wanted and not _same(known.get(name), params[name]) for name in params):
        return None
    held = {**known, **params}
    found: dict[str, Value] = {}
    for name, value in space.fixed.items():
        if not _same(held.get(name), value):
            return None
        found[name] = value
    for parameter in space.hyperparameters:
        name = parameter.name
        if not parameter.applies(found):
            if name in params and not _same(known.get(name), params[name]):
                return None
            continue
        allowed = _allowed(parameter, held.get(name))
        if allowed is None:
            return None
        found[name] = allowed
    return found


def contains(space: SearchSpace, params: Values) -> bool:
    """Whether a configuration is one of the space."""
    return translated(params, space, {}) is not None


def _allowed(parameter: Hyperparameter, value: Any) -> Value | None:
    """The value as this hyperparameter writes it; None if it does not allow it."""
    if parameter.options:
        return next((option for option in parameter.options if _same(option, value)), None)
    low, high = parameter.bounds
    if isinstance(value, bool | str) or value is None or not low <= value <= high:
        return None
    if isinstance(low, int) and value != int(value):
        return None
    return int(value) if isinstance(low, int) else float(value)


def _same(one: Any, other: Any) -> bool:
    """Whether two values make the same run: 1 and 1.0 do, 1 and true do not."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def changes(before: SearchSpace, after: SearchSpace) -> list[str]:
    """What is new in the space ``after``, each change in a few words."""
    return [*_changes(before, after)]


def _changes(before: SearchSpace, after: SearchSpace) -> Iterator[str]:
    old, new = ({p.name: p for p in space.hyperparameters} for space in (before, after))
    for name, parameter in new.items():
        if name in old:
            yield from _changed(old[name], parameter)
        else:
            yield f"{name} {'varies' if name in before.fixed else 'is new'}"
    for name in old:
        if name not in new:
            fixed = name in after.fixed
            yield f"{name} is fixed at {shown(after.fixed[name])}" if fixed else f"{name} is gone"
    for name, value in after.fixed.items():
        if name not in before.fixed and name not in old:
            yield f"{name} is fixed at {shown(value)}"
        elif name in before.fixed and not _same(before.fixed[name], value):
            yield f"{name} is fixed at {shown(value)}, not {shown(before.fixed[name])}"
    yield from (f"{name} is no longer fixed" for name in before.fixed if name not in names(after))
    if [n for n in old if n in new] != [n for n in new if n in old]:
        yield f"the order is {', '.join(new)}"
    if after.passes != before.passes:
        yield f"passes {after.passes}, not {before.passes}"


def _changed(old: Hyperparameter, new: Hyperparameter) -> Iterator[str]:
    gained = [shown(one) for one in new.options if _allowed(old, one) is None]
    lost = [shown(one) for one in old.options if _allowed(new, one) is None]
    if new.options and old.options:
        if gained:
            yield f"{new.name} gains {', '.join(gained)}"
        if lost:
            yield f"{new.name} loses {', '.join(lost)}"
        if not gained and not lost and old.options != new.options:
            yield f"the order of {new.name} is {', '.join(map(shown, new.options))}"
    elif (old.options, old.low, old.high, old.log, old.step) != (
        new.options,
        new.low,
        new.high,
        new.log,
        new.step,
    ):
        ends = ", ".join(map(shown, new.options)) or f"{new.low} to {new.high}"
        yield f"{new.name} is {ends}"
    if old.only_if != new.only_if:
        when = " and ".join(f"{name} = {shown(value)}" for name, value in new.only_if.items())
        yield f"{new.name} applies {f'only if {when}' if when else 'always'}"
    if old.start != new.start:
        yield f"{new.name} starts at {shown(new.start)}"
