"""A budget in epochs or in seconds of training, and what a run costs of it.

What an epoch costs is learnt from stored results alone, so that a resumed study decides the same.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from study.errors import SettingsError
from study.plan.results import Configuration, StoredTrial

UNITS = {"s": 1, "sec": 1, "min": 60, "h": 3600}
"""Units of time of a budget, in seconds."""

_MOST, _LEAST = 1_000_000_000, 10


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of epochs, or of seconds."""

    amount: float
    seconds: bool = False

    def __str__(self) -> str:
        return self.text(self.amount)

    def text(self, amount: float) -> str:
        """An amount in this budget's unit, for a sentence."""
        if not self.seconds:
            return f"{amount:.0f} epochs"
        if amount < 120:
            return f"{amount:.0f} s"
        return f"{amount / 60:.0f} min" if amount < 7200 else f"{amount / 3600:.1f} h"


def parse(given: float | str) -> Budget:
    """A whole number of epochs, or a number with a unit of time: 400, 90s, 10min, 2h.

    Raises ``SettingsError`` for anything else, and for what is not above 0.
    """
    text = str(given).strip()
    found = re.fullmatch(r"([-+]?\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text)
    number, unit = (float(found[1]), found[2].lower()) if found else (0.0, "")
    whole = bool(unit) or number == int(number)
    if not found or not whole or (unit and unit not in UNITS):
        raise SettingsError(
            f"--budget {text}: give a whole number of epochs, or a time such as 90s, 10min or 2h"
        )
    if number <= 0:
        raise SettingsError(f"--budget {text}: give a number above 0")
    if number * UNITS.get(unit, 1) > _MOST:
        raise SettingsError(f"--budget {text}: give at most {_MOST:,} epochs or seconds")
    if not unit:
        return Budget(number)
    if number * UNITS[unit] < _LEAST:
        raise SettingsError(
            f"--budget {text}: does not pay for compiling a run and confirming an answer; give at "
            f"least {_LEAST}s"
        )
    return Budget(number * UNITS[unit], seconds=True)


class Costs:
    """What runs cost of a budget, in its unit: epochs, or seconds learnt from ``trials``.

    The seconds of a configuration's epoch are the median of its own runs' or, before it has any,
    follow from the values of its hyperparameters (an additive model of the logarithm). The first
    epoch of a run also pays for compiling. 0 before any run has stored its seconds.
    """

    def __init__(self, budget: Budget, trials: Iterable[StoredTrial]) -> None:
        self.budget = budget
        self._own: dict[Configuration, float] = {}
        self._effects: dict[tuple[str, object], float] = {}
        self._mean = self.start = 0.0
        if budget.seconds:
            self._learn(trials)

    def _learn(self, trials: Iterable[StoredTrial]) -> None:
        epochs: dict[Configuration, list[float]] = defaultdict(list)
        starts = []
        for trial in trials:
            seconds = list(trial.curve.get("seconds", ()))
            if len(seconds) > 1:
                epochs[trial.configuration] += seconds[1:]
                starts.append(max(0.0, seconds[0] - statistics.median(seconds[1:])))
            elif seconds:
                epochs[trial.configuration] += seconds
        self._own = {one: statistics.median(held) for one, held in epochs.items()}
        if not self._own:
            return
        self.start = statistics.fmean(starts) if starts else 0.0
        names = sorted({pair for one in self._own for pair in one}, key=repr)
        design = np.array([[pair in set(one) for pair in names] for one in self._own], dtype=float)
        logs = np.log(np.maximum(list(self._own.values()), 1e-6))
        self._mean = float(logs.mean())
        left = design.T @ (logs - self._mean)
        effects = np.linalg.solve(design.T @ design + 0.5 * np.eye(len(names)), left)
        self._effects = dict(zip(names, effects.tolist(), strict=True))

    def epoch(self, configuration: Configuration) -> float:
        """The cost of an epoch of a configuration."""
        if not self.budget.seconds:
            return 1.0
        if configuration in self._own or not self._own:
            return self._own.get(configuration, 0.0)
        return math.exp(self._mean + sum(self._effects.get(pair, 0.0) for pair in configuration))

    def run(self, configuration: Configuration, done: int, until: int) -> float:
        """The cost of training a run from an epoch to another one."""
        return (until - done) * self.epoch(configuration) + (0.0 if done else self.start)

    def runs(self, configurations: Sequence[Configuration], until: int) -> float:
        """The cost of a new run of each of these."""
        return math.fsum(self.run(one, 0, until) for one in configurations)

    def spent(self, trial: StoredTrial, until: int | None = None) -> float:
        """What a run has cost; of a running one also what it will cost until it pauses or ends."""
        done = len(trial.reported)
        if self.budget.seconds and "seconds" in trial.curve:
            cost = math.fsum(trial.curve["seconds"])
        else:
            cost = self.run(trial.configuration, 0, max(1, done) if until is None else done)
        return cost if until is None else cost + self.run(trial.configuration, done, until)
