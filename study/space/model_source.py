"""A network of one's own: the function that builds it, as text that travels with a study.

Nothing here runs it. Workers do (`study.training.own`).
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from study.errors import SpaceError
from study.files import NOT_FETCHED, POINTER


@dataclass(frozen=True)
class ModelSource:
    """``function`` of the Python file ``path`` (absolute), and the file's ``text``."""

    path: str
    function: str
    text: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the network, 64 hexadecimal digits."""
        return hashlib.sha256(f"{self.function}\n{self.text}".encode()).hexdigest()

    @property
    def name(self) -> str:
        """``my_model.py:build``, for messages."""
        return f"{Path(self.path).name}:{self.function}"

    @classmethod
    def read(cls, reference: str, folder: Path, origin: str) -> Self:
        """The source that ``FILE.py:FUNCTION`` names, from ``folder``; raises ``SpaceError``."""
        name, _, function = reference.rpartition(":")
        if not name.endswith(".py") or not function.isidentifier():
            raise SpaceError(
                f'{origin}: model: "{reference}" is not allowed; give "FILE.py:FUNCTION"'
            )
        path = (folder / Path(name).expanduser()).resolve()
        try:
            text = path.read_text("utf-8")
            if text.startswith(POINTER):
                raise SpaceError(f"{origin}: model: {path}: {NOT_FETCHED}")
            ast.parse(text)
            return cls(str(path), function, text)
        except FileNotFoundError:
            raise SpaceError(
                f"{origin}: model: {path} is not there; its path counts from the space's folder"
            ) from None
        except SyntaxError as error:
            raise SpaceError(
                f"{origin}: model: {path}: line {error.lineno}: {error.msg}; mend the file"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or null bytes
            raise SpaceError(
                f"{origin}: model: {path} cannot be read ({error}); give a Python file in UTF-8"
            ) from None

    def again(self) -> ModelSource:
        """As the file is now; where it is there no more, as it was recorded."""
        try:
            return ModelSource(self.path, self.function, Path(self.path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            return self
