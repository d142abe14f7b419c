"""The custom model of a study: its file is read, compared with the recorded one, and tried.

Only `tried` runs it, in a process of its own. A text that a database holds is never run: only a
file on this machine that is the recorded one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import ModelError, SettingsError, SpaceError
from study.files import absolute
from study.space.model_source import ModelSource
from study.space.settings import Settings
from study.training.probe import probe

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.storage.location import Location


def with_source(settings: Settings) -> Settings:
    """The settings with the text of the space's model, if it has one; its file lies beside it."""
    space, folder = settings.space, Path(settings.origin).parent
    if space.model is None:
        return settings
    source = ModelSource.read(
        space.model, folder, settings.origin, space.files or (), space.features
    )
    return replace(settings, model=source)


def on_disk(settings: Settings, folder: Path) -> ModelSource:
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


def unchanged_or_refused(
    existing: Settings,
    now: ModelSource,
    location: Location,
    dataset: Dataset,
    *,
    accept: bool | None,
) -> Settings:
    """The recorded settings with the model's source as it is now, where that is the recorded one.

    Another one is tried if ``accept``, else refused with SettingsError; None: the command does not
    take another.
    """
    if existing.model is None:
        return existing
    if existing.model.fingerprint == now.fingerprint:
        return replace(existing, model=now)
    if accept:
        return tried(replace(existing, model=now), dataset)
    others = (
        ""
        if accept is None
        else ", start a study with another --name, or go on with --accept-changed-model"
    )
    raise SettingsError(
        f"{existing.model.changed_in(now)} has changed since the study {location.name!r} was "
        f"made: restore it{others}"
    )


def tried(settings: Settings, dataset: Dataset) -> Settings:
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
