"""Any metric as an accuracy, for a model of the logarithm of errors, and what it says turned back.

Of a metric that is minimized the error is its value, of another one what it lacks of 1: differences
of a few per cent count alike wherever the metric is. It follows that a race needs a metric of at
least 0 that is minimized, or of at most 1 that is maximized.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from study.errors import SettingsError
from study.plan.effects import Effects, Level, Pair
from study.plan.results import StoredTrial
from study.plan.verdict import Contender, Verdict
from study.space.metric import Metric

_WHOLE = 10
"""The error that counts as 1, and larger ones with it, by the median of all that were reported."""

CLOSE = 0.05
"""What counts as equal where nobody says it: a share of the least error so far."""


@dataclass(frozen=True)
class AsErrors:
    """A metric with the error (in its own unit) that counts as 1, and the least one so far."""

    metric: Metric
    whole: float
    least: float

    @classmethod
    def of(cls, metric: Metric, rows: Iterable[StoredTrial]) -> AsErrors:
        """By what these rows have reported; raises ``SettingsError`` for a metric out of range."""
        if metric.is_accuracy:
            return cls(metric, 1.0, 0.0)
        found = [_error(metric, v) for row in rows for v in row.reported if math.isfinite(v)]
        least = min(found, default=0.0)
        if least < 0:
            raise SettingsError(
                f"--sampler race takes a metric of at least 0 that is minimized or of at most 1 "
                f"that is maximized, and {metric.name} has left that: choose another sampler"
            )
        return cls(metric, _WHOLE * statistics.median(found or [0]) or 1.0, least)

    def tolerance(self, given: float | None) -> float:
        """How much worse than the best is as good, as a share of the error that counts as 1."""
        return (CLOSE * self.least if given is None else given) / self.whole

    def row(self, row: StoredTrial) -> StoredTrial:
        """The row with accuracies in place of the metric."""
        if self.metric.is_accuracy:
            return row
        value = None if row.value is None else self._accuracy(row.value)
        return replace(row, value=value, reported=tuple(map(self._accuracy, row.reported)))

    def verdict(self, verdict: Verdict) -> Verdict:
        """What is said of a race, in the metric's own unit."""
        if self.metric.is_accuracy:
            return verdict
        near, far = (self.whole * part for part in verdict.distance)
        return replace(
            verdict,
            leader=self._contender(verdict.leader),
            top=tuple(map(self._contender, verdict.top)),
            interval=self._ends(verdict.interval),
            distance=(near, far),
            tolerance=self.whole * verdict.tolerance,
        )

    def effects(self, effects: Effects) -> Effects:
        """What is said of hyperparameters and pairs, in the metric's own unit."""
        if self.metric.is_accuracy:
            return effects
        main = [
            replace(one, levels=tuple(map(self._level, one.levels)), size=self.whole * one.size)
            for one in effects.main
        ]
        return Effects(tuple(main), tuple(map(self._pair, effects.pairs)))

    def _accuracy(self, value: float) -> float:
        return 1 - _error(self.metric, value) / self.whole

    def _value(self, accuracy: float) -> float:
        return _error(self.metric, (1 - accuracy) * self.whole)

    def _ends(self, accuracies: tuple[float, float]) -> tuple[float, float]:
        low, high = sorted(map(self._value, accuracies))
        return low, high

    def _contender(self, one: Contender) -> Contender:
        value, error = self._value(one.value), self.whole * one.standard_error
        return replace(one, value=value, standard_error=error)

    def _level(self, one: Level) -> Level:
        low, high = self._ends((one.low, one.high))
        return replace(one, accuracy=self._value(one.accuracy), low=low, high=high)

    def _pair(self, one: Pair) -> Pair:
        return replace(one, shown=self.whole * one.shown, possible=self.whole * one.possible)


def _error(metric: Metric, value: float) -> float:
    """What a value lacks of the best there is; and the value of such an error."""
    return value if metric.direction == "minimize" else 1 - value
