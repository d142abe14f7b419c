"""What a person sees while a study runs: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from study import tables
from study.driver import Flight
from study.engine import EpochReported, Event, RunFailed, RunFinished
from study.plan import Standing
from study.sweep import NOTED


class Progress:
    """How much is done, how fast it goes and how long it may take."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._times: deque[float] = deque([time.monotonic()], maxlen=200)

    def count(self, event: Event | None) -> None:
        if isinstance(event, EpochReported):
            self._times.append(time.monotonic())

    @property
    def rate(self) -> float:
        """Epochs a second over the last epochs."""
        elapsed = time.monotonic() - self._times[0]
        return (len(self._times) - 1) / elapsed if elapsed > 0 else 0.0

    def line(self, standing: Standing, flights: Mapping[int, Flight]) -> str:
        """Runs done of runs expected, epochs a second, time left at most."""
        done = f"{standing.runs} of at most {standing.runs_expected} runs"
        if not self.rate:
            return f"{done} · starting TensorFlow"
        ahead = (standing.runs_expected - standing.runs) * self._epochs
        ahead -= sum(flight.stored for flight in flights.values())
        left = duration(max(0, ahead) / self.rate)
        return f"{done} · {self.rate:.1f} epochs a second · at most {left} left"


class Silent:
    """Says nothing: ``--quiet``."""

    def see(self, standing: Standing, flights: Mapping[int, Flight], event: Event | None) -> None:
        return


class Lines:
    """A plain line for each run that ends and each stage that is decided."""

    def __init__(self, console: Console, epochs: int, *, each_epoch: bool = False) -> None:
        self._console = console
        self._progress = Progress(epochs)
        self._each_epoch = each_epoch
        self._before: dict[int, Flight] = {}
        self._decided = -1

    def see(self, standing: Standing, flights: Mapping[int, Flight], event: Event | None) -> None:
        self._progress.count(event)
        for number, flight in self._before.items():
            if number not in flights:
                self._say(f"{_ended(flight, event)}  [{self._progress.line(standing, flights)}]")
        if self._each_epoch and isinstance(event, EpochReported) and event.key in flights:
            epoch = event.epoch
            text = f"epoch {epoch.number + 1}, {tables.percent(epoch.val_acc)}"
            self._say(f"  run {event.key}: {text}")
        self._before = dict(flights)
        self._stages(standing)

    def _stages(self, standing: Standing) -> None:
        decided = [stage for stage in standing.stages if stage.decided]
        for stage in decided[self._decided :] if self._decided >= 0 else []:
            if stage.carried is not None:
                mean = stage.carried.score
                shown = f", {tables.score(mean)}" if mean else ""
                self._say(f"{tables.decision(stage)}{shown}")
        self._decided = len(decided)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class Screen:
    """The live view: the open stage with its options, the runs in progress, the time left."""

    def __init__(self, console: Console, epochs: int, repeats: int) -> None:
        self._progress = Progress(epochs)
        self._repeats = repeats
        self._epochs = epochs
        self._standing: Standing | None = None
        self._flights: dict[int, Flight] = {}
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def see(self, standing: Standing, flights: Mapping[int, Flight], event: Event | None) -> None:
        self._progress.count(event)
        self._standing, self._flights = standing, dict(flights)

    def __rich__(self) -> RenderableType:
        if self._standing is None:
            return Text("starting")
        parts: list[RenderableType] = [
            Text(tables.decision(stage), style="dim")
            for stage in self._standing.stages
            if stage.decided
        ]
        parts.append(tables.stage_table(self._standing.stages[-1], self._repeats))
        parts += [Text(_flying(flight, self._epochs)) for flight in self._flights.values()]
        parts.append(Text(self._progress.line(self._standing, self._flights), style="bold"))
        parts.append(Text("Ctrl-C stops; resume continues.", style="dim"))
        return Group(*parts)


def _flying(flight: Flight, epochs: int) -> str:
    accuracies = flight.curve["val_acc"]
    now = f", {tables.percent(accuracies[-1])}" if accuracies else ""
    return f"{_run(flight)}: epoch {flight.stored} of {epochs}{now}"


def _run(flight: Flight) -> str:
    slot = flight.slot
    which = "all noted values" if slot.stage == NOTED else f"{slot.stage} {slot.option}"
    return f"{which}, repeat {slot.repeat + 1}"


def _ended(flight: Flight, event: Event | None) -> str:
    accuracies = flight.curve["val_acc"]
    last = tables.percent(accuracies[-1]) if accuracies else "nothing"
    if isinstance(event, RunFailed) and event.key == flight.trial.number:
        return f"{_run(flight)}: failed, {event.reason}"
    if isinstance(event, RunFinished) and event.key == flight.trial.number:
        return f"{_run(flight)}: {last} in {sum(flight.curve['seconds']):.1f} s"
    if isinstance(event, EpochReported) and event.key == flight.trial.number:
        return f"{_run(flight)}: stopped at epoch {flight.stored} with {last}"
    return f"{_run(flight)}: given up, the sweep does not need it"


def duration(seconds: float) -> str:
    """A duration in the two units that matter."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
