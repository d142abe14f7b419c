"""Augmentation: a batch turned, stretched and moved, every image by its own draw.

One operation for the whole batch, and a function of (images, seed) alone, so that a run that was
killed and continued sees the same images, on whatever path it trains.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from study.training.recipe import Recipe

Tensor = Any

_SALT = 1 << 61  # keeps these random numbers apart from those of the dropout layers


def augmented(images: Tensor, recipe: Recipe, seed: Tensor) -> Tensor:
    """The images (n, height, width, channels), moved as ``recipe`` says; same shape, same range.

    ``seed`` is (key, step), two int64. Values between pixels are interpolated; beyond an edge is
    what lies at the edge.
    """
    height, width = images.shape[1:3]
    own = [seed[0], seed[1] + _SALT]
    draws = tf.random.stateless_uniform([5, tf.shape(images)[0]], own, -1.0, 1.0, alg="philox")
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(tf.unstack(draws), recipe, height, width),
        output_shape=tf.constant([height, width]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def _transforms(draws: list[Tensor], recipe: Recipe, height: int, width: int) -> Tensor:
    """Where each pixel comes from: rows (a, b, c, d, e, f, 0, 0) of x' = ax + by + c, y' = ..."""
    turn, wide, high, right, down = draws
    angle = turn * math.radians(recipe.rotation)
    cos, sin = tf.cos(angle), tf.sin(angle)
    across, along = 1 / (1 + wide * recipe.zoom), 1 / (1 + high * recipe.zoom)
    a, b, d, e = cos * across, -sin * across, sin * along, cos * along
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    c = middle_x - a * middle_x - b * middle_y + right * (recipe.translation * width)
    f = middle_y - d * middle_x - e * middle_y + down * (recipe.translation * height)
    nothing = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, nothing, nothing], axis=1)
