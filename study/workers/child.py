"""What runs in a process of the pool: it takes orders from a pipe and answers with events.

It ends with its driver: a thread reads the pipe at any time, and exits with the process where the
pipe has ended, in the middle of an epoch too. Whatever is trained has a checkpoint. Signals for all
processes of a terminal or a service (Ctrl-C, SIGTERM) are ignored: the driver decides.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from study.errors import StudyError
from study.workers.engine import Event, Trainer, work

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.training.run import Run
    from study.workers.processes import Shared

GROWTH = 0.15
"""How much a process may grow before it is replaced, as a fraction of its size after the first run
of the largest kind of network it has trained (docs/log.md, "Memory of a worker")."""

_LARGER = 1.25  # a network with this many times the activations is of a larger kind


@dataclass(frozen=True)
class Start:
    """Order: train this run; its events carry ``number``."""

    number: int
    run: Run


@dataclass(frozen=True)
class Stop:
    """Order: cancel a run and delete its checkpoint."""

    number: int


Order = Start | Stop
Orders = queue.SimpleQueue[Order]


@dataclass(frozen=True)
class Ready:
    """Answer: the process has its data and waits for orders."""


@dataclass(frozen=True)
class Done:
    """Answer: the process has no work with a run any more.

    ``replace`` asks for a new process before the next run: this one has grown too much.
    """

    number: int
    replace: bool = False


Answer = Ready | Done | Event | StudyError
Send = Callable[[Answer], None]


class Worker(Protocol):
    """What a process does; it is pickled and sent there."""

    def serve(self, orders: Orders, send: Send) -> None:
        """Follow orders without end; each run is answered with its events, then `Done`.

        ``send`` is called by one thread at a time.
        """


@dataclass(frozen=True)
class OneByOne:
    """Trains one run at a time with ``trainer``; ``growth`` as `GROWTH`."""

    dataset: Dataset
    checkpoints: Checkpoints | None
    trainer: Trainer
    growth: float = GROWTH

    def serve(self, orders: Orders, send: Send) -> None:
        size = Size(self.growth)
        while True:
            order = orders.get()
            if isinstance(order, Stop):
                continue  # the run ended before the order came
            for event in work(
                order.number, order.run, self._train, self.checkpoints, lambda: not orders.empty()
            ):
                send(event)
            size.measure(order.run, self.dataset)
            send(Done(order.number, replace=size.grown))

    def _train(self, run: Run) -> Any:
        return self.trainer(run, self.dataset, checkpoints=self.checkpoints)


class Size:
    """Whether this process has grown by more than ``growth`` with runs of networks of one kind.

    TensorFlow keeps what it has traced for every network, so a process grows with each run.
    """

    def __init__(self, growth: float) -> None:
        self._growth = growth
        self._activations = 0
        self._first = 0
        self.grown = False

    def measure(self, run: Run, dataset: Dataset) -> None:
        """Compare the size after a run with that after the first run of the largest kind."""
        self.note(_activations(run, dataset), psutil.Process().memory_info().rss)

    def note(self, activations: int, size: int) -> None:
        if activations > _LARGER * self._activations:
            self._activations, self._first = activations, size
        self.grown = size > (1 + self._growth) * self._first


def _activations(run: Run, dataset: Dataset) -> int:
    """How many numbers the network computes of an image; 1 for a custom model."""
    from study.space.architecture import count_activations

    return 1 if run.model else count_activations(dict(run.params), dataset.input_shape)


def main(pipe: int, data: int) -> None:
    """Serve the driver at the other end of ``pipe``; ``data`` is the file of shared memory."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    connection = Connection(pipe)
    shared, cores = connection.recv()
    if cores:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    worker: Worker = _opened(shared, data)
    orders: Orders = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    try:
        connection.send(Ready())
        worker.serve(orders, connection.send)
    except StudyError as error:
        connection.send(error)
    except BrokenPipeError:
        pass  # the driver is gone


def _opened(shared: Shared, file: int) -> Worker:
    worker: Worker = shared.open(file)
    os.close(file)
    return worker


def _listen(connection: Connection, orders: Orders) -> None:
    while True:
        try:
            for order in connection.recv():
                orders.put(order)
        except (EOFError, OSError):
            os._exit(0)


MESSAGE = struct.Struct("qq")
"""Between a driver and its fork server: a process's number, and its exit code or one of these."""

STARTED, KILL = 1 << 32, 1 << 33


def fork_server(control: int, preload: str) -> None:
    """Import the module ``preload``, then fork workers as the driver asks for them.

    A worker needs no import and shares the memory of those. This process has one thread and uses no
    device, so it can be forked. It ends, and its workers with it, once the driver has.
    """
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    __import__(preload)
    server = _ForkServer(socket.socket(fileno=control))
    try:
        while server.serve():
            pass
    except BrokenPipeError:
        pass  # the driver is gone
    finally:
        server.end_children()


class _ForkServer:
    """Forks workers, ends them, and reports how they ended."""

    def __init__(self, driver: socket.socket) -> None:
        self._driver = driver
        self._children: set[int] = set()
        self._woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking)  # the end of a child wakes `select`
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._own = driver.fileno(), self._woken, waking

    def serve(self) -> bool:
        """Wait until a child has ended or the driver asks for something; False once it is gone."""
        ready, _, _ = select.select([self._driver.fileno(), self._woken], [], [])
        if self._woken in ready:
            os.read(self._woken, 512)
            for pid in list(self._children):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._children.discard(pid)
                    self._driver.send(MESSAGE.pack(pid, os.waitstatus_to_exitcode(status)))
        if self._driver.fileno() not in ready:
            return True
        message, files, *_ = socket.recv_fds(self._driver, MESSAGE.size, 2)
        if files:
            self._fork(*files)
        elif message:
            pid, _ = MESSAGE.unpack(message)
            if pid in self._children:  # else its number may be another process's by now
                os.kill(pid, signal.SIGKILL)
        return bool(message)

    def _fork(self, pipe: int, data: int) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for file in self._own:
                os.close(file)
            _run_and_exit(pipe, data)
        self._children.add(pid)
        os.close(pipe)
        os.close(data)
        self._driver.send(MESSAGE.pack(pid, STARTED))

    def end_children(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)


def _run_and_exit(pipe: int, data: int) -> None:
    code = 1
    try:
        main(pipe, data)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the fork server's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
