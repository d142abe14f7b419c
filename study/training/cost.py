"""Measures the cost of a run's network before it is trained."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from study.errors import TrainingFailed
from study.space.architecture import Cost, cost_of
from study.training.compiled import to_bytes
from study.training.custom_model import network_of

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.run import Run

_GROUPS = 25
_GROUP_SECONDS = 0.004


def measured(run: Run, dataset: Dataset) -> Cost:
    """The cost of the run's network; raises TrainingFailed if it exceeds the run's limits.

    The network has Keras' own layers, as a saved model has. The time is measured only where it is
    limited and everything else fits.
    """
    limits = run.limits
    assert limits is not None
    model, _ = network_of(run, dataset)
    if run.model is None:
        cost = cost_of(dict(run.params), dataset.input_shape, dataset.num_classes)
    else:
        trainable = sum(math.prod(one.shape) for one in model.trainable_variables)
        cost = Cost(trainable, len(to_bytes(model)))
    if limits.milliseconds is not None and limits.reason(cost) is None:
        cost = Cost(cost.parameters, cost.size, *milliseconds(model, dataset.input_shape))
    if (reason := limits.reason(cost)) is not None:
        raise TrainingFailed(reason)
    return cost


def milliseconds(model: Any, input_shape: tuple[int, ...]) -> tuple[float, float]:
    """Processor time of the model for one picture, in ms, and its standard error.

    The median of groups of calls: other work on the machine makes single ones slower. The error is
    that of the median of as many normal values, 1.25 times that of their mean.
    """
    classify = tf.function(lambda images: model(images, training=False))
    picture = tf.constant(np.random.default_rng(0).random((1, *input_shape), np.float32))

    def seconds(calls: int) -> float:
        began = time.process_time()
        for _ in range(calls):
            classify(picture)
        return time.process_time() - began

    seconds(10)  # traces, and warms caches
    calls = max(1, math.ceil(_GROUP_SECONDS / max(seconds(10) / 10, 1e-6)))
    groups = [1000 * seconds(calls) / calls for _ in range(_GROUPS)]
    error = math.sqrt(math.pi / 2) * statistics.stdev(groups) / math.sqrt(_GROUPS)
    return statistics.median(groups), error
