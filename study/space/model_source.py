"""A custom model: the function that builds it, as text that travels with a study.

Nothing here runs it. Workers do (`study.training.custom_model`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from study.errors import ModelError, SpaceError
from study.files import NOT_FETCHED, POINTER, absolute
from study.space.constant_paths import constant_paths


@dataclass(frozen=True)
class ModelSource:
    """``function`` of the Python file ``path`` (absolute), and the file's ``text``.

    ``files`` are those beside it that the text names, each with its SHA-256.
    """

    path: str
    function: str
    text: str
    files: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:  # JSON has no tuples
        object.__setattr__(self, "files", tuple((name, digest) for name, digest in self.files))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the network, 64 hexadecimal digits."""
        beside = "".join(f"\n{name} {digest}" for name, digest in self.files)
        return hashlib.sha256(f"{self.function}\n{self.text}{beside}".encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of the file alone, as `sha256sum` shows it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

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
        path = absolute(name, folder)
        try:
            text = path.read_text("utf-8")
            if text.startswith(POINTER):
                raise SpaceError(f"{origin}: model: {path}: {NOT_FETCHED}")
            return cls(str(path), function, text, _files(text, path))
        except FileNotFoundError:
            raise SpaceError(
                f"{origin}: model: {path} is not there; its path counts from the space's folder"
            ) from None
        except SyntaxError as error:
            raise SpaceError(
                f"{origin}: model: {path}: line {error.lineno}: {error.msg}; mend the file"
            ) from None
        except (OSError, ValueError, RecursionError) as error:  # no UTF-8, null bytes, too deep
            raise SpaceError(
                f"{origin}: model: {path} cannot be read ({error}); give a Python file in UTF-8"
            ) from None

    def again(self) -> ModelSource:
        """As the file is now; where it is there no more, as it was recorded."""
        path = Path(self.path)
        try:
            text = path.read_text("utf-8")
            return replace(self, text=text, files=_files(text, path))
        except (OSError, SyntaxError, ValueError, RecursionError):
            return self

    def changed_in(self, now: ModelSource) -> Path:
        """The first file in which it is another one ``now``."""
        if now.text != self.text:
            return Path(now.path)
        name, _ = min({*self.files} ^ {*now.files})
        return Path(now.path).parent / name

    def check_files(self) -> None:
        """Raise ``ModelError`` where a file that the text names is not here, or is another.

        The text travels to workers and they do not: they may be large.
        """
        for name, digest in self.files:
            path = Path(self.path).parent / name
            here = _digest(path)
            if here != digest:
                what = "is not on this machine" if here is None else "is another file here"
                raise ModelError(f"{path} {what}: copy it from where the study was made")


@dataclass(frozen=True)
class NetworkFacts:
    """What was found of a study's own network when it was tried, before anything was trained.

    ``parameters`` are those of the start. A saved model needs ``classes`` of the file to be loaded;
    it cannot be loaded where ``unloadable`` says why.
    """

    parameters: int
    classes: tuple[str, ...] = ()
    unloadable: str | None = None

    def __post_init__(self) -> None:  # JSON has no tuples
        object.__setattr__(self, "classes", tuple(self.classes))


def _files(text: str, file: Path) -> tuple[tuple[str, str], ...]:
    """The files that the text of ``file`` names, as in ``"start.weights.h5"``, with their SHA-256.

    Paths count from the folder of the file. Raises ``SyntaxError`` where it is no Python.
    """
    folder = file.parent
    names = {
        str(Path(one).relative_to(folder)) if Path(one).is_relative_to(folder) else one
        for one in constant_paths(text, file)
        if one.isprintable()
    }
    found = [(name, _digest(folder / name)) for name in sorted(names - {file.name})]
    return tuple((name, digest) for name, digest in found if digest)


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file; None where there is none."""
    try:
        if not path.is_file():  # a device may have no end
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
