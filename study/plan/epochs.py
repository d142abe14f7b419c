"""At which epochs the runs of a race may pause, and how many a study trains at most."""

from __future__ import annotations

import math

from study.plan.points import count
from study.space.search_space import SearchSpace


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs at which runs may pause: halves of the whole, rounded up; at least an eighth."""
    return tuple(sorted({math.ceil(epochs / 2**power) for power in range(4)}))


def sweep_epochs(space: SearchSpace, repeats: int, epochs: int) -> int:
    """How many epochs the one-at-a-time sweep needs at most; a range counts as five options."""
    counts = [
        min(count(parameter) or 5, max(5, len(parameter.options)))
        for parameter in space.hyperparameters
    ]
    runs = 1 + sum(number - 1 for number in counts) + (space.tie != "best")
    return runs * repeats * epochs
