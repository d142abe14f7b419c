"""On what a study trains, settled once: the kind of device, and how steps are computed there."""

from __future__ import annotations

from dataclasses import replace

from study.errors import SettingsError
from study.space.settings import Setting, Settings
from study.space.training_kinds import KINDS, default
from study.storage.location import Location
from study.workers.devices import Devices


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
    """The settings of a study that is asked for again: what was found out once is not again."""
    found = ["device"]
    if existing.model is not None or _is_default(existing, "training"):
        found.append("training")
    kept = {name: existing.chosen[name] for name in found if _is_default(settings, name)}
    return replace(settings, chosen={**settings.chosen, **kept})


def _is_default(settings: Settings, name: str) -> bool:
    return settings.chosen[name].source == "default"


def kept_to_or_refused(
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
