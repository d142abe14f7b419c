"""How commands end: the one place that exits. A mistake is one line and 2, Ctrl-C 130.

1 is for what is done but for a part, as ``predict`` where a picture cannot be read.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from study.cli.options import DEFAULT_STORAGE
from study.errors import StudyError

if TYPE_CHECKING:
    from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, to be answered as Ctrl-C is."""


def command_line(command: str, name: str, url: str, *options: str) -> str:
    """What to type about a study, with its database unless that is the usual one.

    An address with a password is left out: it is not for the screen.
    """
    from sqlalchemy.engine import make_url

    words = ["python -m study", command, shlex.quote(name), *options]
    if url != DEFAULT_STORAGE and make_url(url).password is None:
        words += ["--storage", shlex.quote(url)]
    return " ".join(words)


class Commands(TyperGroup):
    """All commands; a word that is none of theirs ends as every mistake does: a line and 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any word, print the help."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command and exit."""
        try:
            sys.exit(super().main(*args, **{**extra, "standalone_mode": False}))
        except TyperException as mistake:
            context = getattr(mistake, "ctx", None)
            command = "" if context is None or context.parent is None else f" {context.info_name}"
            said = " ".join(mistake.format_message().split()).rstrip(".")
            if close := getattr(mistake, "possibilities", None):
                said = f"{mistake.message}; did you mean {' or '.join(close)}?"
            typer.echo(f"study: {said} (see: python -m study{command} --help)", err=True)
            sys.exit(2)


@contextmanager
def interruptible(command: str) -> Iterator[None]:
    """Answer Ctrl-C with exit code 130 and SIGTERM with 143, and say which command goes on."""

    def terminate(_: int, __: FrameType | None) -> None:
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
def explained(url: str) -> Iterator[None]:
    """Turn an error that has a message into one line and its exit code."""
    from study.storage import database as storage

    try:
        with storage.explained(url):
            yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None
    except StudyError as error:
        message = " ".join(str(error).split())
        typer.echo(f"study: {message}", err=True)
        raise typer.Exit(error.exit_code) from None


def reported(url: str, name: str) -> str:
    """Write a study's report; where it is or why there is none, as nothing else depends on it."""
    from study.report.write import report

    try:
        return f"Report: {report(url, name)}"
    except Exception as error:  # noqa: BLE001 - the study is done, whatever a drawing may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"Report: not written ({reason})"


def print_json(value: object) -> None:
    """Print what a program is to read."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
