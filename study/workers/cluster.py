"""Runs on a Dask cluster that exists already: the engine, and what it has the workers do.

The workers only train and report. Dask schedules: it starts a run again on another worker if one
dies, and the run continues from its checkpoint.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from distributed import Client, Future, KilledWorker, Reschedule, Status, WorkerPlugin, get_worker
from distributed import Event as Flag

from study.data.pixels import is_aligned, take
from study.errors import StudyError
from study.training.run import Epoch, Run
from study.training.train import train
from study.workers.child import GROWTH, Size
from study.workers.engine import (
    EpochReported,
    Event,
    Notice,
    RunFailed,
    RunFinished,
    Trainer,
    reason,
    work,
)

if TYPE_CHECKING:
    from distributed import Worker

    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints

_PATIENCE = 10.0  # seconds a scheduler may take to answer
_MUTE = logging.CRITICAL + 1  # Dask logs tracebacks of connections that are closed on purpose
_CANCELLED = (concurrent.futures.CancelledError, asyncio.CancelledError)
_STOP = "-stop"  # ends the name of the flag that says: interrupt, and delete the checkpoint

Outcome = tuple[Event, ...]
"""All events of a run; the last one says how it ended, unless it was stopped or interrupted."""


class _Interrupted(Exception):
    """The engine was closed: the run ends and its checkpoint is kept."""


@dataclass(frozen=True)
class Job:
    """Trains a run on a worker and reports its epochs under ``topic``.

    ``data`` is the name of the plugin that brought the images.
    """

    topic: str
    data: str
    checkpoints: Checkpoints | None
    trainer: Trainer

    def __call__(self, key: int, run: Run, flag: str) -> Outcome:
        """Train to the end, or until the flag is set; a worker trains one run at a time."""
        worker = get_worker()
        dataset = cast(DataPlugin, worker.plugins[self.data]).dataset
        interrupt, stop = Flag(flag), Flag(flag + _STOP)

        def stopped() -> bool:
            if not interrupt.is_set():
                return False
            if stop.is_set():
                return True
            raise _Interrupted

        def trained(run: Run) -> Any:
            return self.trainer(run, dataset, checkpoints=self.checkpoints)

        events: list[Event] = []
        with _turn:
            if _size.grown and _replace(worker):
                raise Reschedule
            with suppress(_Interrupted):
                for event in work(key, run, trained, self.checkpoints, stopped):
                    events.append(event)
                    if (message := _message(event)) is not None:
                        worker.loop.add_callback(worker.log_event, self.topic, message)
            _size.measure(run, dataset)
        for raised in (interrupt, stop):  # the scheduler keeps a flag until it is cleared
            raised.clear()
        return tuple(events)


_turn = threading.Lock()
_size = Size(GROWTH)


def _message(event: Event) -> dict[str, Any] | None:
    """An event as a message, sent while its run is trained; None for the last event."""
    match event:
        case EpochReported(key=key, epoch=epoch):
            return {"key": key, "epoch": asdict(epoch)}
        case Notice(key=key, text=text):
            return {"key": key, "notice": text}
    return None


def _replace(worker: Worker) -> bool:
    """End this process so that a fresh one takes its place; False if there is no nanny to do so.

    Returns once Dask sends no more runs here: one that was handed back goes elsewhere, or waits.
    """
    if worker.nanny is None:
        return False
    worker.loop.add_callback(partial(worker.close_gracefully, restart=True))
    while worker.status == Status.running:
        time.sleep(0.01)
    return True


class DataPlugin(WorkerPlugin):
    """Sends the training images to each worker once, also to those that join later.

    Its name is the data's own: a study that is resumed, or another one on the same data, finds
    them there.
    """

    idempotent = True

    def __init__(self, dataset: Dataset) -> None:
        self.name = f"study-data-{dataset.fingerprint}"
        self.dataset = dataset.without_test()

    def setup(self, worker: Worker) -> None:
        """Lay the images that travelled where a run can train on them without another copy."""
        images = self.dataset.images
        if images.dtype == np.uint8 and not is_aligned(images):
            self.dataset = replace(self.dataset, images=take(images, np.arange(len(images))))


@dataclass
class _Task:
    """A run that was submitted: its future, and how many of its epochs were forwarded.

    ``sent_with`` is how many of them there were when Dask was given the run.
    """

    future: Future[Outcome]
    flag: str
    run: Run
    forwarded: int = 0
    sent_with: int = 0


class DaskEngine:
    """Trains runs on the workers of ``client``, ``jobs`` at once; None: as many as there are.

    ``resources`` is what a run takes from the worker that trains it, as in ``{"GPU": 1}``.
    """

    def __init__(
        self,
        client: Client,
        dataset: Dataset,
        jobs: int | None = None,
        *,
        checkpoints: Checkpoints | None = None,
        trainer: Trainer = train,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._checkpoints = checkpoints
        self._topic = f"study-{uuid.uuid4().hex}"
        self._events: queue.SimpleQueue[tuple[int, Event | Future[Outcome]] | None]
        self._events = queue.SimpleQueue()
        self._tasks: dict[int, _Task] = {}
        self._submitted = 0
        self._resources = dict(resources) if resources else None
        data = DataPlugin(dataset)
        self._job = Job(self._topic, data.name, checkpoints, trainer)
        client.register_plugin(data)
        client.subscribe_topic(self._topic, self._receive)
        client.subscribe_topic("all", self._look)
        self.offered = self._count()

    @property
    def workers(self) -> int:
        """How many runs to submit at once; if there is no worker yet, one waits for it."""
        return self._jobs or max(1, self.offered)

    def submit(self, key: int, run: Run) -> None:
        """Send a run to the cluster."""
        self._submitted += 1
        flag = f"{self._topic}-{self._submitted}"
        self._tasks[key] = _Task(self._send(key, run, flag), flag, run)

    def _send(self, key: int, run: Run, flag: str) -> Future[Outcome]:
        future: Future[Outcome] = self._client.submit(
            self._job, key, run, flag, pure=False, resources=self._resources, retries=0
        )
        future.add_done_callback(lambda done: self._events.put((key, done)))
        return future

    def stop(self, key: int) -> None:
        """Cancel a run: at once if it waits, before its next epoch if it trains."""
        task = self._tasks.pop(key, None)
        if task is not None:
            with self._lost_in_one_line():
                Flag(task.flag + _STOP, client=self._client).set()
                self._interrupt(task)
            if self._checkpoints is not None:
                self._checkpoints.delete(task.run.key)

    def _interrupt(self, task: _Task) -> None:
        Flag(task.flag, client=self._client).set()
        task.future.cancel(force=True)

    def next_event(self) -> Event | None:
        """Wait for the next event of a run that was not stopped.

        None when workers have joined or left. Raises ``StudyError`` when the scheduler is gone.
        """
        while True:
            try:
                item = self._events.get(timeout=0.5)  # Ctrl-C is heard between two waits
            except queue.Empty:
                if self._client.status != "running":
                    raise self._lost() from None
                continue
            event = self._forward(*item) if item else None
            if event is not None or (item is None and self._recounted()):
                return event

    def _forward(self, key: int, what: Event | Future[Outcome]) -> Event | None:
        """The event to return; None for one of a stopped run, or one that was returned before."""
        task = self._tasks.get(key)
        if task is None:
            return None
        match what:
            case EpochReported(epoch=epoch):
                if epoch.number != task.forwarded:  # a run that was started again repeats epochs
                    return None
                task.forwarded += 1
                return what
            case Notice():
                return what
            case RunFinished() | RunFailed():
                del self._tasks[key]
                return what
        if what is task.future:
            self._finish(key, task)
        return None

    def _finish(self, key: int, task: _Task) -> None:
        """Queue the last events of a run, with epochs that are still on their way.

        A run whose result was lost with its worker is sent again, to its checkpoint, and so is one
        whose worker died too often for Dask but has reported epochs in between.
        """
        try:
            outcome: Outcome = task.future.result(timeout=_PATIENCE)
        except _CANCELLED:
            raise self._lost() from None  # Dask cancels without a scheduler; nothing here does
        except StudyError:
            raise
        except Exception as error:  # noqa: BLE001 - a run whose worker died has failed
            if task.future.status == "finished":  # it is large, or the network slow
                self._events.put((key, task.future))
            elif task.future.status == "lost" or task.forwarded > task.sent_with:
                task.sent_with = task.forwarded
                task.future = self._send(key, task.run, task.flag)
            else:
                self._events.put((key, RunFailed(key, _reason(error, task))))
            return
        for event in outcome:
            if not isinstance(event, Notice):
                self._events.put((key, event))

    def _recounted(self) -> bool:
        """Whether there are more or fewer workers than before."""
        before, self.offered = self.offered, self._count()
        return before != self.offered

    def close(self) -> None:
        """Interrupt every run and disconnect."""
        for task in self._tasks.values():
            with suppress(Exception):
                self._interrupt(task)
        self._tasks.clear()
        for topic in ("all", self._topic):
            with suppress(Exception):
                self._client.unsubscribe_topic(topic)
        with suppress(Exception):
            self._client.close(timeout=2)

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        """What a worker reports while it trains; Dask adds to it which worker that is."""
        message = event[1]
        key = message["key"]
        if "epoch" in message:
            self._events.put((key, EpochReported(key, Epoch.read(message["epoch"]))))
        else:
            self._events.put((key, Notice(key, message["notice"])))

    def _look(self, event: tuple[float, Any]) -> None:
        """Have the workers counted again when some have joined or left."""
        if isinstance(event[1], dict) and event[1].get("action") in ("add-worker", "remove-worker"):
            self._events.put(None)

    def _count(self) -> int:
        """How many workers offer what a run takes."""
        wanted = (self._resources or {}).items()
        with self._lost_in_one_line():
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            return sum(
                all(worker["resources"].get(name, 0) >= amount for name, amount in wanted)
                for worker in workers
            )

    @contextmanager
    def _lost_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, *_CANCELLED):
            raise self._lost() from None

    def _lost(self) -> StudyError:
        self._tasks.clear()  # the cluster forgets the runs of a driver that is gone
        return StudyError(
            f"the Dask scheduler {self._client._start_arg} is gone; nothing is lost: resume once "
            "it is back"
        )


def _reason(error: Exception, task: _Task) -> str:
    if not isinstance(error, KilledWorker):
        return reason(error)
    return (
        f"{error.allowed_failures + 1} workers died in epoch {task.forwarded + 1}, the last one at "
        f"{error.last_worker.address}; its log says more, and if it was killed by SIGKILL the "
        "memory of its machine had run out"
    )


def remote_engine(
    address: str,
    dataset: Dataset,
    checkpoints: Checkpoints | None,
    trainer: Trainer = train,
    resources: Mapping[str, float] | None = None,
    jobs: int | None = None,
) -> DaskEngine:
    """An engine on the Dask scheduler at ``address``; ``StudyError`` if it cannot be used.

    TLS comes from Dask's own configuration. Without ``jobs`` as many runs at once as the cluster
    has workers that offer the ``resources``, at any time.
    """
    logging.getLogger("distributed").setLevel(_MUTE)
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        said = " ".join(str(error).split())[:200]
        raise StudyError(f"--scheduler {address}: does not answer ({said})") from None
    close: Callable[..., object] = client.close
    try:
        return DaskEngine(
            client, dataset, jobs, checkpoints=checkpoints, trainer=trainer, resources=resources
        )
    except StudyError:
        close(timeout=2)
        raise
    except Exception as error:  # noqa: BLE001 - of workers that cannot take the data
        close(timeout=2)
        raise StudyError(
            f"--scheduler {address}: the workers cannot be used ({reason(error)}); install the "
            "same version of this program on all of them"
        ) from None
