"""How to do a study again: the command, and the search space as it was recorded."""

from __future__ import annotations

import shlex

import tomlkit

from study.space.search_space import SearchSpace
from study.space.settings import Settings


def command(name: str, settings: Settings) -> str:
    """The command that makes the same study in another database, on any machine.

    The device is always given: without it a machine with a GPU would make another study.
    """
    words = ["study", "run", settings.origin, "--name", name]
    for option, chosen in settings.chosen.items():
        asked = chosen.source in {"command line", "environment"}
        found = option == "device" or (option == "training" and settings.device == "gpu")
        if asked or found:
            words += [f"--{option}", str(chosen.value)]
    return shlex.join(words)


def toml(space: SearchSpace) -> str:
    """The search space as a file that `study run` takes."""
    return tomlkit.dumps({key: value for key, value in space.to_dict().items() if value != {}})
