"""Finding and reading the TOML file of a search space."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from study.errors import SpaceError
from study.files import NOT_FETCHED, POINTER, absolute
from study.space.keys import hint, shown
from study.space.search_space import NAMED, SearchSpace


def shipped(package: Path = Path(__file__).parents[1]) -> dict[str, Path]:
    """Name -> file of the spaces that are shipped, in the installed package or beside it."""
    inside = package / "search_spaces"
    folder = inside if inside.is_dir() else package.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(space: str | Path) -> SearchSpace:
    """Read a space: a path (it ends in .toml or has a slash), or the name of a shipped one.

    A space without a name has that of its file; a path of data counts from the file's folder.
    Raises `SpaceError` naming the file, the key and what is allowed.
    """
    if isinstance(space, Path) or space.endswith(".toml") or "/" in space:
        path = Path(space)
    elif space in (paths := shipped()):
        path = paths[space]
    else:
        raise SpaceError(
            f"{shown(space)}: no such search space; {hint(space, paths)}, "
            "or give the path of a .toml file"
        )
    found = SearchSpace.from_dict({"name": path.stem, **_read(path)}, str(path))
    if found.data in (None, *NAMED):
        return found
    return replace(found, data=str(absolute(str(found.data), path.parent)))


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
    """The message of tomllib with the line it refers to."""
    place = re.search(r" \(at line (\d+), column \d+\)$", problem)
    if not place:
        return f"not valid TOML: {problem}"
    number = int(place[1])
    line = shown(text.splitlines()[number - 1].strip())
    if problem.startswith(("Cannot", "Duplicate")):
        return f"line {number}: {line} gives a key a second time; keep one of them"
    return f"line {number}: {line} is not valid TOML: {problem[: place.start()]}"
