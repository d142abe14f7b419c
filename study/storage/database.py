"""The studies of a database: make, find, load, and what they record. The database is the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

import optuna
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from pydantic import ConfigDict, Field, StrictInt, StrictStr, TypeAdapter
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from study.errors import SettingsError, StorageError, StudyError
from study.plan.plan import PlanState
from study.plan.results import StoredTrial
from study.plan.strategies import plan_of
from study.space.growth import contains
from study.space.keys import Number
from study.space.settings import FORMAT, DataFacts, Settings, Source
from study.storage.location import Database, Location
from study.storage.lock import driven
from study.storage.models import IDENTITY, new_identity
from study.storage.trials import StoredTrials, inside, readable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

SETTINGS = "settings"
"""The study attribute that holds what was recorded when the study was made."""

_Count = Annotated[StrictInt, Field(ge=1, lt=2**31)]


class _Validation(TypedDict):
    kind: Literal["holdout", "folds", "none"]
    fraction: Annotated[float, Field(gt=0, lt=1)]
    folds: Annotated[StrictInt, Field(ge=2, lt=2**31)]


class _Values(TypedDict):
    """The recorded values of settings; those of a strategy alone may be missing."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    data: StrictStr
    epochs: _Count
    batch_size: _Count | None
    repeats: Annotated[StrictInt, Field(ge=1, le=10_000)]
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)]
    sampler: StrictStr
    pruner: NotRequired[StrictStr | None]
    configurations: NotRequired[_Count | None]
    threads: _Count
    training: StrictStr
    device: Literal["cpu", "gpu"] | None
    validation: _Validation
    tolerance: NotRequired[Number | None]
    confidence: NotRequired[Number | None]
    budget: NotRequired[_Count | StrictStr | None]


class _Setting(TypedDict):
    value: Any
    source: Source


class _Change(TypedDict):
    when: Annotated[StrictStr, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    changes: list[StrictStr]
    trials: Annotated[StrictInt, Field(ge=0, lt=2**31)]
    removed: Annotated[StrictInt, Field(ge=0, lt=2**31)]
    space: dict[StrictStr, Any]


class _Stored(TypedDict):
    """Settings as JSON; `SearchSpace` checks the space."""

    space: dict[StrictStr, Any]
    origin: StrictStr
    chosen: dict[StrictStr, _Setting]
    data: DataFacts | None
    versions: dict[StrictStr, StrictStr]
    model: NotRequired[dict[StrictStr, Any] | None]
    network: NotRequired[dict[StrictStr, Any] | None]
    history: NotRequired[Annotated[list[_Change], Field(max_length=1000)]]


_STORED, _VALUES = TypeAdapter(_Stored), TypeAdapter(_Values)


def names(storage: RDBStorage) -> list[str]:
    """The names of the studies in a database that this program made, oldest first."""
    made = (
        select(models.StudyModel.study_name)
        .join(models.StudyUserAttributeModel)
        .where(models.StudyUserAttributeModel.key == SETTINGS)
        .order_by(models.StudyModel.study_id)
    )
    with storage.engine.connect() as connection:  # one malformed study does not hide the others
        return [str(name) for (name,) in connection.execute(made)]


def create(
    storage: RDBStorage, name: str, settings: Settings, attributes: Mapping[str, Any] | None = None
) -> Study:
    """Make a study with its settings, its UUID and ``attributes``, whole or not at all.

    Raises ``SettingsError`` where there is a study of this name.
    """
    recorded = {IDENTITY: new_identity(), SETTINGS: settings.to_dict(), **(attributes or {})}
    direction = StudyDirection[settings.metric.direction.upper()]
    study = models.StudyModel(
        study_name=name,
        directions=[models.StudyDirectionModel(objective=0, direction=direction)],
    )
    try:
        # Optuna's own way is a transaction for each of these: a study could be half-made.
        with Session(storage.engine) as session, session.begin():
            session.add(study)
            session.flush()
            session.add_all(
                models.StudyUserAttributeModel(
                    study_id=study.study_id, key=key, value_json=json.dumps(value)
                )
                for key, value in recorded.items()
            )
    except IntegrityError:
        raise SettingsError(
            f"a study named {name!r} exists; choose another --name, or continue it with resume"
        ) from None
    return optuna.load_study(study_name=name, storage=storage)


def load(storage: RDBStorage, name: str | None = None) -> tuple[Study, Settings]:
    """A study with its recorded settings; without a name the one that was made last.

    Raises ``StorageError`` where there is none of this name or what it records is malformed,
    ``SettingsError`` where its format is of another version.
    """
    known = names(storage)
    if name is None and known:
        name = known[-1]
    if name is None or name not in known:
        wanted = f"no study named {name!r}" if name else "no study"
        there = f", which holds {', '.join(known)}" if known else ""
        start = Database.at(storage.url).command("run")
        raise StorageError(f"{wanted} in this database{there}; start one with: {start}")
    with readable(lambda: str(name)):
        study = optuna.load_study(study_name=name, storage=storage)
        return study, read_settings(study)


def read_settings(study: Study) -> Settings:
    """What was recorded when the study was made; a format of another version is refused."""
    with readable(lambda: study.study_name):
        stored = study.user_attrs[SETTINGS]
        if stored.get("format") != FORMAT:
            raise SettingsError(
                f"study {study.study_name!r} was recorded in format {stored.get('format')}, and "
                f"this version reads {FORMAT}: start it anew under another --name, or use the "
                "version of the program that made it"
            )
        _STORED.validate_python(stored)
        settings = Settings.from_dict(stored)
        _VALUES.validate_python({name: one.value for name, one in settings.chosen.items()})
        return settings


def find(storage: RDBStorage, name: str) -> Settings | None:
    """The settings of the study of this name, None where there is none."""
    if name not in names(storage):
        return None
    return load(storage, name)[1]


def is_stored(location: Location) -> bool:
    """Whether the database holds the study; True where it cannot be read now."""
    try:
        return location.database.exists and location.name in names(location.database.open())
    except (StudyError, SQLAlchemyError):
        return True


def record(study: Study, settings: Settings) -> None:
    """Store settings that say something else of where and how a study is trained.

    What changes its results is stored by `study.storage.change`.
    """
    if settings.to_dict() != study.user_attrs[SETTINGS]:
        study.set_user_attr(SETTINGS, settings.to_dict())


def plan_state_of(study: Study, settings: Settings) -> PlanState:
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


@dataclass(frozen=True)
class StoredStudy:
    """A study as its database holds it: settings, trials that count, the plan's state of them.

    ``state`` is ``running``, ``complete``, ``interrupted``, or ``failed`` if every option failed.
    """

    study: Study
    location: Location
    settings: Settings
    trials: tuple[StoredTrial, ...]
    plan_state: PlanState
    state: str

    @property
    def name(self) -> str:
        return self.location.name


def read(database: Database, name: str | None = None) -> StoredStudy:
    """The study ``name``, or the one made last; raises as `load` and `trials_of` do."""
    study, settings = load(database.open(), name)
    location = database.study(study.study_name)
    trials = tuple(trials_of(study, settings))
    plan_state = plan_of(settings).state(trials)
    return StoredStudy(study, location, settings, trials, plan_state, _state(plan_state, location))


def _state(plan_state: PlanState, location: Location) -> str:
    if driven(location):
        return "running"
    if plan_state.failure is not None:
        return "failed"
    return "complete" if plan_state.complete else "interrupted"
