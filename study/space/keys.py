"""How a key of a search-space file is declared, and how messages speak of keys and values."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, with_config

Value = int | float | str | bool

PLACE = "\0"
"""The key of what a file says by the place of a table, and by no key of its own."""

closed = with_config(ConfigDict(extra="forbid"))
"""Holds a table of a file to the fields of its class."""


def key(what: str, **bounds: Any) -> Any:
    """A key of a file: what its value may be, for messages, and Pydantic's bounds of it."""
    return Field(description=what, **bounds)


def plain(value: Any) -> Any:
    """A NumPy number, text or truth as Python's own; anything else as it is."""
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value


def number(value: object) -> object:
    """Refuse what is not a number that TOML, JSON and the database hold unchanged."""
    whole = type(value) is int and -(2**63) <= value < 2**63
    if whole or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError


def scalar(value: object) -> object:
    """Refuse what is not a number, a text, true or false."""
    return value if isinstance(value, bool | str) else number(value)


Scalar = Annotated[Value, PlainValidator(scalar)]
Number = Annotated[int | float, PlainValidator(number)]


def hint(key: str, allowed: Iterable[str]) -> str:
    """What is allowed in place of `key`, the likeliest first."""
    close = difflib.get_close_matches(key, allowed, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"allowed: {', '.join(allowed)}"


def dotted(*keys: object) -> str:
    """The place of a key, as TOML writes it."""
    return ".".join(str(key) if re.fullmatch(r"[\w-]+", str(key)) else shown(key) for key in keys)


def shown(value: object) -> str:
    """A value as TOML writes it, on one line of bearable length."""
    text = "None" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
