"""How messages speak of keys and values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable


def hint(key: str, allowed: Iterable[str]) -> str:
    """What is allowed in place of `key`, the likeliest first."""
    close = difflib.get_close_matches(key, allowed, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"allowed: {', '.join(allowed)}"


def dotted(*keys: str) -> str:
    """The place of a key, as TOML writes it."""
    return ".".join(key if re.fullmatch(r"[\w-]+", key) else shown(key) for key in keys)


def shown(value: object) -> str:
    """A value as TOML writes it, on one line of bearable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
