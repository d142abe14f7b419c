"""Stock training: a step is Keras' own `train_step`, with the model's loss, optimizer and metrics.

It trains whatever Keras trains. `fast` computes the same, to rounding, for the networks it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from study.training.compiled import Logs, logs_in, smoothed, takes_one_hot
from study.training.program import Data, Program, Tensor, at_rate, hits


class StockProgram(Program):
    """A model that Keras trains: the model is compiled.

    Labels reach the loss as class numbers, or one-hot where it is one of Keras' that wants them so.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._learner = smoothed(self.model, self._recipe.label_smoothing)

    def epoch(
        self, data: Data, order: NDArray[np.int64], key: int, number: int = 0, epochs: int = 1
    ) -> Logs:
        self._learner.reset_metrics()
        self._trained(data, order, key, number, epochs)
        return logs_in(self._learner.get_metrics_result(), len(order))

    def evaluate(self, data: Data, indices: NDArray[np.int64]) -> Logs:
        self.model.reset_metrics()
        parts = self._judged(data, indices)
        logs = logs_in(self.model.get_metrics_result(), len(indices))
        return logs | self._by_classes(data, indices, parts)

    def _step(self, x: Tensor, y: Tensor, seed: Tensor, rate: Tensor | None) -> Sequence[Tensor]:
        with at_rate(self._learner.optimizer, rate):
            self._learner.train_step((x, self._labels(self._learner, y)))
        return ()

    def _judge_batch(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        self.model.test_step((x, self._labels(self.model, y)))
        return [hits(y, self.model(x, training=False))] if self._balanced else ()

    def _labels(self, model: keras.Model, labels: Tensor) -> Tensor:
        """Labels (n,) as a loss takes them: as they are, one-hot (n, classes), numbers (n, 1)."""
        if self._numbers:
            return labels[:, None]
        return tf.one_hot(labels, self._classes) if takes_one_hot(model) else labels
