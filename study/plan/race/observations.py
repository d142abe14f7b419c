"""From stored curves to the observations of a race's model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.plan.race.candidates import Candidates
from study.plan.race.model import Array, Cells
from study.plan.results import StoredTrial

_SHRINKAGE = 4
"""Complete trials that the slope of curves counts as, for the shift to stored values."""

_EVERY_RUNG = 200
"""Up to this many trials every rung that they have reached is an observation."""


@dataclass(frozen=True)
class ObservationModel:
    """How curves become observations of the model: log errors at rungs, with expected variances.

    ``images`` are the validation images of a repeat, drawn from a ``pool`` of that many (None: the
    metric is no share of images); an error of ``unit_error`` counts as 1.
    """

    rungs: tuple[int, ...]
    images: int | None
    pool: int | None = None
    unit_error: float = 1.0

    def observe(self, trials: Sequence[StoredTrial], candidates: Candidates) -> tuple[Cells, Array]:
        """The cells that these trials have reached, and the logarithm of the error there.

        A rung's value is the mean of its last quarter of epochs, which is steadier than its last
        epoch. Beyond 200 trials only each one's last rung is used, for speed.
        """
        cells, values = [], []
        few = len(trials) <= _EVERY_RUNG
        for trial in trials:
            place = candidates.index[trial.configuration]
            reached = [n for n, epochs in enumerate(self.rungs) if epochs <= len(trial.reported)]
            for rung in reached if few else reached[-1:]:
                cells.append((place, trial.repeat, rung, trial.number))
                values.append(self._value(trial, self.rungs[rung]))
        return Cells(*np.array(cells, dtype=np.intp).reshape(-1, 4).T), np.array(values)

    def expected(self, error: float) -> tuple[float, float]:
        """Expected variances of the logarithm of such an error: of a run, and of a repeat.

        Half of what independent answers would have: about half of the errors are made on images
        that every run finds hard.
        """
        if not self.images:
            return 0.012, 0.01
        spread = 0.5 / (error * self.unit_error * self.images)
        return spread, spread * max(1 - self.images / (self.pool or math.inf), 0.05)

    def sampling_deviation(self, error: float) -> float:
        """The standard deviation of the logarithm of such an error over pools of images."""
        return 1 / math.sqrt(error * self.unit_error * self.pool) if self.pool else 0.0

    def _value(self, trial: StoredTrial, epochs: int) -> float:
        if _keeps_best(trial):
            return self._log(max(trial.reported[:epochs]))
        last = trial.reported[epochs - _tail(epochs) : epochs]
        return self._log(math.fsum(last) / len(last))

    def _log(self, accuracy: float) -> float:
        least = 0.3 / self.images if self.images else 1e-5
        return math.log(min(max(1 - accuracy, least), 1.0)) if math.isfinite(accuracy) else 0.0

    def final_shift(self, trials: Sequence[StoredTrial]) -> float:
        """The log error of a run's stored value minus that of its last rung.

        The mean over complete trials, shrunk towards the slope of their curves.
        """
        ended = [
            trial
            for trial in trials
            if trial.value is not None and len(trial.reported) >= self.rungs[-1]
        ]
        if not ended or len(self.rungs) < 2:
            return 0.0
        before, last = self.rungs[-2:]
        way = math.log(last / (last - (_tail(last) - 1) / 2)) / math.log(last / before)
        ends = [self._value(trial, last) for trial in ended]
        slope = [end - self._value(trial, before) for trial, end in zip(ended, ends, strict=True)]
        off = [self._log(trial.value or 0.0) - end for trial, end in zip(ended, ends, strict=True)]
        expected = 0.0 if _keeps_best(ended[0]) else way * math.fsum(slope) / len(slope)
        return (math.fsum(off) + _SHRINKAGE * expected) / (len(off) + _SHRINKAGE)


def _keeps_best(trial: StoredTrial) -> bool:
    """Whether the value of a run is that of its best epoch."""
    return bool(trial.params.get("restore_best_weights") or trial.params.get("patience"))


def _tail(epochs: int) -> int:
    """Over how many of a rung's last epochs its value is averaged."""
    return max(1, epochs // 4)
