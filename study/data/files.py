"""What the readers of files share: a refusal of one line, and what the system says of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.errors import DataError
from study.files import NOT_FETCHED, POINTER


def refusal(path: Path, wrong: str, cure: str) -> DataError:
    """What is wrong with a file and what to do; a Git LFS pointer is named, whatever it seems."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(POINTER)) == POINTER.encode()
    except OSError:
        pointer = False
    return DataError(f"{shown(path)}: {NOT_FETCHED if pointer else f'{wrong}; {cure}'}")


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
