"""Keys and values of a search-space file: declared, checked, and named in messages."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, with_config

from study.errors import ParameterError

Value = int | float | str | bool

PLACE = "\0"
"""The key of a value that a file gives by the name of a table."""

closed = with_config(ConfigDict(extra="forbid"))
"""Refuses keys of a table that are not fields of its class."""


def key(what: str, **bounds: Any) -> Any:
    """A key of a file: a description of its values for messages, and Pydantic's bounds."""
    return Field(description=what, **bounds)


def plain(value: Any) -> Any:
    """A NumPy scalar as a Python value; anything else unchanged."""
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value


def number(value: object) -> object:
    """A number that TOML, JSON and the database hold unchanged; ``ValueError`` for any other."""
    value = plain(value)
    whole = type(value) is int and -(2**63) <= value < 2**63
    if whole or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError


def scalar(value: object) -> object:
    """A number, a text, true or false; ``ValueError`` for anything else."""
    value = plain(value)
    return value if isinstance(value, bool | str) else number(value)


Scalar = Annotated[Value, PlainValidator(scalar)]
Number = Annotated[int | float, PlainValidator(number)]


def hint(key: str, allowed: Iterable[str]) -> str:
    """The allowed keys in place of `key`, the most similar first."""
    close = difflib.get_close_matches(key, allowed, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"allowed: {', '.join(allowed)}"


def dotted(*keys: object) -> str:
    """The path of a key, as TOML writes it."""
    return ".".join(str(key) if re.fullmatch(r"[\w-]+", str(key)) else shown(key) for key in keys)


def shown(value: object) -> str:
    """A value as TOML writes it, in at most 60 characters."""
    text = "None" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


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
