"""Arrays and functions of a Python program, as files beside the database that workers read."""

from __future__ import annotations

import dis
import hashlib
import inspect
import io
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from study.errors import DataError, SpaceError
from study.files import write_whole
from study.storage.location import Database, file_name


class KeptFiles:
    """Writes files beside the database; those that are new are removed again unless accepted."""

    def __init__(self) -> None:
        self._new: list[Path] = []

    def __call__(self, path: Path, content: bytes) -> Path:
        if not path.exists():
            self._new.append(path)
            write_whole(path, content)
        return path

    def accept(self) -> None:
        self._new.clear()

    def remove(self) -> None:
        for path in self._new:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # other files are in it
                path.parent.rmdir()


@contextmanager
def kept_files(database: Database) -> Iterator[KeptFiles]:
    """Keeps arrays and functions of a study, if that can be made."""
    database.check()
    keep = KeptFiles()
    try:
        yield keep
    finally:
        keep.remove()


def array_file(data: object, database: Database) -> tuple[Path, bytes]:
    """The path and the contents of an ``.npz`` file with images and labels."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError("data: give a name, a path or a pair (images, labels)")
    try:
        images, labels = map(np.asarray, data)
    except ValueError:
        raise DataError("data: images of several sizes are no array; give one size") from None
    shapes = f"data: images {images.shape} and labels {labels.shape}"
    if images.ndim not in {3, 4} or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{shapes} do not fit; give images (n, height, width) or (n, height, width, channels) "
            "and labels (n,)"
        )
    for what, array in (("images", images), ("labels", labels)):
        if array.dtype.hasobject:
            raise DataError(f"data: {what} have the type object; give numbers or texts of one type")
    digest = hashlib.sha256()
    for array in (images, labels):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    buffer = io.BytesIO()
    np.savez(buffer, x_train=images, y_train=labels)
    return database.images / f"arrays-{digest.hexdigest()[:16]}.npz", buffer.getvalue()


def source_file(build: Callable[..., Any], database: Database, name: str) -> tuple[Path, bytes]:
    """The path and the contents of a Python file with a model function; another text, another file.

    A study that was made with an earlier text of the function keeps its file.
    """
    text = source_of(build).encode()
    file = f"{file_name(name)}-{hashlib.sha256(text).hexdigest()[:8]}.py"
    return database.folder / f"{database.label}.networks" / file, text


def source_of(build: Callable[..., Any]) -> str:
    """A Python file with the function and what it uses of its module.

    Modules and what was imported from them become imports, functions of the module their source;
    numbers and texts become assignments. Raises ``SpaceError`` for a lambda and where the function
    uses anything else.
    """
    if not isinstance(build, types.FunctionType) or build.__name__ == "<lambda>":
        what = "a lambda" if isinstance(build, types.FunctionType) else type(build).__name__
        raise SpaceError(f"model: {what} cannot travel to the workers; give a function made by def")
    lines: dict[str, str] = {}
    text = _source(build, lines)
    return "\n".join(["from __future__ import annotations", "", *lines.values(), "", "", text])


def _source(function: types.FunctionType, lines: dict[str, str]) -> str:
    """The text of a function; adds a line to ``lines`` for each name of its module that it uses."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise SpaceError(
            f"model: the source of {function.__name__} cannot be found; write it to a file and "
            'give "FILE.py:FUNCTION" in the space'
        ) from None
    if function.__code__.co_freevars:
        raise SpaceError(
            f"model: {function.__name__} uses {min(function.__code__.co_freevars)!r} of the "
            "function around it; pass it as a hyperparameter or write it inside"
        )
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__ and name not in lines and name != function.__name__:
            lines[name] = ""  # a function may use itself, by way of another one
            lines[name] = _line(name, function.__globals__[name], function, lines)
    return text


def _global_names(code: types.CodeType) -> set[str]:
    """The names that a function and those inside it look up in their module."""
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}
    }
    inner = [_global_names(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    return names.union(*inner)


def _line(name: str, value: object, used_by: types.FunctionType, lines: dict[str, str]) -> str:
    """The line that gives a name of the function's module in a file of its own."""
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__} as {name}"
    if isinstance(value, bool | int | float | str | type(None)):
        return f"{name} = {value!r}"
    home = getattr(value, "__module__", None)
    if isinstance(value, types.FunctionType) and home == used_by.__module__:
        return _source(value, lines)
    if home and home not in {"__main__", used_by.__module__} and hasattr(value, "__name__"):
        return f"from {home} import {value.__name__} as {name}"
    raise SpaceError(
        f"model: {used_by.__name__} uses {name!r}, which cannot travel to the workers; make it "
        "inside the function, or write both to a file and name that in the space"
    )
