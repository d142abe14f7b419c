"""Labels, metrics, bytes and variables of a compiled Keras model, with every backend of Keras."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

Logs = dict[str, float]
"""The metrics of an epoch by Keras' names: `loss`, `accuracy` and others."""

_ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy")


def takes_one_hot(model: keras.Model) -> bool:
    """Whether the loss of a compiled model is one of Keras' that compares with one-hot labels."""
    loss: Any = model.loss
    if isinstance(loss, Mapping | list | tuple) and len(loss) == 1:  # that of the only output
        (loss,) = loss.values() if isinstance(loss, Mapping) else loss
    if loss is None:  # the model adds its own
        return False
    loss = keras.losses.get(loss)
    name = getattr(loss, "__name__", type(loss).__name__)
    return loss.__module__.startswith("keras.") and "sparse" not in name.lower()


def logs_in(metrics: Mapping[str, Any], images: int) -> Logs:
    """The metrics of a compiled model over a number of images, without those of several numbers.

    Accuracy is called `accuracy` whatever Keras calls it, and is exact (Keras' is a float32).
    """
    logs = {name: float(value) for name, value in metrics.items() if np.size(value) == 1}
    named = next((name for name in _ACCURACIES if name in logs), None)
    if named is not None:
        accuracy = logs[named]
        exact = round(accuracy * images) / images if math.isfinite(accuracy) else accuracy
        close = math.isclose(exact, accuracy, rel_tol=1e-6)
        logs["accuracy"] = exact if close else accuracy
    return logs


def judge(model: keras.Model, images: Any, labels: Any) -> None:
    """Update the model's metrics with a batch; the first time, Keras creates their variables."""
    if keras.backend.backend() == "tensorflow":
        model.test_step((images, labels))  # traces nothing
    else:
        model.test_on_batch(images, labels)


def smoothed(model: keras.Model, smoothing: float) -> keras.Model:
    """A model that learns from smoothed labels, with the layers and optimizer of ``model``."""
    if not smoothing:
        return model
    learner = keras.Model(model.inputs[0], model.outputs[0])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    learner.compile(model.optimizer, loss, metrics=["accuracy"])
    return learner


def to_bytes(model: keras.Model) -> bytes:
    """The bytes of a model's `.keras` file."""
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


def from_bytes(model: bytes, own: Mapping[str, Any]) -> keras.Model:
    """The model of a `.keras` file that this program has made, not compiled.

    ``own`` are the classes of the user's file that it may need.
    """
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(model)
        return keras.models.load_model(path, compile=False, custom_objects=dict(own))


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """Weights, states of random generators and the optimizer's variables of a compiled model."""
    return [*model.variables, *model.optimizer.variables]


def initialize(model: keras.Model, draw: Callable[[int, int], int]) -> None:
    """Give a model new weights, from each layer's own initializers, and new random generators.

    `draw(layer, variable)` gives the seed of a variable by the positions of layer and variable.
    """
    for position, layer in enumerate(model.layers):
        weights = {id(weight) for weight in layer.weights}
        for index, variable in enumerate(layer.variables):
            seed = draw(position, index)
            if id(variable) not in weights:  # the state of a generator: seed and counter
                variable.assign([seed, 0])
            elif initializer := getattr(layer, f"{variable.name}_initializer", None):
                variable.assign(_seeded(initializer, seed)(variable.shape, variable.dtype))
            elif variable.trainable:
                raise TypeError(f"no initializer for {variable.path}")


def _seeded(initializer: Any, seed: int) -> Any:
    """The same initializer with this seed; those that draw nothing are unchanged."""
    config = initializer.get_config()
    return type(initializer).from_config({**config, "seed": seed} if "seed" in config else config)
