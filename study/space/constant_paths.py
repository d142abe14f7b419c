"""The texts of a Python file, and the paths that it puts together from them; nothing is run."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_MOST = 4096  # characters of a path, and of what is put together


def _same(path: Any) -> Any:
    """No path is looked up on the disk: it would count from the folder of whoever asks."""
    return path


_METHODS = {name: getattr(Path, name) for name in ("joinpath", "with_name", "with_suffix")}
_METHODS |= {"resolve": _same, "absolute": _same}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"Path": Path, "str": str, "join": os.path.join}
_FUNCTIONS |= {"dirname": os.path.dirname, "abspath": _same, "realpath": _same}


def constant_paths(text: str, file: Path) -> Iterator[str]:
    """Every text and path that is known without running ``file``, whose text this is.

    They are made with ``/``, ``+``, f-strings, `Path` and `os.path`, of texts, ``__file__`` and
    names with such values. Raises ``SyntaxError`` where it is no Python.
    """
    names: dict[str, Any] = {"__file__": str(file)}
    nodes = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.expr | ast.Assign | ast.AnnAssign)
    ]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    for node in 2 * nodes:  # a function may use a name that is set below it
        value = None
        with suppress(ValueError, TypeError, LookupError, RecursionError):
            value = _value(node if isinstance(node, ast.expr) else node.value, names)
        if isinstance(node, ast.expr):
            yield from () if value is None else (str(value),)
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                names[target.id] = value


def _value(node: ast.expr | None, names: dict[str, Any]) -> Any:
    """The text or path that an expression stands for; None, or an error, where it is not known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return names.get(name)
        case ast.BinOp(left=left, op=ast.Add() | ast.Div() as sign, right=right):
            one, other = _value(left, names), _value(right, names)
            found = one + other if isinstance(sign, ast.Add) else one / other
        case ast.JoinedStr(values=parts):
            inner = [part.value if isinstance(part, ast.FormattedValue) else part for part in parts]
            texts = [_value(part, names) for part in inner]
            found = None if None in texts else "".join(map(str, texts))
        case ast.Attribute(value=of, attr="parent"):
            found = Path(_value(of, names)).parent
        case ast.Call(func=ast.Attribute(value=of, attr=name), args=given) if name in _METHODS:
            found = _METHODS[name](Path(_value(of, names)), *(_value(one, names) for one in given))
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=given):
            values = [_value(one, names) for one in given]
            found = None if None in values else _FUNCTIONS[name](*values)
        case _:
            return None
    return found if len(str(found)) <= _MOST else None
