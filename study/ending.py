"""How commands end: the one place that exits. A mistake is one line and 2, Ctrl-C 130."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from study.errors import StudyError

if TYPE_CHECKING:
    from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, to be answered as Ctrl-C is."""


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
        typer.echo(f"\nStopped; nothing is lost. Continue with: python -m study {command}")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    else:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn a mistake that has a message into one line and exit code 2."""
    from study import storage

    try:
        with storage.explained(url):
            yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None
    except StudyError as error:
        message = " ".join(str(error).split())
        typer.echo(f"study: {message}", err=True)
        raise typer.Exit(2) from None


def print_json(value: object) -> None:
    """Print what a program is to read."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
