"""The metric that configurations are compared by: name, direction and format of its values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]

LARGEST = 1e100
"""The largest value of a metric: statistics square it."""

VAL_ACCURACY, BALANCED = "val_accuracy", "val_balanced_accuracy"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the validation images under its name in Keras, and its direction.

    Accuracies are fractions; they are written in per cent and their differences in points. Values
    of any other metric are written as plain numbers.
    """

    name: str = VAL_ACCURACY
    direction: Direction = "maximize"

    @property
    def sign(self) -> int:
        """1 to maximize, -1 to minimize: ``sign * value`` is always maximized."""
        return 1 if self.direction == "maximize" else -1

    @property
    def is_accuracy(self) -> bool:
        """Whether it is a fraction of images: the last word of its name is accuracy."""
        return re.split(r"[_/.-]", self.name)[-1] == "accuracy" or self.name == "val_acc"

    @property
    def words(self) -> str:
        """``validation accuracy``, ``validation mae``: for sentences and axes."""
        return f"validation {self.name.removeprefix('val_').replace('_', ' ')}"

    @property
    def axis(self) -> str:
        """The label of an axis: the words, the unit, and the direction if less is better."""
        less = " (less is better)" if self.direction == "minimize" else ""
        return f"{self.words}{',' if self.unit else ''}{self.unit}{less}"

    @property
    def column(self) -> str:
        """The unit in the head of a column."""
        return " (%)" if self.is_accuracy else ""

    @property
    def unit(self) -> str:
        """The unit of a value."""
        return " %" if self.is_accuracy else ""

    @property
    def points(self) -> str:
        """The unit of a difference of two values."""
        return " points" if self.is_accuracy else ""

    @property
    def scale(self) -> int:
        """The factor by which values are multiplied before they are drawn or written."""
        return 100 if self.is_accuracy else 1

    def best(self, curve: Sequence[float]) -> int:
        """The index of the first of the best values; NaN is never best."""
        values = [-math.inf if math.isnan(value) else self.sign * value for value in curve]
        return max(range(len(values)), key=values.__getitem__)

    def number(self, value: float) -> str:
        """A value, or a difference of two, without its unit."""
        return f"{100 * value:.2f}" if self.is_accuracy else f"{value:.4g}"

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.number(value)}{self.unit}"

    def uncertain(self, value: float, error: float | None) -> str:
        """A value, or a difference, and its standard error if known; without unit.

        Unless it is of an accuracy, an error has two digits and the value as many decimals.
        """
        if error is None:
            return self.number(value)
        if self.is_accuracy or not 1e-6 < error < 1e6:
            return f"{self.number(value)} ± {self.number(error)}"
        decimals = max(0, 1 - math.floor(math.log10(error)))
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"

    def bounded(self, low: float, high: float) -> tuple[float, float]:
        """The interval, cut to the range of the metric."""
        return (max(0.0, low), min(1.0, high)) if self.is_accuracy else (low, high)


ACCURACY = Metric()
"""The default metric."""
