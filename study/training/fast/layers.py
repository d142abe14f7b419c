"""What layers and optimizer are computed as: themselves, or the same mathematics for less.

A stage takes a batch (n, ...) and the step's seed, (key, step) as two int64, None when the model is
judged, and gives the next batch (n, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import layers

from study.training.fast.fourier import Correlation
from study.training.private import adam_moments
from study.training.program import Tensor, at_rate

Stage = Callable[[Tensor, Tensor | None], Tensor]
_ROUNDING = 1e-6  # of a convolution in float32 over values up to 1; of empty patches it is 1e-7

ApplyGradients = Callable[..., None]
"""Takes gradients, the variables that the optimizer was built for, in that order, and, where there
is a schedule, the share of the learning rate it leaves."""


def stages(model_layers: Sequence[layers.Layer], batch: int) -> list[Stage]:
    """The stages of a model's layers, in order; it is trained in batches of `batch` images."""
    inner = [layer for layer in model_layers if not isinstance(layer, layers.InputLayer)]
    return [_stage(layer, position, batch) for position, layer in enumerate(inner)]


def _stage(layer: layers.Layer, position: int, batch: int) -> Stage:
    if type(layer) is layers.Dropout:
        return _dropout(layer.rate, position)
    if type(layer) is layers.Conv2D:
        return _convolution(layer, batch)
    if type(layer) is layers.BatchNormalization and layer.scale and layer.center:
        return _batch_norm(layer)
    return _stock(layer)


def apply_gradients(optimizer: keras.Optimizer) -> ApplyGradients:
    """A step of the optimizer: stock Adam as one operation a variable, others as they are.

    Keras' Adam takes a dozen operations a variable, and TensorFlow never forgets a graph that it
    was traced in: 7 MB for every configuration of a study (docs/log.md, "Memory of a
    worker").
    """
    if not _is_plain_adam(optimizer):
        return _as_it_is(optimizer)

    def adam(
        gradients: Sequence[Tensor],
        variables: Sequence[keras.Variable],
        share: Tensor | None = None,
    ) -> None:
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        rate = rate if share is None else rate * share
        steps = tf.cast(optimizer.iterations.value.assign_add(1), tf.float32)
        moments = adam_moments(optimizer)
        for gradient, variable, (first, second) in zip(gradients, variables, moments, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=first.value.handle,
                v=second.value.handle,
                beta1_power=optimizer.beta_1**steps,
                beta2_power=optimizer.beta_2**steps,
                lr=rate,
                beta1=optimizer.beta_1,
                beta2=optimizer.beta_2,
                epsilon=optimizer.epsilon,
                grad=gradient,
            )

    return adam


def _as_it_is(optimizer: keras.Optimizer) -> ApplyGradients:
    def apply(
        gradients: Sequence[Tensor],
        variables: Sequence[keras.Variable],
        share: Tensor | None = None,
    ) -> None:
        with at_rate(optimizer, share):
            optimizer.apply(gradients, variables)

    return apply


def _is_plain_adam(optimizer: keras.Optimizer) -> bool:
    """Whether nothing but Adam's own numbers was chosen: no clipping, decay, averages, scaling."""
    own = {"name", "learning_rate", "beta_1", "beta_2", "epsilon"}
    config, plain = optimizer.get_config(), keras.optimizers.Adam().get_config()
    return type(optimizer) is keras.optimizers.Adam and all(
        config[name] == value for name, value in plain.items() if name not in own
    )


def _stock(layer: layers.Layer) -> Stage:
    return lambda x, seed: layer(x, training=seed is not None)  # dropped where it takes none


def _convolution(layer: layers.Conv2D, batch: int) -> Stage:
    """A convolution by way of Fourier coefficients, where that is less work.

    Not on a GPU, which has better ways.
    """
    if not _is_plain_convolution(layer):
        return _stock(layer)
    same = layer.padding == "same"
    around = [((taps - 1) // 2, taps // 2) if same else (0, 0) for taps in layer.kernel_size]
    _, *sides, channels = layer.input.shape
    height, width = (side + sum(pads) for side, pads in zip(sides, around, strict=True))
    correlate = Correlation((height, width), layer.kernel_size)
    if not correlate.pays(channels, layer.filters, batch):
        return _stock(layer)
    # An empty patch gives exactly 0 in the first step, which ReLU has no gradient for: it stays.
    edge = _ROUNDING if layer.activation is keras.activations.relu else 0.0

    def stage(x: Tensor, _: Tensor | None) -> Tensor:
        x = tf.pad(x, [(0, 0), *around, (0, 0)]) if same else x
        x = correlate(x, layer.kernel)
        return layer.activation(x + (layer.bias - edge) if layer.use_bias else x)

    return stage


def _is_plain_convolution(layer: layers.Conv2D) -> bool:
    """Whether it meets every channel at every pixel, and a processor computes it."""
    steps = (*layer.strides, *layer.dilation_rate, layer.groups)
    return (
        set(steps) == {1}
        and layer.data_format == "channels_last"
        and layer.compute_dtype == "float32"
        and not tf.config.list_physical_devices("GPU")
    )


def _batch_norm(layer: layers.BatchNormalization) -> Stage:
    """Batch normalization of images in one operation, where Keras has a dozen."""

    def stage(x: Tensor, seed: Tensor | None) -> Tensor:
        fused = x.shape.rank == 4 and layer.axis in (-1, 3) and layer.trainable
        if seed is None or not fused:
            return layer(x, training=seed is not None)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=layer.gamma.value,
            offset=layer.beta.value,
            mean=[],
            variance=[],
            epsilon=layer.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(x) / x.shape[-1], x.dtype)
        biased = variance * (count - 1) / count  # as Keras remembers it
        for remembered, new in ((layer.moving_mean, mean), (layer.moving_variance, biased)):
            remembered.assign(layer.momentum * remembered + (1 - layer.momentum) * new)
        return y

    return stage


def _dropout(rate: float, salt: int) -> Stage:
    """Dropout as Keras has it, on 16 random bits an element instead of 32 made into a float.

    `rate` is rarely a multiple of 1/65536, so the threshold is one of its two neighbours, drawn
    once a batch such that the expected share of zeros is `rate`. `auto_select` is Philox on
    processors and GPUs, with the same numbers as `philox`, and scrambles the seed in one operation
    where that takes forty.
    """

    def stage(x: Tensor, seed: Tensor | None) -> Tensor:
        if seed is None or rate == 0:
            return x
        key, step = tf.unstack(seed)
        own = [key, step + (salt << 32)]
        size = math.prod(x.shape[1:])
        pairs = tf.random.stateless_uniform(
            [tf.shape(x)[0], -(-size // 2)], own, None, None, tf.uint32, alg="auto_select"
        )
        bits = tf.reshape(tf.bitcast(pairs, tf.uint16), [-1, 2 * pairs.shape[1]])[:, :size]
        between = tf.random.stateless_uniform([], [key, own[1] + (1 << 62)], alg="auto_select")
        threshold = tf.minimum(tf.floor(rate * 65536 + between), 65535)
        kept = tf.cast(bits >= tf.cast(threshold, tf.uint16), x.dtype) / (1 - rate)
        return x * tf.reshape(kept, tf.shape(x))

    return stage
