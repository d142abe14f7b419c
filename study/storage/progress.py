"""What the stored trials of a study say, under the settings it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.plan.plan import PlanState
from study.plan.strategies import plan_of
from study.space.settings import Settings
from study.storage.location import Location
from study.storage.lock import driven
from study.storage.trials import StoredTrials

if TYPE_CHECKING:
    from optuna import Study


def standing_of(study: Study, settings: Settings) -> PlanState:
    """What the stored trials of a study say."""
    return plan_of(settings).state(StoredTrials()(study))


def state_of(plan_state: PlanState, location: Location) -> str:
    """``running``, ``complete``, ``interrupted``, or ``failed`` if every option failed."""
    if driven(location):
        return "running"
    if plan_state.failure is not None:
        return "failed"
    return "complete" if plan_state.complete else "interrupted"
