"""Reads the description in a `.keras` file; nothing is built, and Keras is not imported.

A part of Keras is safe to load unless it runs code or opens a file, as a Lambda or a StringLookup
does. Whatever is not from Keras is named, so that a file that holds nothing else can be loaded.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

_LARGEST = 20 * 2**20  # bytes of a description

_MODULES = re.compile(
    r"keras(\.(layers|initializers|regularizers|constraints|models|dtype_policies|random|quantizers)"
    r"|\.src\.(ops|models|layers)\.[a-z_.0-9]+)?"
)
"""Modules of Keras whose classes are parts of a model. Others download, load or write files."""

_CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_UNSAFE = _CODE | {"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization"}
"""Layers that run code which came with them, or open a file that they name."""

_CLASS = re.compile(r"[A-Z]\w*")  # Keras would take a function by its name too
_DATA = {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"}


def description(file: str | Path | IO[bytes]) -> Any:
    """The description (JSON) in a ``.keras`` file; raises what zipfile and json do."""
    with zipfile.ZipFile(file) as archive:
        return entry(archive, "config.json")


def entry(archive: zipfile.ZipFile, name: str) -> Any:
    """The JSON of a file in an archive."""
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(name)
    return json.loads(archive.read(name))


def count_parameters(model: bytes) -> int | None:
    """The number of weights in a ``.keras`` file; None if it is not such a file.

    States of random generators (whole numbers) and of the optimizer do not count.
    """
    import h5py

    counts: list[int] = []

    def see(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and found.dtype.kind == "f":
            counts.append(0 if name.startswith("optimizer/") else found.size)

    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content) as weights:
            weights.visititems(see)
    except (zipfile.BadZipFile, KeyError, OSError):
        return None
    return sum(counts)


def foreign(described: Any, own: Collection[str] = ()) -> list[str]:
    """The classes in a description that are neither safe parts of Keras nor named in ``own``.

    Names are those that Keras looks up: ``package>Name`` for a registered class.
    """
    return sorted({name for name in _foreign(described) if name not in own})


def _foreign(described: Any) -> Iterator[str]:
    if isinstance(described, dict):
        if "class_name" in described:
            name, key = str(described["class_name"]), described.get("registered_name")
            if name == "function":  # of which Keras writes no module
                yield str(described.get("config") or name)
            elif name not in _DATA and not _is_safe(str(described.get("module")), name, key):
                yield str(key or name)
        described = list(described.values())
    if isinstance(described, list):
        for item in described:
            yield from _foreign(item)


def _is_safe(module: str, name: str, key: object) -> bool:
    found = _MODULES.fullmatch(module) and _CLASS.fullmatch(name) and name not in _UNSAFE
    return bool(found) and key in (None, name)
