"""How a network is trained: the hyperparameters that are no part of it, each off by default.

A saved model shows nothing of them: images are augmented, rates scheduled and labels smoothed
while it trains, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from study.errors import ParameterError
from study.space.metric import Metric

SCHEDULES = ("constant", "cosine", "one_cycle")

_WARM_UP = 0.2  # share of a one-cycle's steps in which the rate rises,
_BEGIN = 0.04  # from this share of its peak


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


def value(params: Mapping[str, Any], curve: Sequence[float], metric: Metric) -> float:
    """What a complete run is judged by, from the stored curve of its metric alone."""
    return curve[metric.best(curve) if Recipe.of(params).restore_best_weights else -1]


def is_number(value: object) -> bool:
    """Whether a hyperparameter is a number that can be computed with."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _falling(done: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 + np.cos(np.pi * done)) / 2
