"""Runs the file of a custom model, once in each process that needs it.

Nothing else in the program runs the user's code.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

from study.errors import ModelError
from study.space.model_source import ModelSource

_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints parts of its messages bold
_MODULE = "model_of_a_study_"  # hides no module of the file's own name


def function(source: ModelSource, name: str | None = None) -> Any:
    """The function ``name``, or the one that builds the network; ModelError if there is none."""
    name = name or source.function
    found = getattr(_module(source), name, None)
    if not callable(found):
        raise ModelError(f"the file has no function {name!r}")
    return found


def given(builder: Callable[..., Any]) -> ModelSource:
    """A source that stands for a function of this process, and for none of another."""
    name = getattr(builder, "__name__", type(builder).__name__)
    path = getattr(getattr(builder, "__code__", None), "co_filename", "python")
    source = ModelSource(path, name, f"{name} of this process, {id(builder)}")
    module = sys.modules[_name(source)] = ModuleType(_name(source))
    setattr(module, name, builder)
    return source


def classes(source: ModelSource) -> dict[str, Any]:
    """The classes and functions that the file defines, by the names a saved model has for them.

    It runs the file. Raises ModelError, in one line.
    """
    from keras.saving import get_registered_name

    try:
        module = _module(source)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code
        raise ModelError(f"{source.name}: {why(error, source)}") from None
    return {
        get_registered_name(found): found
        for found in vars(module).values()
        if callable(found) and getattr(found, "__module__", None) == module.__name__
    }


def why(error: BaseException, source: ModelSource) -> str:
    """What went wrong in the user's file, and where, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name!r}, which is not installed here: pip install it"
    if isinstance(error, ModelError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    text = " ".join(_STYLE.sub("", str(error)).split())[:300]
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == source.path:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}{f': {text}' if text else ''}"


def _name(source: ModelSource) -> str:
    return f"{_MODULE}{source.fingerprint[:16]}"


def _module(source: ModelSource) -> ModuleType:
    name = _name(source)
    if name not in sys.modules:
        source.check_files()
        module = sys.modules[name] = ModuleType(name)
        module.__file__ = source.path
        try:
            with redirect_stdout(io.StringIO()):
                exec(compile(source.text, source.path, "exec"), module.__dict__)  # noqa: S102
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
