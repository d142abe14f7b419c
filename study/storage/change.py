"""A stored study becomes one of a changed space, in one commit.

Optuna refuses a trial whose categories are not those of an earlier one. Each trial that is in the
new space is therefore written again as a trial of it: its run spec and its parameters. A trial that
is not in it keeps its run spec. Its values are among the categories, so that Optuna can read it; it
counts again once the space has its values again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb import models
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from study.space.settings import Change, Settings
from study.storage.database import SETTINGS
from study.storage.trials import RUN_SPEC

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage

    from study.plan.results import StoredTrial
    from study.space.hyperparameter import Hyperparameter

Translate = Callable[[Mapping[str, Any]], dict[str, Any] | None]
"""The values of a stored run in the changed space; None if it has no such run."""


def change(
    storage: RDBStorage,
    study: Study,
    before: Settings,
    settings: Settings,
    changes: Sequence[str],
    trials: Sequence[StoredTrial],
    translate: Translate,
) -> Study:
    """Record the changed ``settings`` and their history; returns the study, read anew.

    ``before`` are the recorded ones, ``changes`` says what is new, ``trials`` counted before.
    """
    complete = {trial.configuration for trial in trials if trial.state == "complete"}
    removed = sum(translate(dict(configuration)) is None for configuration in complete)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Change(when, tuple(changes), len(trials), removed, before.space)
    recorded = replace(settings, history=(*before.history, entry)).to_dict()
    with Session(storage.engine) as session, session.begin():
        attribute = session.scalars(
            select(models.StudyUserAttributeModel).where(
                models.StudyUserAttributeModel.study_id == study._study_id,
                models.StudyUserAttributeModel.key == SETTINGS,
            )
        ).one()
        attribute.value_json = json.dumps(recorded)
        if before.space != settings.space:
            params = _rewritten_specs(session, study._study_id, translate)
            for parameter in settings.space.hyperparameters:
                _rewrite_parameter(session, study._study_id, parameter, params)
    return optuna.load_study(study_name=study.study_name, storage=storage)


def _rewritten_specs(
    session: Session, study_id: int, translate: Translate
) -> dict[int, dict[str, Any]]:
    """Write the run specs of trials in the new space again; returns every trial's values by id."""
    attributes: Iterable[Any] = session.scalars(
        select(models.TrialSystemAttributeModel)
        .join(models.TrialModel)
        .where(
            models.TrialModel.study_id == study_id, models.TrialSystemAttributeModel.key == RUN_SPEC
        )
    )
    found: dict[int, dict[str, Any]] = {}
    for attribute in attributes:
        spec = json.loads(attribute.value_json)
        params = translate(spec["params"])
        found[attribute.trial_id] = spec["params"] if params is None else params
        if params is not None:
            reference = spec["reference"] and translate(spec["reference"])
            spec |= {"params": params, "reference": reference or spec["reference"]}
            attribute.value_json = json.dumps(spec)
    return found


def _rewrite_parameter(
    session: Session,
    study_id: int,
    parameter: Hyperparameter,
    params: Mapping[int, Mapping[str, Any]],
) -> None:
    """Write the values of one hyperparameter again, all of one distribution."""
    name, model = parameter.name, models.TrialParamModel
    values = {trial: held[name] for trial, held in params.items() if name in held}
    mine = select(models.TrialModel.trial_id).where(models.TrialModel.study_id == study_id)
    session.execute(delete(model).where(model.param_name == name, model.trial_id.in_(mine)))
    session.add_all(_rows(name, _containing(parameter, values.values()), values))


def _rows(
    name: str, distribution: BaseDistribution, values: Mapping[int, Any]
) -> Iterator[models.TrialParamModel]:
    written = distribution_to_json(distribution)
    for trial, value in values.items():
        if isinstance(distribution, CategoricalDistribution) or not isinstance(value, str):
            yield models.TrialParamModel(
                trial_id=trial,
                param_name=name,
                param_value=distribution.to_internal_repr(value),
                distribution_json=written,
            )


def _containing(parameter: Hyperparameter, values: Iterable[Any]) -> BaseDistribution:
    """The distribution of a hyperparameter; of options, with the values of trials without one."""
    if not parameter.options:
        return parameter.distribution
    return CategoricalDistribution(list(dict.fromkeys([*parameter.options, *values])))
