"""Check everything that a study needs, before anything is made.

Whatever is wrong ends here, with a message, and leaves no half-made study behind.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study.data import dataset as datasets
from study.data.reading import ImageOptions, ProgressCallbacks
from study.data.splitting import Labels
from study.errors import SettingsError
from study.files import printable
from study.plan.strategies import strategy_of
from study.running import checks, features, growth
from study.running.growth import Approve
from study.space import file as space_file
from study.space.search_space import NAMED, SearchSpace
from study.space.settings import DataFacts, Setting, Settings, resolve
from study.storage import database as storage
from study.storage.location import Database, Location
from study.workers.devices import CPU, Devices

if TYPE_CHECKING:
    from study.data.dataset import Dataset


IN_PYTHON = "a space made in Python"
"""The origin of a space that no file holds, in the folder from which its paths count."""


@dataclass(frozen=True)
class Prepared:
    """A study that may be driven: its settings, checked, and its data.

    ``inputs`` is what runs train on: ``dataset``, or the features of its images.
    """

    location: Location
    settings: Settings
    dataset: Dataset
    inputs: Dataset
    new: bool
    before: Settings | None = None
    """The recorded settings of a study that is not new."""


def prepare(
    name_or_path: str | SearchSpace | None,
    name: str | None,
    database: Database,
    given: Mapping[str, Setting],
    warm_up: Callable[[Settings], None] = lambda _: None,
    callbacks: ProgressCallbacks | None = None,
    devices: Devices = CPU,
    *,
    accept_changed_model: bool = False,
    approve: Approve = growth.refuse,
) -> Prepared:
    """Check everything that a new study needs; a study of the same name is continued.

    Where its space or its numbers are to change, ``approve`` is called first.

    ``name_or_path`` is a shipped space, the path of a file, or a space itself.
    ``warm_up`` is called with the settings of a new study before its data is read, which takes a
    while: it must leave no trace in case the data is refused. A new study trains on the best of
    ``devices``, another one keeps to its own.

    Raises the ``StudyError`` that says what is wrong; nothing has been made then.
    """
    database.check()
    if isinstance(name_or_path, SearchSpace):
        space, origin = name_or_path, str(database.folder / IN_PYTHON)
    else:
        origin = name_or_path or _default_space(given)
        space = space_file.load(origin)
    settings = resolve(space, origin, given)
    settings = checks.check_before_data(settings, devices)
    location = database.study(settings.space.name if name is None else _usable(name))
    existing = recorded = _existing(location)
    if existing is None:
        warm_up(settings)
    dataset = read_data(settings, database, callbacks)
    settings = _fitted(settings.located(), dataset, database)
    if existing is None:
        if settings.model is not None and callbacks is not None:  # TensorFlow takes seconds
            name = settings.model.name
            callbacks.say(f"Building {name} once with each option, to see that it works")
        settings = checks.tried_model(checks.with_card(settings, devices), dataset)
    else:
        _same_or_refused(location, existing, checks.as_recorded(settings, existing))
        checks.require_same_device(location, existing, devices)
        if settings.model is not None:
            existing = checks.same_model(
                existing, settings.model, location, dataset, accept=accept_changed_model
            )
        settings = growth.grown(existing, settings).with_data_at(settings["data"])
        settings = _fitted(settings, dataset, database)
        if existing.space != settings.space:
            settings = checks.tried_model(settings, dataset)
        _approved(location, recorded, settings, approve)
    inputs = features.inputs(settings, dataset, database, callbacks, devices)
    return Prepared(location, settings, dataset, inputs, existing is None, recorded)


def prepare_again(
    name: str | None,
    database: Database,
    repeats: int | None,
    callbacks: ProgressCallbacks | None = None,
    devices: Devices = CPU,
    device: str | None = None,
    *,
    data: str | None = None,
    accept_changed_model: bool | None = None,
    approve: Approve = growth.refuse,
) -> Prepared:
    """The study ``name`` (or the one made last) as it was recorded, with its data read again.

    ``data`` says where the data is now.
    A custom model is run from its file, which is the recorded one, or with ``accept_changed_model``
    may be another. Raises ``SettingsError`` where the data or that file is not the recorded one, or
    is not there; where it is trained on another kind of device than that of
    ``device`` (None: any), or than there is among ``devices``.
    """
    study, before = storage.load(database.open(), name)
    settings = before
    location = database.study(study.study_name)
    checks.require_same_device(location, settings, devices, device)
    if repeats is not None:
        settings = growth.paid(before, settings.with_repeats(repeats))
    if data is not None:
        settings = settings.with_data_at(data)
    settings = _found_again(settings, database)
    dataset = read_data(settings, database, callbacks)
    recorded = settings.data
    if recorded is not None and dataset.fingerprint != recorded.fingerprint:
        raise SettingsError(
            f"{settings['data']}: is not the data that the study was made with (fingerprint "
            f"{dataset.fingerprint[:12]}, not {recorded.fingerprint[:12]}): restore it, say where "
            "it is with --data, or start a new study with another --name"
        )
    if settings.model is not None:
        now = checks.model_on_disk(settings, database.folder)
        settings = checks.same_model(settings, now, location, dataset, accept=accept_changed_model)
    settings = _fitted(settings, dataset, database)
    _approved(location, before, settings, approve)
    inputs = features.inputs(settings, dataset, database, callbacks, devices)
    return Prepared(location, settings, dataset, inputs, new=False, before=before)


def _approved(
    location: Location, before: Settings | None, settings: Settings, approve: Approve
) -> None:
    """Have a change of a stored study approved, if there is one."""
    if before is not None and growth.changes(before, settings):
        approve(growth.preview(location, before, settings))


def read_data(
    settings: Settings, database: Database, callbacks: ProgressCallbacks | None = None
) -> Dataset:
    """The data of a study; what is made of picture files is kept beside its database."""
    options = ImageOptions.of(settings.space, database.images, callbacks)
    return datasets.load(_found_again(settings, database)["data"], options)


def _found_again(settings: Settings, database: Database) -> Settings:
    """The settings with the data where it is now, if it has moved together with the database.

    Raises ``SettingsError`` where the data of a study is in neither place.
    """
    recorded, facts = settings["data"], settings.data
    if facts is None or recorded in NAMED or Path(recorded).exists():
        return settings
    moved = database.folder / facts.beside if facts.beside else None
    if moved is None or not moved.exists():
        raise SettingsError(f"{recorded}: is no longer there; say where it is now with --data")
    return settings.with_data_at(str(moved))


def _default_space(given: Mapping[str, Setting]) -> str:
    """The embedded digits have their own space; any other data gets the tutorial's."""
    data = given.get("data")
    return "digits" if data is None or data.value == "digits" else "mnist"


def _usable(name: str) -> str:
    """A study's name that can be typed and shown; ``SettingsError`` for any other."""
    if printable(name) != name or name != name.strip() or not 0 < len(name) <= 512:
        raise SettingsError(
            f"--name '{printable(name)[:100]}': give one line of at most 512 characters, without "
            "spaces at its ends and control characters"
        )
    return name


def _fitted(settings: Settings, dataset: Dataset, database: Database) -> Settings:
    """The settings with the facts of the data, once every option and every split fits it."""
    checks.check_networks(settings, dataset)
    repeats = range(settings.repeats)
    splits = [
        datasets.split(
            dataset.labels,
            settings.validation,
            settings["seed"],
            repeat,
            dataset.source,
            dataset.label_names,
        )
        for repeat in repeats
    ]
    checks.check_recipes(settings, dataset, min(len(split.train) for split in splits))
    validated = [dataset.labels[split.validation] for split in splits]
    libraries = ["tensorflow", "keras", "optuna", "numpy"]
    versions = {name: version(name) for name in {*libraries, settings.training.library}}
    known = facts(dataset, validated)
    if settings["data"] not in NAMED and database.file is not None:
        known = replace(known, beside=os.path.relpath(settings["data"], database.folder))
    settings = settings.with_data(known, {"python": platform.python_version(), **versions})
    checks.check_limits(settings)
    return settings


def facts(dataset: Dataset, validated: Sequence[Labels]) -> DataFacts:
    """What is recorded of ``dataset`` and of the labels that each repeat is validated on."""
    height, width, channels = dataset.input_shape
    return DataFacts(
        fingerprint=dataset.fingerprint,
        input_shape=(height, width, channels),
        num_classes=dataset.num_classes,
        images=len(dataset.labels),
        test_images=len(dataset.test_labels),
        validation=min(map(len, validated)),
        label_names=dataset.label_names,
        balanced=None if dataset.regression else min(map(_balanced, validated)),
    )


def _balanced(labels: Labels) -> int:
    """How many images of classes of one size tell the mean of recalls as surely as these do."""
    counts = np.unique(labels, return_counts=True)[1]
    return int(len(counts) ** 2 / (1 / counts).sum())


def _existing(location: Location) -> Settings | None:
    database = location.database
    return storage.find(database.open(), location.name) if database.exists else None


def _same_or_refused(location: Location, existing: Settings, asked: Settings) -> None:
    if not strategy_of(existing).scores:  # its default has been another one
        asked = replace(asked, space=replace(asked.space, score=existing.space.score))
    differences = existing.differences(asked)
    if differences:
        raise SettingsError(
            f"a study named {location.name!r} exists with other settings: "
            f"{'; '.join(differences)}. Give this one another --name, or continue that one with: "
            f"{location.command('resume')}"
        )
