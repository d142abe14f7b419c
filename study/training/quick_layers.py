"""Faster ways to compute some of Keras' layers on a CPU, put under a model's own `train_step`.

A layer keeps its class, its variables and its configuration, so a saved model holds stock layers
only. What is replaced, on each instance, is the method that computes. A layer of a subclass, or
with an option that is not known here, is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from study.training.fourier import Correlation
from study.training.private import adam_moments, flat_layers

Tensor = Any
_ROUNDING = 1e-6  # of a convolution in float32 over values up to 1; of empty patches it is 1e-7


def prepare(model: keras.Model, batch: int) -> None:
    """Have the layers and the optimizer of a compiled model compute faster.

    Results are those of Keras to rounding, but for the random numbers of dropout. ``batch`` is the
    number of images in a training batch.
    """
    for layer in flat_layers(model):
        if layer.compute_dtype != "float32" or "call" in vars(layer):
            continue
        if type(layer) is layers.Dropout and layer.rate and layer.noise_shape is None:
            layer.call = _dropout(layer)
        elif type(layer) is layers.Conv2D and _is_plain(layer):
            layer.call = _convolution(layer, batch)
        elif type(layer) is layers.BatchNormalization and _is_fusible(layer):
            layer.call = _batch_normalization(layer)
    if type(model.optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW):
        _fuse_adam(model.optimizer)


def _dropout(layer: layers.Dropout) -> Callable[..., Tensor]:
    """Dropout on 16 random bits an element, where Keras makes floats of 32.

    The rate is rarely a multiple of 1/65536, so the threshold is one of its two neighbours, drawn
    once a batch such that the expected share of zeros is the rate. `auto_select` is Philox on
    processors and scrambles the seed in one operation.
    """
    stock, rate = layer.call, layer.rate

    def call(inputs: Tensor, training: bool = False) -> Tensor:  # noqa: FBT001
        size = math.prod(length or 0 for length in inputs.shape[1:])
        if not training or inputs.dtype != tf.float32 or not size or rate >= 1:
            return stock(inputs, training=training)
        key, step = tf.unstack(tf.cast(layer.seed_generator.next(), tf.int64))
        pairs = tf.random.stateless_uniform(
            [tf.shape(inputs)[0], -(-size // 2)],
            [key, step],
            None,
            None,
            tf.uint32,
            alg="auto_select",
        )
        bits = tf.reshape(tf.bitcast(pairs, tf.uint16), [-1, 2 * pairs.shape[1]])[:, :size]
        between = tf.random.stateless_uniform([], [key, step + (1 << 62)], alg="auto_select")
        threshold = tf.minimum(tf.floor(rate * 65536 + between), 65535)
        kept = tf.cast(bits >= tf.cast(threshold, tf.uint16), inputs.dtype) / (1 - rate)
        return inputs * tf.reshape(kept, tf.shape(inputs))

    return call


def _is_plain(layer: layers.Conv2D) -> bool:
    """Whether a convolution meets every channel at every pixel."""
    return {*layer.strides, *layer.dilation_rate, layer.groups} == {
        1
    } and layer.data_format == "channels_last"


def _convolution(layer: layers.Conv2D, batch: int) -> Callable[[Tensor], Tensor]:
    """A convolution with Fourier coefficients, where that is less work.

    The size of the images is known where the layer is called.
    """
    stock, same = layer.call, layer.padding == "same"
    around = [((taps - 1) // 2, taps // 2) if same else (0, 0) for taps in layer.kernel_size]
    # An empty patch gives exactly 0 in the first step, which ReLU has no gradient for: it stays.
    edge = _ROUNDING if layer.activation is keras.activations.relu else 0.0
    correlation = cache(Correlation)

    def call(inputs: Tensor) -> Tensor:
        _, *sides, channels = inputs.shape
        if None in sides or inputs.dtype != tf.float32:
            return stock(inputs)
        height, width = (side + sum(pads) for side, pads in zip(sides, around, strict=True))
        correlate = correlation((height, width), layer.kernel_size)
        if not correlate.pays(channels, layer.filters, batch):
            return stock(inputs)
        padded = tf.pad(inputs, [(0, 0), *around, (0, 0)]) if same else inputs
        outputs = correlate(padded, tf.convert_to_tensor(layer.kernel))
        outputs = outputs + (layer.bias - edge) if layer.use_bias else outputs
        return layer.activation(outputs)

    return call


def _is_fusible(layer: layers.BatchNormalization) -> bool:
    return bool(layer.scale and layer.center and not layer.renorm and not layer.synchronized)


def _batch_normalization(layer: layers.BatchNormalization) -> Callable[..., Tensor]:
    """Batch normalization of images in one operation, where Keras has a dozen."""
    stock = layer.call

    def call(
        inputs: Tensor,
        training: bool | None = None,  # noqa: FBT001 - as Keras has it
        mask: Tensor | None = None,
    ) -> Tensor:
        images = inputs.shape.rank == 4 and layer.axis in (-1, 3) and inputs.dtype == tf.float32
        if not training or not layer.trainable or mask is not None or not images:
            return stock(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=layer.gamma.value,
            offset=layer.beta.value,
            mean=[],
            variance=[],
            epsilon=layer.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], inputs.dtype)
        biased = variance * (count - 1) / count  # as Keras remembers it
        for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, biased)):
            moving.assign(layer.momentum * moving + (1 - layer.momentum) * new)
        return outputs

    return call


def _fuse_adam(optimizer: keras.optimizers.Adam) -> None:
    """Adam's update of a variable as one operation.

    Keras' own takes a dozen, and TensorFlow never forgets a graph that it was traced in: 7 MB for
    every configuration of a study. Clipping, decay, averages, scaling and accumulation are around
    the update, and stay.
    """
    if optimizer.amsgrad:
        return
    stock = optimizer._backend_update_step

    def update(gradients: Sequence[Tensor], variables: Sequence[Any], rate: Tensor) -> None:
        sparse = any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        if sparse or any(variable.dtype != "float32" for variable in variables):
            stock(gradients, variables, rate)
            return
        steps = tf.cast(optimizer.iterations + 1, tf.float32)
        numbers = {
            "beta1_power": optimizer.beta_1**steps,
            "beta2_power": optimizer.beta_2**steps,
            "lr": tf.cast(rate, tf.float32),
            "beta1": optimizer.beta_1,
            "beta2": optimizer.beta_2,
            "epsilon": optimizer.epsilon,
        }
        for gradient, variable in zip(gradients, variables, strict=True):
            first, second = adam_moments(optimizer, variable)
            handles = {"var": variable.value.handle, "m": first.value.handle}
            tf.raw_ops.ResourceApplyAdam(**handles, v=second.value.handle, grad=gradient, **numbers)

    optimizer._backend_update_step = update
