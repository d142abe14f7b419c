"""A Keras callback that reports each epoch to an Optuna trial and stops a weak run.

It works in `study.training.train` and in a plain `model.fit` with validation data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from optuna.trial import Trial


class ReportAndPrune(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports ``monitor`` after every epoch; ``pruned`` says whether the pruner stopped the run.

    It sets ``model.stop_training`` and raises nothing: an exception in here would keep other
    callbacks from their ``on_train_end``. Raise ``optuna.TrialPruned`` after the training. Steps
    count epochs from 1; one trial is one training run, so that no two runs share a step.
    """

    def __init__(self, trial: Trial, monitor: str = "val_accuracy") -> None:
        super().__init__()
        self.trial = trial
        self.monitor = monitor
        self.pruned = False

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report, then ask the pruner."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            raise KeyError(f"{self.monitor} is not measured: give the training validation data")
        self.trial.report(float(value), step=epoch + 1)
        if self.trial.should_prune():
            self.pruned = True
            self.model.stop_training = True
