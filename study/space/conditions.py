"""Conditions of hyperparameters (`only_if`): what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from study.errors import SpaceError
from study.space.hyperparameter import Hyperparameter
from study.space.keys import Value, hint, shown


def check(hyperparameters: Sequence[Hyperparameter], fixed: Mapping[str, Value]) -> None:
    """Raise SpaceError for a condition that goes in a circle, or that can never hold.

    A condition is of a hyperparameter that stands above, so that values are chosen in order.
    """
    for one in hyperparameters:
        for name, value in one.only_if.items():
            for problem in _mistakes(one, name, value, hyperparameters, fixed):
                raise SpaceError(f"hyperparameters.{one.name}.only_if: {problem}")


def _mistakes(
    given: Hyperparameter,
    name: str,
    value: Value,
    hyperparameters: Sequence[Hyperparameter],
    fixed: Mapping[str, Value],
) -> Iterator[str]:
    searched = {one.name: one for one in hyperparameters}
    never = f"{name} = {shown(value)} never holds; "
    if name in fixed:
        if fixed[name] != value:
            yield f"{never}fixed.{name} is {shown(fixed[name])}"
        return
    if name not in searched:
        names = [one for one in (*searched, *fixed) if one != given.name]
        yield f"{name} is not in the space; {hint(name, names)}"
        return
    if given.name in _above(name, searched):
        yield f"goes in a circle by way of {name}; take one of the conditions out"
    if [*searched].index(name) > [*searched].index(given.name):
        yield f"{name} comes later in the file; put [hyperparameters.{name}] above this one"
    condition = searched[name]
    if not condition.holds(value):
        options, allowed = condition.options, condition.options or condition.bounds
        kind = "allowed: " if options else "it is a range, "
        yield f"{never}{kind}{(', ' if options else ' to ').join(map(shown, allowed))}"


def _above(name: str, searched: Mapping[str, Hyperparameter]) -> set[str]:
    """A hyperparameter and those that its conditions are of, directly or not."""
    above: set[str] = set()
    left = [name]
    while left:
        above.add(one := left.pop())
        left += [other for other in searched[one].only_if if other in searched.keys() - above]
    return above
