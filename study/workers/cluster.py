"""Runs on a Dask cluster: of this machine (`local_cluster`), or one that is there already.

The workers only train and report, an epoch at a time (`worker`). Dask schedules: it starts a run
again elsewhere when a worker dies, and the run goes on from its checkpoint.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import Client, Future
from distributed import Event as Flag

from study.errors import StudyError
from study.training.run import Epoch, Run
from study.training.train import train
from study.workers.engine import EpochReported, Event, RunFailed, RunFinished, Trainer, reason
from study.workers.worker import FOR_GOOD, GROWTH, DataPlugin, Job, Outcome

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints

_PATIENCE = 10.0  # seconds a scheduler may take to answer
MUTE = logging.CRITICAL + 1  # Dask logs tracebacks of connections that are closed on purpose
_NONE_LEFT = (
    "the workers of this machine have ended and none could be started in their place; nothing is "
    "lost: resume"
)
_CANCELLED = (concurrent.futures.CancelledError, asyncio.CancelledError)


@dataclass
class _Task:
    """A run that was sent away: its future, how many epochs were relayed, how to stop it."""

    future: Future[Outcome]
    flag: str
    run: Run
    relayed: int = 0


class DaskEngine:
    """Trains runs on the workers of ``client``, ``jobs`` at once; None: as many as there are.

    ``resources`` is what a run takes from the worker that trains it, as in ``{"GPU": 1}``;
    ``close`` ends the connection. Where the cluster is this engine's own it ends that too, and
    ``gone`` says whether no worker is left, nor will be.
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
        growth: float = GROWTH,
        close: Callable[[], None] = lambda: None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        self._gone = gone
        self._client = client
        self._jobs = jobs
        self._topic = f"study-{uuid.uuid4().hex}"
        self._events: queue.SimpleQueue[tuple[int, Epoch | Future[Outcome]] | None]
        self._events = queue.SimpleQueue()
        self._tasks: dict[int, _Task] = {}
        self._resources = dict(resources) if resources else None
        self._close = close
        data = DataPlugin(dataset)
        self._job = Job(self._topic, data.name, checkpoints, trainer, growth)
        client.register_plugin(data)
        client.subscribe_topic(self._topic, self._receive)
        client.subscribe_topic("all", self._look)
        self.offered = self._count()

    @property
    def workers(self) -> int:
        """How many runs to submit at once; where there is no worker yet, one waits for it."""
        return self._jobs or max(1, self.offered)

    def submit(self, key: int, run: Run) -> None:
        """Send a run to the cluster."""
        flag = f"{self._topic}-{key}"
        self._tasks[key] = _Task(self._send(key, run, flag), flag, run)

    def _send(self, key: int, run: Run, flag: str) -> Future[Outcome]:
        future: Future[Outcome] = self._client.submit(
            self._job, key, run, flag, pure=False, resources=self._resources, retries=0
        )
        future.add_done_callback(lambda done: self._events.put((key, done)))
        return future

    def stop(self, key: int) -> None:
        """Stop a run for good: at once where it waits, at its next epoch where it trains."""
        task = self._tasks.pop(key, None)
        if task is not None:
            with self._lost_in_one_line():
                Flag(task.flag + FOR_GOOD, client=self._client).set()
                self._interrupt(task)

    def _interrupt(self, task: _Task) -> None:
        Flag(task.flag, client=self._client).set()
        task.future.cancel(force=True)

    def next_event(self) -> Event | None:
        """Wait for the next event of a run that was not stopped.

        None when workers have joined or left. Raises ``StudyError`` when the scheduler is gone, or
        every worker of this machine for good.
        """
        while True:
            try:
                item = self._events.get(timeout=0.5)  # Ctrl-C is heard between two waits
            except queue.Empty:
                if self._client.status != "running":
                    raise self._lost() from None
                if self._gone and self._gone():
                    raise StudyError(_NONE_LEFT) from None
                continue
            event = self._relay(*item) if item else None
            if event is not None or (item is None and self._recounted()):
                return event

    def _relay(self, key: int, what: Epoch | Future[Outcome]) -> Event | None:
        """The event that a message is; None for one that is late, or to be waited for."""
        task = self._tasks.get(key)
        if task is None:
            return None
        if isinstance(what, Epoch):
            if what.number != task.relayed:  # a run that was started again repeats epochs
                return None
            task.relayed += 1
            return EpochReported(key, what)
        return self._finish(key, task) if what is task.future else None

    def _recounted(self) -> bool:
        """Whether there are more or fewer workers than before."""
        before, self.offered = self.offered, self._count()
        return before != self.offered

    def close(self) -> None:
        """Interrupt every run, or end the cluster if it is this engine's own."""
        if not self._gone:
            for task in self._tasks.values():
                with suppress(Exception):
                    self._interrupt(task)
            self._tasks.clear()
            for topic in ("all", self._topic):
                with suppress(Exception):
                    self._client.unsubscribe_topic(topic)
        self._close()

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        """An epoch that a worker reports; Dask adds to it which worker that is."""
        self._events.put((event[1]["key"], Epoch(**event[1]["epoch"])))

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

    def _finish(self, key: int, task: _Task) -> Event | None:
        """The last events of a run; epochs still on their way are taken from its result.

        None where the result was lost with its worker: the run is sent again, to its checkpoint.
        """
        try:
            outcome: Outcome = task.future.result(timeout=_PATIENCE)
        except _CANCELLED:
            raise self._lost() from None  # by nobody here: Dask does that without a scheduler
        except StudyError:
            raise  # not this run's fault: the same would happen to every other one
        except Exception as error:  # noqa: BLE001 - whatever a worker died of is a failed run
            if task.future.status == "lost":
                task.future = self._send(key, task.run, task.flag)
                return None
            if task.future.status == "finished":  # it is large, or the network slow
                self._events.put((key, task.future))
                return None
            del self._tasks[key]
            return RunFailed(key, reason(error))
        if task.relayed < len(outcome.epochs):
            self._events.put((key, task.future))
            epoch = outcome.epochs[task.relayed]
            task.relayed += 1
            return EpochReported(key, epoch)
        del self._tasks[key]
        if outcome.failure is not None:
            return RunFailed(key, outcome.failure)
        return RunFinished(key, outcome.model)

    @contextmanager
    def _lost_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, *_CANCELLED):
            raise self._lost() from None

    def _lost(self) -> StudyError:
        self._tasks.clear()  # the cluster forgets the runs of a driver that is gone
        address = self._client._start_arg
        where = address if isinstance(address, str) else "of this machine"
        return StudyError(
            f"the Dask scheduler {where} is gone; nothing is lost: resume once it is back"
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
    logging.getLogger("distributed").setLevel(MUTE)
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        said = " ".join(str(error).split())[:200]
        raise StudyError(f"--scheduler {address}: does not answer ({said})") from None

    def close() -> None:
        with suppress(Exception):
            client.close(timeout=2)

    try:
        return DaskEngine(
            client,
            dataset,
            jobs,
            checkpoints=checkpoints,
            trainer=trainer,
            resources=resources,
            close=close,
        )
    except StudyError:
        close()
        raise
    except Exception as error:  # noqa: BLE001 - whatever the data did to the workers
        close()
        raise StudyError(
            f"--scheduler {address}: the workers cannot be used ({reason(error)}); install the "
            "same version of this program on all of them"
        ) from None
