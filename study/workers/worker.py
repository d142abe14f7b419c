"""What happens on a worker of a Dask cluster: it holds the data, trains a run, reports epochs.

A worker process trains one run at a time, however many threads it has. It stays warm between runs,
and one that has grown too much hands the run it was to start back and lets another take its place.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import psutil
from distributed import Event as Flag
from distributed import Reschedule, Status, WorkerPlugin, get_worker

from study.data.pixels import chosen, is_aligned
from study.errors import TrainingFailed
from study.training.model import count_activations
from study.workers.engine import visible

if TYPE_CHECKING:
    from distributed import Worker

    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.training.run import Epoch, Run
    from study.workers.engine import Trainer

GROWTH = 0.15
"""How much a worker process may grow, as a fraction of its size after its first run of a network
of the largest kind it has had (docs/log.md, "Memory of a worker")."""

LARGER = 1.25  # how many times the activations of the largest so far make another kind


@dataclass(frozen=True)
class Outcome:
    """What a run on a worker comes to: its epochs, and a model or the reason of a failure.

    Neither where it was paused or stopped.
    """

    epochs: tuple[Epoch, ...] = ()
    model: bytes | None = None
    failure: str | None = None


FOR_GOOD = "-for-good"
"""Ends the name of the flag that is raised first where a run is stopped and never wanted again."""


@dataclass(frozen=True)
class Job:
    """Trains a run on a worker and reports every epoch under ``topic``.

    ``data`` is the name of the plugin that brought the images; ``growth`` as ``GROWTH``.
    """

    topic: str
    data: str
    checkpoints: Checkpoints | None
    trainer: Trainer
    growth: float = GROWTH

    def __call__(self, key: int, run: Run, flag: str) -> Outcome:
        """Train until the end, or until somebody raises ``flag``.

        Stopped for good, the run's checkpoint goes with it: the driver has forgotten the one there
        was, and the epoch that was on its way has written another.
        """
        worker = get_worker()
        with _HERE.turn:
            if _HERE.grown(self.growth) and _give_way(worker):
                raise Reschedule
            stop = Flag(flag)
            outcome = self._train(worker, key, run, stop)
            if self.checkpoints and stop.is_set() and Flag(flag + FOR_GOOD).is_set():
                self.checkpoints.delete(run.key)
            _HERE.measure(self._activations(worker, run))
            return outcome

    def _activations(self, worker: Worker, run: Run) -> int:
        """How large the run's network is; all of one's own count as of a kind."""
        shape = cast(DataPlugin, worker.plugins[self.data]).dataset.input_shape
        return 1 if run.model else count_activations(dict(run.params), shape)

    def _train(self, worker: Worker, key: int, run: Run, stop: Flag) -> Outcome:
        dataset = cast(DataPlugin, worker.plugins[self.data]).dataset
        epochs: list[Epoch] = []
        training = self.trainer(run, dataset, checkpoints=self.checkpoints)
        try:
            while not stop.is_set():
                epochs.append(next(training))
                report = {"key": key, "epoch": asdict(epochs[-1])}
                worker.loop.add_callback(worker.log_event, self.topic, report)
        except StopIteration as finished:
            return Outcome(tuple(epochs), model=finished.value)
        except TrainingFailed as error:
            return Outcome(tuple(epochs), failure=str(error))
        finally:
            training.close()
        return Outcome(tuple(epochs))


class _Process:
    """This worker process: one run at a time, and its size after a run of its largest network."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._activations = 0
        self._fitting = 0

    def measure(self, activations: int) -> None:
        """Remember the size after a run of a network so large, if it is the first of its kind."""
        if activations > LARGER * self._activations:
            self._activations, self._fitting = activations, _size()

    def grown(self, limit: float) -> bool:
        return bool(self._fitting) and _size() > (1 + limit) * self._fitting


_HERE = _Process()


def _size() -> int:
    """Bytes of memory that this process occupies."""
    return int(psutil.Process().memory_info().rss)


def _give_way(worker: Worker) -> bool:
    """End this process so that a fresh one takes its place; False where nobody would start one.

    Returns once Dask sends no more runs here: one that was handed back goes elsewhere, or waits.
    """
    if worker.nanny is None:
        return False
    worker.loop.add_callback(partial(worker.close_gracefully, restart=True))
    while worker.status == Status.running:
        time.sleep(0.01)
    return True


class DataPlugin(WorkerPlugin):
    """Brings the training images to every worker, once, also to those that join later.

    Its name is the data's own: a study that is resumed, or another one on the same data, finds
    them there; the test part stays at home.
    """

    idempotent = True

    def __init__(self, dataset: Dataset) -> None:
        self.name = f"study-data-{dataset.fingerprint}"
        self.dataset = dataset.without_test()

    def setup(self, worker: Worker) -> None:
        """Lay the images that travelled where a run can train on them without another copy."""
        images = self.dataset.images
        if images.dtype == np.uint8 and not is_aligned(images):
            self.dataset = replace(self.dataset, images=chosen(images, np.arange(len(images))))


class PinPlugin(WorkerPlugin):
    """Gives each local worker its own share of the cores, where the system allows it."""

    name = "pin"

    def __init__(self, threads: int, cores: tuple[int, ...]) -> None:
        self._threads = threads
        self._cores = cores

    def setup(self, worker: Worker) -> None:
        """Pin the process; its name in a local cluster is its number."""
        if not hasattr(os, "sched_setaffinity"):
            return
        first = int(worker.name) * self._threads
        own = {self._cores[(first + i) % len(self._cores)] for i in range(self._threads)}
        with suppress(OSError):
            os.sched_setaffinity(0, own)


class CardPlugin(WorkerPlugin):
    """Shows each local worker one GPU, before anything there has looked for one."""

    name = "card"

    def __init__(self, cards: Sequence[str]) -> None:
        self._cards = cards

    def setup(self, worker: Worker) -> None:
        """Choose by the worker's name, which in a local cluster is its number."""
        os.environ |= visible(int(worker.name), self._cards)
