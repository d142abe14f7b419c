"""Every engine by its name. Another engine is one new file and its entries here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from study.errors import SettingsError
from study.workers import processes
from study.workers.engine import Engine, InProcess, Trainer
from study.workers.pool import local_pool

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is made of.

    ``jobs`` runs at once (on a cluster None: as many as it has workers), each with ``threads``, on
    ``device`` or ``gpus`` (UUIDs). ``scheduler`` and ``resources`` are those of a Dask cluster.
    ``say`` receives a line for the user.
    """

    dataset: Dataset
    checkpoints: Checkpoints
    trainer: Trainer
    jobs: int | None
    threads: int
    device: str
    gpus: Sequence[str]
    scheduler: str | None
    resources: Mapping[str, float] | None
    say: Callable[[str], None]


def _in_process(options: EngineOptions) -> Engine:
    processes.release()
    return InProcess(
        lambda run: options.trainer(run, options.dataset, checkpoints=options.checkpoints),
        options.checkpoints,
    )


def _pool(options: EngineOptions) -> Engine:
    assert options.jobs is not None
    return local_pool(
        options.dataset,
        options.jobs,
        options.threads,
        options.checkpoints,
        options.trainer,
        options.gpus,
    )


def _dask(options: EngineOptions) -> Engine:
    assert options.scheduler is not None
    if find_spec("distributed") is None:
        raise SettingsError(
            f"--scheduler {options.scheduler}: Dask is not installed: pip install '.[cluster]'"
        )
    from study.workers.cluster import remote_engine

    engine = remote_engine(
        options.scheduler,
        options.dataset,
        options.checkpoints,
        options.trainer,
        options.resources,
        options.jobs,
    )
    if not engine.offered:
        wanted = "".join(f" with {name}={n:g}" for name, n in (options.resources or {}).items())
        options.say(f"The cluster has no worker{wanted} yet: a run waits until one joins")
    return engine


def _jax(options: EngineOptions) -> Engine:
    from study.workers.jax.engine import jax_engine

    assert options.jobs is not None
    return jax_engine(
        options.dataset, options.jobs, options.checkpoints, options.device, options.gpus
    )


ENGINES: Mapping[str, Callable[[EngineOptions], Engine]] = {
    "in-process": _in_process,
    "pool": _pool,
    "dask": _dask,
    "jax": _jax,
}

SCHEDULERS: Mapping[str, str] = dict.fromkeys(("tcp", "tls", "ws", "wss"), "dask")
"""Scheme of the address of a scheduler -> the engine that trains there."""


def make_engine(options: EngineOptions, training: str | None, *, own_process: bool) -> Engine:
    """The engine of this kind of ``training``, of the scheduler, or for as many runs at once.

    ``own_process``: not even a single run is trained in this process.
    """
    if training:
        name = training
    elif options.scheduler:
        name = SCHEDULERS[options.scheduler.partition("://")[0]]
    else:
        pool = options.gpus or options.jobs != 1 or own_process  # a GPU is freed by a process's end
        name = "pool" if pool else "in-process"
    return ENGINES[name](options)
