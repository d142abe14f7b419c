"""The Dask cluster of this machine: a process a worker, which nobody has to start or to end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import dask
from distributed import Client, LocalCluster, Status

from study.training.train import train
from study.workers import forkserver as forks
from study.workers.cluster import MUTE, DaskEngine
from study.workers.engine import Trainer, cores
from study.workers.worker import GROWTH, CardPlugin, PinPlugin

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints

_QUIET = {  # Dask watches itself, driver and workers, at a cost of a few percent of every core
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.profile.enabled": False,
}

# Dask gives up a worker that is not there so long after it, or one before it in its place, was
# lost: one that is being replaced again just then would never come back.
_FOR_EVER = {"distributed.deploy.lost-worker-timeout": "3650d"}


def local_engine(
    dataset: Dataset,
    jobs: int,
    threads: int,
    checkpoints: Checkpoints | None,
    trainer: Trainer = train,
    growth: float = GROWTH,
    cards: Sequence[str] = (),
) -> DaskEngine:
    """An engine with ``jobs`` worker processes on this machine, ended by ``close``.

    They take turns at the ``cards`` (UUIDs of GPUs), one each. Then they are no forks, which CUDA
    does not bear, and are not pinned: the card does the work.
    """
    logging.getLogger("distributed").setLevel(MUTE)
    dask.config.set(_QUIET | _FOR_EVER | {"distributed.nanny.pre-spawn-environ": forks.ENVIRONMENT})
    if cards:
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
    elif forks.FORKS:
        forks.start()
        forks.wait()
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    with forks.deaf_to_ctrl_c():
        cluster = LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a port of its own: two studies may run at once
            scheduler_kwargs={"dashboard": False},
            memory_limit=None,
            silence_logs=MUTE,
        )
        client = Client(cluster)
    if cards:
        client.register_plugin(CardPlugin(cards))
    elif jobs * threads == len(cores()):  # else another study may be on the first of them too
        client.register_plugin(PinPlugin(threads, cores()))

    def close() -> None:
        _kill(cluster)
        with suppress(Exception):
            client.close(timeout=1)
        with suppress(Exception):
            cluster.close(timeout=2)

    def gone() -> bool:
        nannies = list(cluster.workers.values())
        return all(nanny.status in (Status.closed, Status.failed) for nanny in nannies)

    return DaskEngine(
        client,
        dataset,
        jobs,
        checkpoints=checkpoints,
        trainer=trainer,
        growth=growth,
        close=close,
        gone=gone,
    )


def _kill(cluster: LocalCluster) -> None:
    """End the worker processes at once: what they train is checkpointed, or not wanted."""
    for nanny in list(cluster.workers.values()):
        nanny.auto_restart = False
        with suppress(ProcessLookupError, TypeError):
            os.kill(nanny.pid, signal.SIGKILL)
