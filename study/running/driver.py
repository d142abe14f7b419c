"""The one loop that owns a study: it alone asks, tells and writes the database.

It submits slots to an engine and turns the engine's events into reports, decisions and results.
It is the same loop for one worker and for many, for a new study and for one that was killed: what
a dead driver left running is adopted, and epochs that are stored already are not stored again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from optuna.trial import Trial, TrialState

from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.results import LEFT_PAUSED, StoredTrial
from study.storage.trials import stored_trial as row
from study.training import recipe
from study.training.keras_file import count_parameters
from study.tuning.run_spec import slot
from study.tuning.sampler import PlanSampler
from study.workers.engine import Engine, EpochReported, Event, RunFailed, RunFinished

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

    from study.training.run import Epoch, Run


@dataclass
class ActiveRun:
    """A run that is being trained: its trial, its slot, and what of its curve is stored."""

    trial: Trial
    slot: RunSpec
    curve: dict[str, list[float]]
    stored: int


class Observer(Protocol):
    """Looks on while a study runs; a projection of the database that decides nothing."""

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        """A new plan_state after ``event``; None: runs were started, or may be."""


class Observers:
    """Several observers as one, or none."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        for observer in self._observers:
            observer.see(plan_state, active, event)


@dataclass(frozen=True)
class Hooks:
    """What the driver needs from outside: how a slot becomes a run, and who is to be told.

    ``describe`` gives attributes of a configuration's run; ``keep`` receives the row and the
    saved model of a complete run, just before it is told, and all rows with it; ``forget`` is
    called with a run that is told and needs no checkpoint any more.
    """

    run: Callable[[RunSpec], Run]
    describe: Callable[[RunSpec], Mapping[str, float | str]]
    keep: Callable[[StoredTrial, bytes, Sequence[StoredTrial]], None]
    forget: Callable[[Run], None]


class Driver:
    """Drives ``study`` along ``plan`` on ``engine`` until the plan is complete.

    ``check_lock`` raises when the study is not this driver's any more; it is called before every
    write.
    """

    def __init__(
        self,
        study: Study,
        plan: Plan,
        pruner: BasePruner,
        engine: Engine,
        hooks: Hooks,
        watch: Observer,
        *,
        check_lock: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_lock = check_lock
        self._sampler = PlanSampler(plan, ends_optimize=False)
        study.sampler = self._sampler
        study.pruner = pruner
        self._sampler.look(study)
        self._study = study
        self._space, self._metric = plan.space, plan.space.metric
        self._engine = engine
        self._hooks = hooks
        self._watch = watch
        self._rows = self._sampler.rows
        self._active: dict[int, ActiveRun] = {}
        self._known: PlanState | None = None

    def drive(self, deadline: float | None = None) -> PlanState:
        """Run the plan; returns early, with the study resumable, at ``deadline`` (monotonic time).

        Whatever ends the loop, the runs in progress stay in the database as they are, for the next
        driver to adopt.
        """
        self._adopt()
        event: Event | None = None
        while True:
            plan_state = self._fill()
            self._watch.see(plan_state, self._active, event)
            if plan_state.complete:
                self._end_paused()
            late = deadline is not None and time.monotonic() >= deadline
            if late or not self._active:
                return plan_state
            event = self._engine.next_event()
            self._check_lock()
            if event is not None:
                self._handle(event)

    def _standing(self) -> PlanState:
        """The plan_state; it changes when a trial starts or ends, not with every epoch."""
        if self._known is None:
            self._known = self._sampler.state(self._rows(self._study))
        return self._known

    def _fill(self) -> PlanState:
        """Cancel runs that no longer count; start new ones while there are workers and slots."""
        if self._known is None:  # else nothing has started or ended since the last look
            for number, run in list(self._active.items()):
                if self._standing().superseded(run.slot):
                    self._cancel(number, "the plan does not want it any more")
        plan_state = self._standing()
        while plan_state.next and len(self._active) < self._engine.workers:
            self._start(self._sampler.next_trial(self._study))
            plan_state = self._standing()
        return plan_state

    def _start(self, trial: Trial) -> None:
        """Start, or start again, the run of a trial that has its run spec."""
        wanted = slot(trial)
        self._space.suggest(trial)
        attributes = {
            "stage": wanted.stage,
            "option": wanted.option,
            "repeat": wanted.repeat + 1,  # people count from 1
            **self._hooks.describe(wanted),
        }
        for name, value in attributes.items():
            if name not in trial.user_attrs:
                trial.set_user_attr(name, value)
        curve, stored = _stored(trial)
        self._active[trial.number] = ActiveRun(trial, wanted, curve, stored)
        self._engine.submit(trial.number, self._hooks.run(wanted))
        self._known = None

    def _adopt(self) -> None:
        """Take over what a dead driver left running; a trial without a run spec never was a run.

        The run it told last is forgotten again: it may have died in between.
        """
        rows = self._rows(self._study)
        unfinished = [row for row in rows if row.state in {"running", "paused"}]
        open_runs = {(row.configuration, row.repeat) for row in unfinished}
        told = max((row for row in rows if row.ended), key=_end, default=None)
        if told is not None and (told.configuration, told.repeat) not in open_runs:
            self._hooks.forget(self._hooks.run(slot(Trial(self._study, told.trial_id))))
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            known = row(frozen)
            if known is None:
                self._study.tell(frozen.number, state=TrialState.FAIL)
            elif known.state != "paused":
                self._start(Trial(self._study, frozen._trial_id))
        self._known = None

    def _handle(self, event: Event) -> None:
        run = self._active[event.key]
        match event:
            case EpochReported(epoch=epoch):
                self._report(run, epoch)
            case RunFinished(model=None):
                self._release(run)
            case RunFinished(model=bytes(model)):
                self._complete(run, model)
            case RunFailed(reason=reason):
                run.trial.set_user_attr("failure", reason)
                self._tell(run, TrialState.FAIL)

    def _report(self, run: ActiveRun, epoch: Epoch) -> None:
        """Store an epoch once, then ask the pruner; a remembered epoch is stored already."""
        if epoch.number < run.stored - 1:
            return
        trial = run.trial
        if epoch.number >= run.stored:
            for name, value in epoch.series().items():
                run.curve.setdefault(name, []).append(value)
            trial.set_user_attr("curve", run.curve)
            trial.report(epoch.logs()[self._metric.name], step=epoch.number + 1)
            run.stored += 1
        if trial.should_prune():
            self._engine.stop(trial.number)
            self._tell(run, TrialState.PRUNED)

    def _complete(self, run: ActiveRun, model: bytes) -> None:
        """Keep the model, then tell: killed in between, the run is adopted and kept again."""
        value = recipe.value(
            dict(run.slot.configuration or ()), run.curve[self._metric.name], self._metric
        )
        rows = {row.number: row for row in self._rows(self._study)}
        done = replace(rows[run.trial.number], state="complete", value=value)
        rows[done.number] = done
        self._hooks.keep(done, model, list(rows.values()))
        if "parameters" not in run.trial.user_attrs and (count := count_parameters(model)):
            run.trial.set_user_attr("parameters", count)  # of a network of one's own
        self._tell(run, TrialState.COMPLETE, value)

    def _cancel(self, number: int, why: str) -> None:
        """Stop a run that cannot count any more."""
        run = self._active[number]
        self._engine.stop(number)
        run.trial.set_user_attr("cancelled", why)
        self._tell(run, TrialState.PRUNED)

    def _tell(self, run: ActiveRun, state: TrialState, value: float | None = None) -> None:
        """Store what the run carries (a finished trial cannot be changed), then its end."""
        series = self._metric.name
        if curve := run.curve.get(series):
            best = self._metric.best(curve)
            run.trial.set_user_attr("best_epoch", best + 1)
            run.trial.set_user_attr(f"best_{series}", curve[best])
            run.trial.set_user_attr("seconds", round(sum(run.curve["seconds"]), 3))
        self._study.tell(run.trial, value, state=state)
        self._release(run)
        self._hooks.forget(self._hooks.run(run.slot))

    def _release(self, run: ActiveRun) -> None:
        """A worker is free again: its run has ended or is paused."""
        self._active.pop(run.trial.number, None)
        self._sampler.prefer = run.slot.configuration  # that worker has this network compiled
        self._known = None

    def _end_paused(self) -> None:
        """Tell the runs that nobody will go on with: the plan is complete."""
        for paused in [one for one in self._rows(self._study) if one.state == "paused"]:
            trial = Trial(self._study, paused.trial_id)
            trial.set_user_attr(LEFT_PAUSED, "the study ended before it was wanted again")
            self._tell(ActiveRun(trial, slot(trial), *_stored(trial)), TrialState.PRUNED)


def _end(row: StoredTrial) -> datetime:
    assert row.ended is not None
    return row.ended


def _stored(trial: Trial) -> tuple[dict[str, list[float]], int]:
    """The part of a trial's curve that is stored whole, and its length in epochs.

    A driver can die between the two statements that store an epoch.
    """
    kept: Mapping[str, list[float]] = trial.user_attrs.get("curve", {})
    reported = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
    length = min([reported, *map(len, kept.values())]) if kept else 0
    return {name: list(values[:length]) for name, values in kept.items()}, length
