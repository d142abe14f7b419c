"""Where a run trains. The driver sees only this seam: submit, stop, and one event after another.

An engine knows neither Optuna nor the database; a key is the driver's name for a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from study.errors import StudyError, TrainingFailed

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.training.run import Epoch, Run


@dataclass(frozen=True, slots=True)
class EpochReported:
    """A run has finished an epoch, or remembered one from its checkpoint."""

    key: int
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run has ended well; ``model`` is its ``.keras`` file, None where it paused, epochs left."""

    key: int
    model: bytes | None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run has failed; ``reason`` is one line."""

    key: int
    reason: str


Event = EpochReported | RunFinished | RunFailed

Train = Callable[["Run"], Generator["Epoch", None, bytes | None]]
"""Trains a run: yields every epoch from the first, returns the saved model or, paused, None."""


def reason(failure: Exception) -> str:
    """Why a run failed, in one line: its own words, or what went wrong underneath."""
    said = " ".join(str(failure).split())[:500]
    if isinstance(failure, TrainingFailed):
        return said
    return f"{type(failure).__name__}: {said}" if said else type(failure).__name__


class Trainer(Protocol):
    """Trains a run on data; `training.train` is the one, tests have faster ones."""

    def __call__(
        self, run: Run, dataset: Dataset, *, checkpoints: Checkpoints | None = None
    ) -> Generator[Epoch, None, bytes | None]: ...


class Engine(Protocol):
    """Trains up to ``workers`` runs at once; how many that is may change."""

    @property
    def workers(self) -> int: ...

    def submit(self, key: int, run: Run) -> None:
        """Start a run; its events carry ``key``."""

    def stop(self, key: int) -> None:
        """Give a run up; no event of it follows. Unknown keys are ignored."""

    def next_event(self) -> Event | None:
        """Wait for the next event of a submitted run; None: there are more or fewer workers."""

    def close(self) -> None:
        """Give every run up and release what the engine holds."""


class InProcess:
    """Trains one run at a time in this process, an epoch for each event that is asked for."""

    workers = 1

    def __init__(self, train: Train) -> None:
        self._train = train
        self._runs: dict[int, Generator[Epoch, None, bytes | None]] = {}

    def submit(self, key: int, run: Run) -> None:
        self._runs[key] = self._train(run)

    def stop(self, key: int) -> None:
        run = self._runs.pop(key, None)
        if run is not None:
            run.close()

    def next_event(self) -> Event:
        key, run = next(iter(self._runs.items()))
        try:
            return EpochReported(key, next(run))
        except StopIteration as finished:
            del self._runs[key]
            return RunFinished(key, finished.value)
        except StudyError:
            raise  # not this run's fault: the same would happen to every other one
        except Exception as failure:  # noqa: BLE001 - recorded as the reason; the study goes on
            del self._runs[key]
            return RunFailed(key, reason(failure))

    def close(self) -> None:
        for key in list(self._runs):
            self.stop(key)


def visible(worker: int, cards: Sequence[str]) -> Mapping[str, str]:
    """The environment in which a worker sees one card, of those with these UUIDs, if any."""
    return {"CUDA_VISIBLE_DEVICES": cards[worker % len(cards)]} if cards else {}


def cores() -> tuple[int, ...]:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
