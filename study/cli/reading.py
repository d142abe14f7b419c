"""What is shown while pictures are read: lines, and after two seconds how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from study.cli.exits import say
from study.data.parts import Told

PATIENCE = 2.0  # seconds


@contextmanager
def told(console: Console, patience: float = PATIENCE) -> Iterator[Told]:
    """Who is told: a bar where there is a terminal, else a line when ``patience`` is over."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("", start=True)
    over: float | None = None

    def progress(what: str, done: int, total: int) -> None:
        nonlocal over
        over = over or time.monotonic() + patience
        bar.update(task, description=what, completed=done, total=total)
        if done == total:
            stop()
        elif time.monotonic() < over:
            return
        elif console.is_terminal:
            bar.start()
        else:
            console.print(f"{what}: {done:,} of {total:,}", highlight=False)
            over = time.monotonic() + 5 * patience

    def stop() -> None:
        if bar.live.is_started:  # stopping one that never was prints an empty line
            bar.stop()

    try:
        yield Told(partial(say, console), progress)
    finally:
        stop()
