"""Where a network looks: Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391).

Importing this module imports Keras.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from study.errors import ModelError
from study.final.classifier import BACKBONE

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
)


def heat_maps(
    network: keras.Model, pixels: NDArray[Any], classes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How much each place speaks for the given class of each image: (n, height, width) of 0..1.

    ``network`` is one that finalize has written, of pixels (n, height, width, channels) of 0..255;
    of an average it is the mean over its members. Raises ``ModelError`` where a member has no
    convolution.
    """
    members = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    shared = [one for one in members if one.name == BACKBONE]
    images = tf.constant(pixels.astype(np.float32) / 255)
    maps = [_of_member([*shared, one], images, classes) for one in members if one not in shared]
    return np.asarray(np.mean(maps, axis=0), np.float32)


def _of_member(
    member: Sequence[keras.Model], images: Any, classes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The map of a member: its network, or a backbone and its head."""
    inner = [layer for one in member for layer in one._flatten_layers()]
    convolutions = [one for one in inner if isinstance(one, _CONVOLUTIONS)]
    if not convolutions:
        raise ModelError("--grad-cam: the network has no convolution; leave it out")
    with tf.GradientTape() as tape, _recorded(convolutions) as features:
        tape.watch(images)  # for a network whose weights are frozen
        outputs = images
        for one in member:
            outputs = one(outputs, training=False)
        score = tf.gather(_scores(outputs), classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(score, features[-1]), axis=(1, 2), keepdims=True)
    found = tf.nn.relu(tf.reduce_sum(weights * features[-1], axis=3, keepdims=True))
    whole = np.asarray(tf.image.resize(found, images.shape[1:3]))[..., 0]
    largest = whole.max(axis=(1, 2), keepdims=True)
    return np.asarray(whole / np.where(largest > 0, largest, 1), np.float32)


@contextmanager
def _recorded(layers: Sequence[Any]) -> Iterator[list[Any]]:
    """A list that gets the outputs of these layers in the order in which they are called."""
    outputs: list[Any] = []

    def recording(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def recorded(*given: Any, **named: Any) -> Any:
            outputs.append(call(*given, **named))
            return outputs[-1]

        return recorded

    try:
        for layer in layers:
            layer.call = recording(layer.call)
        yield outputs
    finally:
        for layer in layers:
            del layer.call


def _scores(outputs: Any) -> Any:
    """Logits; of probabilities the logarithms, whose gradients do not vanish where it is sure."""
    sums = tf.reduce_sum(outputs, axis=1)
    if bool(tf.reduce_all(outputs >= 0)) and np.allclose(sums, 1, atol=1e-3):
        return tf.math.log(tf.maximum(outputs, np.finfo(np.float32).tiny))
    return outputs
