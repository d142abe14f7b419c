"""What a group computes in another way than Keras' layers do alone, with the same result.

A dropout layer takes its rate from the run that is being trained, so that runs that differ in it
are one program. Convolutions of many runs, each with a kernel of its own, would be grouped
convolutions, which neither cuDNN nor XLA do well (docs/log.md): here they are products of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras

Array = Any


class Rate:
    """The dropout rate of the run that is being traced, for every dropout layer of a network."""

    value: Array = 0.0


def prepare(model: keras.Model, rate: Rate | None) -> None:
    """Have the layers of `model` compute what this module knows.

    With ``rate`` all dropout layers have that one.
    """
    for layer in _flat(model):
        if type(layer) is keras.layers.Dropout and rate is not None and layer.rate:
            layer.call = _dropout(layer, rate)
        elif type(layer) is keras.layers.Conv2D and _is_plain(layer):
            layer.convolution_op = _convolution(layer)
        elif type(layer) is keras.layers.MaxPooling2D and _is_tiled(layer):
            layer.call = _largest(layer)


def _flat(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _flat(layer)


def _dropout(layer: Any, rate: Rate) -> Callable[..., Array]:
    def call(inputs: Array, *, training: bool = False) -> Array:
        if not training:
            return inputs
        kept = 1 - rate.value
        mask = jax.random.bernoulli(layer.seed_generator.next(), kept, inputs.shape)
        return jnp.where(mask, inputs / kept, 0)

    return call


def _is_plain(layer: Any) -> bool:
    return bool(
        layer.groups == 1
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
        and layer.compute_dtype == "float32"
    )


def _convolution(layer: Any) -> Callable[[Array, Array], Array]:
    """As a product of the kernel with the patches of the images (n, height, width, channels)."""
    down, right = layer.strides

    def convolution(inputs: Array, kernel: Array) -> Array:
        high, wide, channels, filters = kernel.shape
        if layer.padding == "same":
            edges = map(_padding, inputs.shape[1:3], (high, wide), layer.strides)
            inputs = jnp.pad(inputs, ((0, 0), *edges, (0, 0)))
        rows = 1 + (inputs.shape[1] - high) // down
        columns = 1 + (inputs.shape[2] - wide) // right
        # Rows first, then columns: fewer slices are compiled in half the time.
        tall = [inputs[:, i : i + down * (rows - 1) + 1 : down] for i in range(high)]
        strips = jnp.stack(tall, axis=3)
        broad = [strips[:, :, j : j + right * (columns - 1) + 1 : right] for j in range(wide)]
        patches = jnp.stack(broad, axis=3).reshape(-1, rows, columns, wide * high * channels)
        turned = jnp.swapaxes(keras.ops.convert_to_tensor(kernel), 0, 1)
        return jnp.dot(patches, turned.reshape(-1, filters))

    return convolution


def _padding(side: int, width: int, stride: int) -> tuple[int, int]:
    """Before and after, as TensorFlow's "same"."""
    total = max(0, (-(-side // stride) - 1) * stride + width - side)
    return total // 2, total - total // 2


def _is_tiled(layer: Any) -> bool:
    return bool(
        layer.pool_size == layer.strides
        and layer.padding == "valid"
        and layer.data_format == "channels_last"
    )


def _largest(layer: Any) -> Callable[[Array], Array]:
    """The maximum of tiles; of equal ones the first is the one that the gradient reaches."""
    high, wide = layer.pool_size

    def call(inputs: Array) -> Array:
        rows, columns = inputs.shape[1] // high, inputs.shape[2] // wide
        cut = inputs[:, : rows * high, : columns * wide]
        tiles = cut.reshape(-1, rows, high, columns, wide, inputs.shape[3])
        largest = tiles[:, :, 0, :, 0]
        for i in range(high):
            for j in range(wide):
                one = tiles[:, :, i, :, j]
                largest = jnp.where(one > largest, one, largest)
        return largest

    return call


# --- augmentation: as in `study.training.recipe`, with the ranges of each run ---------------------


def augmented(images: Array, ranges: Array, key: Array) -> Array:
    """The images (n, height, width, channels), moved by draws of ``key``; same shape, same range.

    ``ranges`` (3,) are those of rotation in degrees, zoom and translation as fractions.
    """
    draws = jax.random.uniform(key, (5, images.shape[0]), minval=-1.0, maxval=1.0)
    return moved(images, ranges, draws)


def moved(images: Array, ranges: Array, draws: Array) -> Array:
    """The images, moved by these draws (5, n) from -1 to 1 within the ranges."""
    height, width = images.shape[1:3]
    rotation, zoom, translation = ranges
    turn, wide, high, right, down = draws[..., None, None]
    angle = turn * jnp.radians(rotation)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    across, along = 1 / (1 + wide * zoom), 1 / (1 + high * zoom)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    y, x = jnp.mgrid[:height, :width]
    x, y = x - middle_x, y - middle_y
    from_x = across * (cos * x - sin * y) + middle_x + right * (translation * width)
    from_y = along * (sin * x + cos * y) + middle_y + down * (translation * height)
    return jax.vmap(_sampled)(images, from_x, from_y)


def _sampled(image: Array, x: Array, y: Array) -> Array:
    """The image (height, width, channels) at these columns and rows (height, width).

    Between pixels it is interpolated; beyond an edge is what lies at the edge.
    """
    height, width, _ = image.shape
    x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    right, below = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    x, y = (x - left)[..., None], (y - top)[..., None]
    above = image[top, left] * (1 - x) + image[top, right] * x
    return above * (1 - y) + (image[below, left] * (1 - x) + image[below, right] * x) * y
