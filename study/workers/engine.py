"""Where runs train: the interface `Engine`, its events, and the engine of this process.

The driver submits runs and takes one event after the other. An engine knows neither Optuna nor the
database; a key is the driver's name for a run. Whatever the engine, a run is trained by `work`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from study.errors import StudyError, TrainingFailed

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.training.run import Epoch, Run


@dataclass(frozen=True, slots=True)
class EpochReported:
    """A run has finished an epoch, or read one from its checkpoint."""

    key: int
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run has ended; ``model`` is its ``.keras`` file, None if it paused with epochs left."""

    key: int
    model: bytes | None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run has failed, and would fail again; ``reason`` is one line."""

    key: int
    reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning for the user about a run in training; ``text`` is one line."""

    key: int
    text: str


Event = EpochReported | RunFinished | RunFailed | Notice

Training = Generator["Epoch", None, bytes | None]
"""Yields every epoch of a run from the first; returns the saved model or, if it paused, None."""

Train = Callable[["Run"], Training]


class Trainer(Protocol):
    """Trains a run on data: `training.train`, or a faster one in tests."""

    def __call__(
        self, run: Run, dataset: Dataset, *, checkpoints: Checkpoints | None = None
    ) -> Training: ...


class Engine(Protocol):
    """Trains up to ``workers`` runs at once; the number may change.

    A run whose process died continues from its checkpoint, in another process; it fails at the
    third death in the same epoch.
    """

    @property
    def workers(self) -> int: ...

    def submit(self, key: int, run: Run) -> None:
        """Start a run; its events carry ``key``."""

    def stop(self, key: int) -> None:
        """Cancel a run and delete its checkpoint; it has no further events.

        Unknown keys are ignored.
        """

    def next_event(self) -> Event | None:
        """Wait for the next event of a submitted run; None if the number of workers changed.

        Raises ``StudyError`` if no run can be trained here.
        """

    def close(self) -> None:
        """Interrupt all runs and release all resources; checkpoints are kept."""


def work(
    key: int,
    run: Run,
    train: Train,
    checkpoints: Checkpoints | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Train a run: its epochs and warnings as they come, at last how it ended.

    If ``stopped`` returns True between two epochs, the checkpoint is deleted and no event follows.
    Closing the iterator interrupts the run; its checkpoint is kept. Raises ``StudyError`` for a
    problem that is not the run's own: every other run would meet it too.
    """
    training = train(run)
    try:
        while not stopped():
            event, warnings = _step(key, training)
            for text in warnings:
                yield Notice(key, text)
            yield event
            if not isinstance(event, EpochReported):
                return
    finally:
        training.close()
    if checkpoints is not None:
        checkpoints.delete(run.key)


def _step(key: int, training: Training) -> tuple[Event, list[str]]:
    """The next event of a run, and what was logged as a warning on the way to it."""
    with _collected_warnings() as warnings:
        try:
            return EpochReported(key, next(training)), warnings
        except StopIteration as finished:
            return RunFinished(key, finished.value), warnings
        except StudyError:
            raise
        except Exception as failure:  # noqa: BLE001 - of the network or the trainer; the study continues
            return RunFailed(key, reason(failure)), warnings


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings that the program logs, instead of writing them to stderr."""
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            collected.append(" ".join(record.getMessage().split()))

    handler, log = Collector(logging.WARNING), logging.getLogger("study")
    log.addHandler(handler)
    try:
        yield collected
    finally:
        log.removeHandler(handler)


def reason(failure: Exception) -> str:
    """Why a run failed, in one line: the message of a TrainingFailed, else with its type."""
    message = " ".join(str(failure).split())[:500]
    if isinstance(failure, TrainingFailed):
        return message
    return f"{type(failure).__name__}: {message}" if message else type(failure).__name__


class InProcess:
    """Trains in this process: an epoch of the first run for each event that is asked for."""

    workers = 1

    def __init__(self, train: Train, checkpoints: Checkpoints | None = None) -> None:
        self._train, self._checkpoints = train, checkpoints
        self._runs: dict[int, Generator[Event, None, None]] = {}
        self._stopped: set[int] = set()

    def submit(self, key: int, run: Run) -> None:
        self._stopped.discard(key)
        self._runs[key] = work(
            key, run, self._train, self._checkpoints, lambda: key in self._stopped
        )

    def stop(self, key: int) -> None:
        if key in self._runs:
            self._stopped.add(key)
            for _ in self._runs.pop(key):
                pass

    def next_event(self) -> Event:
        key, events = next(iter(self._runs.items()))
        event = next(events)
        if isinstance(event, RunFinished | RunFailed):
            del self._runs[key]
        return event

    def close(self) -> None:
        for events in self._runs.values():
            events.close()
        self._runs.clear()
