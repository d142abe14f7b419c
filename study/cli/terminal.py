"""Printing, and the streams that it goes to.

Names of studies, classes and files are other people's text: no control character of theirs reaches
the terminal. A stream that cannot be written does not end a study.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from study.files import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from study.data.reading import ProgressCallbacks
    from study.running.growth import Growth

PATIENCE = 2.0
"""Seconds before progress is shown."""

_IN_ASCII = {"±": "+-", "·": "-", "\u2013": "-", "…": "...", "\u00d7": "x", "→": "->"}


class SafeConsole(Console):
    """A console on which text cannot move the cursor, change colours or turn its direction."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                text = "\n".join(map(printable, segment.text.split("\n")))
                yield Segment(text, segment.style)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print one line, however wide the terminal is; brackets in names are not markup."""
    text = printable(sentence)
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print JSON for a program to read."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")


@contextmanager
def progress_bar(console: Console, patience: float = PATIENCE) -> Iterator[ProgressCallbacks]:
    """Callbacks for reading data: a progress bar on a terminal, else a line every few seconds.

    Nothing is shown for what takes less than ``patience`` seconds.
    """
    from study.data.reading import ProgressCallbacks

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("", start=True)
    next_line: float | None = None

    def progress(what: str, done: int, total: int) -> None:
        nonlocal next_line
        next_line = next_line or time.monotonic() + patience
        bar.update(task, description=what, completed=done, total=total)
        if done == total:
            stop()
        elif time.monotonic() < next_line:
            return
        elif console.is_terminal:
            bar.start()
        else:
            say(console, f"{what}: {done:,} of {total:,}")
            next_line = time.monotonic() + 5 * patience

    def stop() -> None:
        if bar.live.is_started:  # stopping one that was never started prints an empty line
            bar.stop()

    try:
        yield ProgressCallbacks(partial(say, console), progress)
    finally:
        stop()


def approve(growth: Growth, *, yes: bool, quiet: bool) -> None:
    """Print what a change of a study means; ask on a terminal whether its space may change.

    Raises ``SettingsError`` where it may not, and where nobody can be asked and ``yes`` is not
    given.
    """
    from study.errors import SettingsError
    from study.running.growth import refuse

    console = SafeConsole(stderr=quiet)
    asks = growth.asks and not yes
    if asks and not sys.stdin.isatty():
        refuse(growth)
    if asks or not quiet:
        say(console, f"Study {growth.name!r}: {growth}")
    if not asks:
        return
    console.print("Change the study? [y/N] ", end="", highlight=False)
    answer = sys.stdin.readline()
    if answer.strip().lower() not in {"y", "yes"}:
        raise SettingsError(
            f"study {growth.name!r} is not changed; start another study with --name"
        )


class _Output(io.FileIO):
    """A standard stream; after the first failure to write it drops everything, and says so once."""

    failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self.failed:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = True
                if error.errno != errno.EPIPE and self.fileno() == 1:  # EPIPE: the reader is gone
                    sys.stderr.write(
                        f"study: standard output cannot be written: {error.strerror}\n"
                    )
        return memoryview(data).nbytes


def guard_streams() -> None:
    """Make standard output and error fit for any text, closed ones too.

    A closed stream is replaced by the null device, so that no file which is opened later gets its
    number. Characters that its encoding does not have are written in ASCII.
    """
    codecs.register_error("readable", _readable)
    if os.environ.get("COLUMNS") == "0":  # nothing at all would be printed
        del os.environ["COLUMNS"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if number == 0:
            continue
        stream = getattr(sys, name)
        encoding = "utf-8" if stream is None else stream.encoding
        raw: Any = _Output(number, "wb", closefd=False)
        line_by_line = number == 2 or raw.isatty()
        guarded = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding, errors="readable", line_buffering=line_by_line
        )
        setattr(sys, name, guarded)
        if raw.isatty():  # a live view that was killed has left the cursor hidden
            guarded.write("\x1b[?25h")
            guarded.flush()


def could_write() -> bool:
    """Whether everything that was printed has reached standard output."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return not getattr(raw, "failed", False)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """A handler of codecs: what a terminal's encoding does not have, in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(sign, ascii(sign)[1:-1]) for sign in text), error.end
