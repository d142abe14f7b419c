"""From what was asked for to a driver at work: check everything, then make the study, then drive.

Nothing is made before everything is checked: whatever is wrong leaves no half-made study behind.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from study import data as datasets
from study import model, space, storage
from study.driver import Driver, Hooks, Watch
from study.engine import InProcess
from study.errors import SettingsError, SpaceError, StudyError
from study.lock import driven, driving
from study.plan import Plan, Slot, Standing
from study.pruning import PRUNERS, make_pruner
from study.results import Rows
from study.search import Search, inner_sampler
from study.settings import Chosen, Settings, facts, settle
from study.sweep import OneAtATime
from study.training import Run, start_tensorflow, train

if TYPE_CHECKING:
    from optuna import Study

    from study.checkpoint import Checkpoints
    from study.data import Dataset


@dataclass(frozen=True)
class Prepared:
    """A study that may be driven: its settings, checked, and its data."""

    url: str
    name: str
    settings: Settings
    dataset: Dataset
    new: bool


def prepare(
    name_or_path: str | None, name: str | None, url: str, given: Mapping[str, Chosen]
) -> Prepared:
    """Check everything that a new study needs; a study of the same settings is continued.

    Raises the ``StudyError`` that says what is wrong; nothing has been made then.
    """
    storage.check(url)
    origin = name_or_path or _default_space(given)
    settings = _checked_names(settle(space.load(origin), origin, given))
    name = name or settings.space.name
    dataset = datasets.load(settings["data"])
    settings = _fitted(settings.located(), dataset)
    existing = _existing(url, name)
    if existing is not None:
        _same_or_refused(name, existing, settings)
        settings = existing.with_repeats(max(existing.repeats, settings.repeats))
    return Prepared(url, name, settings, dataset, existing is None)


def prepare_again(name: str | None, url: str, repeats: int | None) -> Prepared:
    """The study ``name`` (or the one made last) as it was recorded, with its data read again.

    Raises ``SettingsError`` where the data is not the recorded one any more.
    """
    opened = storage.open_storage(url)
    study, settings = storage.load(opened, name)
    if repeats is not None:
        settings = settings.with_repeats(repeats)
    dataset = datasets.load(settings["data"])
    recorded = settings.data
    if recorded is not None and dataset.fingerprint != recorded.fingerprint:
        raise SettingsError(
            f"{settings['data']}: the data has changed since the study was made (fingerprint "
            f"{dataset.fingerprint[:12]}, not {recorded.fingerprint[:12]}): restore it, or start "
            "a new study with another --name"
        )
    return Prepared(url, study.study_name, _fitted(settings, dataset), dataset, new=False)


def launch(
    prepared: Prepared, watch: Watch, timeout: float | None = None
) -> tuple[Study, Standing]:
    """Drive a prepared study; ``timeout`` in seconds ends it early, resumable.

    Raises ``StudyLocked`` where another process drives it, ``SlotFailed`` where one slot failed
    three times, ``StorageError`` where the database cannot be written any more.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    settings = prepared.settings
    shown = make_url(prepared.url).render_as_string(hide_password=True)
    with storage.explained(shown), driving(prepared.url, prepared.name):
        opened = storage.open_storage(prepared.url, create=prepared.new)
        if prepared.new:
            study = storage.create(opened, prepared.name, settings)
        else:
            study = storage.load(opened, prepared.name)[0]
            storage.record(study, settings)
        checkpoints = _checkpoints(prepared.url)
        engine = InProcess(lambda run: train(run, prepared.dataset, checkpoints=checkpoints))
        pruner = make_pruner(settings["pruner"], settings["epochs"], settings.images)
        hooks = _hooks(prepared, checkpoints)
        driver = Driver(study, plan_of(settings), pruner, engine, hooks, watch)
        warm = _warm_up(settings)
        try:
            return study, driver.drive(deadline)
        finally:
            engine.close()
            warm.join()


def plan_of(settings: Settings) -> Plan:
    """The plan that the settings ask for."""
    if settings["sampler"] == "sweep":
        return OneAtATime(settings.space, settings.repeats, settings.images)
    return Search(
        settings.space,
        settings["sampler"],
        settings["configurations"],
        settings["seed"],
        settings.repeats,
        settings.images,
    )


def standing_of(study: Study, settings: Settings) -> Standing:
    """What the stored trials of a study say."""
    return plan_of(settings).standing(Rows()(study))


def state_of(standing: Standing, url: str, name: str) -> str:
    """``complete``, ``running``, ``failed`` or ``interrupted``."""
    if driven(url, name):
        return "running"
    if standing.complete:
        return "complete"
    return "interrupted" if standing.failed is None else "failed"


def _default_space(given: Mapping[str, Chosen]) -> str:
    """The embedded digits have their own space; any other data gets the tutorial's."""
    data = given.get("data")
    return "digits" if data is None or data.value == "digits" else "mnist"


def _checked_names(settings: Settings) -> Settings:
    """Refuse a sampler or pruner that does not exist before any data is read."""
    if settings["sampler"] != "sweep":
        inner_sampler(settings["sampler"])
    if settings["pruner"] not in PRUNERS:
        make_pruner(settings["pruner"], settings["epochs"], None)
    return settings


def _fitted(settings: Settings, dataset: Dataset) -> Settings:
    """The settings with the facts of the data, once every option and every split fits it."""
    _check_networks(settings, dataset)
    repeats = range(settings.repeats)
    splits = [
        datasets.split(
            dataset.labels, settings.validation, settings["seed"], repeat, dataset.source
        )
        for repeat in repeats
    ]
    smallest = min(len(split.validation) for split in splits)
    versions = {name: version(name) for name in ("tensorflow", "keras", "optuna", "numpy")}
    return settings.with_data(
        facts(dataset, smallest), {"python": platform.python_version(), **versions}
    )


def _check_networks(settings: Settings, dataset: Dataset) -> None:
    """Refuse a space that has an option for which there is no network on these images."""
    start = settings.space.start
    for parameter in settings.space.hyperparameters:
        for value in parameter.options or (parameter.low, parameter.high):
            try:
                model.check(
                    start | {parameter.name: value}, dataset.input_shape, dataset.num_classes
                )
            except SpaceError as error:
                where = f"{settings.origin}: hyperparameters.{parameter.name}"
                raise SpaceError(f"{where}: {error}") from None


def _existing(url: str, name: str) -> Settings | None:
    if not storage.exists(url):
        return None
    return storage.find(storage.open_storage(url), name)


def _same_or_refused(name: str, existing: Settings, asked: Settings) -> None:
    differences = existing.differences(asked)
    if differences:
        raise SettingsError(
            f"a study named {name!r} exists with other settings: {'; '.join(differences)}. "
            f"Continue it with: python -m study resume {name!r}, or give this one another --name"
        )


def _checkpoints(url: str) -> Checkpoints | None:
    """Unfinished runs are kept in a folder beside the database."""
    from study.checkpoint import FolderCheckpoints

    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return None
    return FolderCheckpoints(Path(f"{address.database}.checkpoints"))


def _hooks(prepared: Prepared, checkpoints: Checkpoints | None) -> Hooks:
    settings, dataset = prepared.settings, prepared.dataset

    def describe(slot: Slot) -> dict[str, float]:
        params = dict(slot.configuration or ())
        count = model.count_parameters(params, dataset.input_shape, dataset.num_classes)
        return {"parameters": count}

    return Hooks(
        run=run_maker(settings, dataset),
        describe=describe,
        keep=lambda row, model: None,
        forget=lambda run: checkpoints.delete(run.key) if checkpoints else None,
    )


def run_maker(settings: Settings, dataset: Dataset) -> Callable[[Slot], Run]:
    """How a slot of this study becomes a training run."""

    def run(slot: Slot) -> Run:
        assert slot.configuration is not None
        return Run(
            params=slot.configuration,
            repeat=slot.repeat,
            seed=settings["seed"],
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            validation=settings.validation,
            threads=settings["threads"],
            data_fingerprint=dataset.fingerprint,
        )

    return run


def _warm_up(settings: Settings) -> threading.Thread:
    """Import TensorFlow while the database is opened and the first trial asked for."""

    def start() -> None:
        try:
            start_tensorflow(settings["threads"])
        except StudyError as error:  # the first run says it again, where it is heard
            logging.getLogger(__name__).debug("%s", error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    return thread
