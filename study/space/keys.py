"""How a key of a search-space file is declared."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, with_config

Value = int | float | str | bool


def _number(value: object) -> object:
    """Refuse numbers that TOML, JSON and the database do not all hold unchanged."""
    whole = type(value) is int and -(2**63) <= value < 2**63
    if whole or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError


def _scalar(value: object) -> object:
    return value if isinstance(value, bool | str) else _number(value)


def key(what: str, **bounds: Any) -> Any:
    """A key of a file: what its value may be, for messages, and Pydantic's bounds of it."""
    return Field(description=what, **bounds)


Scalar = Annotated[Value, PlainValidator(_scalar)]
Number = Annotated[int | float, PlainValidator(_number)]


PLACE = "\0"
"""The key of what a file says by the place of a table, and by no key of its own."""

closed = with_config(ConfigDict(extra="forbid"))
"""Holds a table of a file to the fields of its class."""
