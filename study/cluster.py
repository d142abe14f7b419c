"""Runs on a Dask cluster: several processes of this machine, or the workers of many machines.

The workers only train and report, an epoch at a time. Dask schedules: it starts a run again
elsewhere when a worker dies, and the run goes on from its checkpoint. The data travels once per
worker, as a plugin that workers receive whenever they join.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import dask
import numpy as np
from distributed import Client, Future, LocalCluster, WorkerPlugin, get_worker
from distributed import Event as Flag
from numpy.typing import NDArray

from study.engine import EpochReported, Event, RunFailed, RunFinished, Trainer, cores, reason
from study.errors import SettingsError, StudyError, TrainingFailed
from study.training import Epoch, Run, train

if TYPE_CHECKING:
    from distributed import Worker

    from study.checkpoint import Checkpoints
    from study.data import Dataset

GROWTH = 512 * 2**20
"""Bytes by which a worker process may grow after its first run before it is replaced."""


@dataclass(frozen=True)
class _Outcome:
    """What a worker's task returns: nothing but ``failure`` or a model, and the worker's size."""

    epochs: tuple[Epoch, ...] = ()
    model: bytes = b""
    failure: str | None = None
    worker: str = ""
    memory: int = 0


@dataclass
class _Task:
    """A run that was sent away: its future, how many epochs were relayed, how to stop it."""

    future: Future[_Outcome]
    flag: str
    relayed: int = 0


class DaskEngine:
    """Trains runs on the workers of ``client``, ``workers`` at once.

    ``resources`` is what a run takes from the worker that trains it, as in ``{"GPU": 1}``.
    """

    def __init__(
        self,
        client: Client,
        dataset: Dataset,
        workers: int,
        *,
        checkpoints: Checkpoints | None = None,
        trainer: Trainer = train,
        resources: dict[str, float] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.workers = workers
        self._client = client
        self._topic = f"study-{uuid.uuid4().hex}"
        self._events: queue.SimpleQueue[tuple[int, Epoch | Future[_Outcome]]] = queue.SimpleQueue()
        self._tasks: dict[int, _Task] = {}
        self._sizes: dict[str, int] = {}
        self._resources = resources
        self._close = close
        self._job = _Job(self._topic, checkpoints, trainer)
        client.register_plugin(DataPlugin(self._topic, dataset))
        client.subscribe_topic(self._topic, self._receive)

    def submit(self, key: int, run: Run) -> None:
        """Send a run to the cluster."""
        flag = f"{self._topic}-{key}"
        future = self._client.submit(
            self._job, key, run, flag, pure=False, resources=self._resources, retries=0
        )
        self._tasks[key] = _Task(future, flag)
        future.add_done_callback(lambda done: self._events.put((key, done)))

    def stop(self, key: int) -> None:
        """Stop a run: at once where it waits, at its next epoch where it trains."""
        task = self._tasks.pop(key, None)
        if task is not None:
            Flag(task.flag, client=self._client).set()
            task.future.cancel(force=True)

    def next_event(self) -> Event:
        """Wait for the next event of a run that was not stopped."""
        while True:
            try:
                key, what = self._events.get(timeout=0.5)  # Ctrl-C is heard between two waits
            except queue.Empty:
                continue
            task = self._tasks.get(key)
            if task is None:
                continue
            if isinstance(what, Epoch):
                if what.number >= task.relayed:
                    task.relayed = what.number + 1
                    return EpochReported(key, what)
            elif what is task.future:
                return self._finish(key, task)

    def close(self) -> None:
        """Give every run up, and end the cluster if it is this engine's own."""
        for key in list(self._tasks):
            with suppress(Exception):
                self.stop(key)
        self._close()

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        fields = dict(event[1])
        self._events.put((fields.pop("key"), Epoch(**fields)))

    def _finish(self, key: int, task: _Task) -> Event:
        """The last events of a run; epochs still on their way are taken from its result."""
        try:
            outcome: _Outcome = task.future.result()
        except Exception as error:  # noqa: BLE001 - whatever a worker died of is a failed run
            del self._tasks[key]
            return RunFailed(key, reason(error))
        if task.relayed < len(outcome.epochs):
            self._events.put((key, task.future))
            epoch = outcome.epochs[task.relayed]
            task.relayed += 1
            return EpochReported(key, epoch)
        del self._tasks[key]
        self._watch_size(outcome)
        if outcome.failure is not None:
            return RunFailed(key, outcome.failure)
        return RunFinished(key, outcome.model)

    def _watch_size(self, outcome: _Outcome) -> None:
        """Replace a worker that has grown too much; what it trains meanwhile is started again."""
        first = self._sizes.setdefault(outcome.worker, outcome.memory)
        if outcome.memory - first > GROWTH:
            del self._sizes[outcome.worker]
            logging.getLogger(__name__).info("replacing worker %s", outcome.worker)
            self._client.restart_workers([outcome.worker], raise_for_error=False)


@dataclass(frozen=True)
class _Job:
    """What a worker does with a run: train it and report every epoch as an event."""

    topic: str
    checkpoints: Checkpoints | None
    trainer: Trainer

    def __call__(self, key: int, run: Run, flag: str) -> _Outcome:
        import psutil

        worker = get_worker()
        dataset = cast(DataPlugin, worker.plugins[self.topic]).dataset
        stop = Flag(flag)
        epochs: list[Epoch] = []
        model, failure = b"", None
        training = self.trainer(run, dataset, checkpoints=self.checkpoints)
        try:
            while not stop.is_set():
                epochs.append(next(training))
                report = {"key": key, **asdict(epochs[-1])}
                worker.loop.add_callback(worker.log_event, self.topic, report)
        except StopIteration as finished:
            model = finished.value
        except TrainingFailed as error:
            failure = str(error)
        finally:
            training.close()
        size = psutil.Process().memory_info().rss
        return _Outcome(tuple(epochs), model, failure, worker.address, size)


class DataPlugin(WorkerPlugin):
    """Brings the training images to every worker, once, also to those that join later.

    Images made of bytes travel as bytes, a quarter of the size; the test part stays at home.
    """

    def __init__(self, name: str, dataset: Dataset) -> None:
        self.name = name
        nothing = slice(0, 0)
        self.dataset = replace(
            dataset,
            test_images=dataset.test_images[nothing],
            test_labels=dataset.test_labels[nothing],
        )

    def __getstate__(self) -> dict[str, Any]:
        images = self.dataset.images
        small: NDArray[Any] = np.rint(images * 255).astype(np.uint8)
        if not np.array_equal(_unpacked(small), images):
            return dict(self.__dict__)
        return {"name": self.name, "dataset": replace(self.dataset, images=small)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        images = self.dataset.images
        if images.dtype == np.uint8:
            self.dataset = replace(self.dataset, images=_unpacked(images))

    def setup(self, worker: Worker) -> None:
        """Nothing to do: the data has arrived with the plugin."""

    def teardown(self, worker: Worker) -> None:
        """Let the data go when the study ends."""
        del self.dataset


def _unpacked(images: NDArray[Any]) -> NDArray[np.float32]:
    return images.astype(np.float32) / np.float32(255)


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


def local_engine(
    dataset: Dataset,
    jobs: int,
    threads: int,
    checkpoints: Checkpoints | None,
    trainer: Trainer = train,
) -> DaskEngine:
    """An engine with ``jobs`` worker processes on this machine, ended by ``close``."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # Dask has its workers give freed memory back at once, which a training step pays for.
    dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**30})
    with _children_deaf_to_ctrl_c():
        cluster = LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=None,
            silence_logs=logging.CRITICAL,
        )
        client = Client(cluster)
    if jobs * threads <= len(cores()):
        client.register_plugin(PinPlugin(threads, cores()))

    def close() -> None:
        _kill(cluster)
        with suppress(Exception):
            client.close(timeout=1)
        with suppress(Exception):
            cluster.close(timeout=2)

    return DaskEngine(client, dataset, jobs, checkpoints=checkpoints, trainer=trainer, close=close)


def _kill(cluster: LocalCluster) -> None:
    """End the worker processes at once: what they train is checkpointed, or not wanted."""
    for nanny in list(cluster.workers.values()):
        nanny.auto_restart = False
        with suppress(ProcessLookupError, TypeError):
            os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def _children_deaf_to_ctrl_c() -> Iterator[None]:
    """Block SIGINT in the threads and processes that are started inside.

    A terminal sends Ctrl-C to every process in it; the driver alone is to answer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def remote_engine(
    address: str,
    dataset: Dataset,
    checkpoints: Checkpoints | None,
    trainer: Trainer = train,
    resources: dict[str, float] | None = None,
    jobs: int | None = None,
) -> DaskEngine:
    """An engine on the Dask scheduler at ``address``; ``StudyError`` if it does not answer.

    TLS comes from Dask's own configuration. Without ``jobs`` as many runs at once as the cluster
    has workers now.
    """
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"--scheduler {address}: does not answer ({reason})") from None
    workers = jobs or len(client.scheduler_info(n_workers=-1)["workers"])
    if not workers:
        client.close()
        raise SettingsError(
            f"--scheduler {address}: has no workers yet; start some, or give --jobs"
        )
    return DaskEngine(
        client,
        dataset,
        workers,
        checkpoints=checkpoints,
        trainer=trainer,
        resources=resources,
        close=lambda: client.close(timeout=2),
    )
