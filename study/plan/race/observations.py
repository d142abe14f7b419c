"""From stored curves to logarithms of errors, which a race's model works with.

A relative difference of errors counts alike at every level. The error of a minimized metric is its
value, that of a maximized one is 1 minus its value: a race takes metrics of at least 0 that are
minimized, or of at most 1 that are maximized.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.errors import SettingsError
from study.plan.results import StoredTrial
from study.space.metric import Metric

_LARGEST = 10
"""The largest error that counts, as a multiple of the median reported one."""

_SMALLEST = 1e-4
"""The smallest one where no number of images bounds it, as such a multiple."""

CLOSE = 0.05
"""The default tolerance of a metric that is no accuracy: a share of the least error so far."""


@dataclass(frozen=True)
class Errors:
    """The errors of a metric as logarithms, within bounds; ``least`` is the least error so far."""

    metric: Metric
    low: float
    high: float
    least: float

    @classmethod
    def of(cls, metric: Metric, images: int | None, trials: Iterable[StoredTrial]) -> Errors:
        """From the values reported so far; raises ``SettingsError`` for a metric out of range."""
        if metric.is_accuracy:
            return cls(metric, 0.3 / images if images else 1e-5, 1.0, 0.0)
        found = [_error(metric, v) for trial in trials for v in trial.reported if math.isfinite(v)]
        least = min(found, default=0.0)
        if least < 0:
            raise SettingsError(
                f"--sampler race takes a metric of at least 0 that is minimized or of at most 1 "
                f"that is maximized, and {metric.name} has left that: choose another sampler"
            )
        middle = statistics.median(found or [0]) or 1.0
        return cls(metric, _SMALLEST * middle, _LARGEST * middle, least)

    def tolerance(self, given: float | None) -> float:
        """The tolerance in the unit of the metric."""
        return CLOSE * self.least if given is None else given

    def curve(self, trial: StoredTrial, rungs: Sequence[int]) -> list[float]:
        """The logarithm of a run's error at each rung that it has reached.

        It is the mean of the rung's last quarter of epochs, which is steadier than its last epoch;
        of a run that keeps its best epoch's weights, the best value so far.
        """
        reported = trial.continued(rungs[-1])
        reached = [rung for rung in rungs if rung <= len(reported)]
        if trial.params.get("restore_best_weights") or trial.params.get("patience"):
            sign = self.metric.sign
            return [self._log(sign * max(sign * v for v in reported[:r])) for r in reached]
        last = [reported[rung - max(1, rung // 4) : rung] for rung in reached]
        return [self._log(math.fsum(values) / len(values)) for values in last]

    def _log(self, value: float) -> float:
        error = _error(self.metric, value) if math.isfinite(value) else self.high
        return math.log(min(max(error, self.low), self.high))


def _error(metric: Metric, value: float) -> float:
    return value if metric.direction == "minimize" else 1 - value
