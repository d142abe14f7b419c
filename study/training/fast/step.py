"""The fast step: the mathematics of a chain of Keras' layers, with the model's own variables.

It walks the model's layers itself. Only where a stock `Dropout` stands are its random numbers
drawn more cheaply, and where `study.training.fast.layers` knows a pattern is it computed another
way, with the same result to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from study.space.metric import ACCURACY, Metric
from study.training.compiled import Logs
from study.training.fast.layers import apply_gradients, stages
from study.training.model import METRICS
from study.training.program import Data, Program, Tensor, hits

_CROSSENTROPIES = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.categorical_crossentropy,
)


class FastProgram(Program):
    """A model of which nothing is `unknown`."""

    _results = (tf.float32, tf.int32)  # sums over a batch: losses, hits

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._stages = stages(self.model.layers, self._batch)
        self._apply = apply_gradients(self.model.optimizer)

    def epoch(
        self, data: Data, order: NDArray[np.int64], key: int, number: int = 0, epochs: int = 1
    ) -> Logs:
        return _means(self._trained(data, order, key, number, epochs), len(order))

    def evaluate(self, data: Data, indices: NDArray[np.int64]) -> Logs:
        parts = self._judged(data, indices)
        return _means(parts, len(indices)) | self._by_classes(data, indices, parts)

    def _step(self, x: Tensor, y: Tensor, seed: Tensor, rate: Tensor | None) -> Sequence[Tensor]:
        with tf.GradientTape() as tape:
            probabilities = self._forward(x, seed)
            losses = self._losses(y, probabilities)
            target = tf.add_n([tf.reduce_mean(losses), *self.model.losses])
        variables = self.model.trainable_variables
        self._apply(tape.gradient(target, variables), variables, rate)
        return tf.reduce_sum(self._with_penalties(losses)), tf.reduce_sum(hits(y, probabilities))

    def _judge_batch(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        probabilities = self._forward(x, None)
        losses = keras.losses.sparse_categorical_crossentropy(y, probabilities)
        return self._with_penalties(losses), hits(y, probabilities)

    def _losses(self, y: Tensor, probabilities: Tensor) -> Tensor:
        """Cross-entropies (n,) of labels (n,) and probabilities (n, classes)."""
        smoothing = self._recipe.label_smoothing
        if not smoothing:
            return keras.losses.sparse_categorical_crossentropy(y, probabilities)
        truth = tf.one_hot(y, probabilities.shape[-1])
        return keras.losses.categorical_crossentropy(
            truth, probabilities, label_smoothing=smoothing
        )

    def _with_penalties(self, losses: Tensor) -> Tensor:
        """Losses (n,), each with what the weights' regularizers add, as Keras reports them."""
        return losses + tf.add_n(self.model.losses) if self.model.losses else losses

    def _forward(self, x: Tensor, seed: Tensor | None) -> Tensor:
        for stage in self._stages:
            x = stage(x, seed)
        return x


def unknown(model: keras.Model, metric: Metric = ACCURACY) -> str | None:
    """What about a compiled model is not known here, in a few words; None where nothing is.

    The ``metric`` of its study is logged here too, or is not known.
    """
    if not type(model).__module__.startswith("keras."):
        return f"the class {type(model).__name__}"
    for layer in model.layers:
        if not type(layer).__module__.startswith("keras.") or isinstance(layer, keras.Model):
            return f"the layer {layer.name} ({type(layer).__name__})"
        if layer.compute_dtype != "float32" or layer.activity_regularizer is not None:
            return f"an option of the layer {layer.name}"
    inner = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    chain = all(_follows(one, next_one) for one, next_one in pairwise(inner))
    wrong = {
        "layers that are no chain": not chain or not _is_whole(model, inner),
        "a constraint of weights": any(v.constraint for v in model.trainable_variables),
        "the loss": not _is_crossentropy(model.loss),
        f"the metric {metric.name}": metric.name not in METRICS,
    }
    return next((what for what, is_so in wrong.items() if is_so), None)


def _follows(layer: keras.Layer, next_layer: keras.Layer) -> bool:
    try:
        return next_layer.input is layer.output
    except (AttributeError, ValueError):  # it has several, or was called several times
        return False


def _is_whole(model: keras.Model, inner: Sequence[keras.Layer]) -> bool:
    """Whether the first layer takes the model's input and the last gives its output."""
    try:
        return inner[0].input is model.inputs[0] and inner[-1].output is model.outputs[0]
    except (AttributeError, IndexError, ValueError):
        return False


def _is_crossentropy(loss: Any) -> bool:
    """Whether a loss is the plain cross-entropy of probabilities."""
    loss = keras.losses.get(loss)
    if type(loss) in _CROSSENTROPIES:
        return bool(loss.get_config() == type(loss)(name=loss.name).get_config())
    return loss in _CROSSENTROPIES


def _means(parts: Sequence[Sequence[NDArray[Any]]], images: int) -> Logs:
    """Sums of losses and of hits over all parts, in float64, by the number of images."""
    losses, right = (
        np.concatenate(part).sum(dtype=np.float64) for part in zip(*parts, strict=True)
    )
    return {"loss": float(losses / images), "accuracy": float(right / images)}
