"""Checks of a study's settings: strategy, machine, network and data fit together, or it is refused.

Nothing is created here. Only `tried_model` runs the file of a custom model, in a separate process.
A text that a database holds is never run: only a file on this machine that is the recorded one.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import ModelError, ParameterError, SettingsError, SpaceError
from study.files import absolute
from study.plan.points import fitting_size, points
from study.plan.strategies import completed, limited, plan_of
from study.space.architecture import cost_of, size_text
from study.space.keys import hint, is_number
from study.space.model_source import ModelSource
from study.space.settings import Setting, Settings
from study.space.training_kinds import KINDS, default
from study.training import network
from study.training.probe import probe
from study.tuning.pruning import make_pruner
from study.workers.devices import Devices

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.storage.location import Location


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


def check_before_data(settings: Settings, devices: Devices) -> Settings:
    """The settings with device, pruner and custom model; everything that needs no data is checked.

    Raises ``StudyError``.
    """
    _check_training(settings)
    settings = _checked_strategy(placed(settings, devices))
    space = settings.space
    if space.model is None:
        return settings
    folder = Path(settings.origin).parent  # of the space's file: the model's lies beside it
    source = ModelSource.read(
        space.model, folder, settings.origin, space.files or (), space.features
    )
    return replace(settings, model=source)


def _check_training(settings: Settings) -> None:
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


def _checked_strategy(settings: Settings) -> Settings:
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


def placed(settings: Settings, devices: Devices) -> Settings:
    """The settings with the device, and with the kind of training that is the default on it.

    Raises SettingsError if they cannot be had.
    """
    settings = settings.with_default("device", devices.kind)
    training = settings.chosen["training"]
    if training.source == "default":
        libraries = () if settings.space.features else devices.libraries  # not trained in groups
        training = Setting(default(settings.device, libraries), "default")
    kind = KINDS[training.value]
    if kind.engine and devices.remote:
        raise SettingsError(
            f"--training {training.value} is for one machine: leave --scheduler out"
        )
    if settings.device in ("cpu", "gpu") and settings.device not in kind.devices:
        raise SettingsError(
            f"--training {training.value} is for the processor: leave it out, or give --device cpu"
        )
    devices.check(settings.device, kind.library)
    return replace(settings, chosen={**settings.chosen, "training": training})


def with_card(settings: Settings, devices: Devices) -> Settings:
    """The settings with the name of the first card that a study on a GPU begins on, if known."""
    if settings.device == "cpu" or not devices.cards:
        return settings
    return replace(settings, versions={**settings.versions, "gpu": str(devices.cards[0])})


def as_recorded(settings: Settings, existing: Settings) -> Settings:
    """The settings with the recorded device and kind of training where none was given."""
    found = ["device"]
    if existing.model is not None or _is_default(existing, "training"):
        found.append("training")
    kept = {name: existing.chosen[name] for name in found if _is_default(settings, name)}
    return replace(settings, chosen={**settings.chosen, **kept})


def require_same_device(
    location: Location, settings: Settings, devices: Devices, asked: str | None = None
) -> None:
    """A study keeps to the kind of device it began with: its runs are compared in pairs."""
    own = settings.device
    if asked is not None and asked != own:
        devices.check(asked, settings.training.library)
        raise SettingsError(
            f"--device {asked}: study {location.name!r} began on the {own}, and its runs are "
            f"compared with each other: leave --device out, or start another study with --name"
        )
    if why := devices.refusal(own, settings.training.library):
        raise SettingsError(
            f"study {location.name!r} began on a GPU, and its runs are compared with each other, "
            f"but {why}: resume it where there is one, or start another study with --name"
        )


def _is_default(settings: Settings, name: str) -> bool:
    return settings.chosen[name].source == "default"


def model_on_disk(settings: Settings, folder: Path) -> ModelSource:
    """The custom model of a study as its file is now; SettingsError where there is none.

    The file lies where it was when the study was made or, in a project that was moved, beside the
    space; that of a space made in Python in the ``folder`` of the database.
    """
    recorded, model = settings.model, settings.space.model
    assert recorded is not None
    assert model is not None
    name = model.rpartition(":")[0]
    moved = [absolute(name, home) for home in (Path(settings.origin).parent, folder)]
    for path in (Path(recorded.path), *moved):
        if (now := recorded.now(path)) is not None:
            return now
    raise SettingsError(
        f"{recorded.path}: the study runs this file, which is not there or cannot be read: put the "
        f"file with SHA-256 {recorded.digest} there (the study's report has its text)"
    )


def same_model(
    existing: Settings,
    now: ModelSource,
    location: Location,
    dataset: Dataset,
    *,
    accept: bool | None,
) -> Settings:
    """The recorded settings with the model's source ``now``, which must be the recorded one.

    With ``accept`` another one is tried. Raises SettingsError otherwise; it names the option that
    accepts unless ``accept`` is None.
    """
    if existing.model is None:
        return existing
    if existing.model.fingerprint == now.fingerprint:
        return replace(existing, model=now)
    if accept:
        return tried_model(replace(existing, model=now), dataset)
    others = (
        ""
        if accept is None
        else ", start a study with another --name, or continue with --accept-changed-model"
    )
    raise SettingsError(
        f"{existing.model.changed_in(now)} has changed since the study {location.name!r} was "
        f"made: restore it{others}"
    )


def tried_model(settings: Settings, dataset: Dataset) -> Settings:
    """The settings once a network of each option was built.

    Raises SpaceError naming the space where one cannot be built.
    """
    if settings.model is None:
        return settings
    data = dataset.input_shape, dataset.num_classes
    try:
        library, metric = settings.training.library, settings.metric
        found = probe(settings.model, settings.space.each_alone(), *data, metric, library=library)
    except (ModelError, SpaceError) as error:
        raise SpaceError(f"{settings.origin}: {error}") from None
    return replace(settings, network=found)


def check_networks(settings: Settings, dataset: Dataset) -> None:
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


def check_recipes(settings: Settings, dataset: Dataset, trained: int) -> None:
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


def check_limits(settings: Settings) -> None:
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
