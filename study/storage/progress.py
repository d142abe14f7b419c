"""What the stored trials of a study say, under the settings it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.errors import StorageError
from study.plan.plan import PlanState
from study.plan.results import Configuration, StoredTrial
from study.plan.strategies import plan_of
from study.space.search_space import SearchSpace, Value
from study.space.settings import Settings
from study.storage.location import Location
from study.storage.lock import driven
from study.storage.trials import StoredTrials

if TYPE_CHECKING:
    from optuna import Study


def standing_of(study: Study, settings: Settings) -> PlanState:
    """What the stored trials of a study say."""
    return plan_of(settings).state(trials_of(study, settings))


def trials_of(study: Study, settings: Settings) -> list[StoredTrial]:
    """The trials that count; ``StorageError`` where one is none of the study's search space."""
    trials = StoredTrials()(study)
    known: set[Configuration] = set()
    for trial in trials:
        if trial.configuration not in known and not _is_in(settings.space, trial.params):
            raise StorageError(
                f"study {study.study_name!r}: is malformed in the database (trial {trial.number}: "
                "its parameters are not in the search space); restore a copy of the database, or "
                "use another --name"
            )
        known.add(trial.configuration)
    return trials


def _is_in(space: SearchSpace, params: dict[str, Value]) -> bool:
    applying = {one.name: one for one in space.hyperparameters if one.applies(params)}
    others = {name: value for name, value in params.items() if name not in applying}
    return others == space.fixed and all(
        name in params and one.holds(params[name]) for name, one in applying.items()
    )


def state_of(plan_state: PlanState, location: Location) -> str:
    """``running``, ``complete``, ``interrupted``, or ``failed`` if every option failed."""
    if driven(location):
        return "running"
    if plan_state.failure is not None:
        return "failed"
    return "complete" if plan_state.complete else "interrupted"
