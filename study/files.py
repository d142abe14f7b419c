"""Paths that the user gave, atomic writes, and text from outside made safe to show."""

from __future__ import annotations

import csv
import errno
import glob
import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

POINTER = "version https://git-lfs.github.com/spec/"
"""The first line of the text that Git leaves in the place of a large file that was not fetched."""

NOT_FETCHED = "a Git LFS pointer and not the file itself; fetch it with: git lfs pull"


def absolute(path: str | Path, folder: str | Path = ".") -> Path:
    """A path that the user gave, which counts from ``folder``, from the root.

    pathlib would raise for the ``~`` of an unknown user, for links in a circle and for a zero byte:
    here they are paths of what is not there.
    """
    path = str(path).replace("\0", "\\0")
    return Path(os.path.realpath(os.path.join(folder, os.path.expanduser(path))))  # noqa: PTH111, PTH118


def require_no_link(folder: Path) -> None:
    """Raise `OSError` where a folder that the program names itself is a link: it is another's."""
    for one in (folder, folder.parent):
        if one.is_symlink():
            raise OSError(errno.ELOOP, f"{one.name} is a link", str(one))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, flushed to the disk; its folder is made; raises OSError."""
    write_together(path.parent, {path.name: content})


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """The same of several files: none is replaced before all are written; in their order."""
    for name in files:
        if (folder / name).is_dir():
            raise IsADirectoryError(None, f"{name} is a folder in it" if name else "is a folder")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    aside = {name: folder / f".{name}.{uuid.uuid4().hex}.tmp" for name in files}
    try:
        for name, content in files.items():
            with aside[name].open("xb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
        for name in files:
            aside[name].replace(folder / name)
    finally:
        for path in aside.values():
            path.unlink(missing_ok=True)
        if new:
            with suppress(OSError):  # it is not empty, or was never made
                folder.rmdir()


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which takes its place at the end or not at all."""
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("xb") as opened:
            yield opened
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        if new:
            with suppress(OSError):  # it is not empty
                path.parent.rmdir()


@contextmanager
def made_once(path: Path) -> Iterator[Path]:
    """A path beside ``path`` at which to make a file, which then takes its place whole.

    A file that another process has made there meanwhile is kept.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield aside
        with suppress(FileExistsError):
            try:
                path.hardlink_to(aside)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                if not path.exists():
                    aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Write a nameless file into a folder, or into the one that it would be made in; OSError."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is not a folder")
    with tempfile.TemporaryFile(dir=there) as opened:
        opened.write(b"probe")


def unfinished(path: Path) -> Iterable[Path]:
    """What killed processes left of ``path`` beside it."""
    return path.parent.glob(f".{glob.escape(path.name)}.*.tmp")


# Control characters, marks and overrides of direction, separators of lines, halves of characters.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    r"""A text from outside as one line that a terminal shows as it is.

    Control characters, line breaks, marks that change the direction of writing and bytes that are
    not UTF-8 become escapes such as ``\x1b``.
    """
    return _CONTROL.sub(_escaped, str(text))


def _escaped(sign: re.Match[str]) -> str:
    byte = ord(sign[0]) - 0xDC00  # of a file's name that is not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(sign[0])[1:-1]


def of_the_system(error: OSError) -> str:
    """What the operating system refused, and of which file."""
    if error.filename is None and error.errno == errno.ENOENT:
        return "the current folder does not exist any more; change to another one"
    where = "" if error.filename is None else f"{error.filename}: "
    more = "; raise the limit with: ulimit -n 1024" if error.errno == errno.EMFILE else ""
    return f"{where}{error.strerror or error}{more}"


def csv_text(columns: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """A CSV file; its cells are those of `csv_cell`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows(map(csv_cell, line) for line in lines)
    return text.getvalue()


def csv_cell(value: object) -> object:
    """A value for a CSV file: a text that a spreadsheet would run as a formula begins with ``'``.

    Numbers stay numbers (see OWASP, "CSV injection").
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
