"""The trials of a study, as its one driver writes them.

Every write goes to the database at once. What was written is kept as `StoredTrial`s, so that no
decision reads the study again: the driver holds the study's lock, so no other process adds runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optuna.trial import Trial, TrialState, create_trial

from study.errors import StorageError
from study.space.growth import contains
from study.storage.trials import (
    RUN_SPEC,
    StoredTrials,
    inside,
    readable,
    run_spec,
    stored_trial,
)

if TYPE_CHECKING:
    from optuna import Study

    from study.plan.plan import RunSpec
    from study.plan.results import StoredTrial
    from study.space.metric import Metric
    from study.space.search_space import SearchSpace
    from study.training.run import Epoch

LEFT = "the search space no longer has its configuration"
"""Why a run was ended whose configuration left the space."""

DEATHS = "driver_deaths"
"""The trial attribute ``{"epoch": n, "times": k}``: how many drivers died ``n`` epochs into it."""


class ChangedOutside(Exception):
    """Another program finished or deleted a trial while its run was trained; says which."""


@dataclass
class ActiveRun:
    """A run that is being trained: its trial, its spec, and every series that is stored of it.

    ``stored`` counts the stored epochs; ``deaths`` the drivers that died at this very epoch.
    """

    trial: Trial
    spec: RunSpec
    curve: dict[str, list[float]]
    stored: int
    deaths: int = 0


class Ledger:
    """Writes the trials of ``study``, whose runs report ``metric``, and remembers them.

    ``driver_died``: the driver before this one was killed, as a run may have caused.
    """

    def __init__(
        self, study: Study, space: SearchSpace, metric: Metric, *, driver_died: bool = False
    ) -> None:
        self.study, self._storage = study, study._storage
        self._metric = metric
        self._distributions = {p.name: p.distribution for p in space.hyperparameters}
        for trial in study.get_trials(deepcopy=False):  # Optuna wants the same categories again
            known = trial.distributions.items()
            self._distributions |= {n: one for n, one in known if n in self._distributions}
        self._space = space
        self._trials = {one.number: one for one in inside(StoredTrials()(study), space)}
        self._name = study.study_name
        self._driver_died = driver_died

    @property
    def trials(self) -> list[StoredTrial]:
        """The trials that count, by number."""
        return list(self._trials.values())

    def adopt(self) -> list[ActiveRun]:
        """The runs that the last driver left running, with the times a driver has died there.

        A running trial without a run spec never was a run, and is failed. Runs that the space has
        no longer are ended.
        """
        adopted = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = stored_trial(frozen)
            if trial is None:
                self.study.tell(frozen.number, state=TrialState.FAIL)
            elif not contains(self._space, trial.params):
                Trial(self.study, frozen._trial_id).set_user_attr("cancelled", LEFT)
                self.study.tell(frozen.number, state=TrialState.PRUNED)
            elif trial.state != "paused":
                run = self._active(frozen._trial_id)
                if self._driver_died:
                    self._count_death(run)
                adopted.append(run)
        return adopted

    def _count_death(self, run: ActiveRun) -> None:
        before = run.trial.user_attrs.get(DEATHS, {})
        run.deaths = 1 + (before["times"] if before.get("epoch") == run.stored else 0)
        run.trial.set_user_attr(DEATHS, {"epoch": run.stored, "times": run.deaths})

    def start(self, spec: RunSpec, attributes: Mapping[str, Any]) -> ActiveRun:
        """Store a new running trial, whole, in one commit; or resume the paused one of this run."""
        for paused in self.paused():
            if (paused.configuration, paused.repeat) == (spec.configuration, spec.repeat):
                return self._resume(paused, spec)
        params = dict(spec.configuration or ())
        searched = {name: one for name, one in self._distributions.items() if name in params}
        template = create_trial(
            state=TrialState.RUNNING,
            params={name: params[name] for name in searched},
            distributions=searched,
            user_attrs={
                "stage": spec.stage,
                "option": spec.option,
                "repeat": spec.repeat + 1,  # people count from 1
                **attributes,
            },
            system_attrs={RUN_SPEC: as_json(spec, self._metric)},
        )
        try:
            trial_id = self._storage.create_new_trial(self.study._study_id, template)
        except KeyError:
            raise StorageError(f"study {self._name!r} was deleted while it ran") from None
        return self._active(trial_id)

    def _resume(self, paused: StoredTrial, spec: RunSpec) -> ActiveRun:
        """A paused trial is resumed by the epoch in its spec at which it pauses next."""
        with self._unchanged(paused.number, paused.trial_id):
            before = run_spec(self._storage.get_trial_system_attrs(paused.trial_id))
            assert before is not None
            after = as_json(replace(before, epochs=spec.epochs), self._metric)
            self._storage.set_trial_system_attr(paused.trial_id, RUN_SPEC, after)
            return self._active(paused.trial_id)

    def paused(self) -> list[StoredTrial]:
        """The runs that have trained as far as they were asked to, and have epochs left."""
        return [trial for trial in self._trials.values() if trial.state == "paused"]

    def last_ended(self) -> StoredTrial | None:
        """The run that ended last; None where a trial of the same run is open again."""
        ended = [(trial.ended, trial.number) for trial in self._trials.values() if trial.ended]
        last = self._trials[max(ended)[1]] if ended else None
        unfinished = {
            (trial.configuration, trial.repeat)
            for trial in self._trials.values()
            if trial.state in {"running", "paused"}
        }
        return last if last and (last.configuration, last.repeat) not in unfinished else None

    def record(self, run: ActiveRun, epoch: Epoch) -> None:
        """Store an epoch, once: the study's metric as a report, every other series in ``curve``."""
        if epoch.number < run.stored:
            return
        value = epoch.logs()[self._metric.name]
        for name, one in {**epoch.series(), self._metric.name: value}.items():
            run.curve.setdefault(name, []).append(one)
        others = {name: one for name, one in run.curve.items() if name != self._metric.name}
        with self._unchanged(run.trial.number, run.trial._trial_id):
            run.trial.set_user_attr("curve", others)
            for name, cost in (epoch.cost.attributes if epoch.cost else {}).items():
                run.trial.set_user_attr(name, cost)
            run.trial.report(value, step=epoch.number + 1)
        run.stored += 1
        trial = self._trials[run.trial.number]
        reported = (*trial.reported, value)
        curve = {name: tuple(values) for name, values in run.curve.items()}
        self._trials[trial.number] = replace(trial, reported=reported, curve=curve)

    def pause(self, run: ActiveRun) -> None:
        """Remember that no worker has the run any more: it can be resumed.

        Not with its last epoch: until its worker has ended, it would be trained twice at once.
        """
        self._trials[run.trial.number] = replace(self._trials[run.trial.number], state="paused")

    def should_prune(self, run: ActiveRun) -> bool:
        """Ask the study's pruner."""
        with self._unchanged(run.trial.number, run.trial._trial_id):
            return run.trial.should_prune()

    def finish(
        self, run: ActiveRun, state: TrialState, value: float | None = None, **attributes: Any
    ) -> None:
        """Store what the trial is to carry (a finished one cannot be changed), then its end."""
        with self._unchanged(run.trial.number, run.trial._trial_id):
            for name, one in {**attributes, **summary(run.curve, self._metric)}.items():
                run.trial.set_user_attr(name, one)
            self.study.tell(run.trial, value, state=state)
        self._read(run.trial._trial_id)

    def reopen(self, paused: StoredTrial) -> ActiveRun:
        """The paused run as an active one, to be finished as it is."""
        with self._unchanged(paused.number, paused.trial_id):
            return self._active(paused.trial_id)

    def _active(self, trial_id: int) -> ActiveRun:
        """A running trial as it is stored; of an epoch that is half stored nothing is kept.

        A driver can die between the two statements that store an epoch.
        """
        trial = Trial(self.study, trial_id)
        stored = self._read(trial_id)
        assert stored is not None
        spec = run_spec(trial._cached_frozen_trial.system_attrs)
        assert spec is not None
        length = min([len(stored.reported), *map(len, stored.curve.values())])
        curve = {name: list(values[:length]) for name, values in stored.curve.items()}
        return ActiveRun(trial, spec, curve, length if curve else 0)

    def _read(self, trial_id: int) -> StoredTrial | None:
        with readable(lambda: self._name):
            stored = stored_trial(self._storage.get_trial(trial_id))
        if stored is not None:
            self._trials[stored.number] = stored
        return stored

    @contextmanager
    def _unchanged(self, number: int, trial_id: int) -> Iterator[None]:
        """Raise ``ChangedOutside`` where a write fails as the trial is finished or gone."""
        try:
            yield
        except (KeyError, RuntimeError, ValueError):
            try:
                frozen = self._storage.get_trial(trial_id)
            except KeyError:
                self._trials.pop(number, None)
                raise ChangedOutside(
                    f"Trial {number} was deleted by another program: its run is stopped"
                ) from None
            if not frozen.state.is_finished():
                raise
            self._read(trial_id)
            raise ChangedOutside(
                f"Trial {number} was ended by another program as {frozen.state.name}: its run is "
                "stopped, and the study continues with what is stored"
            ) from None


def as_json(spec: RunSpec, metric: Metric) -> dict[str, Any]:
    """A run spec as its trial stores it, with the metric that its run reports."""
    return {
        "stage": spec.stage,
        "option": spec.option,
        "params": dict(spec.configuration or ()),
        "repeat": spec.repeat,
        "reference": None if spec.reference is None else dict(spec.reference),
        "epochs": spec.epochs,
        "metric": metric.name,
    }


def summary(curve: Mapping[str, list[float]], metric: Metric) -> dict[str, float]:
    """What a trial carries of its curve: its best epoch (from 1), its metric there, and seconds."""
    values = curve.get(metric.name)
    if not values:
        return {}
    best = metric.best(values)
    seconds = round(sum(curve.get("seconds", ())), 3)
    return {"best_epoch": best + 1, f"best_{metric.name}": values[best], "seconds": seconds}
