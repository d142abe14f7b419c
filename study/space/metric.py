"""The one number that configurations are compared by: its name, what is better, how it is written.

Everything that compares, rounds or labels asks this value, and nothing else knows a metric's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]

VAL_ACCURACY, BALANCED = "val_accuracy", "val_balanced_accuracy"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the validation images, as Keras names it, and which values of it are better.

    Accuracies are fractions, written in per cent and their differences in points; any other metric
    is written as the plain number that it is.
    """

    name: str = VAL_ACCURACY
    direction: Direction = "maximize"

    @property
    def sign(self) -> int:
        """What makes of a value one of which more is better: 1 or -1."""
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
        """The words, with the unit and with what is better where it is not plain."""
        less = " (less is better)" if self.direction == "minimize" else ""
        return f"{self.words}{',' if self.unit else ''}{self.unit}{less}"

    @property
    def column(self) -> str:
        """The unit behind the head of a column."""
        return " (%)" if self.is_accuracy else ""

    @property
    def unit(self) -> str:
        """What stands behind a value."""
        return " %" if self.is_accuracy else ""

    @property
    def points(self) -> str:
        """What stands behind a difference of two values."""
        return " points" if self.is_accuracy else ""

    @property
    def scale(self) -> int:
        """By what values are multiplied where they are drawn or written."""
        return 100 if self.is_accuracy else 1

    def best(self, curve: Sequence[float]) -> int:
        """The place of the first of the best values; what is no number is never better."""
        values = [-math.inf if math.isnan(value) else self.sign * value for value in curve]
        return max(range(len(values)), key=values.__getitem__)

    def number(self, value: float) -> str:
        """A value, or a difference of two, without its unit."""
        return f"{100 * value:.2f}" if self.is_accuracy else f"{value:.4g}"

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.number(value)}{self.unit}"

    def uncertain(self, value: float, error: float | None) -> str:
        """A value, or a difference, with its standard error, if that is known; without unit.

        An error that is not of accuracies has two digits, and its value as many decimals.
        """
        if error is None:
            return self.number(value)
        if self.is_accuracy or not 1e-6 < error < 1e6:
            return f"{self.number(value)} ± {self.number(error)}"
        decimals = max(0, 1 - math.floor(math.log10(error)))
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"

    def bounded(self, low: float, high: float) -> tuple[float, float]:
        """The ends of an interval, within what the metric can be."""
        return (max(0.0, low), min(1.0, high)) if self.is_accuracy else (low, high)


ACCURACY = Metric()
"""What is maximized where nobody says something else."""
