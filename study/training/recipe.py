"""How a network is trained: the hyperparameters that are not part of it, each off by default.

A new one is a field of `Recipe` with its rule, and its use in the trainer. A saved model does not
contain them: images are augmented, rates scheduled and labels smoothed only while it trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from study.errors import ParameterError
from study.space.keys import POSITIVE, TRUTH, Rule, fraction, one_of, whole
from study.space.metric import Metric
from study.space.search_space import Score

if TYPE_CHECKING:
    import keras

SCORED = 3
"""Epochs that a score of several epochs is the mean of."""

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "lion")
"""Optimizers by Keras' names."""

_WARM_UP = 0.2  # share of a one-cycle's steps in which the rate rises,
_BEGIN = 0.04  # from this share of its peak

_SALT = 1 << 61  # keeps the draws of augmentation apart from other random numbers of a step

Tensor = Any


def _ruled(default: Any, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; None: as the model is compiled, or as the space says.

    An image is turned by up to ``rotation`` degrees, each of its sides stretched by up to the
    fraction ``zoom`` and moved by up to the fraction ``translation`` of its length, in either
    direction, every time anew. ``label_smoothing`` is the share of a label's weight that is spread
    over all classes. ``mixup`` is the parameter of the Beta distribution that the shares of two
    mixed images are drawn from (Zhang et al., arXiv:1710.09412). ``class_weight`` "balanced" weighs
    a class with the reciprocal of its number of training images. ``weight_decay`` is Keras': it is
    decoupled from the gradient. With ``restore_best_weights`` the weights and the value of a run
    are those of its best epoch, else of its last; with ``patience`` too, and the run ends after
    that number of epochs in a row that were no better than the best one.
    """

    rotation: float = _ruled(0.0, fraction(180, " degrees"))
    zoom: float = _ruled(0.0, fraction())
    translation: float = _ruled(0.0, fraction())
    schedule: str = _ruled("constant", one_of("constant", "cosine", "one_cycle"))
    label_smoothing: float = _ruled(0.0, fraction())
    restore_best_weights: bool = _ruled(False, TRUTH)
    patience: int | None = _ruled(None, whole(1))
    batch_size: int | None = _ruled(None, whole(1))
    learning_rate: float | None = _ruled(None, POSITIVE)
    optimizer: str | None = _ruled(None, one_of(*OPTIMIZERS))
    momentum: float | None = _ruled(None, fraction())
    weight_decay: float | None = _ruled(None, fraction())
    class_weight: str = _ruled("none", one_of("none", "balanced"))
    mixup: float = _ruled(0.0, fraction(100))

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """The recipe among a run's hyperparameters."""
        return cls(**{name: params[name] for name in DEFAULTS if name in params})

    @property
    def keeps_best(self) -> bool:
        """Whether the weights and the value of a run are those of its best epoch."""
        return self.restore_best_weights or self.patience is not None

    @property
    def tuned(self) -> dict[str, float]:
        """The optimizer's arguments that replace its defaults, by Keras' names."""
        names = ("learning_rate", "momentum", "weight_decay")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def new_optimizer(self, own: keras.Optimizer | None = None) -> keras.Optimizer:
        """The optimizer that is named, or one like a model's ``own``, with what is `tuned`.

        It has the learning rate of ``own`` where the recipe has none.
        """
        import keras

        config: dict[str, Any] = own.get_config() if own else {}
        if own and self.optimizer is None:
            return type(own).from_config(config | self.tuned)
        kept = {name: rate for name, rate in config.items() if name == "learning_rate"}
        return keras.optimizers.get({"class_name": self.optimizer, "config": kept | self.tuned})

    def ends(self, curve: Sequence[float], metric: Metric) -> bool:
        """Whether ``patience`` is over after these values, as in Keras' EarlyStopping."""
        if self.patience is None or not curve or all(map(math.isnan, curve)):
            return False
        return len(curve) - 1 - metric.best(curve) >= self.patience

    def shares(self, key: int, steps: int) -> NDArray[np.float32] | None:
        """The share of the first of two mixed images at each step of an epoch; None: none is mixed.

        The first has the larger share, which changes nothing where every image is once the first.
        ``key`` decides the draws.
        """
        if not self.mixup:
            return None
        drawn = np.random.default_rng([key, 1]).beta(self.mixup, self.mixup, steps)
        return np.maximum(drawn, 1 - drawn).astype(np.float32)

    @property
    def augments(self) -> bool:
        return bool(self.rotation or self.zoom or self.translation)

    @property
    def weighs(self) -> bool:
        """Whether classes have weights in the loss."""
        return self.class_weight == "balanced"

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
"""Every hyperparameter of training with its default: off."""

OURS = frozenset(DEFAULTS) - {"label_smoothing"}
"""Hyperparameters that a custom model need not read: the trainer uses them."""

RULES: Mapping[str, Rule] = {one.name: one.metadata["rule"] for one in fields(Recipe)}


def check(params: Mapping[str, Any]) -> None:
    """Raise ParameterError for a value that is not allowed, with the values that are."""
    for name, rule in RULES.items():
        if name in params:
            rule.check(name, params[name])
    if "momentum" in params and params.get("optimizer") != "sgd":
        raise ParameterError(
            "momentum",
            'is for optimizer = "sgd" alone; give it only_if = { optimizer = "sgd" }, or take it '
            "out",
        )


def value(
    params: Mapping[str, Any], curve: Sequence[float], metric: Metric, score: Score = "last"
) -> float:
    """The value of a complete run, which configurations are compared by, from its metric's curve.

    It is the mean of the last epochs or the last one, as ``score`` says; with
    ``restore_best_weights`` or ``patience`` that of the epoch whose weights are kept.
    """
    if Recipe.of(params).keeps_best:
        return curve[metric.best(curve)]
    return curve[-1] if score == "last" else fmean(curve[-SCORED:])


def balanced_weights(labels: NDArray[Any], classes: int) -> NDArray[np.float32]:
    """The weight of each class: the mean over images is 1, and every class has the same sum.

    A class without an image has 0.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts, weights, 0).astype(np.float32)


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
