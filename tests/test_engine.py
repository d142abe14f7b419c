"""The engine of this process, and how little another one takes: with `concurrent.futures`."""

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as Flag
from typing import Any

import fake_trainer
import pytest
from engine_contract import EngineContract, dataset

from study.errors import SettingsError
from study.training.checkpoint import Checkpoints, FolderCheckpoints
from study.training.run import Run
from study.workers import engines
from study.workers.engine import Engine, Event, InProcess, work


class TestInProcess(EngineContract):
    @pytest.fixture
    def make(self, folder: Path, store: FolderCheckpoints) -> Callable[[], Engine]:
        return lambda: InProcess(
            lambda run: fake_trainer.train(run, dataset(), checkpoints=store), store
        )


class Futures:
    """An engine on an executor, as of Ray, submitit or MPI; what is left out is what dies."""

    def __init__(self, checkpoints: Checkpoints, workers: int = 2) -> None:
        self.workers = workers
        self._checkpoints = checkpoints
        self._executor = ThreadPoolExecutor(workers)
        self._events: queue.SimpleQueue[tuple[Flag, Event | Exception]] = queue.SimpleQueue()
        self._stops: dict[int, Flag] = {}
        self._closing = Flag()

    def submit(self, key: int, run: Run) -> None:
        self._stops[key] = stop = Flag()
        self._executor.submit(self._work, key, run, stop)

    def _work(self, key: int, run: Run, stop: Flag) -> None:
        events = work(key, run, self._train, self._checkpoints, stop.is_set)
        try:
            for event in events:
                self._events.put((stop, event))
                if self._closing.is_set():
                    events.close()
        except Exception as error:  # noqa: BLE001 - for the driver to judge
            self._events.put((stop, error))

    def _train(self, run: Run) -> Any:
        return fake_trainer.train(run, dataset(), checkpoints=self._checkpoints)

    def stop(self, key: int) -> None:
        if key in self._stops:
            self._stops.pop(key).set()

    def next_event(self) -> Event:
        while True:
            stop, event = self._events.get()
            if isinstance(event, Exception):
                raise event
            if not stop.is_set():
                return event

    def close(self) -> None:
        self._closing.set()
        self._executor.shutdown()


class TestFutures(EngineContract):
    @pytest.fixture
    def make(self, store: FolderCheckpoints) -> Callable[[], Engine]:
        return lambda: Futures(store, workers=1)


def options(scheduler: str) -> engines.EngineOptions:
    return engines.EngineOptions(
        dataset=dataset(),
        checkpoints=FolderCheckpoints(Path("nowhere")),
        trainer=fake_trainer.train,
        jobs=None,
        threads=1,
        device="cpu",
        gpus=(),
        scheduler=scheduler,
        resources=None,
        say=print,
    )


def test_the_scheme_of_a_scheduler_names_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Futures(FolderCheckpoints(tmp_path))
    monkeypatch.setattr(engines, "ENGINES", {"futures": lambda _: made})
    monkeypatch.setattr(engines, "SCHEDULERS", {"threads": "futures"})
    assert engines.make_engine(options("threads://here:1"), None, own_process=False) is made


def test_a_cluster_without_dask_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"Dask is not installed: pip install '\.\[cluster\]'"):
        engines.make_engine(options("tcp://host:8786"), None, own_process=False)
