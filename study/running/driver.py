"""The one loop that drives a study: it alone asks the sampler, writes trials and tells the study.

It submits runs to an engine and turns the engine's events into stored epochs, decisions and
results. The loop is the same for one worker and for many, for a new study and for one that was
killed: runs that a dead driver left are adopted, and epochs that are stored are not stored again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from optuna.trial import TrialState

from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.results import StoredTrial
from study.space.metric import LARGEST
from study.storage.ledger import ActiveRun, ChangedOutside, Ledger
from study.training.keras_file import count_parameters
from study.tuning.sampler import PlanSampler
from study.workers.engine import Engine, EpochReported, Event, Notice, RunFailed, RunFinished
from study.workers.machine import memory

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from study.plan.results import Configuration
    from study.training.run import Epoch, Run

ATTEMPTS = 3
"""A run fails when this many drivers have died at the same epoch of it."""

Say = Callable[[str], None]


class Observer(Protocol):
    """Read-only callback, called after every state change."""

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        """The state after ``event``; None: runs were started, or may be."""


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
    """What differs between the runs of a study and its final runs.

    ``run_of`` makes the run of a spec, ``attributes_of`` further attributes of its trial.
    ``score`` computes the value that configurations are compared by from every series of a complete
    run. ``keep_model`` is called with a complete trial and its saved model just before it is told,
    and with all trials; ``forget_checkpoint`` with a run that is told.
    """

    run_of: Callable[[RunSpec], Run]
    attributes_of: Callable[[RunSpec], Mapping[str, float | str]]
    score: Callable[[RunSpec, Mapping[str, Sequence[float]]], float]
    keep_model: Callable[[StoredTrial, bytes, Sequence[StoredTrial]], None]
    forget_checkpoint: Callable[[Run], None]


class Driver:
    """Drives the study of ``ledger`` along ``plan`` on ``engine`` until the plan is complete.

    ``check`` raises when the study is not this driver's any more; it is called before every write.
    ``say`` prints a line about what does not stop the study.
    """

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        pruner: BasePruner,
        engine: Engine,
        hooks: Hooks,
        observer: Observer,
        *,
        check: Callable[[], None] = lambda: None,
        say: Say = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._sampler = PlanSampler(plan, ends_optimize=False)
        ledger.study.pruner, ledger.study.sampler = pruner, self._sampler
        self._sampler.adapt(ledger.study)
        self._engine = engine
        self._hooks = hooks
        self._observer = observer
        self._check, self._say = check, say
        self._active: dict[int, ActiveRun] = {}
        self._prefer: Configuration | None = None
        self._state: PlanState | None = None  # None: a run has ended
        self._has_started = False
        self._noticed: set[str] = set()

    def drive(self, deadline: float | None = None) -> PlanState:
        """Run the plan; returns early, with the study resumable, at ``deadline`` (monotonic time).

        Whatever ends the loop, the runs in progress stay in the database as they are, for the next
        driver to adopt.
        """
        self._adopt()
        event: Event | None = None
        while True:
            state = self._next_state()
            self._observer.see(state, self._active, event)
            if state.complete:
                self._end_paused()
            late = deadline is not None and time.monotonic() >= deadline
            if late or not self._active:
                return state
            event = self._engine.next_event()
            self._check()
            if event is not None:
                self._handle(event)

    def _adopt(self) -> None:
        """Continue the runs that a dead driver left running.

        The checkpoint of the run that ended last is deleted again, in case the driver died before
        it could. A run at whose very epoch drivers keep dying has failed.
        """
        if (last := self._ledger.last_ended()) is not None:
            self._hooks.forget_checkpoint(self._hooks.run_of(_spec_of(last)))
        for run in self._ledger.adopt():
            if run.deaths >= ATTEMPTS:
                why = (
                    f"the program was killed {run.deaths} times after epoch {run.stored} of this "
                    f"run, as when memory runs out; there are {memory() / 2**30:.1f} GiB"
                )
                self._end(run, TrialState.FAIL, failure=why)
            else:
                self._submit(run)

    def _next_state(self) -> PlanState:
        """Stop the runs that no longer count, and start new ones while workers are free.

        The plan is asked once a run has ended, and between two starts: not with every epoch.
        """
        state = self._state
        if state is None:
            state = self._ask()
            for run in list(self._active.values()):
                if state.superseded(run.spec):
                    self._engine.stop(run.trial.number)
                    self._end(run, TrialState.PRUNED, cancelled="the plan no longer wants it")
                    state = self._ask()
        while len(self._active) < self._engine.workers:
            state = self._ask() if self._has_started else state
            if not state.next:
                break
            self._start(self._sampler.choose(state, self._ledger.trials, self._prefer))
        self._state = state
        return state

    def _ask(self) -> PlanState:
        self._has_started = False
        return self._sampler.plan.state(self._ledger.trials)

    def _start(self, spec: RunSpec) -> None:
        self._has_started = True
        try:
            self._submit(self._ledger.start(spec, self._hooks.attributes_of(spec)))
        except ChangedOutside as change:  # a paused trial
            self._say(str(change))

    def _submit(self, run: ActiveRun) -> None:
        self._active[run.trial.number] = run
        self._engine.submit(run.trial.number, self._hooks.run_of(run.spec))

    def _handle(self, event: Event) -> None:
        if isinstance(event, Notice):
            if event.text not in self._noticed:
                self._say(event.text)
                self._noticed.add(event.text)
            return
        run = self._active[event.key]
        match event:
            case EpochReported(epoch=epoch):
                self._report(run, epoch)
            case RunFinished(model=None):
                self._ledger.pause(run)
                self._release(run)
            case RunFinished(model=bytes(model)):
                self._complete(run, model)
            case RunFailed(reason=reason):
                self._end(run, TrialState.FAIL, failure=reason)

    def _report(self, run: ActiveRun, epoch: Epoch) -> None:
        """Store an epoch, then ask the pruner; of the last stored one again, if a driver died."""
        if epoch.number < run.stored - 1:
            return
        try:
            self._ledger.record(run, epoch)
            pruned = self._ledger.should_prune(run)
        except ChangedOutside as change:
            self._engine.stop(run.trial.number)
            self._say(str(change))
            self._release(run)
            self._hooks.forget_checkpoint(self._hooks.run_of(run.spec))
            return
        if pruned:
            self._engine.stop(run.trial.number)
            self._end(run, TrialState.PRUNED)

    def _complete(self, run: ActiveRun, model: bytes) -> None:
        """Keep the model, then tell: killed in between, the run is adopted and kept again."""
        value = self._hooks.score(run.spec, run.curve)
        if not abs(value) <= LARGEST:  # nor NaN
            why = "too large" if math.isfinite(value) else "not a number"
            self._end(run, TrialState.FAIL, failure=f"its score is {value:g}, which is {why}")
            return
        trials = {trial.number: trial for trial in self._ledger.trials}
        complete = replace(trials[run.trial.number], state="complete", value=value)
        trials[complete.number] = complete
        self._hooks.keep_model(complete, model, list(trials.values()))
        attributes = {}
        if "parameters" not in run.trial.user_attrs and (count := count_parameters(model)):
            attributes["parameters"] = count  # of a custom model
        self._end(run, TrialState.COMPLETE, value, **attributes)

    def _end(
        self, run: ActiveRun, state: TrialState, value: float | None = None, **attributes: str | int
    ) -> None:
        try:
            self._ledger.finish(run, state, value, **attributes)
        except ChangedOutside as change:
            self._say(str(change))
        self._release(run)
        self._hooks.forget_checkpoint(self._hooks.run_of(run.spec))

    def _release(self, run: ActiveRun) -> None:
        """A worker is free again: its run has ended or is paused."""
        self._active.pop(run.trial.number, None)
        self._prefer = run.spec.configuration  # that worker has this network compiled
        self._state = None

    def _end_paused(self) -> None:
        """Tell the paused runs that are never resumed: the plan is complete."""
        for paused in self._ledger.paused():
            try:
                run = self._ledger.reopen(paused)
            except ChangedOutside as change:
                self._say(str(change))
                continue
            self._end(run, TrialState.PRUNED, paused="the study ended before it was wanted again")


def _spec_of(trial: StoredTrial) -> RunSpec:
    return RunSpec(
        trial.stage,
        trial.option if trial.option is not None else 0,
        trial.configuration,
        trial.repeat,
        trial.reference,
        trial.until,
    )
