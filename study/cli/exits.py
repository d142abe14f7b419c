"""How commands end: the one place that exits. A mistake is one line and 2, Ctrl-C 130.

1 is for what is done but for a part, as ``predict`` where a picture cannot be read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer import BadParameter
from typer.core import TyperGroup
from typer.exceptions import TyperException

from study.errors import StudyError
from study.storage.location import typed

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console
    from rich.text import Text

    from study.storage.location import Database, Location


class Terminated(KeyboardInterrupt):
    """SIGTERM, to be answered as Ctrl-C is."""


class Commands(TyperGroup):
    """All commands; a word that is none of theirs ends as every mistake does: a line and 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any word, print the help."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, args: Any = None, *more: Any, **extra: Any) -> NoReturn:
        """Run a command and exit."""
        given = sys.argv[1:] if args is None else list(args)
        try:
            sys.exit(super().main(given, *more, **{**extra, "standalone_mode": False}))
        except TyperException as mistake:
            command = [word for word in given[:1] if word in self.commands]
            said = _not_allowed(mistake) or " ".join(mistake.format_message().split()).rstrip(".")
            if close := getattr(mistake, "possibilities", None):
                said = f"{mistake.message}; did you mean {' or '.join(close)}?"
            typer.echo(f"study: {said} (see: {typed(*command, '--help')})", err=True)
            sys.exit(2)


def _not_allowed(mistake: TyperException) -> str | None:
    """Of a value that is no number, or one out of bounds: what is allowed; else None."""
    from pydantic import ValidationError  # Typer has imported it where there was a value

    if not (isinstance(mistake, BadParameter) and isinstance(mistake.__cause__, ValidationError)):
        return None
    option: Any = mistake.param
    given = f"{option.opts[0]} {mistake.__cause__.errors()[0]['input']}"
    source = mistake.ctx.get_parameter_source(option.name) if mistake.ctx else None
    if source is not None and source.name == "ENVIRONMENT":
        given += f" (from {option.envvar})"
    kind = "a whole number" if option.type_descriptor.annotation is int else "a number"
    bounds = {"of at least": option.min, "and at most": option.max}
    allowed = [f"{words} {bound}" for words, bound in bounds.items() if bound is not None]
    return f"{given} is not allowed; give {' '.join([kind, *allowed])}"


@contextmanager
def interruptible(command: str) -> Iterator[None]:
    """Answer Ctrl-C with exit code 130 and SIGTERM with 143, and say which command goes on."""

    def terminate(_: int, __: FrameType | None) -> None:
        # An import or a callback of C code can swallow what is raised in it: then ask again.
        again = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        typer.echo(f"\nStopped; nothing is lost. Continue with: {command}")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    else:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that has a message into one line and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None
    except StudyError as error:
        message = " ".join(str(error).splitlines())
        typer.echo(f"study: {message}", err=True)
        raise typer.Exit(error.exit_code) from None


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database that a command is about; a mistake, its own too, ends as `explained` says."""
    from study.storage import connection
    from study.storage.location import Database

    with explained():
        database = Database.at(url)
        with closing(database), connection.explained(database.shown):
            yield database


def reported(location: Location) -> str:
    """Write a study's report; where it is or why there is none, as nothing else depends on it."""
    from study.report.write import report

    try:
        return f"Report: {report(location.database, location.name)}"
    except Exception as error:  # noqa: BLE001 - the study is done, whatever a drawing may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"Report: not written ({reason})"


def show_cursor() -> None:
    """Show the terminal's cursor: a live view that was killed has left it hidden."""
    for stream in (sys.stdout, sys.stderr):
        if stream.isatty():
            stream.write("\x1b[?25h")
            stream.flush()
            return


def print_json(value: object) -> None:
    """Print what a program is to read."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def say(console: Console, sentence: str | Text) -> None:
    """One line, however wide the terminal is; brackets in names and paths are not markup."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
