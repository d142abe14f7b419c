"""The one loop that owns a study: it alone asks, tells and writes the database.

It submits slots to an engine and turns the engine's events into reports, decisions and results.
It is the same loop for one worker and for many, for a new study and for one that was killed: what
a dead driver left running is adopted, and epochs that are stored already are not stored again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from optuna.trial import Trial, TrialState

from study import recipe
from study.engine import Engine, EpochReported, Event, RunFailed, RunFinished
from study.errors import SlotFailed
from study.plan import Plan, Slot, Standing
from study.results import FORGIVEN, SERIES, TICKET, Row
from study.sampler import PlanSampler, failed_for_good, slot

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

    from study.training import Epoch, Run


@dataclass
class Flight:
    """A run that is being trained: its trial, its slot, and what of its curve is stored."""

    trial: Trial
    slot: Slot
    curve: dict[str, list[float]]
    stored: int


class Watch(Protocol):
    """Looks on while a study runs; a projection of the database that decides nothing."""

    def see(self, standing: Standing, flights: Mapping[int, Flight], event: Event | None) -> None:
        """A new standing after ``event``; None: runs were started, or may be."""


class Together:
    """Several watches as one."""

    def __init__(self, *watches: Watch) -> None:
        self._watches = watches

    def see(self, standing: Standing, flights: Mapping[int, Flight], event: Event | None) -> None:
        for watch in self._watches:
            watch.see(standing, flights, event)


@dataclass(frozen=True)
class Hooks:
    """What the driver needs from outside: how a slot becomes a run, and who is to be told.

    ``describe`` gives numeric attributes of a configuration; ``keep`` receives the row and the
    saved model of a complete run, just before it is told, and all rows with it; ``forget`` is
    called with a run that is told and needs no checkpoint any more.
    """

    run: Callable[[Slot], Run]
    describe: Callable[[Slot], Mapping[str, float]]
    keep: Callable[[Row, bytes, Sequence[Row]], None]
    forget: Callable[[Run], None]


class Driver:
    """Drives ``study`` along ``plan`` on ``engine`` until the plan is complete.

    ``held`` raises when the study is not this driver's any more; it is asked before every write.
    """

    def __init__(
        self,
        study: Study,
        plan: Plan,
        pruner: BasePruner,
        engine: Engine,
        hooks: Hooks,
        watch: Watch,
        *,
        speculate: bool = False,
        held: Callable[[], None] = lambda: None,
    ) -> None:
        self._held = held
        self._sampler = PlanSampler(plan, speculate=speculate)
        study.sampler = self._sampler
        study.pruner = pruner
        self._study = study
        self._space = plan.space
        self._engine = engine
        self._hooks = hooks
        self._watch = watch
        self._rows = self._sampler.rows
        self._flights: dict[int, Flight] = {}
        self._known: Standing | None = None

    def drive(self, deadline: float | None = None) -> Standing:
        """Run the plan; returns early, with the study resumable, at ``deadline`` (monotonic time).

        Raises ``SlotFailed`` when one slot has failed three times. Whatever ends the loop, the
        runs in progress stay in the database as they are, for the next driver to adopt.
        """
        self._forgive()
        self._adopt()
        event: Event | None = None
        while True:
            standing = self._fill()
            self._watch.see(standing, self._flights, event)
            if standing.failed is not None:
                raise SlotFailed(failed_for_good(standing))
            late = deadline is not None and time.monotonic() >= deadline
            if late or not self._flights:
                return standing
            event = self._engine.next_event()
            self._held()
            if event is not None:
                self._handle(event)

    def _standing(self) -> Standing:
        """The standing; it changes when a trial starts or ends, not with every epoch."""
        if self._known is None:
            self._known = self._sampler.standing(self._rows(self._study))
        return self._known

    def _fill(self) -> Standing:
        """Give up runs that no longer count; start new ones while there are workers and slots."""
        if self._known is None:  # else nothing has started or ended since the last look
            for number, flight in list(self._flights.items()):
                if self._standing().outdated(flight.slot):
                    self._give_up(number, "the plan does not want it any more")
        standing = self._standing()
        while self._sampler.slots(standing) and len(self._flights) < self._engine.workers:
            self._start(self._study.ask())
            standing = self._standing()
        return standing

    def _start(self, trial: Trial) -> None:
        """Start, or start again, the run of a trial that has its ticket."""
        wanted = slot(trial)
        self._space.suggest(trial)
        attributes = {
            "stage": wanted.stage,
            "option": wanted.option,
            "repeat": wanted.repeat,
            **self._hooks.describe(wanted),
        }
        for name, value in attributes.items():
            if name not in trial.user_attrs:
                trial.set_user_attr(name, value)
        curve, stored = _stored(trial)
        self._flights[trial.number] = Flight(trial, wanted, curve, stored)
        self._engine.submit(trial.number, self._hooks.run(wanted))
        self._known = None

    def _adopt(self) -> None:
        """Take over what a dead driver left running; a trial without a ticket never was a run.

        The run it told last is forgotten again: it may have died in between.
        """
        rows = self._rows(self._study)
        open_runs = {(row.configuration, row.repeat) for row in rows if row.state == "running"}
        told = max((row for row in rows if row.ended), key=_end, default=None)
        if told is not None and (told.configuration, told.repeat) not in open_runs:
            self._hooks.forget(self._hooks.run(slot(Trial(self._study, told.trial_id))))
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if TICKET in frozen.system_attrs:
                self._start(Trial(self._study, frozen._trial_id))
            else:
                self._study.tell(frozen.number, state=TrialState.FAIL)
        self._known = None

    def _forgive(self) -> None:
        """A resumed study tries a slot again that failed three times."""
        if self._standing().failed is not None:
            self._study.set_user_attr(FORGIVEN, len(self._study.get_trials(deepcopy=False)))
            self._known = None

    def _handle(self, event: Event) -> None:
        flight = self._flights[event.key]
        match event:
            case EpochReported(epoch=epoch):
                self._report(flight, epoch)
            case RunFinished(model=model):
                self._complete(flight, model)
            case RunFailed(reason=reason):
                flight.trial.set_user_attr("failure", reason)
                self._tell(flight, TrialState.FAIL)

    def _report(self, flight: Flight, epoch: Epoch) -> None:
        """Store an epoch once, then ask the pruner; a remembered epoch is stored already."""
        if epoch.number < flight.stored - 1:
            return
        trial = flight.trial
        if epoch.number >= flight.stored:
            values = asdict(epoch)
            for name in SERIES:
                flight.curve[name].append(values[name])
            trial.set_user_attr("curve", flight.curve)
            trial.report(epoch.val_acc, step=epoch.number + 1)
            flight.stored += 1
        if trial.should_prune():
            self._engine.stop(trial.number)
            self._tell(flight, TrialState.PRUNED)

    def _complete(self, flight: Flight, model: bytes) -> None:
        """Keep the model, then tell: killed in between, the run is adopted and kept again."""
        value = recipe.value(dict(flight.slot.configuration or ()), flight.curve["val_acc"])
        rows = {row.number: row for row in self._rows(self._study)}
        done = replace(rows[flight.trial.number], state="complete", value=value)
        rows[done.number] = done
        self._hooks.keep(done, model, list(rows.values()))
        self._tell(flight, TrialState.COMPLETE, value)

    def _give_up(self, number: int, why: str) -> None:
        """Stop a run that cannot count any more."""
        flight = self._flights[number]
        self._engine.stop(number)
        flight.trial.set_user_attr("given_up", why)
        self._tell(flight, TrialState.PRUNED)

    def _tell(self, flight: Flight, state: TrialState, value: float | None = None) -> None:
        """Store what the run carries (a finished trial cannot be changed), then its end."""
        accuracies = flight.curve["val_acc"]
        if accuracies:
            best = max(range(len(accuracies)), key=accuracies.__getitem__)
            flight.trial.set_user_attr("best_epoch", best + 1)
            flight.trial.set_user_attr("best_val_acc", accuracies[best])
            flight.trial.set_user_attr("seconds", round(sum(flight.curve["seconds"]), 3))
        self._study.tell(flight.trial, value, state=state)
        del self._flights[flight.trial.number]
        # The worker that is free now has this network compiled.
        self._sampler.prefer = flight.slot.configuration
        self._known = None
        self._hooks.forget(self._hooks.run(flight.slot))


def _end(row: Row) -> datetime:
    assert row.ended is not None
    return row.ended


def _stored(trial: Trial) -> tuple[dict[str, list[float]], int]:
    """The part of a trial's curve that is stored whole, and its length in epochs.

    A driver can die between the two statements that store an epoch.
    """
    kept: Mapping[str, list[float]] = trial.user_attrs.get("curve", {})
    reported = len(trial._get_latest_trial().intermediate_values)
    length = min([reported, *(len(kept.get(name, ())) for name in SERIES)])
    return {name: list(kept.get(name, ())[:length]) for name in SERIES}, length
