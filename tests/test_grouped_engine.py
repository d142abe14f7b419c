"""The engine of runs in groups is an engine as any other, whatever becomes of its process."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_grouped
import fakes
import psutil
import pytest
from engine_contract import SPEC, dataset, drive, expected_results, repeated, results
from optuna.storages import InMemoryStorage

from study.errors import StudyError
from study.training.checkpoint import FolderCheckpoints
from study.workers.engine import EpochReported, RunFailed, RunFinished
from study.workers.grouped import GroupedEngine
from study.workers.grouped_process import Setup

said: list[str] = []


@pytest.fixture(scope="module")
def expected() -> Any:
    return expected_results()


def engine(folder: Path, main: Any = fake_grouped.main, places: int = 16) -> GroupedEngine:
    setup = Setup(dataset(), FolderCheckpoints(folder / "checkpoints"), "cpu")
    return GroupedEngine(setup, said.append, places, main)


@pytest.fixture(autouse=True)
def _traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "0.01")
    monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("FAKE_DEATH", str(tmp_path / "death"))


def trace(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "trace").read_text().splitlines()]


@pytest.mark.parametrize("places", [1, 3, 16])
def test_the_answer_is_that_of_one_process(expected: Any, tmp_path: Path, places: int) -> None:
    storage = InMemoryStorage()
    drive(storage, engine(tmp_path, places=places))
    assert results(storage) == expected


def test_a_process_that_is_killed_is_replaced_and_nothing_is_lost(
    expected: Any,
    tmp_path: Path,
) -> None:
    (tmp_path / "death").write_text("one")
    storage = InMemoryStorage()
    drive(storage, engine(tmp_path))
    assert results(storage) == expected
    epochs = trace(tmp_path)
    assert len({process for process, *_ in epochs}) == 2
    assert repeated(epochs) == 0


def test_a_process_that_dies_without_a_word_is_the_reason_of_a_failed_run(tmp_path: Path) -> None:
    with closing(engine(tmp_path, fake_grouped.dies_at_once)) as started:
        started.submit(3, fakes.run_of(SPEC))
        said = "the process that trains has ended with exit code 7"
        assert started.next_event() == RunFailed(3, said)


def test_what_stands_in_the_way_of_every_run_ends_the_study(tmp_path: Path) -> None:
    with closing(engine(tmp_path, fake_grouped.cannot_train)) as started:
        started.submit(0, fakes.run_of(SPEC))
        with pytest.raises(StudyError, match="JAX sees no GPU"):
            started.next_event()


def test_a_stopped_run_is_not_heard_of_again_and_its_number_can_be_used_anew(
    tmp_path: Path,
) -> None:
    with closing(engine(tmp_path)) as started:
        for key in (0, 1):
            started.submit(key, fakes.run_of(SPEC))
        assert isinstance(started.next_event(), EpochReported)
        started.stop(0)
        started.stop(5)
        keys = {started.next_event().key for _ in range(4)}
        assert keys == {1}
        started.submit(0, fakes.run_of(SPEC))
        events = [started.next_event()]
        while not (isinstance(events[-1], RunFinished) and events[-1].key == 0):
            events.append(started.next_event())
    again = [e.epoch.number for e in events if isinstance(e, EpochReported) and e.key == 0]
    assert again == list(range(fakes.EPOCHS))


def test_what_is_written_of_a_run_before_its_stop_is_heard_is_deleted(tmp_path: Path) -> None:
    stopped, again = (fakes.run_of(replace(SPEC, repeat=repeat)) for repeat in (0, 1))
    with closing(engine(tmp_path)) as started:  # its process deletes nothing
        for key, run in enumerate((stopped, again)):
            started.submit(key, run)
        seen = {started.next_event().key for _ in range(2)}
        assert seen == {0, 1}
        for key in (0, 1):
            started.stop(key)
        started.submit(2, again)
    kept = FolderCheckpoints(tmp_path / "checkpoints")
    assert kept.load(stopped.key) is None
    assert kept.load(again.key) is not None


def test_without_runs_there_is_no_process_and_none_is_left_behind(tmp_path: Path) -> None:
    before = len(psutil.Process().children())
    engine(tmp_path).close()
    started = engine(tmp_path)
    started.submit(0, fakes.run_of(SPEC))
    started.next_event()
    assert len(psutil.Process().children()) > before
    started.close()
    deadline = time.monotonic() + 20
    while len(psutil.Process().children()) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(psutil.Process().children()) == before
