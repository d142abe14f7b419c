"""Augmentation on JAX: as `study.training.augment`, with the ranges of each run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = Any


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
