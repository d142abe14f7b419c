"""Worker processes of this machine die, hang and grow, and the answer is that of one process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trainer
import fakes
import numpy as np
import psutil
import pytest
from engine_contract import (
    PAUSE,
    EngineContract,
    curve,
    dataset,
    drive,
    ended,
    expected_results,
    most_processes,
    repeated,
    results,
    run_of,
    traced,
    undisturbed,
    until,
)
from optuna.storages import InMemoryStorage

from study.errors import StudyError
from study.training.checkpoint import FolderCheckpoints
from study.workers import pool, processes
from study.workers.child import OneByOne, Size
from study.workers.engine import EpochReported, Notice, RunFailed, RunFinished
from study.workers.pool import Place, Pool, on_cores
from study.workers.processes import share

Make = Callable[..., Pool]


class OnPool:
    """Pools whose processes start afresh: forks would wait for TensorFlow."""

    @pytest.fixture
    def make(self, folder: Path, store: FolderCheckpoints) -> Make:
        def made(processes: int = 1, growth: float = 1e9, **given: Any) -> Pool:
            worker = OneByOne(dataset(), store, fake_trainer.train, growth)
            return Pool(worker, [Place()] * processes, store, **given)

        return made


class TestPool(OnPool, EngineContract):
    """With one process."""

    def test_what_a_stopped_run_has_already_reported_is_dropped(self, make: Make) -> None:
        with closing(make(processes=2)) as engine:
            for key in (0, 1):
                engine.submit(key, replace(run_of(repeat=key), epochs=1000))
            while until(engine, EpochReported).key == 0:
                pass
            time.sleep(5 * PAUSE)  # both have epochs on their way
            engine.stop(1 - engine.next_event().key)
            keys = [engine.next_event().key for _ in range(8)]
        assert len(set(keys)) == 1


class TestTogether(EngineContract):
    """With one process that trains several runs at once, as with JAX."""

    @pytest.fixture
    def make(self, folder: Path, store: FolderCheckpoints) -> Make:
        worker = fake_trainer.Together(dataset(), store)
        return lambda: Pool(worker, [Place()], store, capacity=4)

    def test_after_a_death_fewer_runs_are_trained_at_once_until_one_dies_alone(
        self, make: Make, folder: Path
    ) -> None:
        runs = [run_of(0), run_of(1, trouble="death"), run_of(2), run_of(3)]
        ends: dict[int, Any] = {}
        notices = []
        with closing(make()) as engine:
            for key, run in enumerate(runs):
                engine.submit(key, run)
            while len(ends) < len(runs):
                match engine.next_event():
                    case RunFinished(key=key, model=model):
                        ends[key] = model
                    case RunFailed(key=key, reason=reason):
                        ends[key] = reason
                    case Notice(text=text):
                        notices.append(text)
        assert [ends.pop(key) for key in (0, 2, 3)] == [b"model"] * 3
        assert "has ended 3 times" in ends[1]
        assert "with 4 runs; they continue from their checkpoints, 2 at once" in notices[0]
        assert repeated(traced(folder)) == 0


class TestRobustness(OnPool):
    folder = EngineContract.folder
    store = EngineContract.store

    def test_a_process_that_is_killed_is_replaced_and_its_run_continues(
        self, make: Make, folder: Path
    ) -> None:
        (folder / "death").touch()
        drive(storage := InMemoryStorage(), make(2))
        assert results(storage) == expected_results()
        assert most_processes(traced(folder)) == 2
        assert repeated(traced(folder)) == 0

    def test_a_death_is_said(self, make: Make, folder: Path) -> None:
        (folder / "death").touch()
        with closing(make()) as engine:
            engine.submit(3, run_of())
            said = until(engine, Notice)
            assert isinstance(said, Notice)
            assert said.key == 3
            assert said.text.startswith("a worker process was killed (SIGKILL), as")
            assert said.text.endswith("; its run continues from its checkpoint")
            assert isinstance(until(engine, RunFinished), RunFinished)

    def test_a_run_whose_process_dies_three_times_in_an_epoch_has_failed(
        self, make: Make, folder: Path
    ) -> None:
        with closing(make()) as engine:
            epochs, failed = ended(engine, run_of(trouble="death"), key=2)
            assert isinstance(failed, RunFailed)
            assert failed.key == 2
            for part in (
                f"ended 3 times in epoch {len(epochs) + 1}",
                "was killed (SIGKILL), as the system does when memory runs out (out of luck)",
                "GiB of memory, of ",
            ):
                assert part in failed.reason
            assert "\n" not in failed.reason
            assert len(epochs) == fakes.EPOCHS // 2
            assert ended(engine, run_of())[1] == b"model"

    def test_a_process_that_hangs_is_replaced_and_said(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "SILENCE", 1.5)
        (folder / "death").write_text("hang")
        with closing(make()) as engine:
            engine.submit(0, run_of())
            said = until(engine, Notice)
            assert "was silent for" in said.text  # type: ignore[union-attr]
            until(engine, RunFinished)
        assert most_processes(traced(folder)) == 2
        assert repeated(traced(folder)) == 0

    def test_a_first_epoch_may_take_any_time_as_long_as_the_process_works(self, make: Make) -> None:
        with closing(make()) as engine:
            engine.submit(0, run_of())
            until(engine, EpochReported)
            [member] = engine._members
            [task] = member.tasks.values()
            member.longest, member.silent = 60.0, 601.0
            assert engine._hangs(member, worked=0.1)
            assert not engine._hangs(member, worked=10.0)
            member.silent = 1201.0
            assert engine._hangs(member, worked=10.0)
            task.reported = 0
            assert not engine._hangs(member, worked=10.0)

    def test_a_first_epoch_that_takes_long_is_said_once(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_PAUSE", "4")
        with closing(make()) as engine:
            engine.submit(0, run_of())
            monkeypatch.setattr(pool, "SILENCE", 0.1)
            monkeypatch.setattr(Pool, "_hangs", lambda *_: False)
            said = until(engine, Notice)
            assert "the first epoch of a run takes longer than 0 minutes" in said.text  # type: ignore[union-attr]
            assert isinstance(engine.next_event(), EpochReported)

    def test_a_process_that_has_grown_is_replaced_between_two_runs(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_GROWTH", str(40 * 2**20))
        drive(storage := InMemoryStorage(), make(2, growth=0.05))
        assert results(storage) == expected_results()
        assert repeated(traced(folder)) == 0
        runs = {
            pid: {line[1] for line in traced(folder) if line[0] == pid}
            for pid, *_ in traced(folder)
        }
        assert len(runs) > 2
        assert max(map(len, runs.values())) <= 4

    def test_processes_that_cannot_be_started_are_one_line_and_no_wait_without_end(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(processes, "ENVIRONMENT", {"PYTHONHOME": "/nowhere"})
        with closing(make()) as engine, pytest.raises(StudyError) as wrong:
            ended(engine, run_of())
        assert "cannot be started: the last one ended with exit code 1 (" in str(wrong.value)
        assert "--jobs 1" in str(wrong.value)
        assert "\n" not in str(wrong.value)

    def test_closing_leaves_no_process_behind(self, make: Make) -> None:
        before = set(psutil.Process().children(recursive=True))
        engine = make(2)
        for key in range(2):
            engine.submit(key, replace(run_of(key), epochs=1000))
        until(engine, EpochReported)
        assert len(set(psutil.Process().children(recursive=True)) - before) == 2
        engine.close()
        engine.close()  # the second time does nothing
        assert set(psutil.Process().children(recursive=True)) <= before


class TestForks:
    """Of a process that has imported nothing heavy here, but is otherwise the real one."""

    folder = EngineContract.folder
    store = EngineContract.store

    @pytest.fixture
    def engine(self, folder: Path, store: FolderCheckpoints) -> Iterator[Pool]:
        if not processes.FORKS:
            pytest.skip("workers are not forked on this system")
        worker = OneByOne(dataset(), store, fake_trainer.train, 1e9)
        starter = processes.ForkServer(preload="study.training.train")
        with closing(Pool(worker, [Place()] * 2, store, starter)) as made:
            yield made

    def test_forks_train_die_and_fail_as_other_processes(self, engine: Pool, folder: Path) -> None:
        (folder / "death").touch()
        epochs, model = ended(engine, run_of())
        assert (curve(epochs), model) == (curve(undisturbed(run_of())[0]), b"model")
        assert repeated(traced(folder)) == 0
        assert most_processes(traced(folder)) == 2
        _, failed = ended(engine, run_of(trouble="death"))
        assert "(out of luck)" in failed.reason

    def test_a_fork_server_that_is_killed_is_replaced(self, engine: Pool) -> None:
        assert ended(engine, run_of())[1] == b"model"
        server = engine._starter._process  # type: ignore[attr-defined]
        server.kill()
        server.wait()
        for member in engine._members:
            os.kill(member.process.pid, signal.SIGKILL)
        assert ended(engine, run_of(1))[1] == b"model"

    def test_the_real_server_has_imported_everything_and_has_one_thread(self) -> None:
        code = (
            "import os, sys, study.workers.preloaded as _;"
            "print({'tensorflow', 'keras', 'study.training.train'} <= sys.modules.keys(),"
            "[name for name, module in sys.modules.items() if module is None],"
            "len(os.listdir('/proc/self/task')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == ["True", "[]", "1"], done.stderr


def test_arrays_are_shared_where_they_lie_and_nothing_is_written_back() -> None:
    images = np.arange(10_000, dtype=np.uint8).reshape(100, 10, 10, 1)
    value = {"images": images, "empty": images[:0], "labels": np.arange(100), "name": "x"}
    how, file = share(value)
    try:
        one, other = how.open(file), how.open(file)
        assert len(how.pickled) < 2000
        assert np.array_equal(one["images"], images)
        assert np.array_equal(one["labels"], value["labels"])
        assert one["empty"].shape == (0, 10, 10, 1)
        assert one["images"].ctypes.data % 64 == 0
        one["images"][:] = 0
        assert np.array_equal(other["images"], images)
    finally:
        os.close(file)


def test_a_larger_network_may_need_more_memory_than_the_first() -> None:
    size = Size(growth=0.15)
    grown = []
    for activations, memory in ((10, 100), (20, 200), (22, 225), (22, 235)):
        size.note(activations, memory)
        grown.append(size.grown)
    assert grown == [False, False, False, True]


def test_processes_are_pinned_only_if_together_they_use_all_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "affinity", lambda: (2, 3, 6, 7))
    assert [place.cores for place in on_cores(2, 2)] == [(2, 3), (6, 7)]
    assert [place.cores for place in on_cores(3, 1)] == [(), (), ()]


SCRIPT = """
import sys
from contextlib import closing
from pathlib import Path
import fake_trainer
from engine_contract import dataset, run_of
from study.training.checkpoint import FolderCheckpoints
from study.workers.engine import EpochReported
from study.workers.pool import local_pool
from study.workers import processes
print("main", flush=True)
processes.FORKS = {forks}
processes.PRELOADED = "study.training.train"
store = FolderCheckpoints(Path("checkpoints"))
with closing(local_pool(dataset(), 2, 1, store, fake_trainer.train)) as engine:
    for key in range(2):
        engine.submit(key, run_of(key))
    epochs = 0
    left = 2
    while left:
        event = engine.next_event()
        epochs += isinstance(event, EpochReported)
        if epochs == 2:
            print("epoch", flush=True)
        left -= type(event).__name__ == "RunFinished"
print("finished", epochs)
"""


def script(folder: Path, *words: str, **given: Any) -> "subprocess.Popen[str]":
    """Python in a folder, that finds the tests' modules."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, **given},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("how", "forks"),
    [
        ("a file without a guard", True),
        ("a file without a guard", False),
        ("-c", True),
        ("standard input", True),
    ],
)
def test_a_pool_starts_from(how: str, forks: bool, tmp_path: Path) -> None:
    code = SCRIPT.format(forks=forks and processes.FORKS)
    (tmp_path / "program.py").write_text(code)
    words = {"a file without a guard": ["program.py"], "-c": ["-c", code], "standard input": ["-"]}
    with script(tmp_path, *words[how], FAKE_PAUSE="0") as started:
        out, err = started.communicate(code)
    assert out.split() == ["main", "epoch", "finished", str(2 * fakes.EPOCHS)], err
    assert err == ""


@pytest.mark.parametrize("forks", [True, False])
def test_a_driver_that_is_killed_leaves_no_process_though_epochs_are_long(
    forks: bool, tmp_path: Path
) -> None:
    code = SCRIPT.format(forks=forks and processes.FORKS)
    code = code.replace("run_of(key)", "__import__('dataclasses').replace(run_of(key), epochs=3)")
    with script(tmp_path, "-c", code, FAKE_PAUSE="1") as started:
        wait_for(started, "epoch")
        family = psutil.Process(started.pid).children(recursive=True)
        assert len(family) == (3 if forks and processes.FORKS else 2)
        family[-1].suspend()  # not even one that is stopped stays, where a fork server sees to it
        if not forks:
            family[-1].resume()
        started.kill()
        _, err = started.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_reaches_no_worker(number: int, tmp_path: Path) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    with script(tmp_path, "-c", code + SCRIPT.format(forks=False), FAKE_PAUSE="0.2") as started:
        wait_for(started, "epoch")
        for process in psutil.Process(started.pid).children(recursive=True):
            process.send_signal(number)
        out, _ = started.communicate()
    assert out.split()[-2:] == ["finished", str(2 * fakes.EPOCHS)]


def wait_for(started: "subprocess.Popen[str]", word: str) -> None:
    assert started.stdout is not None
    for line in started.stdout:
        if line.strip() == word:
            return
    raise AssertionError(started.communicate()[1])
