"""An Optuna sampler that asks a plan which configuration and repeat a new trial is.

It keeps nothing that decides: every slot follows from the stored trials.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from study.errors import PlanExhausted, SettingsError
from study.plan.plan import Plan, PlanState, RunSpec, Stage
from study.plan.results import Configuration, StoredTrial
from study.space.metric import Direction, Metric
from study.storage.trials import RUN_SPEC, STATES, StoredTrials
from study.storage.trials import stored_trial as row
from study.tuning.run_spec import lives_elsewhere, superfluous, this_process
from study.tuning.suggestions import contains, untrue
from study.tuning.summary import frame

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

    from study.space.search_space import SearchSpace

_PATIENCE = 0.05
"""Seconds between two looks at a stage that another thread is finishing."""


class PlanSampler(BaseSampler):
    """Gives each trial the next slot of ``plan`` and writes it down at once, as its run spec.

    Asking for more than the plan has raises ``PlanExhausted`` and leaves no trial running. Where
    the next slot depends on runs that other threads of this process are training, the ask waits
    for them. A trial that fails eliminates its option.
    Of several slots the first is given, or the first of the configuration that ``prefer`` names.
    With ``ends_optimize`` the trial that completes the plan ends the loop of ``study.optimize``.
    """

    def __init__(self, plan: Plan, *, ends_optimize: bool = True) -> None:
        self.plan = plan
        self._ends_optimize = ends_optimize
        self.prefer: Configuration | None = None
        self.rows = StoredTrials()
        self._looked_at: tuple[BaseStorage, int, bool] | None = None
        self._lock = threading.Lock()
        self._threads: dict[int, int] = {}
        self._known: tuple[tuple[StoredTrial, ...], PlanState | None] = ((), None)

    def reseed_rng(self) -> None:
        """There is no random state: a slot is a function of the stored trials."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Write the trial's spec before anything else of it exists; an adopted trial has one."""
        if RUN_SPEC in trial.system_attrs:
            return
        try:
            self.look(study)
            while not self._take(study, trial):
                time.sleep(_PATIENCE)
        except BaseException:
            if RUN_SPEC not in trial.system_attrs:  # with a spec it is a run, to be taken up again
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            raise

    def next_trial(self, study: Study) -> Trial:
        """The trial of the next slot of the last state: a paused one, or a new one."""
        rows, plan_state = self._known
        slots = plan_state.next if plan_state else ()
        wanted = slots and (self._preferred(slots) or slots[0])
        run = wanted and (wanted.configuration, wanted.repeat)
        for paused in rows:
            if wanted and paused.state == "paused" and (paused.configuration, paused.repeat) == run:
                spec = study._storage.get_trial_system_attrs(paused.trial_id)[RUN_SPEC]
                spec = {**spec, "epochs": wanted.epochs}
                study._storage.set_trial_system_attr(paused.trial_id, RUN_SPEC, spec)
                return Trial(study, paused.trial_id)
        return study.ask()

    def look(self, study: Study) -> None:
        """Adapt the plan to the study: to its direction and its pruner."""
        compares = getattr(study.pruner, "compares", False)
        if self._looked_at != (study._storage, study._study_id, compares):
            _require_one_objective(study)
            metric = _metric(self.plan.space, study)
            self.plan = self.plan.adapted(metric=metric, compares=compares)
            self._looked_at = (study._storage, study._study_id, compares)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: the plan, and nothing that is known of trials."""
        return {"plan": self.plan, "ends_optimize": self._ends_optimize}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        PlanSampler.__init__(self, **state)

    def _take(self, study: Study, trial: FrozenTrial) -> bool:
        """Take the next slot; False where it is to be awaited."""
        if "fixed_params" in trial.system_attrs:
            raise SettingsError(
                "enqueue_trial: the plan decides what is trained; list the value among the "
                "options of its hyperparameter, or run it in a study of its own"
            )
        with self._lock:
            rows = self.rows(study)
            plan_state = self.state(rows)
            if plan_state.complete:
                return self._surplus(study)
            slots = plan_state.next
            if not slots:
                self._await_others(study, rows)
                return False
            spec = self._spec(self._preferred(slots) or slots[0], rows)
            trial.system_attrs[RUN_SPEC] = spec  # Optuna goes on with this copy
            study._storage.set_trial_system_attr(trial._trial_id, RUN_SPEC, spec)
            self._threads[trial.number] = threading.get_ident()
            return True

    def _preferred(self, slots: Sequence[RunSpec]) -> RunSpec | None:
        if self.prefer is None:
            return None
        return next((slot for slot in slots if slot.configuration == self.prefer), None)

    def state(self, rows: Sequence[StoredTrial]) -> PlanState:
        """What the plan says of these rows; about the same ones it is asked once."""
        known, plan_state = self._known
        if plan_state is None or len(known) != len(rows) or not all(map(operator.is_, known, rows)):
            plan_state = self.plan.state(rows)
            self._known = tuple(rows), plan_state
        return plan_state

    def _surplus(self, study: Study) -> bool:
        """End the loop that asked for a trial too many: the trial has no spec and is pruned.

        Threads of ``study.optimize`` can ask before they notice that another completed the plan.
        """
        try:
            study.stop()
        except RuntimeError:  # no loop: somebody asked by hand
            raise PlanExhausted("the plan is complete: there is nothing left to ask for") from None
        return True

    def _await_others(self, study: Study, rows: Sequence[StoredTrial]) -> None:
        running = [entry for entry in rows if entry.state == "running"]
        if not any(self._elsewhere(study, entry) for entry in running):
            numbers = [entry.number for entry in running]
            raise PlanExhausted(
                f"the next slot depends on running trials {numbers}: tell them before asking again"
                " (those of a process that is gone: study.tell(NUMBER, state=TrialState.FAIL))"
            )

    def _elsewhere(self, study: Study, running: StoredTrial) -> bool:
        """Whether another thread or a living process trains this run, and will tell it."""
        if running.number in self._threads:
            return self._threads[running.number] != threading.get_ident()
        spec = study._storage.get_trial_system_attrs(running.trial_id)[RUN_SPEC]
        return lives_elsewhere(spec)

    def _spec(self, slot: RunSpec, rows: Sequence[StoredTrial]) -> dict[str, Any]:
        return {
            "stage": slot.stage,
            "option": slot.option,
            "params": dict(self.plan.suggest(slot, rows)),
            "repeat": slot.repeat,
            "reference": None if slot.reference is None else dict(slot.reference),
            "epochs": slot.epochs,
            "asked_by": this_process(),
        }

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
        """The plan's value, whichever way the objective asks for it, as long as it is inside.

        Raises ``SettingsError`` (a ``ValueError``) for a name that the plan does not have, and for
        a distribution that does not contain the plan's value.
        """
        if RUN_SPEC not in trial.system_attrs:
            _require_one_objective(study)
            raise superfluous()
        params = trial.system_attrs[RUN_SPEC]["params"]
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

        Raises ``SettingsError`` where the study's pruner stopped a run that is never to be pruned,
        and where the objective trained something else than the plan's configuration.
        """
        last = row(trial)
        if last is None:
            return
        if state == TrialState.COMPLETE and (wrong := untrue(trial, last.params, self._names)):
            study._storage.set_trial_user_attr(trial._trial_id, "cancelled", wrong)
            raise SettingsError(wrong)
        stopped = state == TrialState.PRUNED and last.state != "paused" and not last.cancelled
        if stopped and last.reference is None:
            raise SettingsError(
                "the pruner stopped a run that others are compared with: create the study with "
                "pruner=study.SweepPruner() or optuna.pruners.NopPruner()"
            )
        if not self._ends_optimize:
            return
        with self._lock:
            rows = [other for other in self.rows(study) if other.number != trial.number]
            value = values[0] if values and state == TrialState.COMPLETE else None
            told = replace(last, state=STATES[state.name], value=value)
            done = self.plan.state([*rows, told]).complete
        if done:
            with suppress(RuntimeError):  # asked and told by hand: there is no loop to end
                study.stop()

    def summary(self, study: Study) -> list[Stage]:
        """The stages so far: options with their scores and gaps, and what was selected."""
        with self._lock:
            self.look(study)
            return list(self.state(self.rows(study)).stages)

    def summary_frame(self, study: Study) -> pd.DataFrame:
        """``summary`` as a table, a line an option; needs pandas."""
        return frame(self.summary(study))


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
