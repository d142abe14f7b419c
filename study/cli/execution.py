"""Where and how a command trains: from its options, and back to the options of the next command."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from study.errors import SettingsError
from study.files import absolute
from study.storage import models

if TYPE_CHECKING:
    from study.running.launch import ExecutionOptions
    from study.storage.location import Database


def execution_options(
    database: Database,
    *,
    mlflow: str | None = None,
    scheduler: str | None = None,
    resources: str | None = None,
    checkpoints: str | None = None,
    keep_models: str | None = None,
    **given: Any,
) -> ExecutionOptions:
    """How to drive a study, on the devices of this machine or cluster, and where to mirror it.

    Raises the ``StudyError`` that names an option which cannot be used.
    """
    from study.mirror.tracker import resolve
    from study.running.launch import ExecutionOptions
    from study.workers.devices import available_devices

    if keep_models is not None:
        models.parse(keep_models)
    _check_address("--checkpoints", checkpoints, r"(s3://[^/]+(/.*)?)|((?!.*://).*)", "s3://BUCKET")
    _check_address("--scheduler", scheduler, r"(tcp|tls|ws|wss)://\S+:\d+/?", "tcp://HOST:PORT")
    wanted = amounts(resources)
    if wanted is not None and scheduler is None:
        raise SettingsError(f"--resources {resources}: only a cluster has any; give --scheduler")
    return ExecutionOptions(
        scheduler=scheduler,
        resources=wanted,
        checkpoints=checkpoints,
        keep_models=keep_models,
        mirror=resolve(mlflow, os.environ, database),
        devices=available_devices(os.environ, scheduler, wanted),
        **given,
    )


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
    """The resources of Dask that ``--resources GPU=1`` names."""
    if given is None:
        return None
    name, _, amount = given.partition("=")
    with suppress(ValueError):
        if name and 0 < (number := float(amount)) < math.inf:
            return {name: number}
    raise SettingsError(f"--resources {given}: write NAME=NUMBER, as in GPU=1")


def _check_address(option: str, address: str | None, pattern: str, wanted: str) -> None:
    """Refuse an address of another form, or one with keys: hints repeat it, others may see it."""
    if address is None:
        return
    if "://" in address and "@" in address:
        instead = "boto3 and Dask read them from the environment or their own files"
        raise SettingsError(f"{option}: keys do not belong in an address; {instead}")
    if not re.fullmatch(pattern, address):
        raise SettingsError(f"{option} {address}: is not an address of this kind; write {wanted}")
