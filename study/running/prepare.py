"""Check everything that a study needs, before anything is made.

Whatever is wrong ends here, with a message, and leaves no half-made study behind.
"""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study.data import dataset as datasets
from study.data.reading import ImageOptions, ProgressCallbacks
from study.data.splitting import Labels
from study.errors import ParameterError, SettingsError, SpaceError
from study.files import printable
from study.plan.points import fitting_size, points
from study.plan.strategies import completed, limited, plan_of, strategy_of
from study.running import features, growth, own_model, placement
from study.running.growth import Approve
from study.space import file as space_file
from study.space.cost import cost_of, size_text
from study.space.keys import hint, is_number
from study.space.search_space import NAMED, SearchSpace
from study.space.settings import DataFacts, Setting, Settings, resolve
from study.space.training_kinds import KINDS
from study.storage import database as storage
from study.storage.location import Database, Location
from study.training import network
from study.tuning.pruning import make_pruner
from study.workers.devices import CPU, Devices

if TYPE_CHECKING:
    from study.data.dataset import Dataset


IN_PYTHON = "a space made in Python"
"""The origin of a space that no file holds, in the folder from which its paths count."""

_MOST = {
    "epochs": 1_000_000,
    "repeats": 10_000,
    "batch_size": 1_000_000_000,
    "configurations": 1_000_000,
    "confirm": 1_000,
    "threads": 1_000,
    "seed": 2**32 - 1,
}
"""The largest values of settings; more than that is a slip."""


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
    ahead: Callable[[Settings], None] = lambda _: None,
    callbacks: ProgressCallbacks | None = None,
    devices: Devices = CPU,
    *,
    accept_changed_model: bool = False,
    approve: Approve = growth.refuse,
) -> Prepared:
    """Check everything that a new study needs; a study of the same name is continued.

    Where its space or its numbers are to change, ``approve`` is called first.

    ``name_or_path`` is a shipped space, the path of a file, or a space itself.
    ``ahead`` is called with the settings of a new study before its data is read, which takes a
    while: what it starts must leave no trace if the data turns out to be of no use. ``devices``
    are there to train on; a new study takes the best of them, another keeps to its own.

    Raises the ``StudyError`` that says what is wrong; nothing has been made then.
    """
    database.check()
    if isinstance(name_or_path, SearchSpace):
        space, origin = name_or_path, str(database.folder / IN_PYTHON)
    else:
        origin = name_or_path or _default_space(given)
        space = space_file.load(origin)
    settings = resolve(space, origin, given)
    settings = own_model.with_source(_checked(placement.placed(_known_training(settings), devices)))
    location = database.study(settings.space.name if name is None else _usable(name))
    existing = recorded = _existing(location)
    if existing is None:
        ahead(settings)
    dataset = read_data(settings, database, callbacks)
    settings = _fitted(settings.located(), dataset, database)
    if existing is None:
        if (
            settings.model is not None and callbacks is not None
        ):  # it takes as long as TensorFlow does
            callbacks.say(
                f"Building {settings.model.name} once with each option, to see that it works"
            )
        settings = own_model.tried(placement.with_card(settings, devices), dataset)
    else:
        _same_or_refused(location, existing, placement.as_recorded(settings, existing))
        placement.kept_to_or_refused(location, existing, devices)
        if settings.model is not None:
            existing = own_model.unchanged_or_refused(
                existing, settings.model, location, dataset, accept=accept_changed_model
            )
        settings = growth.grown(existing, settings).with_data_at(settings["data"])
        settings = _fitted(settings, dataset, database)
        if existing.space != settings.space:
            settings = own_model.tried(settings, dataset)
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
    placement.kept_to_or_refused(location, settings, devices, device)
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
        now = own_model.on_disk(settings, database.folder)
        settings = own_model.unchanged_or_refused(
            settings, now, location, dataset, accept=accept_changed_model
        )
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


def _known_training(settings: Settings) -> Settings:
    """Refuse a kind of training that does not exist, or whose library is not installed."""
    name = settings["training"]
    if name not in KINDS:
        raise SettingsError(f"--training {name}: choose {', '.join(KINDS)}")
    if settings.space.features and settings.training.engine:
        raise SettingsError(
            f"--training {name}: trains on images alone, and the space has features: leave it out"
        )
    if find_spec(library := settings.training.library) is None:
        raise SettingsError(f"--training {name} needs {library}: pip install '.[{library}]'")
    return settings


def _checked(settings: Settings) -> Settings:
    """Refuse what sampler and pruner cannot do before any data is read; fill in the pruner."""
    for name, most in _MOST.items():
        value = settings[name] if name in settings.chosen else None
        if value is not None and value > most:
            raise SettingsError(f"{name} {value}: give at most {most:,}")
    if settings.space.batch_size is None and settings["batch_size"] is not None:
        raise SettingsError(
            f"batch_size {settings['batch_size']}: is a hyperparameter of the space; leave it out"
        )
    settings = completed(settings)
    make_pruner(settings["pruner"], settings["epochs"], None)
    plan_of(settings)
    return settings


def _fitted(settings: Settings, dataset: Dataset, database: Database) -> Settings:
    """The settings with the facts of the data, once every option and every split fits it."""
    _check_networks(settings, dataset)
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
    _check_recipes(settings, dataset, min(len(split.train) for split in splits))
    validated = [dataset.labels[split.validation] for split in splits]
    libraries = ["tensorflow", "keras", "optuna", "numpy"]
    versions = {name: version(name) for name in {*libraries, settings.training.library}}
    known = facts(dataset, validated)
    if settings["data"] not in NAMED and database.file is not None:
        known = replace(known, beside=os.path.relpath(settings["data"], database.folder))
    settings = settings.with_data(known, {"python": platform.python_version(), **versions})
    _check_limits(settings)
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


def _check_networks(settings: Settings, dataset: Dataset) -> None:
    """Refuse a space that has an option for which there is no network on these images."""
    if settings.model is not None:  # its file is not run here
        return
    space = settings.space
    if dataset.regression:
        raise SpaceError(
            f"{settings.origin}: task: the network here tells classes apart; give a model of your "
            'own for numbers, as in model = "my_model.py:build"'
        )
    if space.metric_name not in network.METRICS:
        raise SpaceError(
            f"{settings.origin}: metric: {space.metric_name} is not logged by the network; "
            f"{hint(space.metric_name, network.METRICS)}"
        )
    # A fraction makes decimals of a hyperparameter's whole numbers: it is the one to be named.
    ends: dict[str, list[Any]] = {
        p.name: sorted(p.options or p.bounds, key=_is_whole) for p in space.hyperparameters
    }
    starts = {p.name: p.start for p in space.hyperparameters if p.start is not None}
    starts |= {name: v[0] for name, v in ends.items() if not _is_whole(v[0])}
    alone = [{name: value} for name, values in ends.items() for value in values]
    # A sweep may carry any of their options on to a later stage, where it meets all of the other's.
    bound = [name for name in network.BOUND_TOGETHER if name in ends]
    pairs = itertools.product(*(ends[name] for name in bound))
    together = [dict(zip(bound, pair, strict=True)) for pair in pairs]
    for changed in (*alone, *together):
        params = space.completed({**starts, **space.having(changed)})
        try:
            network.check(params, dataset.input_shape, dataset.num_classes)
        except ParameterError as error:
            own = error.name not in {*ends, *space.fixed}
            table = "" if own else "hyperparameters." if error.name in ends else "fixed."
            left_out = " (the network's own, as the space gives none)" if own else ""
            raise SpaceError(f"{settings.origin}: {table}{error}{left_out}") from None


def _check_recipes(settings: Settings, dataset: Dataset, trained: int) -> None:
    """Refuse hyperparameters of training that fit neither the data nor the kind of training.

    ``trained`` is the number of images that a repeat trains on, at least.
    """
    space, kind = settings.space, settings["training"]
    searched = {p.name: p.options or p.bounds for p in space.hyperparameters}
    given: dict[str, tuple[Any, ...]] = {n: (value,) for n, value in space.fixed.items()} | searched
    for name, values in given.items():
        table = "hyperparameters" if name in searched else "fixed"
        wrong = None
        if name == "class_weight" and dataset.regression:
            wrong = "weighs classes, and the labels are numbers; leave it out"
        if name in settings.training.lacks:
            wrong = f"--training {kind} has none; leave it out or choose --training stock"
        if name == "batch_size" and is_number(largest := max(values)) and largest > trained:
            wrong = f"is {largest}; a repeat trains on {trained} images: give at most that"
        if wrong:
            raise SpaceError(f"{settings.origin}: {table}.{name}: {wrong}")


def _check_limits(settings: Settings) -> None:
    """Refuse limits that no configuration meets, or that this kind of training cannot measure."""
    limits, space, data = settings.space.limits, settings.space, settings.data
    if limits is None:
        return
    assert data is not None
    measured = limits.milliseconds is not None or space.model is not None
    if measured and settings.training.library != "tensorflow":
        raise SpaceError(
            f"{settings.origin}: limits: --training {settings['training']} does not measure a "
            "network; leave them out or choose --training stock"
        )
    try:
        nothing = plan_of(settings).state([]).failure
    except SpaceError as error:
        raise SpaceError(f"{settings.origin}: {error}") from None
    if fitting_size(space, limited(settings)) == 0:
        every = (cost_of(dict(one), data.input_shape, data.num_classes) for one in points(space))
        least = min(every, key=lambda cost: cost.parameters)
        nothing = (
            f"no configuration fits; the smallest has {least.parameters:,} parameters and "
            f"{size_text(least.size)}"
        )
    elif nothing is not None:
        nothing += "; start with smaller options, or raise a limit"
    if nothing is not None:
        raise SpaceError(f"{settings.origin}: limits: {nothing}")


def _is_whole(value: object) -> bool:
    return not isinstance(value, float) or value.is_integer()


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
