"""An Optuna sampler that asks a plan which configuration and repeat a new trial is.

It keeps nothing that decides: every run follows from the stored trials.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psutil
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import TrialPruned
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from study.errors import PlanExhausted, SettingsError
from study.plan.plan import Plan, PlanState, RunSpec, Stage
from study.plan.results import Configuration, StoredTrial
from study.space.metric import Direction, Metric
from study.storage import trials
from study.storage.ledger import as_json
from study.storage.trials import RUN_SPEC, STATES, StoredTrials, stored_trial
from study.text.view import records

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study
    from optuna.distributions import BaseDistribution

    from study.space.search_space import SearchSpace

ASKED_BY = "study:asked_by"
"""The system attribute of a trial of plain Optuna code: host, process number, its start time."""

_PAUSE = 0.05
"""Seconds between two looks at trials that others are training."""

_ASKING = 10.0, 60.0
"""Seconds to wait for a trial without `ASKED_BY` (another sampler's), and for one without a run
spec (its process is gone)."""

_SILENCE = 600.0
"""Seconds without a report, at least, after which a trial of another host is not awaited."""

_log = logging.getLogger(__name__)


class PlanSampler(BaseSampler):
    """Gives each trial the next run of ``plan`` and stores it at once, as the trial's run spec.

    Several threads and processes may share a study: a trial chooses once every running trial of a
    lower number has its run spec, so that no run is trained twice. Where the next run depends on
    trials that others are training, the ask waits for them; trials of a process that is gone are
    cancelled. Asking for more than the plan has raises ``PlanExhausted`` and leaves no trial
    running. A trial that fails eliminates its option. With ``ends_optimize`` the trial that
    completes the plan ends the loop of ``study.optimize``.
    """

    def __init__(self, plan: Plan, *, ends_optimize: bool = True) -> None:
        self.plan = plan
        self._ends_optimize = ends_optimize
        self._forget()

    def _forget(self) -> None:
        """What is known of trials: a cache, which neither decides nor travels."""
        self._trials = StoredTrials()
        self._lock = threading.Lock()
        self._threads: dict[int, tuple[int, int]] = {}
        self._last_seen: dict[int, tuple[int, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        caches = {"_trials", "_lock", "_threads", "_last_seen"}
        return {name: value for name, value in vars(self).items() if name not in caches}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def reseed_rng(self) -> None:
        """There is no random state: a run is a function of the stored trials."""

    def adapt(self, study: Study) -> None:
        """Adapt the plan to the study: to its direction and its pruner."""
        _require_one_objective(study)
        metric = _metric(self.plan.space, study)
        compares = getattr(study.pruner, "compares", False)
        if (metric, compares) != (self.plan.metric, self.plan.compares):
            self.plan = self.plan.adapted(metric=metric, compares=compares)

    def choose(
        self,
        state: PlanState,
        trials: Sequence[StoredTrial],
        prefer: Configuration | None = None,
    ) -> RunSpec:
        """The next run, whole: the first, or the first of the configuration ``prefer``."""
        same = (one for one in state.next if prefer and one.configuration == prefer)
        spec = next(same, state.next[0])
        return replace(spec, configuration=self.plan.suggest(spec, trials))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Store the trial's spec before anything else of it; a trial that has one is resumed."""
        if RUN_SPEC in trial.system_attrs:
            return
        study._storage.set_trial_system_attr(trial._trial_id, ASKED_BY, this_process())
        try:
            while not self._take(study, trial):
                time.sleep(_PAUSE)
        except BaseException:
            if RUN_SPEC not in trial.system_attrs:  # with a spec it is a run, to be adopted
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            raise

    def _take(self, study: Study, trial: FrozenTrial) -> bool:
        """Take the next run of the plan; False if it has to be awaited."""
        if "fixed_params" in trial.system_attrs:
            raise SettingsError(
                "enqueue_trial: the plan decides what is trained; list the value among the "
                "options of its hyperparameter, or run it in a study of its own"
            )
        with self._lock:
            self.adapt(study)
            if self._others_choose(study, trial):
                return False
            trials = self._trials(study)
            state = self.plan.state(trials)
            if state.complete:
                return _surplus(study)
            if not state.next:
                self._await_others(study, trials)
                return False
            spec = as_json(self.choose(state, trials), self.plan.metric)
            trial.system_attrs[RUN_SPEC] = spec  # Optuna continues with this copy
            study._storage.set_trial_system_attr(trial._trial_id, RUN_SPEC, spec)
            self._threads[trial.number] = _this_thread()
            return True

    def _others_choose(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a running trial of a lower number is still without its run spec."""
        others = study._storage.get_all_trials(study._study_id, deepcopy=False)
        return any(
            _chooses(other)
            for other in others
            if other.number < trial.number
            and other.state == TrialState.RUNNING
            and RUN_SPEC not in other.system_attrs
        )

    def _await_others(self, study: Study, trials: Sequence[StoredTrial]) -> None:
        """Raise ``PlanExhausted`` unless another process or thread trains a run to wait for."""
        running = [trial for trial in trials if trial.state == "running"]
        lasted = (t.ended - t.started for t in trials if t.started and t.ended)
        longest = max((duration.total_seconds() for duration in lasted), default=0.0)
        if not any(self._is_trained(study, trial, longest) for trial in running):
            numbers = [trial.number for trial in running]
            raise PlanExhausted(
                f"the next run depends on running trials {numbers}: tell them before asking again; "
                "those of a process that is gone: trial.set_user_attr('cancelled', 'gone'), then "
                "study.tell(NUMBER, state=TrialState.FAIL)"
            )

    def _is_trained(self, study: Study, running: StoredTrial, longest: float) -> bool:
        """Whether another thread or process trains this run; if that is gone, it is cancelled."""
        process_number, thread = self._threads.get(running.number, (0, 0))
        if process_number == os.getpid():
            return thread != threading.get_ident()
        process = study._storage.get_trial_system_attrs(running.trial_id).get(ASKED_BY)
        if process is None or process == this_process():
            return False
        gone = is_gone(process)
        if gone:
            cancel(study, running.trial_id, f"process {process[1]} on {process[0]} is gone")
            return True  # the plan wants the run again
        if gone is None:  # another host: its processes cannot be seen
            if running.number not in self._last_seen:
                _log.warning("waiting for trial %d of host %s", running.number, process[0])
            return self._silent(running) < max(_SILENCE, 3 * longest)
        return True

    def _silent(self, running: StoredTrial) -> float:
        """Seconds since this sampler first saw the trial with as many reports as it has."""
        reports, when = self._last_seen.get(running.number, (-1, 0.0))
        if reports != len(running.reported):
            when = time.monotonic()
            self._last_seen[running.number] = len(running.reported), when
        return time.monotonic() - when

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is sampled together: a value is looked up when the objective asks for it."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        if RUN_SPEC not in trial.system_attrs:
            _require_one_objective(study)
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The plan's value, however the objective asks for it, if the distribution contains it.

        Raises ``SettingsError`` (a ``ValueError``) for a name that the plan does not have, and for
        a distribution that does not contain the plan's value.
        """
        if RUN_SPEC not in trial.system_attrs:
            _require_one_objective(study)
            raise superfluous()
        params = self.given(trial.system_attrs[RUN_SPEC]["params"])
        if param_name not in params and param_name in self._names:
            raise SettingsError(
                f"the objective suggests {param_name!r}, which does not apply to {params}: suggest "
                "it only where its only_if holds, as SearchSpace.suggest does"
            )
        if param_name not in params:
            raise SettingsError(
                f"the objective suggests {param_name!r}, which the search space does not have: "
                f"suggest only {', '.join(self._names)}"
            )
        value = params[param_name]
        if not contains(param_distribution, value):
            raise SettingsError(
                f"{param_name}: the plan's {value!r} is not in what the objective suggests "
                f"({param_distribution}): widen that, or leave the option out of the plan"
            )
        return value

    def given(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values that an objective gets for those of the plan; here the same."""
        return params

    @property
    def _names(self) -> list[str]:
        return [parameter.name for parameter in self.plan.space.hyperparameters]

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End ``study.optimize`` once this trial completes the plan.

        Raises ``SettingsError`` if the study's pruner stopped a run that is never to be pruned, and
        if the objective trained something else than the plan's configuration.
        """
        last = stored_trial(trial) if self._ends_optimize else None
        if last is None:
            return
        if state == TrialState.COMPLETE and (wrong := self._mismatch(trial, last)):
            study._storage.set_trial_user_attr(trial._trial_id, "cancelled", wrong)
            raise SettingsError(wrong)
        stopped = state == TrialState.PRUNED and last.state != "paused" and not last.cancelled
        if stopped and last.reference is None:
            raise SettingsError(
                "the pruner stopped a run that others are compared with: create the study with "
                "pruner=study.SweepPruner() or optuna.pruners.NopPruner()"
            )
        with self._lock:
            trials = [other for other in self._trials(study) if other.number != trial.number]
            value = values[0] if values and state == TrialState.COMPLETE else None
            told = replace(last, state=STATES[state.name], value=value)
            if self.plan.state([*trials, told]).complete:
                with suppress(RuntimeError):  # asked and told by hand: there is no loop to end
                    study.stop()

    def _mismatch(self, trial: FrozenTrial, last: StoredTrial) -> str | None:
        """What the objective did not ask for, or did not train with; None if all is well."""
        params = self.given(last.params)
        for name in self._names:
            if name not in params and name not in trial.params:
                continue  # it does not apply
            if name not in trial.params:
                return (
                    f"the objective never suggests {name!r}, which the plan varies: suggest it, or "
                    "leave it out of the plan"
                )
            if trial.params[name] != (wanted := params.get(name)):
                return (
                    f"{name} was {trial.params[name]!r} where the plan trains {wanted!r}: "
                    "fix a hyperparameter by leaving its other options out of the plan"
                )
        return None

    def summary(self, study: Study) -> list[Stage]:
        """The stages so far: options with their scores and gaps, and what was selected."""
        with self._lock:
            self.adapt(study)
            return list(self.plan.state(self._trials(study)).stages)

    def summary_frame(self, study: Study) -> pd.DataFrame:
        """``summary`` as a table, a line for each option; needs pandas."""
        import pandas as pd

        return pd.DataFrame(records(self.summary(study)))


def _this_thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _chooses(trial: FrozenTrial) -> bool:
    """Whether a running trial without a run spec may still get one."""
    assert trial.datetime_start is not None
    age = (datetime.now() - trial.datetime_start).total_seconds()  # noqa: DTZ005 - as Optuna's
    process = trial.system_attrs.get(ASKED_BY)
    if process is None:
        return age < _ASKING[0]
    return age < _ASKING[1] and not is_gone(process)


def cancel(study: Study, trial_id: int, why: str) -> None:
    """End a running trial that never counts; another process may have done so already."""
    with suppress(KeyError, RuntimeError):
        study._storage.set_trial_user_attr(trial_id, "cancelled", why)
        study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a suggestion may be answered with ``value``."""
    truth = isinstance(value, bool)
    if isinstance(distribution, CategoricalDistribution):
        alike = (one for one in distribution.choices if isinstance(one, bool) == truth)
        return value in alike
    if truth or not isinstance(value, int | float):
        return False
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    if not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / (distribution.step or math.inf)
    return math.isclose(steps, round(steps), abs_tol=1e-8)


def _surplus(study: Study) -> bool:
    """End the loop that asked for a trial too many: the trial has no spec and is pruned.

    Threads of ``study.optimize`` can ask before they notice that another completed the plan.
    """
    try:
        study.stop()
    except RuntimeError:  # no loop: asked by hand
        raise PlanExhausted("the plan is complete: there is nothing left to ask for") from None
    return True


def _require_one_objective(study: Study) -> None:
    if len(study.directions) != 1:
        raise SettingsError("the plan compares one number: give the study one direction")


def _metric(space: SearchSpace, study: Study) -> Metric:
    """The space's metric with the direction of the study, which the space must not contradict."""
    direction: Direction = "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize"
    if space.direction not in (None, direction):
        raise SettingsError(
            f"the space is to {space.direction} {space.metric_name}: create the study with "
            f"direction={space.direction!r}"
        )
    return replace(space.metric, direction=direction)


def run_spec(trial: Trial | FrozenTrial) -> RunSpec:
    """Which stage, option and repeat a trial of a plan's sampler is.

    Raises ``TrialPruned`` for the trial of a thread that asked when the plan was complete.
    """
    if isinstance(trial, FrozenTrial):
        attributes = trial.system_attrs
    else:
        attributes = trial.storage.get_trial_system_attrs(trial._trial_id)
    found = trials.run_spec(attributes)
    if found is None:
        raise superfluous()
    return found


def superfluous() -> TrialPruned:
    """What ends the trial of a thread that asked when the plan was complete."""
    return TrialPruned("the plan was completed while this trial was asked for")


def this_process() -> list[Any]:
    """This process, as others know it: host, number, and start time in Unix seconds."""
    return [socket.gethostname(), os.getpid(), psutil.Process().create_time()]


def is_gone(process: list[Any]) -> bool | None:
    """Whether a process has ended; None if it is one of another host.

    The start time tells it from a later process of the same number.
    """
    host, number, started = process
    if host != socket.gethostname():
        return None
    try:
        return bool(abs(psutil.Process(number).create_time() - started) > 2)  # clocks are adjusted
    except psutil.NoSuchProcess:
        return True
