"""Which values a hyperparameter may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from study.errors import ParameterError


def is_number(value: object) -> bool:
    """Whether a hyperparameter is a number that can be computed with."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rule:
    """The values that a hyperparameter may have, in words and as a test."""

    words: str
    allows: Callable[[Any], bool]

    def check(self, name: str, value: object) -> None:
        """Raise ParameterError, which names the hyperparameter and what is allowed."""
        if not self.allows(value):
            raise ParameterError(name, f"is {value!r}; it must be {self.words}")


def whole(least: int) -> Rule:
    """Whole numbers from ``least``."""
    return Rule(f"a whole number from {least}", lambda v: type(v) is int and v >= least)


def fraction(below: float = 1, unit: str = "") -> Rule:
    """Numbers from 0 to ``below``, without it."""
    return Rule(
        f"a number from 0 to below {below:g}{unit}", lambda v: is_number(v) and 0 <= v < below
    )


def one_of(*names: str) -> Rule:
    """Some texts."""
    return Rule(f"one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names)


POSITIVE = Rule("a number above 0", lambda v: is_number(v) and v > 0)
TRUTH = Rule("true or false", lambda v: type(v) is bool)
