"""How to do a study again: the command, and the search space as it was recorded."""

from __future__ import annotations

import shlex

import tomlkit

from study.space.search_space import SearchSpace
from study.space.settings import Settings

_OPTIONS = (
    "data",
    "sampler",
    "configurations",
    "tolerance",
    "confidence",
    "budget",
    "pruner",
    "repeats",
    "epochs",
    "seed",
    "threads",
    "training",
    "precision",
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
    return tomlkit.dumps({key: value for key, value in space.to_dict().items() if value != {}})
