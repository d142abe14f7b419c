"""A custom model: the function that builds it, as text that travels with a study.

Nothing here runs it. Workers do (`study.training.custom_model`).
"""

from __future__ import annotations

import ast
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from study.errors import ModelError, SpaceError
from study.files import NOT_FETCHED, POINTER, absolute


@dataclass(frozen=True)
class ModelSource:
    """``function`` of the Python file ``path`` (absolute), and the file's ``text``.

    ``files`` are others that it reads, such as weights: each with its path from the folder of the
    Python file, and its SHA-256. ``features`` is the function of the same file that returns the
    frozen backbone, whose outputs ``function`` builds a head for; None where it takes images.
    """

    path: str
    function: str
    text: str
    files: tuple[tuple[str, str], ...] = ()
    features: str | None = None

    def __post_init__(self) -> None:  # JSON has no tuples
        object.__setattr__(self, "files", tuple((name, digest) for name, digest in self.files))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the network, 64 hexadecimal digits."""
        beside = "".join(f"\n{name} {digest}" for name, digest in self.files)
        beside += f"\nfeatures {self.features}" if self.features else ""
        return hashlib.sha256(f"{self.function}\n{self.text}{beside}".encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of the file alone, as `sha256sum` shows it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """``my_model.py:build``, for messages."""
        return f"{Path(self.path).name}:{self.function}"

    @property
    def backbone(self) -> str:
        """``my_model.py:backbone``, for messages."""
        return f"{Path(self.path).name}:{self.features}"

    @classmethod
    def read(
        cls,
        reference: str,
        folder: Path,
        origin: str,
        files: tuple[str, ...] = (),
        features: str | None = None,
    ) -> Self:
        """The source that ``FILE.py:FUNCTION`` names, with the ``files`` it reads.

        ``features`` names a function of the same file in the same way. Paths count from
        ``folder``. Raises ``SpaceError``, which begins with ``origin``.
        """
        name, _, function = reference.rpartition(":")
        if not name.endswith(".py") or not function.isidentifier():
            raise SpaceError(
                f'{origin}: model: "{reference}" is not allowed; give "FILE.py:FUNCTION"'
            )
        path = absolute(name, folder)
        backbone = features and _beside(features, path, folder, f"{origin}: features", name)
        try:
            text = path.read_text("utf-8")
            if text.startswith(POINTER):
                raise SpaceError(f"{origin}: model: {path}: {NOT_FETCHED}")
            ast.parse(text)
        except FileNotFoundError:
            raise SpaceError(
                f"{origin}: model: {path} is not there; its path counts from the space's folder"
            ) from None
        except SyntaxError as error:
            raise SpaceError(
                f"{origin}: model: {path}: line {error.lineno}: {error.msg}; correct the file"
            ) from None
        except (OSError, ValueError, RecursionError) as error:  # no UTF-8, null bytes, too deep
            raise SpaceError(
                f"{origin}: model: {path} cannot be read ({error}); give a Python file in UTF-8"
            ) from None
        digests = {}
        for beside in sorted({absolute(one, folder) for one in files}):
            digest = _digest(beside)
            if digest is None:
                raise SpaceError(
                    f"{origin}: files: {beside} is not there or cannot be read; its path counts "
                    "from the space's folder"
                )
            digests[os.path.relpath(beside, path.parent)] = digest
        return cls(str(path), function, text, tuple(digests.items()), backbone)

    def now(self, path: Path) -> ModelSource | None:
        """The same source as its files are now, with the Python file at ``path``; None: none."""
        try:
            text = path.read_text("utf-8")
        except (OSError, ValueError):
            return None
        files = ((name, _digest(path.parent / name) or "") for name, _ in self.files)
        return replace(self, path=str(path), text=text, files=tuple(files))

    def changed_in(self, now: ModelSource) -> Path:
        """The first file in which it is another one ``now``."""
        if now.text != self.text:
            return Path(now.path)
        name, _ = min({*self.files} ^ {*now.files})
        return Path(now.path).parent / name

    def check_files(self) -> None:
        """Raise ``ModelError`` where one of ``files`` is not on this machine, or is another.

        The text travels to workers. Files do not, as they may be large; those that a backbone reads
        are not needed there.
        """
        for name, digest in self.files:
            path = Path(self.path).parent / name
            here = _digest(path)
            if here is None and self.features:
                continue
            if here != digest:
                what = "is not on this machine" if here is None else "is another file here"
                raise ModelError(f"{path} {what}: copy it from where the study was made")


def _beside(features: str, path: Path, folder: Path, key: str, name: str) -> str:
    """The function of the Python file ``path`` that ``features`` names; ``SpaceError`` if none."""
    file, _, function = features.rpartition(":")
    if not function.isidentifier() or not file or absolute(file, folder) != path:
        raise SpaceError(
            f'{key}: "{features}" is not allowed; give a function of the file of model, as in '
            f'"{name}:backbone"'
        )
    return function


@dataclass(frozen=True)
class BackboneFacts:
    """A frozen backbone: the ``shape`` of its output for one image, its number of weights.

    ``digest`` is the SHA-256 of its layers and weights.
    """

    shape: tuple[int, ...]
    parameters: int
    digest: str

    def __post_init__(self) -> None:  # JSON has no tuples
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))


@dataclass(frozen=True)
class NetworkFacts:
    """What was found of a custom model when it was built, before anything was trained.

    ``parameters`` is the number of its weights at the start, without those of its ``backbone``. A
    saved model needs ``classes`` of the Python file to be loaded. ``unused`` are methods of the
    model's class that are never called. ``unbuilt`` says with which options it cannot be built, and
    why.
    """

    parameters: int
    classes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    backbone: BackboneFacts | None = None
    unbuilt: tuple[str, ...] = ()

    def __post_init__(self) -> None:  # JSON has no tuples and no dataclasses
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "unused", tuple(self.unused))
        object.__setattr__(self, "unbuilt", tuple(self.unbuilt))
        if self.backbone is not None and not isinstance(self.backbone, BackboneFacts):
            object.__setattr__(self, "backbone", BackboneFacts(**self.backbone))


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file; None where there is none."""
    try:
        if not path.is_file():  # a device may have no end
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
