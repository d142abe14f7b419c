"""What every engine does; `test_pool`, `test_cluster` and others apply it to theirs.

A subclass of `EngineContract` has a fixture ``engine``, of an engine with at least one worker that
trains `dataset()` with `fake_trainer`, keeping its checkpoints in ``tmp_path / "checkpoints"``.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import fake_trainer
import fakes
import numpy as np
import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from study.data.dataset import Dataset
from study.errors import StudyError
from study.plan.plan import PlanState, RunSpec
from study.training.checkpoint import FolderCheckpoints
from study.training.run import Epoch, Run
from study.workers.engine import Engine, EpochReported, Event, InProcess, Notice, RunFinished

SPEC = RunSpec("width", 1, (("width", 1),), 0, None)
PAUSE = 0.02  # seconds an epoch takes


def dataset() -> Dataset:
    """Images that nothing looks at."""
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    labels = np.arange(6, dtype=np.int32) % 2
    return Dataset("fake", images, labels, images[:2], labels[:2], (0, 1), "fake")


def run_of(repeat: int = 0, **params: Any) -> Run:
    """A run of the fake trainer; ``trouble`` among its parameters is what it meets."""
    run = fakes.run_of(replace(SPEC, repeat=repeat))
    return replace(run, params=(*run.params, *params.items()))


def undisturbed(run: Run) -> tuple[list[Epoch], bytes | None]:
    """A run's epochs and model, as training alone gives them."""
    with alone() as engine:
        return ended(engine, run)


@contextmanager
def alone() -> Iterator[Engine]:
    """This process, which leaves no trace and takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_PAUSE", "0")
        for name in ("FAKE_TRACE", "FAKE_DEATH"):
            patch.delenv(name, raising=False)
        yield InProcess(lambda run: fake_trainer.train(run, dataset()))


def ended(engine: Engine, run: Run, key: int = 0) -> tuple[list[Epoch], Any]:
    """A run's epochs and its model, or the event with which it ended otherwise."""
    engine.submit(key, run)
    epochs = []
    while True:
        event = engine.next_event()
        if event is None or event.key != key:
            continue
        match event:
            case EpochReported(epoch=epoch):
                epochs.append(epoch)
            case RunFinished(model=model):
                return epochs, model
            case Notice():
                pass
            case failed:
                return epochs, failed


def until(engine: Engine, kind: type[Event]) -> Event:
    """The next event of this kind."""
    while not isinstance(event := engine.next_event(), kind):
        pass
    return event


def curve(epochs: list[Epoch]) -> list[Any]:
    """What an epoch says but for when it was."""
    return [astuple(epoch)[:5] for epoch in epochs]


def drive(storage: BaseStorage, engine: Engine, watch: Any = None) -> PlanState:
    with closing(engine):
        return fakes.driver(storage, engine=engine, watch=watch).drive()


def results(storage: BaseStorage) -> dict[Any, Any]:
    """What training decided, run by run; a failed or unfinished one would show."""
    return {
        (trial.configuration, trial.repeat): (
            trial.state,
            {name: list(values) for name, values in trial.curve.items() if name not in TIMES},
        )
        for trial in fakes.rows(storage)
    }


TIMES = ("seconds", "ended")


def expected_results() -> dict[Any, Any]:
    """The results of one process that nothing disturbed."""
    storage = InMemoryStorage()
    with alone() as engine:
        drive(storage, engine)
    return results(storage)


def traced(folder: Path) -> list[list[str]]:
    """Process, run and number of every epoch that was trained, as ``FAKE_TRACE`` has them."""
    file = folder / "trace"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def repeated(trace: list[list[str]]) -> int:
    """How many epochs were trained more than once."""
    epochs = [tuple(line[1:]) for line in trace]
    return len(epochs) - len(set(epochs))


def most_processes(trace: list[list[str]]) -> int:
    """By how many processes a run was trained at most."""
    return max(len({line[0] for line in trace if line[1] == run}) for _, run, _ in trace)


class EngineContract:
    """The tests; ``engine`` and ``folder`` are fixtures."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where runs leave checkpoints and a trace."""
        monkeypatch.setenv("FAKE_PAUSE", str(PAUSE))
        monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "trace"))
        monkeypatch.setenv("FAKE_DEATH", str(tmp_path / "death"))
        return tmp_path

    @pytest.fixture
    def store(self, folder: Path) -> FolderCheckpoints:
        return FolderCheckpoints(folder / "checkpoints")

    @pytest.fixture
    def engine(self, make: Callable[[], Engine]) -> Iterator[Engine]:
        with closing(make()) as made:
            yield made

    def test_a_study_has_the_answer_of_one_process(self, make: Any, folder: Path) -> None:
        storage = InMemoryStorage()
        drive(storage, make())
        assert results(storage) == expected_results()
        assert repeated(traced(folder)) == 0

    def test_a_run_pauses_and_continues_where_it_was(self, engine: Engine, folder: Path) -> None:
        run = replace(run_of(), epochs=5)
        paused, no_model = ended(engine, replace(run, until=2))
        again, _ = ended(engine, replace(run, until=1))
        whole, model = ended(engine, run)
        assert (paused, again, no_model, model) == (whole[:2], whole[:1], None, b"model")
        assert [line[2] for line in traced(folder)] == ["0", "1", "2", "3", "4"]
        assert curve(whole) == curve(undisturbed(run)[0])

    def test_a_stopped_run_has_no_further_event_and_no_checkpoint(
        self, engine: Engine, store: FolderCheckpoints
    ) -> None:
        stopped, other = replace(run_of(), epochs=1000), run_of(repeat=1)
        engine.submit(0, stopped)
        until(engine, EpochReported)
        engine.stop(0)
        engine.stop(7)
        store.delete(stopped.key)  # as the driver does, while the next epoch is on its way
        epochs, model = ended(engine, other, key=1)
        assert (len(epochs), model) == (fakes.EPOCHS, b"model")
        again = replace(stopped, until=1)
        assert ended(engine, again)[1] is None  # starts anew under the same key
        assert [record["number"] for record in store.load(again.key).history] == [0]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("trouble", "reason"),
        [
            ("diverges", "the loss is NaN in epoch 3"),
            ("memory", "MemoryError"),
            ("error", "ValueError: no such layer"),
        ],
    )
    def test_a_failure_of_the_run_is_its_result_at_once(
        self, engine: Engine, folder: Path, trouble: str, reason: str
    ) -> None:
        run = run_of(trouble=trouble)
        epochs, failed = ended(engine, run, key=4)
        assert (failed.key, failed.reason) == (4, reason)
        assert len(epochs) == len(traced(folder)) == fakes.EPOCHS // 2
        assert ended(engine, run_of(repeat=1))[1] == b"model"

    def test_what_every_run_would_meet_ends_the_study(self, engine: Engine) -> None:
        with pytest.raises(StudyError, match="no GPU here"):
            ended(engine, run_of(trouble="machine"))

    def test_a_warning_travels_to_the_driver_in_one_line(
        self, engine: Engine, capfd: pytest.CaptureFixture[str]
    ) -> None:
        engine.submit(5, run_of(trouble="warning"))
        assert until(engine, Notice) == Notice(5, "no checkpoint can be written")
        until(engine, RunFinished)
        assert "no checkpoint" not in capfd.readouterr().err

    def test_an_interrupted_run_continues_from_its_checkpoint(
        self, make: Callable[[], Engine], folder: Path
    ) -> None:
        for wanted in (EpochReported, RunFinished):
            with closing(make()) as engine:
                engine.submit(0, run_of())
                until(engine, wanted)
        assert repeated(traced(folder)) == 0
        assert os.listdir(folder / "checkpoints")  # noqa: PTH208
