"""Where and how a command trains: from its options, and to the options of the next command."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from study.errors import SettingsError
from study.files import absolute
from study.storage import models

if TYPE_CHECKING:
    from study.running.launch import ExecutionOptions
    from study.storage.location import Database


def execution_options(
    database: Database, mlflow: str | None, resources: str | None, **given: Any
) -> ExecutionOptions:
    """How to drive, on what there is, with the MLflow server that is to follow.

    Raises the ``StudyError`` that names the option which cannot be.
    """
    from study.mirror.target import resolve
    from study.running.launch import ExecutionOptions
    from study.training.device import offered

    if given.get("keep_models") is not None:
        models.parse(given["keep_models"])
    wanted = amounts(resources)
    devices = offered(os.environ, given["scheduler"], wanted)
    mirror = resolve(mlflow, os.environ, database)
    return ExecutionOptions(**given, resources=wanted, mirror=mirror, devices=devices)


def again(execution: ExecutionOptions) -> list[str]:
    """The options with which a command trains where ``execution`` does, and mirrors there too."""
    found: dict[str, object] = {"--jobs": execution.jobs, "--scheduler": execution.scheduler}
    for name, amount in (execution.resources or {}).items():
        found["--resources"] = f"{name}={amount:g}"
    place = execution.checkpoints
    if place is not None:
        found["--checkpoints"] = place if "://" in place else absolute(place)
    words = [word for option, value in found.items() if value for word in (option, str(value))]
    return [*words, *(execution.mirror.options if execution.mirror else ("--mlflow", "none"))]


def amounts(given: str | None) -> dict[str, float] | None:
    """``GPU=1`` as Dask wants it."""
    if given is None:
        return None
    name, _, amount = given.partition("=")
    with suppress(ValueError):
        if name and 0 < (number := float(amount)) < math.inf:
            return {name: number}
    raise SettingsError(f"--resources {given}: write NAME=NUMBER, as in GPU=1")
