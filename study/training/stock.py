"""Stock training: a step is Keras' own `train_step`, with the model's loss, optimizer and metrics.

It trains whatever Keras trains. `fast` computes the same, to rounding, for the networks it knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from study.training.program import Data, Program, Tensor


class StockProgram(Program):
    """A model that Keras trains: the model is compiled, with a metric named `accuracy`.

    Labels reach the loss as class numbers, or one-hot where it is one of Keras' that wants them so.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._learner = self.model  # shares layers and optimizer with the model that is saved
        if smoothing := self._recipe.label_smoothing:
            self._learner = keras.Model(self.model.inputs, self.model.outputs)
            self._learner.compile(
                self.model.optimizer,
                keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
                metrics=["accuracy"],
            )

    def epoch(
        self, data: Data, order: NDArray[np.int64], key: int, number: int = 0, epochs: int = 1
    ) -> tuple[float, float]:
        self._learner.reset_metrics()
        self._trained(data, order, key, number, epochs)
        return _loss_and_accuracy(self._learner, len(order))

    def evaluate(self, data: Data, indices: NDArray[np.int64]) -> tuple[float, float]:
        self.model.reset_metrics()
        self._judged(data, indices)
        return _loss_and_accuracy(self.model, len(indices))

    def _step(self, x: Tensor, y: Tensor, seed: Tensor, rate: Tensor | None) -> Sequence[Tensor]:
        optimizer = self._learner.optimizer
        whole = tf.identity(optimizer.learning_rate)
        if rate is not None:
            optimizer.learning_rate.assign(whole * rate)
        self._learner.train_step((x, _wanted(self._learner, y)))
        if rate is not None:
            optimizer.learning_rate.assign(whole)
        return ()

    def _judge_batch(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        self.model.test_step((x, _wanted(self.model, y)))
        return ()


def takes_one_hot(model: keras.Model) -> bool:
    """Whether the loss of a compiled model is one of Keras' that compares with one-hot labels."""
    loss = keras.losses.get(model.loss)
    name = getattr(loss, "__name__", type(loss).__name__)
    return loss.__module__.startswith("keras.") and "sparse" not in name.lower()


def _wanted(model: keras.Model, labels: Tensor) -> Tensor:
    """Labels (n,) as the model's loss takes them: as they are, or one-hot (n, classes)."""
    return tf.one_hot(labels, model.output_shape[-1]) if takes_one_hot(model) else labels


def _loss_and_accuracy(model: keras.Model, images: int) -> tuple[float, float]:
    """What the model's metrics have seen: accuracy exact, which is a float32 in Keras."""
    metrics = model.get_metrics_result()
    loss, accuracy = float(metrics["loss"]), float(metrics["accuracy"])
    exact = round(accuracy * images) / images if math.isfinite(accuracy) else accuracy
    return loss, exact if math.isclose(exact, accuracy, rel_tol=1e-6) else accuracy
