"""What MLflow should show of a study: pure functions from rows to runs with params and points.

One run a trial, under one a configuration, under one a study. A run's ``points`` only ever grow at
their end while its trial runs, so whoever sends them needs to know no more than how many it sent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.plan.results import Configuration, StoredTrial
from study.space.metric import Metric
from study.space.settings import Settings

Status = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]

STUDY = "study"
"""The slot of the run that stands for the study."""

UUID = "study_uuid"
SLOT = "study_slot"
"""The tags by which a run is found again: whose it is, and which one."""

MARK = "state"
"""The tag that says what was sent last; with the final status it says that all of it was."""

UNFINISHED = ("running", "paused")
"""The states of rows whose curves may still grow."""

_LONGEST = 250  # characters that MLflow 1.x takes for a value

_STATUS: Mapping[str, Status] = {
    "running": "RUNNING",
    "complete": "FINISHED",
    "pruned": "KILLED",
    "paused": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric: at a time (ms since 1970) and a step (epoch or repeats, from 1)."""

    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a run holds; params never change once they are sent, tags may."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run as it should be: who it is, under which it stands, and how far it has got.

    ``mark`` differs whenever the run, once sent, would have to be sent again. Times in ms.
    """

    slot: str
    parent: str | None
    name: str
    state: str
    mark: str
    started: int
    ended: int

    @property
    def status(self) -> Status:
        return _STATUS[self.state]


@dataclass(frozen=True)
class Subject:
    """The study that is shown: its name, its UUID and its settings.

    ``live``: a driver is at work. Without one, what the database holds as running was interrupted.
    ``complete``: there is nothing left to train.
    """

    name: str
    uuid: str
    settings: Settings
    live: bool
    complete: bool = False

    @property
    def epochs(self) -> int:
        return int(self.settings["epochs"])


def trial_slot(number: int) -> str:
    """The slot of the run of trial ``number``."""
    return f"trial {number}"


def configuration_slot(configuration: Configuration) -> str:
    """The slot of the run of a configuration."""
    digest = hashlib.sha256(json.dumps(configuration).encode()).hexdigest()[:16]
    return f"configuration {digest}"


def identity(subject: Subject, wanted: Wanted, parent_id: str | None) -> dict[str, str]:
    """The tags a run is made with: they are all it takes to find it again."""
    tags = {
        "mlflow.runName": wanted.name,
        "mlflow.source.name": "study",
        "mlflow.source.type": "LOCAL",
        UUID: subject.uuid,
        SLOT: wanted.slot,
    }
    return tags | ({"mlflow.parentRunId": parent_id} if parent_id else {})


def visible(row: StoredTrial) -> bool:
    """Whether there is anything to see of a run: an epoch, or why it failed."""
    return row.state == "failed" or epochs_stored(row) > 0


def trial(subject: Subject, row: StoredTrial) -> Wanted:
    """The run of one trial."""
    state = shown_state(subject, row)
    started = _start(row)
    ended = _milliseconds(row.ended.timestamp()) if row.ended else _last_epoch(row, started)
    name = f"{row.stage}={row.option}, repeat {row.repeat + 1}"
    return Wanted(
        trial_slot(row.number),
        configuration_slot(row.configuration),
        name,
        state,
        state,
        started,
        max(started, ended),
    )


def trial_content(subject: Subject, row: StoredTrial) -> Content:
    """Hyperparameters as params and tags, a point an epoch and series, then final and best ones."""
    settings = subject.settings
    params = {name: str(value) for name, value in row.configuration}
    params |= {"epochs": str(subject.epochs), "batch_size": str(settings["batch_size"])}
    tags = params | {
        "stage": row.stage,
        "option": str(row.option),
        "repeat": str(row.repeat + 1),
        "seed": str(settings["seed"]),
        "trial": str(row.number),
        **origin(settings),
        MARK: shown_state(subject, row),
    }
    if row.failure:
        tags["failure"] = row.failure
    if row.cancelled:
        tags["cancelled"] = row.cancelled
    return cut(params, tags, _curve(row) + _summary(row, settings.metric))


def epochs_stored(row: StoredTrial) -> int:
    """The epochs that are stored whole: a driver can die between the statements that store one."""
    return min([len(row.reported), *map(len, row.curve.values())]) if row.curve else 0


def _series(row: StoredTrial) -> list[str]:
    """What is shown of each epoch."""
    return [name for name in row.curve if name != "ended"]


def _curve(row: StoredTrial) -> list[Point]:
    return [
        Point(
            name, float(row.curve[name][epoch]), _milliseconds(row.curve["ended"][epoch]), epoch + 1
        )
        for epoch in range(epochs_stored(row))
        for name in _series(row)
    ]


def _summary(row: StoredTrial, metric: Metric) -> list[Point]:
    """Values to sort runs by, once the run has ended; only a complete run has final ones."""
    epochs = epochs_stored(row)
    if row.state in UNFINISHED or not epochs:
        return []
    curve = row.curve[metric.name][:epochs]
    best = metric.best(curve)
    values = {f"best_{metric.name}": curve[best], "best_epoch": best + 1}
    values["total_seconds"] = math.fsum(row.curve["seconds"][:epochs])
    if row.state == "complete":
        logged = (name for name in _series(row) if name != "seconds")
        values |= {f"final_{name}": row.curve[name][epochs - 1] for name in logged}
    if "parameters" in row.attributes:
        values["parameters"] = row.attributes["parameters"]
    at = _milliseconds(row.curve["ended"][epochs - 1])
    return [Point(name, float(value), at, epochs) for name, value in values.items()]


def shown_state(subject: Subject, row: StoredTrial) -> str:
    """The state of a trial: an unfinished one runs, or was interrupted where there is no driver.

    A run that was paused until the study ended says so: no pruner stopped it.
    """
    if row.state in UNFINISHED:
        return "running" if subject.live else "interrupted"
    return "paused" if row.left_paused else row.state


def origin(settings: Settings) -> dict[str, str]:
    """Which data, device and network of one's own, and which versions."""
    tags = {"data": str(settings["data"]), "device": settings.device}
    if settings.model is not None:
        tags |= {
            "network": settings.model.name,
            "network_fingerprint": settings.model.fingerprint,
        }
    if settings.network is not None:
        tags["network_parameters"] = str(settings.network.parameters)
    if settings.data is not None:
        tags["data_fingerprint"] = settings.data.fingerprint
    return tags | {f"version.{name}": number for name, number in settings.versions.items()}


def cut(params: dict[str, str], tags: dict[str, str], points: list[Point]) -> Content:
    """Shorten values to what an old server takes."""
    return Content(
        {name: value[:_LONGEST] for name, value in params.items()},
        {name: value[:_LONGEST] for name, value in tags.items()},
        points,
    )


def _start(row: StoredTrial) -> int:
    return _milliseconds(row.started.timestamp()) if row.started else 0


def _last_epoch(row: StoredTrial, otherwise: int) -> int:
    ended: Sequence[Any] = row.curve.get("ended", ())
    return _milliseconds(ended[-1]) if ended else otherwise


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
