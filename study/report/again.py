"""How to do a study again: the command, and the search space as it was recorded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from study.space.search_space import SearchSpace
from study.space.settings import Settings

_OPTIONS = (
    "data",
    "sampler",
    "configurations",
    "pruner",
    "repeats",
    "epochs",
    "seed",
    "threads",
    "training",
)


def command(name: str, settings: Settings) -> str:
    """The command that makes the same study in another database."""
    words = ["python", "-m", "study", "run", settings.origin, "--name", name]
    for option in _OPTIONS:
        chosen = settings.chosen.get(option)
        if chosen is not None and chosen.source in {"command line", "environment"}:
            words += [f"--{option}", str(chosen.value)]
    return shlex.join(words)


def toml(space: SearchSpace) -> str:
    """The search space as a file that `python -m study run` takes."""
    table = space.to_dict()
    parts = {key: table.pop(key) for key in ("hyperparameters", "fixed") if key in table}
    lines = list(_pairs(table))
    for name, parameter in parts.get("hyperparameters", {}).items():
        lines += ["", f"[hyperparameters.{_key(name)}]", *_pairs(parameter)]
    if parts.get("fixed"):
        lines += ["", "[fixed]", *_pairs(parts["fixed"])]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None)


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else _text(name)


def _value(value: Any) -> str:
    """A TOML value; JSON writes truths and numbers as TOML does."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """A TOML text; JSON would write signs beyond 16 bits as pairs, which TOML refuses."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
