"""What a machine does to whole commands: full disks, locks, clocks, Ctrl-C; with a fake trainer."""

import ctypes
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import fake_trainer
import psutil
import pytest
import test_commands as commands
import torture
from test_commands import read
from typer.testing import CliRunner

from study.cli.app import app
from study.errors import StorageError
from study.running.driver import Observers
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import prepare_again
from study.storage import database as storage
from study.storage.location import DEFAULT, Database

pytestmark = pytest.mark.slow

SPACE = """
name = "tiny"
epochs = 8
batch_size = 100
repeats = 2
pruner = "none"

[hyperparameters.filters]
options = [2, 4]
start = 2

[fixed]
k1 = 2
k2 = 2
dense = 4
"""


@contextmanager
def command(folder: Path, *words: str, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    """A command with the fake trainer, at work in a folder."""
    (folder / "tiny.toml").write_text(SPACE)
    with commands.command(folder, *words, program=(fake_trainer.__file__,), **environ) as process:
        yield process


def finish(folder: Path, *words: str, **environ: str) -> tuple[int, str]:
    """Run a command to its end; its exit code, and what it said on stderr."""
    with command(folder, *words, **environ) as process:
        _, err = process.communicate()
    return process.returncode, err


def resumed(folder: Path) -> Any:
    """The answer of a study once it is continued to its end, in this process."""
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_PAUSE", "0")
        prepared = prepare_again("tiny", Database.at(DEFAULT), None)
        launch(prepared, Observers(), ExecutionOptions(jobs=1), print, fake_trainer.train)
    return answer(folder)


def answer(folder: Path) -> Any:
    url = f"sqlite:///{folder / 'study.db'}"
    said = json.loads(CliRunner().invoke(app, ["status", "--json", "--storage", url]).stdout)
    return [said[name] for name in ("state", "stages", "params", "mean", "runs")]


def trains(folder: Path, pid: int) -> bool:
    """Whether the study has a run, and this driver."""
    with suppress(StorageError):  # no study yet
        study, _ = storage.load(Database.at(f"sqlite:///{folder / 'study.db'}").open())
        return bool(study.trials) and study.user_attrs["driver"]["pid"] == pid
    return False


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answer of a study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    fake = {"FAKE_PAUSE": "0", "FAKE_TRACE": str(folder / "trace")}
    code, err = finish(folder, "run", "tiny.toml", "--jobs", "1", **fake)
    assert code == 0, err
    assert (folder / "trace").read_text().count("\n") == 4 * 8  # of the fake trainer
    return answer(folder)


def test_a_study_on_this_machine_listens_on_no_port(tmp_path: Path) -> None:
    with command(tmp_path, "run", "tiny.toml", "--jobs", "2", "-v", FAKE_PAUSE="0.3") as process:
        read(process, "epoch 1")
        driver = psutil.Process(process.pid)
        family = [driver, *driver.children(recursive=True)]
        assert len(family) >= 3
        for one in family:
            assert one.net_connections(kind="inet") == []
            assert not [socket for socket in one.net_connections(kind="unix") if socket.laddr]
        assert "distributed" not in Path(f"/proc/{driver.pid}/maps").read_text()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_place_where_no_checkpoint_can_be_written_is_an_error_before_training(
    jobs: str, tmp_path: Path
) -> None:
    code, err = finish(tmp_path, "run", "tiny.toml", "--jobs", jobs, "--checkpoints", "/proc/nope")
    assert code == 2
    assert err.startswith("study: no checkpoint can be written to /proc/nope (")
    assert "--checkpoints" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "study.db").exists()


def test_a_place_for_checkpoints_that_is_lost_later_is_said_once_and_the_study_goes_on(
    tmp_path: Path, expected: Any
) -> None:
    place = tmp_path / "checkpoints"
    words = ("run", "tiny.toml", "--jobs", "2", "-v", "--checkpoints", str(place))
    with command(tmp_path, *words, FAKE_PAUSE="0.1") as process:
        read(process, "epoch 1")
        while not place.is_file():  # a worker may just have made the folder again
            shutil.rmtree(place, ignore_errors=True)
            with suppress(IsADirectoryError):
                place.write_text("a file in its place")
        out, err = process.communicate()
    assert process.returncode == 0, err
    said = [line for line in out.splitlines() if line.startswith("no checkpoint can be written")]
    assert len(said) == len(set(said)) >= 1
    assert answer(tmp_path) == expected


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path, expected: Any) -> None:
    with command(tmp_path, "run", "tiny.toml", "--jobs", "2", "-v", FAKE_PAUSE="0.3") as process:
        read(process, "epoch 1")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert "study resume tiny" in out.splitlines()[-1]
    assert "Traceback" not in out + err
    psutil.wait_procs(children)  # one that is left behind ends this test at its time limit
    assert resumed(tmp_path) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    libc = ctypes.CDLL(None)
    libc.umount2(str(place).encode(), 2)  # whatever is still open in it


def test_a_full_disk_is_one_line_and_the_study_goes_on_once_there_is_room(
    small_disk: Path, expected: Any
) -> None:
    words = ("run", "tiny.toml", "--jobs", "1", "-v")
    ballast = small_disk / "ballast"
    with command(small_disk, *words, FAKE_PAUSE="0.3") as process:
        read(process, "epoch 2")
        free = os.statvfs(small_disk)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
        out, err = process.communicate()
    lines = [line for line in err.splitlines() if not line.startswith("no checkpoint")]
    assert process.returncode == 2
    assert len(lines) == 1
    assert "the disk" in lines[0]
    assert "free some space, then resume" in lines[0]
    assert "invalid data" not in out  # what Optuna makes of it
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    assert resumed(small_disk) == expected


def test_a_database_that_another_process_locks_is_waited_for_and_ctrl_c_heard(
    tmp_path: Path, expected: Any
) -> None:
    words = ("run", "tiny.toml", "--jobs", "1", "-v")
    with command(tmp_path, *words, FAKE_PAUSE="0.1") as process:
        read(process, "epoch 1")
        with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout = 10000")
            other.execute("BEGIN IMMEDIATE")
            time.sleep(2)
            assert process.poll() is None
            other.execute("ROLLBACK")
        read(process, "epoch 3")  # free again, and the study goes on
        with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout = 10000")
            other.execute("BEGIN IMMEDIATE")
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            process.communicate()  # ends though the other holds the database
    assert process.returncode == 130
    assert resumed(tmp_path) == expected


CLOCK = """
import os, time
real = time.time
time.time = lambda: real() - 3600 * os.path.exists("set_back")
"""


def test_a_clock_that_is_set_back_by_an_hour_changes_no_result(
    tmp_path: Path, expected: Any
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    words = ("run", "tiny.toml", "--jobs", "1", "-v")
    with command(tmp_path, *words, PYTHONPATH=str(tmp_path), FAKE_PAUSE="0.1") as process:
        read(process, "epoch 3")
        (tmp_path / "set_back").touch()
        _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert answer(tmp_path) == expected
    study, _ = storage.load(Database.at(f"sqlite:///{tmp_path / 'study.db'}").open())
    ended = [when for trial in study.trials for when in trial.user_attrs["curve"]["ended"]]
    assert ended != sorted(ended)  # the clock was set back while the study ran


def test_a_run_that_killed_its_driver_is_continued_in_a_process_of_its_own(
    tmp_path: Path, expected: Any
) -> None:
    death = tmp_path / "death"
    fake = {"FAKE_PAUSE": "0", "FAKE_DEATH": str(death)}
    death.touch()
    assert finish(tmp_path, "run", "tiny.toml", "--jobs", "1", **fake) == (-signal.SIGKILL, "")
    death.touch()
    with command(tmp_path, "resume", "--jobs", "1", **fake) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "a worker process was killed (SIGKILL)" in out
    assert answer(tmp_path) == expected


def test_a_driver_that_is_killed_again_and_again_fails_no_run(
    tmp_path: Path, expected: Any
) -> None:
    words = ["run", "tiny.toml"]
    for _ in range(3):
        with command(tmp_path, *words, "--jobs", "1", FAKE_PAUSE="60") as process:
            while not trains(tmp_path, process.pid):
                time.sleep(0.1)
            time.sleep(1)
            process.kill()
        words = ["resume"]
    assert finish(tmp_path, "resume", "--jobs", "1", FAKE_PAUSE="0") == (0, "")
    assert answer(tmp_path) == expected


@pytest.mark.parametrize(("jobs", "sampler"), [(2, "sweep"), (1, "race")])
def test_a_study_killed_at_drawn_moments_is_the_one_that_never_stopped(
    jobs: int, sampler: str, tmp_path: Path
) -> None:
    seen = torture.torture(tmp_path, 2, jobs, torture.Kind(jobs, sampler))
    assert seen["same"]
    assert seen["left running"] == seen["left checkpoints"] == 0
    assert seen["slots"] == (14 if sampler == "sweep" else 7)
