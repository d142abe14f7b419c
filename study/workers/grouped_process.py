"""The process in which runs are trained in groups: it alone imports JAX.

It is told to begin and to stop runs, and answers with an engine's events, with a stop once it is
done, with sentences for the user, and with a StudyError where nothing can be trained at all. It
ends with the one that started it: nobody is there to listen then, and whatever it trains has a
checkpoint.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.errors import StudyError, TrainingFailed
from study.workers.engine import EpochReported, RunFailed, RunFinished, reason

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.training.grouped.turns import Member, Turn, Turns
    from study.training.run import Run


_PAUSE = 1.0  # seconds between two checkpoints of a run: a GPU may train several epochs in one


@dataclass(frozen=True)
class Begin:
    """Train these runs, each under its number."""

    runs: tuple[tuple[int, Run], ...]


@dataclass(frozen=True)
class Stop:
    """Give this run up for good, its checkpoint too."""

    number: int


@dataclass(frozen=True)
class Setup:
    """What the process trains on."""

    dataset: Dataset
    checkpoints: Checkpoints | None
    device: str


def main(pipe: Connection, setup: Setup) -> None:
    """Train what the pipe asks for, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver alone answers
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)
    orders: queue.SimpleQueue[Begin | Stop] = queue.SimpleQueue()
    turn = threading.Lock()

    def send(message: Any) -> None:
        with turn:
            pipe.send(message)

    threading.Thread(target=_listen, args=(pipe, orders), daemon=True).start()
    try:
        from study.training.grouped.startup import start_jax

        start_jax(setup.device)
        from study.training.grouped.turns import Turns

        _Trainer(Turns(setup.dataset, setup.checkpoints, send), setup, send).work(orders)
    except StudyError as error:
        send(error)
    except Exception as error:  # noqa: BLE001 - as where the images alone are too large
        send(StudyError(f"training in groups has failed: {reason(error)}; nothing is lost"))


def _listen(pipe: Connection, orders: queue.SimpleQueue[Begin | Stop]) -> None:
    """Receive at any time, also in the middle of an epoch."""
    while True:
        try:
            orders.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(0)


class _Trainer:
    """Trains one epoch of one group after the other, and does between them what is asked.

    Files are written and models saved beside the next epoch, by one thread, in order.
    """

    def __init__(self, turns: Turns, setup: Setup, send: Callable[[Any], None]) -> None:
        self._turns, self._checkpoints, self._send = turns, setup.checkpoints, send
        self._members: dict[int, Member] = {}
        self._numbers: dict[Member, int] = {}
        self._due: dict[int, float] = {}  # when a run's next checkpoint is
        self._writer = ThreadPoolExecutor(1)
        self._writing: list[Future[None]] = []

    def work(self, orders: queue.SimpleQueue[Begin | Stop]) -> None:
        while True:
            while not self._turns or not orders.empty():
                self._obey(orders.get())
            turns = self._turns.next()
            self._written()  # of the epoch before: no more than one is behind
            self._writing = [self._writer.submit(self._record, turn) for turn in turns]

    def _written(self) -> None:
        for one in self._writing:
            one.result()

    def _obey(self, order: Begin | Stop) -> None:
        if isinstance(order, Stop):
            self._stop(order.number)
            self._send(order)
            return
        for number, run in order.runs:
            try:
                member = self._turns.add(run)
            except TrainingFailed as error:
                self._send(RunFailed(number, str(error)))
                continue
            except StudyError:
                raise
            except Exception as error:  # noqa: BLE001 - recorded as the reason; others go on
                self._send(RunFailed(number, reason(error)))
                continue
            self._members[number], self._numbers[member] = member, number
            for epoch in member.history.epochs[: member.history.end]:
                self._send(EpochReported(number, epoch))
            if len(member.history.epochs) >= member.history.end:
                self._finish(number, self._turns.as_it_is(member))

    def _stop(self, number: int) -> None:
        member = self._members.pop(number, None)
        if member is None:
            return
        self._numbers.pop(member)
        self._turns.drop(member)
        self._written()
        if self._checkpoints is not None:
            self._checkpoints.delete(member.run.key)

    def _record(self, turn: Turn) -> None:
        """Write the checkpoint of an epoch, if one is due, then tell; nothing of a stopped run."""
        number = self._numbers.get(turn.member)
        if number is None:
            return
        if turn.failure is not None:
            self._forget(number)
            self._send(RunFailed(number, str(turn.failure)))
            return
        last, now = len(turn.history.epochs) == turn.history.end, time.monotonic()
        if last or now >= self._due.get(number, 0):
            turn.history.save(turn.state)
            self._due[number] = now + _PAUSE
        self._send(EpochReported(number, turn.history.epochs[-1]))
        if last:
            self._finish(number, turn)

    def _finish(self, number: int, turn: Turn) -> None:
        run = turn.member.run
        self._forget(number)
        try:
            model = self._turns.model_of(turn) if turn.history.end == run.epochs else None
        except Exception as error:  # noqa: BLE001 - whatever a model of the user's did
            self._send(RunFailed(number, reason(error)))
            return
        self._send(RunFinished(number, model))

    def _forget(self, number: int) -> None:
        self._due.pop(number, None)
        if (member := self._members.pop(number, None)) is not None:
            self._numbers.pop(member, None)
