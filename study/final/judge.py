"""The metric that a study compares by, of what final models say of images they never saw.

It is Keras' of the compiled network: final models are not compiled, and an average never was.
Importing this module imports Keras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from study.data.pixels import Images, batches
from study.data.splitting import Labels
from study.space.metric import BALANCED
from study.training.compiled import logs_in, takes_one_hot
from study.training.custom_model import network_of

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.run import Run

Outputs = NDArray[np.float32]

_BALANCED = BALANCED.removeprefix("val_")


def outputs(member: keras.Model, images: Images) -> Outputs:
    """What a member as it was trained gives for images: (n, classes), or numbers (n, 1)."""
    parts = [np.asarray(member(part, training=False)) for part in batches(images)]
    return np.concatenate(parts)


def together(members: Sequence[Outputs]) -> Outputs:
    """What members give as one: their mean, and of logits the logarithm of mean probabilities."""
    each = np.stack(members)
    if len(each) == 1:
        return members[0]
    if each.shape[2] == 1 or (each.min() >= 0 and np.allclose(each.sum(axis=2), 1, atol=1e-3)):
        mean: Outputs = each.mean(axis=0)
        return mean
    exponents = np.exp(each - each.max(axis=2, keepdims=True))
    shares = exponents / exponents.sum(axis=2, keepdims=True)
    logits: Outputs = np.log(np.maximum(shares.mean(axis=0), np.finfo(np.float32).tiny))
    return logits


class Judge:
    """Measures a run's metric with the loss and the metrics that the run's network has.

    It builds that network, which runs the file of one of the user's own.
    """

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self._network, _ = network_of(run, dataset)
        self._numbers = dataset.regression
        self._name = run.metric.name.removeprefix("val_")

    def values(
        self, models: Sequence[Sequence[keras.Model]], images: Images, labels: Labels
    ) -> list[float | None]:
        """The metric of each model, which is given as its trained members."""
        said = {id(member): outputs(member, images) for model in models for member in model}
        return [self.value(together([said[id(m)] for m in model]), labels) for model in models]

    def value(self, said: Outputs, labels: Labels) -> float | None:
        """The metric of outputs for images of these labels, all of them as one batch.

        None if it is not finite, or if the network computes it in its own code, which needs more
        than outputs. A loss is without penalties on weights.
        """
        if self._name == _BALANCED:
            hits = said.argmax(1) == labels
            return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))
        if _is_computed_by_itself(self._network, self._name):
            return None
        wanted = keras.ops.convert_to_tensor(self._labels(labels, said.shape[1]))
        given = keras.ops.convert_to_tensor(said)
        if self._name == "loss":
            loss = self._network.compute_loss(y=wanted, y_pred=given)
            value = float(loss) - sum(map(float, self._network.losses))
        else:
            self._network.reset_metrics()
            found = self._network.compute_metrics(None, wanted, given)
            value = logs_in(found, len(labels)).get(self._name, math.nan)
        return value if math.isfinite(value) else None

    def _labels(self, labels: Labels, classes: int) -> Any:
        """Labels as the network's loss takes them, as stock training has them."""
        if self._numbers:
            return labels[:, None]
        return np.eye(classes, dtype=np.float32)[labels] if takes_one_hot(self._network) else labels


def _is_computed_by_itself(network: keras.Model, name: str) -> bool:
    """Whether a metric is updated by code of the network's class, not by Keras from outputs."""
    tracked = {metric.name for metric in network.metrics} - {"loss"}  # compiled ones are one entry
    steps = ("test_step", "compute_metrics")
    own = [getattr(type(network), step) is not getattr(keras.Model, step) for step in steps]
    return name in tracked or any(own)
