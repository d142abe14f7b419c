"""The TOML file of a search space: found by its path or its shipped name, and read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from study.errors import SpaceError
from study.files import NOT_FETCHED, POINTER
from study.space.messages import hint, shown
from study.space.search_space import SearchSpace


def shipped(package: Path = Path(__file__).parents[1]) -> dict[str, Path]:
    """Name -> file of the spaces that come along: in the installed package or beside it."""
    inside = package / "search_spaces"
    folder = inside if inside.is_dir() else package.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(space: str | Path) -> SearchSpace:
    """Read a space: a path (it ends in .toml or has a slash), or the name of a shipped one.

    Raises `SpaceError` naming the file, the key and what is allowed.
    """
    if isinstance(space, Path) or space.endswith(".toml") or "/" in space:
        return SearchSpace.from_dict(_read(Path(space)), str(space))
    paths = shipped()
    if space not in paths:
        raise SpaceError(
            f"{shown(space)}: no such search space; {hint(space, paths)}, "
            "or give the path of a .toml file"
        )
    return SearchSpace.from_dict(_read(paths[space]), str(paths[space]))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpaceError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    except FileNotFoundError:
        names = ", ".join(shipped())
        raise SpaceError(f"{path}: no such file; give a TOML file, or one of {names}") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SpaceError(f"{path}: {reason}; give a TOML file that can be read") from None
    if text.startswith(POINTER):
        raise SpaceError(f"{path}: {NOT_FETCHED}")
    try:
        return tomllib.loads(text + "\n")  # so that a mistake at the very end has a line, too
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise SpaceError(f"{path}: {_not_toml(text, str(error))}") from None


def _not_toml(text: str, problem: str) -> str:
    """The message of tomllib, with the line first and the name of a key that is given twice."""
    place = re.search(r" \(at line (\d+), column \d+\)$", problem)
    if not place:
        return f"not valid TOML: {problem}"
    number = int(place[1])
    if not problem.startswith(("Cannot", "Duplicate")):
        return f"line {number}: not valid TOML: {problem[: place.start()]}"
    table = key = ""
    for line in text.splitlines()[:number]:
        if header := re.match(r"\s*\[+([^\[\],]+)\]", line):
            table, key = header[1].strip(), ""
        elif pair := re.match(r"\s*([^\s=#]+)\s*=", line):
            key = pair[1]
    inline = re.search(r"inline table key '(.*)'", problem)
    parts = (table, key, inline[1] if inline else "")
    return f"line {number}: {'.'.join(filter(None, parts))} is given twice; keep one of them"
