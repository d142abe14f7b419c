"""How a network is trained: the hyperparameters that are no part of it, each off by default.

A saved model shows nothing of them: images are augmented, rates scheduled and labels smoothed
while it trains, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from study.errors import ParameterError
from study.space.metric import Metric
from study.space.search_space import Score

SCORED = 3
"""Epochs that a score of several epochs is the mean of."""

SCHEDULES = ("constant", "cosine", "one_cycle")

_WARM_UP = 0.2  # share of a one-cycle's steps in which the rate rises,
_BEGIN = 0.04  # from this share of its peak

_SALT = 1 << 61  # keeps the draws of augmentation apart from other random numbers of a step

Tensor = Any


@dataclass(frozen=True)
class Recipe:
    """Augmentation, learning-rate schedule, smoothing of labels, and whose weights are models.

    An image is turned by up to ``rotation`` degrees, each of its sides stretched by up to the
    fraction ``zoom`` and moved by up to the fraction ``translation`` of its length, in either
    direction, every time anew. ``label_smoothing`` is the share of a label's weight that is spread
    over all classes. With ``restore_best_weights`` the weights and the value of a run are
    those of its best epoch, else of its last.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    translation: float = 0.0
    schedule: str = "constant"
    label_smoothing: float = 0.0
    restore_best_weights: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """The recipe among a run's hyperparameters."""
        return cls(**{name: params[name] for name in DEFAULTS if name in params})

    @property
    def augments(self) -> bool:
        return bool(self.rotation or self.zoom or self.translation)

    @property
    def scheduled(self) -> bool:
        return self.schedule != "constant"

    def rates(self, epoch: int, epochs: int, steps: int) -> NDArray[np.float32] | None:
        """The share of the learning rate at each step of ``epoch`` (from 0); None: always all.

        ``cosine`` falls from the whole rate to nothing; ``one_cycle`` rises in a straight line
        first (Smith and Topin, arXiv:1708.07120, with the fall along a cosine).
        """
        if not self.scheduled:
            return None
        done = (np.arange(steps) + epoch * steps) / (epochs * steps)
        if self.schedule == "cosine":
            shares = _falling(done)
        else:
            rising = _BEGIN + (1 - _BEGIN) * done / _WARM_UP
            shares = np.where(done < _WARM_UP, rising, _falling((done - _WARM_UP) / (1 - _WARM_UP)))
        return shares.astype(np.float32)


DEFAULTS: Mapping[str, Any] = asdict(Recipe())
"""Everything off."""


def check(params: Mapping[str, Any]) -> None:
    """Refuse what cannot be done; ParameterError says which hyperparameter and what is allowed."""
    recipe = Recipe.of(params)
    for name, limit in {"rotation": 180, "zoom": 1, "translation": 1, "label_smoothing": 1}.items():
        value = getattr(recipe, name)
        if not is_number(value) or not 0 <= value < limit:
            unit = " degrees" if name == "rotation" else ""
            raise ParameterError(
                name, f"is {value!r}; it must be a number from 0 to below {limit}{unit}"
            )
    if recipe.schedule not in SCHEDULES:
        allowed = ", ".join(SCHEDULES)
        problem = f"is {recipe.schedule!r}; it must be one of {allowed}"
        raise ParameterError("schedule", problem)
    if type(recipe.restore_best_weights) is not bool:
        problem = f"is {recipe.restore_best_weights!r}; it must be true or false"
        raise ParameterError("restore_best_weights", problem)


def value(
    params: Mapping[str, Any], curve: Sequence[float], metric: Metric, score: Score = "last"
) -> float:
    """The value of a complete run, which configurations are compared by, from its metric's curve.

    It is the mean of the last epochs or the last one, as ``score`` says; with
    ``restore_best_weights`` that of the epoch whose weights are kept.
    """
    if Recipe.of(params).restore_best_weights:
        return curve[metric.best(curve)]
    return curve[-1] if score == "last" else fmean(curve[-SCORED:])


def is_number(value: object) -> bool:
    """Whether a hyperparameter is a number that can be computed with."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _falling(done: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 + np.cos(np.pi * done)) / 2


def augmented(images: Tensor, recipe: Recipe, seed: Tensor) -> Tensor:
    """The images (n, height, width, channels), moved as ``recipe`` says; same shape, same range.

    ``seed`` is (key, step), two int64. Values between pixels are interpolated; beyond an edge is
    what lies at the edge.
    """
    import tensorflow as tf

    height, width = images.shape[1:3]
    own = [seed[0], seed[1] + _SALT]
    draws = tf.random.stateless_uniform([5, tf.shape(images)[0]], own, -1.0, 1.0, alg="philox")
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms(tf.unstack(draws), recipe, height, width),
        output_shape=tf.constant([height, width]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def transforms(draws: list[Tensor], recipe: Recipe, height: int, width: int) -> Tensor:
    """Where each pixel comes from: rows (a, b, c, d, e, f, 0, 0) of x' = ax + by + c, y' = ..."""
    import tensorflow as tf

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
