"""A study of a network of one's own: its file is read, compared with the recorded one, and tried.

Only `tried` runs it, in a process of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import ModelError, SettingsError, SpaceError
from study.space.model_source import ModelSource
from study.space.settings import Settings
from study.training.probe import probe

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.storage.location import Location


def with_source(settings: Settings) -> Settings:
    """The settings with the text of the space's model, if it has one; its file lies beside it."""
    if settings.space.model is None:
        return settings
    folder = Path(settings.origin).parent
    return replace(settings, model=ModelSource.read(settings.space.model, folder, settings.origin))


def unchanged_or_refused(
    existing: Settings, now: ModelSource, location: Location, dataset: Dataset, *, accept: bool
) -> Settings:
    """The recorded settings where the model's source is still that; if ``accept``, with the new."""
    if existing.model is None or existing.model.fingerprint == now.fingerprint:
        return existing
    if not accept:
        raise SettingsError(
            f"{existing.model.changed_in(now)} has changed since the study {location.name!r} was "
            "made: restore it, start a study with another --name, or go on with "
            "--accept-changed-model"
        )
    return tried(replace(existing, model=now), dataset)


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
