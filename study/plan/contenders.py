"""Configurations beside a leader, by what their own runs say: no model takes part.

How far one is behind is the mean of paired differences after as many epochs as both were trained
for; an error is stated only of two or more pairs of complete runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.plan.results import Configuration, StoredTrial
from study.plan.statistics import Spread

Runs = Mapping[tuple[Configuration, int], StoredTrial]

PAIRS = 2
"""Complete repeats that a difference with an error needs."""

_TOP = 10


@dataclass(frozen=True, slots=True)
class Contender:
    """A configuration beside the leader.

    ``behind`` is how far it is behind after ``epochs`` epochs, by ``pairs`` repeats that both were
    trained for as long, all ``complete`` or none; its error is None unless two or more are.
    """

    configuration: Configuration
    epochs: int
    pairs: int
    behind: float
    standard_error: float | None = None
    complete: bool = False


def spread_of(runs: Runs, images: int | None, pool: int | None) -> Spread:
    """Variances pooled over complete runs, in pairs with the configuration that has the most."""
    values: dict[Configuration, dict[int, float]] = {}
    for (one, repeat), trial in runs.items():
        if trial.state == "complete" and trial.value is not None:
            values.setdefault(one, {})[repeat] = trial.value
    spread = Spread(images, pool)
    spread.learn((list(held.values()), None) for held in values.values())
    first = max(values.values(), key=len, default={})
    for held in values.values():
        shared = [repeat for repeat in held if repeat in first]
        if held is not first and len(shared) > 1:
            spread.learn([([held[r] for r in shared], [first[r] for r in shared])])
    return spread


def contenders(
    leader: Configuration, runs: Runs, order: Sequence[Configuration], spread: Spread, sign: int
) -> tuple[Contender, ...]:
    """Configurations beside the leader in this order, those first that were trained the longest."""
    found = [_against(one, leader, runs, spread, sign) for one in order if one != leader]
    return tuple(sorted(filter(None, found), key=lambda one: -one.epochs)[:_TOP])


def _against(
    one: Configuration, leader: Configuration, runs: Runs, spread: Spread, sign: int
) -> Contender | None:
    """By repeats that both have; of complete runs the values, else the last common epoch."""
    pairs = [
        (trial, runs[leader, repeat])
        for (configuration, repeat), trial in runs.items()
        if configuration == one and trial.reported and (leader, repeat) in runs
    ]
    complete = [(own.value, led.value) for own, led in pairs]
    values = [(a, b) for a, b in complete if a is not None and b is not None]
    if values:
        own, led = (list(side) for side in zip(*values, strict=True))
        gap = spread.difference(*((led, own) if sign > 0 else (own, led)))
        error = gap.standard_error if len(values) >= PAIRS else None
        epochs = max(len(trial.reported) for trial, _ in pairs)
        return Contender(one, epochs, len(values), gap.mean, error, complete=True)
    epochs = max((min(len(a.reported), len(b.reported)) for a, b in pairs), default=0)
    behind = [
        sign * (b.reported[epochs - 1] - a.reported[epochs - 1])
        for a, b in pairs
        if epochs and min(len(a.reported), len(b.reported)) >= epochs
    ]
    if not behind:
        return None
    return Contender(one, epochs, len(behind), math.fsum(behind) / len(behind))
