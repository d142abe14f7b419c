"""The storage of the one process that writes a study: what it knows it does not read again.

Optuna's own cache reads every unfinished trial anew at each look, in case another process has
changed it. A study has one driver, so here every trial is read once and then kept as it is
written; every write goes to the database first.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from optuna import Study
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.study import StudyDirection
    from optuna.study._frozen import FrozenStudy

    from study.storage.location import Location


def write_through(location: Location) -> Study:
    """The study at ``location``, for the process that drives it and for no other."""
    return Study(location.name, WriteThroughStorage(location.database.open()))


class WriteThroughStorage(BaseStorage):
    """Keeps the trials of ``backend`` in memory; everything is written through."""

    def __init__(self, backend: RDBStorage) -> None:
        self._backend = backend
        self._trials: dict[int, list[FrozenTrial]] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._attributes: dict[int, dict[str, Any]] = {}

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._backend.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._backend.set_study_user_attr(study_id, key, value)
        self._attributes.pop(study_id, None)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._backend.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        if study_id not in self._attributes:
            self._attributes[study_id] = self._backend.get_study_user_attrs(study_id)
        return self._attributes[study_id]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._backend.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        known = self._all(study_id)
        trial_id = self._backend.create_new_trial(study_id, template_trial)
        self._places[trial_id] = study_id, len(known)
        known.append(self._backend.get_trial(trial_id))
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        self._backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        value = distribution.to_external_repr(param_value_internal)
        self._change(trial_id, "params", param_name, value)
        self._change(trial_id, "distributions", param_name, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = self._backend.set_trial_state_values(trial_id, state, values)
        study_id, number = self._places[trial_id]
        self._trials[study_id][number] = self._backend.get_trial(trial_id)
        return done

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._change(trial_id, "intermediate_values", step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._backend.set_trial_user_attr(trial_id, key, value)
        self._change(trial_id, "user_attrs", key, copy.deepcopy(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._backend.set_trial_system_attr(trial_id, key, value)
        self._change(trial_id, "system_attrs", key, copy.deepcopy(value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id not in self._places:
            return self._backend.get_trial(trial_id)
        study_id, number = self._places[trial_id]
        return self._trials[study_id][number]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        found = [t for t in self._all(study_id) if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _all(self, study_id: int) -> list[FrozenTrial]:
        """The trials of a study, by number; read from the database the first time."""
        if study_id not in self._trials:
            trials = self._backend.get_all_trials(study_id, deepcopy=False)
            self._trials[study_id] = trials
            self._places |= {t._trial_id: (study_id, t.number) for t in trials}
        return self._trials[study_id]

    def _change(self, trial_id: int, name: str, key: Any, value: Any) -> None:
        """Put a changed copy in the place of a trial: others hold on to the one they were given."""
        study_id, number = self._places[trial_id]
        trial = copy.copy(self._trials[study_id][number])
        setattr(trial, name, getattr(trial, name) | {key: value})
        self._trials[study_id][number] = trial
