"""What the readers of files share: a refusal of one line, and what the system says of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.errors import DataError

_POINTER = b"version https://git-lfs.github.com/spec/"


def refusal(path: Path, wrong: str, cure: str) -> DataError:
    """What is wrong with a file and what to do; a Git LFS pointer is named, whatever else it seems.

    Git leaves such a text of three lines in the place of a large file that was not fetched.
    """
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
    except OSError:
        pointer = False
    if pointer:
        wrong, cure = "a Git LFS pointer and not the file itself", "fetch it with: git lfs pull"
    return DataError(f"{shown(path)}: {wrong}; {cure}")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system says of a file or folder into a `DataError` that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{shown(error.filename or path)}: cannot be read ({error.strerror or error}); "
            f"check that it is whole and that you may read it"
        ) from error


def shown(path: object) -> str:
    """A path as text that can be printed and stored: one line, and escapes for what is no UTF-8."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
