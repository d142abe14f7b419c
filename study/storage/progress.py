"""What the stored trials of a study say, under the settings it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.errors import StorageError
from study.plan.plan import PlanState
from study.plan.results import StoredTrial
from study.plan.strategies import plan_of
from study.space.growth import contains
from study.space.settings import Settings
from study.storage.location import Location
from study.storage.lock import driven
from study.storage.trials import StoredTrials, inside

if TYPE_CHECKING:
    from optuna import Study


def standing_of(study: Study, settings: Settings) -> PlanState:
    """What the stored trials of a study say."""
    return plan_of(settings).state(trials_of(study, settings))


def trials_of(study: Study, settings: Settings) -> list[StoredTrial]:
    """The trials that count; ``StorageError`` where one was never in the study's search space."""
    trials = StoredTrials()(study)
    counted = inside(trials, settings.space)
    left = {trial.configuration: trial for trial in trials} if len(counted) < len(trials) else {}
    for trial in left.values():
        spaces = (settings.space, *(one.space for one in settings.history))
        if not any(contains(space, trial.params) for space in spaces):
            raise StorageError(
                f"study {study.study_name!r}: is malformed in the database (trial {trial.number}: "
                "its parameters are not in the search space); restore a copy of the database, or "
                "use another --name"
            )
    return counted


def state_of(plan_state: PlanState, location: Location) -> str:
    """``running``, ``complete``, ``interrupted``, or ``failed`` if every option failed."""
    if driven(location):
        return "running"
    if plan_state.failure is not None:
        return "failed"
    return "complete" if plan_state.complete else "interrupted"
