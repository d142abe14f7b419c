"""Studies on a table of curves in place of training: what they answer, and what it costs.

`simulate` lets a plan, the code that a study runs, see rows as the driver would store them. Any
other procedure works with a `Meter`: both pay an epoch for each that was not trained before.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import blas_threads  # noqa: F401 - before NumPy
import numpy as np
from meter import Draw, Meter, Spent
from tables import Table, TableError

from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.results import Configuration, StoredTrial
from study.plan.sweep import OneAtATime
from study.space.search_space import Score
from study.training import recipe
from study.tuning.pruning import Margin


@dataclass(frozen=True)
class Stated:
    """What a study says of its answer: accuracies and distances are fractions.

    ``within`` is the probability that the answer is within the tolerance of the best, ``accuracy``
    and ``distance`` (to the best) are intervals, ``mean`` and ``error`` those of its accuracy. Best
    of these ``compared``; of all where it is empty.
    """

    within: float | None = None
    accuracy: tuple[float, float] | None = None
    distance: tuple[float, float] | None = None
    reason: str | None = None
    mean: float | None = None
    error: float | None = None
    compared: tuple[Configuration, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a simulated study ended: its answer is a place in the table's configurations.

    ``at`` holds the answer that stood when each of the limits (epochs) was reached; ``seconds``
    is how long the table says that the workers trained; ``unused`` are the table's repeats that the
    study has not seen; ``start`` is the place of the configuration that it started from.
    """

    answer: int
    epochs: int
    seconds: float = 0.0
    stated: Stated | None = None
    at: tuple[int, ...] = ()
    unused: tuple[int, ...] = ()
    start: int | None = None


Procedure = Callable[[Meter], Stated | None]
"""Trains on a meter and leaves its ``answer`` there."""


def drawn(table: Table, study: int, seed: int, repeats: int) -> Draw:
    """What study number ``study`` draws, whichever strategy it is to try."""
    rng = np.random.default_rng([seed, study])
    start = table.configurations[rng.integers(len(table.configurations))]
    order = tuple(map(int, rng.permutation(table.repeats)))
    space = table.started(start, repeats)
    return Draw(space, start, int(rng.integers(2**31)), order, table.images, table.pool)


def run(
    table: Table,
    procedure: Procedure,
    studies: int,
    *,
    seed: int = 1,
    repeats: int = 3,
    limits: Sequence[int] = (),
    processes: int = 1,
) -> list[Outcome]:
    """The outcomes of ``studies`` studies, the same with any number of processes."""
    if processes == 1:
        return [_one(table, procedure, n, seed, repeats, limits) for n in range(studies)]
    global _WORK  # noqa: PLW0603 - forked processes inherit what cannot be pickled
    _WORK = table, procedure, seed, repeats, limits
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return pool.map(_forked, range(studies), chunksize=max(1, studies // (8 * processes)))


_WORK: tuple[Any, ...] = ()


def _forked(study: int) -> Outcome:
    table, procedure, seed, repeats, limits = _WORK
    return _one(table, procedure, study, seed, repeats, limits)


def _one(
    table: Table,
    procedure: Procedure,
    study: int,
    seed: int,
    repeats: int,
    limits: Sequence[int],
) -> Outcome:
    meter = Meter(table, drawn(table, study, seed, repeats), limits)
    try:
        stated = procedure(meter)
    except Spent:
        stated = None
    start = table.index[meter.draw.start]
    held = meter.answer, meter.epochs, meter.seconds, stated, meter.at, meter.unused
    return Outcome(*held, start)


def simulate(
    table: Table,
    make_plan: Callable[[Draw], Plan],
    studies: int,
    *,
    seed: int = 1,
    repeats: int = 3,
    workers: int = 1,
    margin: Margin | None = None,
    limits: Sequence[int] = (),
    stated: Callable[[PlanState], Stated | None] = lambda _: None,
    processes: int = 1,
) -> list[Outcome]:
    """Let a plan work on a table, study after study.

    ``margin`` prunes as the sweep's pruner does. ``stated`` reads what a plan_state says of its
    answer. Of the studies that reach the last of the ``limits`` (epochs) nothing is stated.
    """

    def procedure(meter: Meter) -> Stated | None:
        return stated(play(meter, make_plan(meter.draw), workers, margin))

    options = {"seed": seed, "repeats": repeats, "limits": limits, "processes": processes}
    return run(table, procedure, studies, **options)


def play(meter: Meter, plan: Plan, workers: int = 1, margin: Margin | None = None) -> PlanState:
    """Let a plan work on a meter until it is complete, or until the meter's last limit."""
    return _Play(meter, plan, workers, margin).play()


@dataclass
class _Active:
    """A run that a simulated worker trains: its place in the rows, and when its epoch ends."""

    slot: RunSpec
    place: int
    curve: list[float]
    reference: list[float] | None
    done: int
    until: int
    ends: float


class _Play:
    """One study: the driver's loop over rows in memory, on a clock that the table's seconds move.

    A plan_state is asked for when a run starts or ends, as the driver does.
    """

    def __init__(self, meter: Meter, plan: Plan, workers: int, margin: Margin | None) -> None:
        self.meter = meter
        self.plan = plan.adapted(metric=plan.metric, compares=margin is not None)
        self.workers = workers
        self.margin = margin
        self._score: Score = plan.space.score if isinstance(plan, OneAtATime) else "last"
        self.rows: list[StoredTrial] = []
        self.places: dict[tuple[Configuration, int], int] = {}
        self.active: list[_Active] = []
        self.now = 0.0
        self.prefer: Configuration | None = None

    def play(self) -> PlanState:
        """Play until the plan is complete."""
        while True:
            plan_state = self._fill()
            if not self.active:
                return plan_state
            ended = False
            while not ended:
                run = min(self.active, key=lambda active: active.ends)
                self.now = run.ends
                ended = self._epoch(run)

    def _standing(self) -> PlanState:
        for run in self.active:
            row = self.rows[run.place]
            if len(row.reported) != run.done:
                self.rows[run.place] = self._row(row, run.done)
        plan_state = self.plan.state(self.rows)
        if plan_state.incumbent is not None:
            self.meter.answer = self.meter.table.index[plan_state.incumbent]
        self.meter.seconds = self.now
        return plan_state

    def _fill(self) -> PlanState:
        """Stop runs that cannot count any more, start those that can while workers are free."""
        plan_state = self._standing()
        outdated = [run for run in self.active if plan_state.superseded(run.slot)]
        for run in outdated:
            self._end(run, "pruned", attributes={"cancelled": "the plan does not want it any more"})
        plan_state = self._standing() if outdated else plan_state
        while len(self.active) < self.workers:
            if not plan_state.next:
                break
            preferred = (slot for slot in plan_state.next if slot.configuration == self.prefer)
            self._start(next(preferred, plan_state.next[0]))
            if len(self.active) == self.workers:
                break
            plan_state = self._standing()
        return plan_state

    def _start(self, slot: RunSpec) -> None:
        """Begin a run, or go on with a paused one."""
        configuration = slot.configuration
        if configuration is None:
            configuration = self.plan.suggest(slot, self.rows)
            slot = replace(slot, configuration=configuration)
        table, order = self.meter.table, self.meter.draw.order
        if slot.repeat >= len(order):
            raise TableError(
                f"the strategy asks for repeat {slot.repeat + 1}, and the table has {len(order)}: "
                "give fewer --repeats"
            )
        key = configuration, slot.repeat
        place = self.places.setdefault(key, len(self.rows))
        if place == len(self.rows):
            self.rows.append(_begun(slot, place))
        else:
            self.rows[place] = replace(self.rows[place], state="running", until=slot.epochs)
        done = len(self.rows[place].reported)
        reference = None
        if self.margin and slot.reference:
            reference = self.meter.curve(table.index[slot.reference], slot.repeat)
        curve = self.meter.curve(table.index[configuration], slot.repeat)
        until = slot.epochs or len(curve)
        run = _Active(slot, place, curve, reference, done, min(until, len(curve)), 0.0)
        run.ends = self.now + self._seconds(run)
        self.active.append(run)

    def _epoch(self, run: _Active) -> bool:
        """An epoch more of a run; whether that was its last for now."""
        self.meter.pay()
        run.done += 1
        if run.reference is not None:
            assert self.margin is not None
            so_far = run.curve[: run.done]
            if self.margin.behind(so_far, run.reference, self.meter.draw.images) is not None:
                self._end(run, "pruned")
                return True
        if run.done == len(run.curve):
            params, metric = dict(run.slot.configuration or ()), self.plan.metric
            value = recipe.value(params, run.curve, metric, self._score)
            self._end(run, "complete", value=value)
        elif run.done >= run.until:
            self._end(run, "paused")
        else:
            run.ends = self.now + self._seconds(run)
            return False
        return True

    def _end(self, run: _Active, state: str, **changes: Any) -> None:
        row = self._row(self.rows[run.place], run.done)
        self.rows[run.place] = replace(row, state=state, **changes)
        if state != "paused":  # what was stopped is trained anew if the plan wants it once more
            del self.places[row.configuration, row.repeat]
        self.active = [other for other in self.active if other is not run]
        self.prefer = row.configuration

    def _row(self, row: StoredTrial, epochs: int) -> StoredTrial:
        """The row with its curve up to ``epochs``."""
        table = self.meter.table
        cell = table.index[row.configuration], self.meter.draw.order[row.repeat]
        series = {
            "val_accuracy": table.val_acc,
            "val_loss": table.val_loss,
            "seconds": table.seconds,
        }
        curve = {
            name: values[cell][:epochs].tolist()
            for name, values in series.items()
            if values is not None
        }
        return replace(row, reported=tuple(curve["val_accuracy"]), curve=curve)

    def _seconds(self, run: _Active) -> float:
        """How long the run's next epoch lasts; 1 where the table does not say."""
        table = self.meter.table
        if table.seconds is None:
            return 1.0
        place = table.index[self.rows[run.place].configuration]
        order = self.meter.draw.order[run.slot.repeat]
        return float(table.seconds[place, order, min(run.done, table.epochs - 1)])


def _begun(slot: RunSpec, number: int) -> StoredTrial:
    assert slot.configuration is not None
    return StoredTrial(
        number=number,
        trial_id=number,
        state="running",
        stage=slot.stage,
        option=slot.option,
        configuration=slot.configuration,
        repeat=slot.repeat,
        reference=slot.reference,
        until=slot.epochs,
        value=None,
    )
