"""Observers of a running study: a live view in a terminal or notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from html import escape
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from study.cli.terminal import say
from study.plan.plan import PlanState
from study.plan.results import Configuration
from study.space.metric import Metric
from study.storage.ledger import ActiveRun
from study.text import sentences as words
from study.text import tables, units
from study.text.units import duration
from study.workers.engine import EpochReported, Event, RunFailed, RunFinished

_PAUSE = 0.5  # seconds between two updates of a notebook's output


class Progress:
    """Runs done, speed, and an upper bound of the time left."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._times: deque[float] = deque([time.monotonic()], maxlen=200)

    def count(self, event: Event | None) -> None:
        if isinstance(event, EpochReported):
            self._times.append(time.monotonic())

    @property
    def rate(self) -> float:
        """Epochs per second, over the last 200."""
        elapsed = time.monotonic() - self._times[0]
        return (len(self._times) - 1) / elapsed if elapsed > 0 else 0.0

    def line(self, plan_state: PlanState, active: Mapping[int, ActiveRun]) -> str:
        """Runs done and expected, epochs per second, and the most time left."""
        done = f"{plan_state.runs} of at most {plan_state.runs_expected} runs"
        ahead = (plan_state.runs_expected - plan_state.runs) * self._epochs
        ahead -= sum(run.stored for run in active.values())
        race = plan_state.race
        if race is not None:
            done = words.race_in_short(race, plan_state.metric)
            ahead = int(race.left)
        if not self.rate:
            return f"{done} · starting TensorFlow"
        timed = race is not None and race.unit == "seconds"
        left = duration(max(0, ahead) / (1 if timed else self.rate))
        return f"{done} · {self.rate:.1f} epochs a second · at most {left} left"


class Lines:
    """Prints a line for each run that ends and each stage that is decided."""

    def __init__(self, console: Console, epochs: int, *, each_epoch: bool = False) -> None:
        self._console = console
        self._progress = Progress(epochs)
        self._each_epoch = each_epoch
        self._before: dict[int, ActiveRun] = {}
        self._decided = -1
        self._leader: Configuration | None = None

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        self._progress.count(event)
        for number, run in self._before.items():
            if number not in active:
                say(
                    self._console,
                    f"{_ended(run, event, plan_state)}"
                    f"  [{self._progress.line(plan_state, active)}]",
                )
        if self._each_epoch and isinstance(event, EpochReported) and event.key in active:
            now = _latest(active[event.key], plan_state.metric)
            text = f"epoch {event.epoch.number + 1}, {now}"
            say(self._console, f"  {_run(active[event.key], plan_state)}: {text}")
        self._before = dict(active)
        self._stages(plan_state)
        if plan_state.race is not None and plan_state.incumbent != self._leader:
            self._leader = plan_state.incumbent
            say(self._console, f"{units.params(plan_state.incumbent or ())} leads")

    def _stages(self, plan_state: PlanState) -> None:
        decided = [stage for stage in plan_state.stages if stage.decided]
        for stage in decided[self._decided :] if self._decided >= 0 else []:
            if stage.selected is not None:
                mean = stage.selected.score if stage.kind != "confirmed" else None
                shown = f", {units.score(mean, plan_state.metric)}" if mean else ""
                say(self._console, f"{words.decision(stage)}{shown}")
        self._decided = len(decided)


class View:
    """The open stage with its options, the runs in progress, the time left."""

    hint = "Ctrl-C stops; resume continues."

    def __init__(self, console: Console, epochs: int, repeats: int) -> None:
        self._progress = Progress(epochs)
        self._repeats = repeats
        self._epochs = epochs
        self._state: PlanState | None = None
        self._active: dict[int, ActiveRun] = {}
        self._console = console

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        self._progress.count(event)
        self._state, self._active = plan_state, dict(active)

    def parts(self) -> Iterator[tables.Table | Text]:
        """The lines and the table of the view, from top to bottom."""
        if self._state is None:
            yield Text("starting")
            return
        for stage in self._state.stages:
            if stage.decided:
                yield Text(words.decision(stage), style="dim")
        race = self._state.race
        if race is None:
            yield tables.stage_table(self._state.stages[-1], self._repeats)
        else:
            yield tables.contenders(race, self._state.metric)
        for run in self._active.values():
            yield Text(_active_line(run, self._epochs, self._state))
        if not self._state.complete:
            yield Text(self._progress.line(self._state, self._active), style="bold")
            yield Text(self.hint, style="dim")


class Screen(View):
    """The view in a terminal, redrawn in place."""

    def __init__(self, console: Console, epochs: int, repeats: int) -> None:
        super().__init__(console, epochs, repeats)
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._console.show_cursor()  # a driver that is killed could not show it again
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __rich__(self) -> RenderableType:
        return Group(*self.parts())


class Cell(View):
    """The view below a cell of a notebook: one output, which is updated in place."""

    hint = "Interrupt the kernel to stop; run the cell again to continue."

    def __init__(self, console: Console, epochs: int, repeats: int) -> None:
        super().__init__(console, epochs, repeats)
        self._handle: Any = None
        self._shown = -math.inf

    def __enter__(self) -> Self:
        show: Any = import_module("IPython.display")  # nowhere but in a notebook
        self._handle = show.display(self, display_id=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.update(self)

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        super().see(plan_state, active, event)
        if time.monotonic() >= self._shown + _PAUSE:
            self._handle.update(self)
            self._shown = time.monotonic()

    def _repr_html_(self) -> str:
        from study.report.notebook import table_html

        return "".join(
            f"<div>{escape(part.plain)}</div>" if isinstance(part, Text) else table_html(part)
            for part in self.parts()
        )


def watching(
    console: Console, epochs: int, repeats: int, *, verbose: bool = False
) -> AbstractContextManager[Lines | View]:
    """The observer for this console: a cell of a notebook, a terminal, or lines of text."""
    if console.is_jupyter:
        return Cell(console, epochs, repeats)
    if console.is_terminal and not verbose:
        return Screen(console, epochs, repeats)
    return nullcontext(Lines(console, epochs, each_epoch=verbose))


def _active_line(run: ActiveRun, epochs: int, plan_state: PlanState) -> str:
    now = f", {_latest(run, plan_state.metric)}" if run.stored else ""
    return f"{_run(run, plan_state)}: epoch {run.stored} of {run.spec.epochs or epochs}{now}"


def _latest(run: ActiveRun, metric: Metric) -> str:
    """The metric after the last epoch that is stored."""
    curve = run.curve.get(metric.name)
    return metric.text(curve[-1]) if curve else "nothing"


def _run(run: ActiveRun, plan_state: PlanState) -> str:
    """A run's option and repeat, or its configuration where a stage compares configurations."""
    spec = run.spec
    whole = plan_state.stages[-1].kind == "configurations"
    what = units.params(spec.configuration or ()) if whole else f"{spec.stage} {spec.option}"
    return f"{what}, repeat {spec.repeat + 1}"


def _ended(run: ActiveRun, event: Event | None, plan_state: PlanState) -> str:
    named = _run(run, plan_state)
    last = _latest(run, plan_state.metric)
    if isinstance(event, RunFailed) and event.key == run.trial.number:
        return f"{named}: failed, {event.reason}"
    if isinstance(event, RunFinished) and event.key == run.trial.number:
        if event.model is None:
            return f"{named}: {last} after {units.counted(run.stored, 'epoch')}, paused"
        return f"{named}: {last} in {sum(run.curve['seconds']):.1f} s"
    if isinstance(event, EpochReported) and event.key == run.trial.number:
        return f"{named}: stopped at epoch {run.stored} with {last}"
    return f"{named}: cancelled, the plan does not need it"
