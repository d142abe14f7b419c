"""How commands end: a mistake is one line and exit code 2, Ctrl-C 130, SIGTERM 143, SIGHUP 129.

1 means done except for a part, for example ``predict`` with a picture that cannot be read.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer import BadParameter
from typer.core import TyperGroup
from typer.exceptions import TyperException

from study.errors import StudyError
from study.files import of_the_system, printable
from study.storage.location import typed

if TYPE_CHECKING:
    from types import FrameType

    from study.storage.location import Database, Location

# Text that looks like a user's password in an address, which a message may have repeated.
_PASSWORD = re.compile(r"(:/+[^\s/@:]*):(?!\*\*\*@)\S*@")


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP, to be answered as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Commands(TyperGroup):
    """All commands; every mistake in a command line ends in one line and exit code 2."""

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
            _complain(f"{said} (see: {typed(*command, '--help')})")
            sys.exit(2)


def _complain(message: str) -> None:
    """Print one line on standard error, without control characters and passwords."""
    line = _PASSWORD.sub(r"\1:***@", " ".join(message.splitlines()))
    typer.echo(f"study: {printable(line)}", err=True)


def _not_allowed(mistake: TyperException) -> str | None:
    """The message for a value that is not a number or out of bounds; None for other mistakes."""
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
def interruptible(command: str, stored: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """End on Ctrl-C, SIGTERM and SIGHUP without loss, and print the command that continues.

    ``stored``: whether there is a study to continue yet. A SIGHUP that is ignored already, as under
    nohup, stays ignored.
    """

    def terminate(number: int, _: FrameType | None) -> None:
        # An import or a callback of C code can swallow an exception: then send the signal again.
        again = threading.Timer(2.0, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        raise Terminated(number)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, terminate) for number in numbers}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        for number in (signal.SIGINT, *before):
            signal.signal(number, signal.SIG_IGN)
        said = "Stopped before the study was stored. Give the same command again to start it."
        if stored():
            said = f"Stopped; nothing is lost. Continue with: {printable(command)}"
        typer.echo(f"\n{said}")
        code = interrupt.exit_code if isinstance(interrupt, Terminated) else 130
        raise typer.Exit(code) from None
    else:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that has a message into one line and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None
    except StudyError as error:
        _complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        _complain(of_the_system(error))
        raise typer.Exit(2) from None


@contextmanager
def opened(context: typer.Context) -> Iterator[Database]:
    """The database that a command is about; errors end as `explained` says."""
    from study.storage import connection
    from study.storage.location import Database

    with explained():
        database = Database.at(context.params["storage"])
        with closing(database), connection.explained(database.shown):
            yield database


def reported(location: Location) -> str:
    """Write the report of a study; return its path, or the reason why it could not be written."""
    from study.report.write import report

    try:
        return f"Report: {report(location.database, location.name)}"
    except Exception as error:  # noqa: BLE001 - no failure of a figure undoes a study
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"Report: not written ({reason})"
