"""Many runs as one program: an engine whose runs are trained in groups, by one process with JAX.

The driver's process imports no JAX, and stays free to hear Ctrl-C while an epoch is trained. If the
other one dies, another goes on with the runs' checkpoints.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from study.errors import StudyError
from study.workers.engine import EpochReported, Event, RunFailed, RunFinished
from study.workers.forkserver import deaf_to_ctrl_c, environment
from study.workers.grouped_process import Begin, Setup, Stop, main

if TYPE_CHECKING:
    from study.training.run import Run

PLACES = 16
"""Runs that are asked for at once: as many as the largest group."""

Main = Callable[[Connection, Setup], None]


@dataclass
class _Sent:
    """A run with the process, and how many of its epochs were relayed."""

    key: int
    run: Run
    relayed: int = 0


class GroupedEngine:
    """Trains up to ``workers`` runs at once; ``say`` is told what the user should know."""

    def __init__(
        self,
        setup: Setup,
        say: Callable[[str], None],
        workers: int = PLACES,
        main: Main = main,
    ) -> None:
        self.workers = workers
        self._setup, self._say, self._main = setup, say, main
        self._sent: dict[int, _Sent] = {}
        self._waiting: list[int] = []
        self._stopped: dict[int, Run] = {}  # of which the process may yet write a checkpoint
        self._count = 0
        self._process: BaseProcess | None = None  # none where nothing is to be trained

    def submit(self, key: int, run: Run) -> None:
        """Take a run; it is sent with all others that are submitted before the next event."""
        if self._process is None:
            self._start()
        self._count += 1
        self._sent[self._count] = _Sent(key, run)
        self._waiting.append(self._count)

    def stop(self, key: int) -> None:
        for number in [number for number, sent in self._sent.items() if sent.key == key]:
            run = self._sent.pop(number).run
            if number in self._waiting:
                self._waiting.remove(number)
            else:
                self._stopped[number] = run
                self._send(Stop(number))

    def next_event(self) -> Event:
        """Wait for the next event; raises StudyError where nothing can be trained here."""
        while True:
            if self._waiting:
                runs = tuple((number, self._sent[number].run) for number in self._waiting)
                self._waiting = []
                self._send(Begin(runs))
            try:
                if not self._pipe.poll(0.5):  # Ctrl-C is heard between two waits
                    continue
                message = self._pipe.recv()
            except (EOFError, OSError):
                if (failed := self._died()) is not None:
                    return failed
                continue
            if (event := self._relay(message)) is not None:
                return event

    def close(self) -> None:
        """End the process at once: what it trains is checkpointed, or not wanted."""
        if self._process is None:
            return
        self._process.kill()
        self._ended(self._process)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._answered = False
        arguments = other, self._setup
        # It may import Keras with its main module.
        with deaf_to_ctrl_c(), environment({"KERAS_BACKEND": "jax"}):
            self._process = context.Process(target=self._main, args=arguments, daemon=True)
            self._process.start()
        other.close()

    def _send(self, order: Begin | Stop) -> None:
        try:
            self._pipe.send(order)
        except OSError:
            return  # it has died, which the next event finds

    def _relay(self, message: Any) -> Event | None:
        """The event that a message is; None for one that is late, or known."""
        if isinstance(message, StudyError):
            raise message
        if isinstance(message, str):
            self._say(message)
        elif isinstance(message, Stop):
            self._stopped.pop(message.number, None)
        else:
            return self._event(message)
        return None

    def _event(self, message: Any) -> Event | None:
        sent = self._sent.get(message.key)
        if sent is None:
            return None
        if isinstance(message, EpochReported):
            if message.epoch.number != sent.relayed:  # a run that was sent again repeats epochs
                return None
            sent.relayed += 1
            self._answered = True
            return EpochReported(sent.key, message.epoch)
        del self._sent[message.key]
        self._answered = True
        if isinstance(message, RunFailed):
            return RunFailed(sent.key, message.reason)
        assert isinstance(message, RunFinished)
        return RunFinished(sent.key, message.model)

    def _died(self) -> Event | None:
        """Go on in a new process; a run has failed where the last one had not a word to say."""
        assert self._process is not None
        self._ended(self._process)
        code, answered = self._process.exitcode, self._answered
        self._start()
        failed = None if answered else self._sent.pop(next(iter(self._sent)))
        self._waiting = list(self._sent)
        if failed is None:
            return None
        return RunFailed(failed.key, f"the process that trains has ended with exit code {code}")

    def _ended(self, process: BaseProcess) -> None:
        """Delete what it has still written of runs whose stop it had not heard of."""
        process.join()
        self._pipe.close()
        wanted = {sent.run.key for sent in self._sent.values()}
        if self._setup.checkpoints is not None:
            for key in {run.key for run in self._stopped.values()} - wanted:
                self._setup.checkpoints.delete(key)
        self._stopped = {}
