"""The studies of a database: make, find, load, and what they record. The database is the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import DuplicatedStudyError

from study.errors import SettingsError, StorageError
from study.space.settings import FORMAT, Settings
from study.storage.location import Database

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

MLFLOW = "mlflow"
"""The attribute that says where MLflow shows a study (experiment, run, address) or a trial."""

SETTINGS = "settings"
"""The study attribute that holds what was recorded when the study was made."""


def names(storage: RDBStorage) -> list[str]:
    """The names of the studies in a database that this program made, oldest first."""
    return [
        study.study_name
        for study in storage.get_all_studies()  # Optuna's summaries would read every trial
        if SETTINGS in study.user_attrs
    ]


def create(storage: RDBStorage, name: str, settings: Settings) -> Study:
    """Make a study and record its settings.

    A study of this name without settings and trials is what a driver left that was killed in
    this very function: it is completed. Any other one is refused with ``SettingsError``.
    """
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, direction=settings.metric.direction
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        if SETTINGS in study.user_attrs or study.get_trials(deepcopy=False):
            raise SettingsError(f"a study named {name!r} exists; choose another --name") from None
    study.set_user_attr(SETTINGS, settings.to_dict())
    return study


def load(storage: RDBStorage, name: str | None = None) -> tuple[Study, Settings]:
    """A study with its recorded settings; without a name the one that was made last.

    Raises ``StorageError`` where there is none of this name, ``SettingsError`` where its format
    is of another version.
    """
    known = names(storage)
    if name is None and known:
        name = known[-1]
    if name is None or name not in known:
        wanted = f"no study named {name!r}" if name else "no study"
        there = f"; there are {', '.join(known)}" if known else ""
        start = Database.at(storage.url).command("run")
        raise StorageError(f"{wanted} in this database{there}: start one with: {start}")
    study = optuna.load_study(study_name=name, storage=storage)
    return study, read_settings(study)


def read_settings(study: Study) -> Settings:
    """What was recorded when the study was made; a format of another version is refused."""
    stored = study.user_attrs[SETTINGS]
    if stored.get("format") != FORMAT:
        raise SettingsError(
            f"study {study.study_name!r} was recorded in format {stored.get('format')}, and this "
            f"version reads {FORMAT}: start it anew under another --name, or use the version of "
            "the program that made it"
        )
    return Settings.from_dict(stored)


def find(storage: RDBStorage, name: str) -> Settings | None:
    """The settings of the study of this name, None where there is none."""
    if name not in names(storage):
        return None
    return load(storage, name)[1]


def record(study: Study, settings: Settings) -> None:
    """Store changed settings; only the number of repeats ever changes."""
    if settings.to_dict() != study.user_attrs[SETTINGS]:
        study.set_user_attr(SETTINGS, settings.to_dict())
