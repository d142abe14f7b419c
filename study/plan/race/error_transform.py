"""Maps any metric to an error in (0, 1] for the model of log errors, and results back.

The error of a minimized metric is its value, that of a maximized one is 1 minus its value: a
relative difference of errors counts alike at every level. A race therefore needs a metric of at
least 0 that is minimized, or of at most 1 that is maximized.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from study.errors import SettingsError
from study.plan.race.effects import Effects, Level, Pair
from study.plan.race.result import Contender, RaceResult
from study.plan.results import StoredTrial
from study.space.metric import Metric

_UNIT = 10
"""The error that counts as 1 (larger ones too), as a multiple of the median reported one."""

CLOSE = 0.05
"""The default tolerance: a share of the least error so far."""


@dataclass(frozen=True)
class ErrorTransform:
    """A metric with the error (in its own unit) that counts as 1, and the least error so far."""

    metric: Metric
    unit_error: float
    least: float

    @classmethod
    def of(cls, metric: Metric, trials: Iterable[StoredTrial]) -> ErrorTransform:
        """From the values reported so far; raises ``SettingsError`` for a metric out of range."""
        if metric.is_accuracy:
            return cls(metric, 1.0, 0.0)
        found = [_error(metric, v) for trial in trials for v in trial.reported if math.isfinite(v)]
        least = min(found, default=0.0)
        if least < 0:
            raise SettingsError(
                f"--sampler race takes a metric of at least 0 that is minimized or of at most 1 "
                f"that is maximized, and {metric.name} has left that: choose another sampler"
            )
        return cls(metric, _UNIT * statistics.median(found or [0]) or 1.0, least)

    def tolerance(self, given: float | None) -> float:
        """The tolerance as a share of the error that counts as 1."""
        return (CLOSE * self.least if given is None else given) / self.unit_error

    def trial(self, trial: StoredTrial) -> StoredTrial:
        """The trial with accuracies in place of the metric."""
        if self.metric.is_accuracy:
            return trial
        value = None if trial.value is None else self._accuracy(trial.value)
        return replace(trial, value=value, reported=tuple(map(self._accuracy, trial.reported)))

    def result(self, result: RaceResult) -> RaceResult:
        """A race's result in the metric's own unit."""
        if self.metric.is_accuracy:
            return result
        near, far = (self.unit_error * part for part in result.distance)
        return replace(
            result,
            leader=self._contender(result.leader),
            top=tuple(map(self._contender, result.top)),
            interval=self._ends(result.interval),
            distance=(near, far),
            tolerance=self.unit_error * result.tolerance,
        )

    def effects(self, effects: Effects) -> Effects:
        """Effects of hyperparameters and pairs in the metric's own unit."""
        if self.metric.is_accuracy:
            return effects
        main = [
            replace(
                one, levels=tuple(map(self._level, one.levels)), size=self.unit_error * one.size
            )
            for one in effects.main
        ]
        return Effects(tuple(main), tuple(map(self._pair, effects.pairs)))

    def _accuracy(self, value: float) -> float:
        return 1 - _error(self.metric, value) / self.unit_error

    def _value(self, accuracy: float) -> float:
        return _error(self.metric, (1 - accuracy) * self.unit_error)

    def _ends(self, accuracies: tuple[float, float]) -> tuple[float, float]:
        low, high = sorted(map(self._value, accuracies))
        return low, high

    def _contender(self, one: Contender) -> Contender:
        value, error = self._value(one.value), self.unit_error * one.standard_error
        return replace(one, value=value, standard_error=error)

    def _level(self, one: Level) -> Level:
        low, high = self._ends((one.low, one.high))
        return replace(one, accuracy=self._value(one.accuracy), low=low, high=high)

    def _pair(self, one: Pair) -> Pair:
        return replace(
            one, shown=self.unit_error * one.shown, possible=self.unit_error * one.possible
        )


def _error(metric: Metric, value: float) -> float:
    """The error of a value; and, as the map is its own inverse, the value of an error."""
    return value if metric.direction == "minimize" else 1 - value
