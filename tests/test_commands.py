"""Real commands that really train: started, stopped in every way, and continued to the same end."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import image_files
import pytest
from typer.testing import CliRunner

from study.cli.app import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # several starts of TensorFlow each

ROOT = Path(__file__).parents[1]
HERE = {
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "STUDY_MLFLOW": "none",
    "STUDY_CONFIRM": "0",
}

SPACE = """
name = "tiny"
epochs = 20
batch_size = 8
repeats = 2
validation = { folds = 2 }
pruner = "none"

[hyperparameters.dropout]
options = [0.1, 0.2]
start = 0.1

[fixed]
filters = 2
k1 = 2
k2 = 2
dense = 4
"""


@contextlib.contextmanager
def command(
    folder: Path, *words: str, program: Sequence[str] = ("-m", "study"), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A command at work in a folder; it is killed if it is still at it in the end."""
    with subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | HERE | environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(folder: Path, *words: str, code: int = 0, **environment: str) -> tuple[str, str]:
    """Run a command to its end; returns what it printed, and on stderr."""
    with command(folder, *words, **environment) as process:
        out, err = process.communicate()
    assert process.returncode == code, out + err
    return out, err


def here(folder: Path, *words: str, code: int = 0, **environment: str) -> tuple[str, str]:
    """The same in this process, which has imported TensorFlow."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, words, env=HERE | environment)
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def read(process: subprocess.Popen[str], pattern: str) -> str:
    """The next line that matches."""
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    assert process.stderr is not None
    raise AssertionError(f"ended before {pattern}: {process.stderr.read()}")


def stop(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal; returns the last line of the answer."""
    process.send_signal(number)
    out, err = process.communicate()
    assert "Traceback" not in out + err
    return out.splitlines()[-1] if out.strip() else ""


def told(folder: Path) -> Any:
    """What `status` says of the study in a folder."""
    url = f"sqlite:///{folder / 'study.db'}"
    return json.loads(CliRunner().invoke(app, ["status", "--json", "--storage", url]).stdout)


def results(folder: Path) -> Any:
    """Everything that training decides."""
    status = told(folder)
    return [status[name] for name in ("stages", "params", "mean", "standard_error", "runs")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(SPACE)
    images = image_files.pictures(80, (12, 12))
    labels = image_files.numbers(80)
    image_files.npz(folder, x_train=images, y_train=labels, x_test=None, y_test=None)
    here(folder, *RUN)
    return folder


RUN = ("run", "tiny.toml", "--data", "some.npz", "--jobs", "1")


def test_a_study_stopped_in_every_way_ends_as_an_undisturbed_one(
    finished: Path, tmp_path: Path
) -> None:
    for name in ("tiny.toml", "some.npz"):
        shutil.copy(finished / name, tmp_path)
    epoch = r"repeat \d+: epoch [2-9]"

    with command(tmp_path, *RUN, "-v") as process:
        read(process, epoch)
        process.send_signal(signal.SIGSTOP)  # as long as it takes to ask others
        _, err = here(tmp_path, *RUN, code=2)
        assert f"process {process.pid}" in err
        process.send_signal(signal.SIGCONT)
        assert "study resume tiny" in stop(process, signal.SIGINT)
    assert process.returncode == 130

    with command(tmp_path, "resume", "--jobs", "1", "-v") as process:
        read(process, epoch)
        stop(process, signal.SIGKILL)

    out, err = here(tmp_path, "resume", "--jobs", "1")
    assert "Use filters=2" in out
    assert err == ""
    assert results(tmp_path) == results(finished)


def test_a_request_to_end_is_answered_while_tensorflow_is_still_loading(
    finished: Path, tmp_path: Path
) -> None:
    for name in ("tiny.toml", "some.npz"):
        shutil.copy(finished / name, tmp_path)
    with command(tmp_path, *RUN, "--epochs", "500") as process:  # it cannot be done before
        read(process, "dropout|Training|sweep with")
        time.sleep(1)
        assert "study resume tiny" in stop(process, signal.SIGTERM)
    assert process.returncode == 143


@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_is_closed_stops_a_study_unless_it_runs_under_nohup(
    finished: Path, tmp_path: Path, *, nohup: bool
) -> None:
    for name in ("tiny.toml", "some.npz"):
        shutil.copy(finished / name, tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        with command(tmp_path, *RUN, "--epochs", "500", "-v") as process:
            read(process, "epoch 2")
            process.send_signal(signal.SIGHUP)
            if nohup:
                read(process, r"epoch \d")
                process.send_signal(signal.SIGTERM)
            out, err = process.communicate()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "study resume tiny" in out.splitlines()[-1]
    assert err == ""
    assert process.returncode == 128 + (signal.SIGTERM if nohup else signal.SIGHUP)


PLANTED = "raise SystemExit(f'{__name__} was imported from the current folder')"


def test_nothing_is_imported_from_the_current_folder(finished: Path, tmp_path: Path) -> None:
    for name in ("tiny.toml", "some.npz"):
        shutil.copy(finished / name, tmp_path)
    for name in ("typer", "numpy", "keras", "optuna", "rich", "torch", "typing", "json", "mlflow"):
        (tmp_path / f"{name}.py").write_text(PLANTED)
    more = ("--jobs", "2", "--epochs", "1", "--quiet")
    out, err = finish(tmp_path, *RUN[:4], *more, STUDY_MLFLOW="", MLFLOW_TRACKING_URI="")
    assert "Use filters=2" in out
    assert err == ""
    assert len(list((tmp_path / "mlflow-artifacts").iterdir())) == 1  # the child that sends, too


def test_a_checkout_that_is_the_current_folder_brings_only_itself(tmp_path: Path) -> None:
    (tmp_path / "study").symlink_to(ROOT / "study")
    (tmp_path / "typer.py").write_text(PLANTED)
    done = subprocess.run(
        [sys.executable, "-m", "study", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_few_file_descriptors_are_enough_or_one_line(finished: Path, tmp_path: Path) -> None:
    for name in ("tiny.toml", "some.npz"):
        shutil.copy(finished / name, tmp_path)
    words = shlex.join([sys.executable, "-m", "study", *RUN[:4], "--jobs", "2", "--epochs", "1"])
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -n 40; exec {words} --quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | HERE,
    )
    assert len((done.stdout + done.stderr).splitlines()) == 1
    if done.returncode:
        assert done.returncode == 2
        assert "ulimit -n" in done.stderr


def test_settings_come_from_command_line_then_environment_then_file(
    finished: Path, tmp_path: Path
) -> None:
    for name in ("tiny.toml", "some.npz"):
        shutil.copy(finished / name, tmp_path)
    given = {"STUDY_EPOCHS": "7", "STUDY_SEED": "5", "STUDY_NAME": "mine"}
    out, _ = here(tmp_path, *RUN, "--epochs", "2", "--timeout", "0", **given)
    assert "study resume mine" in out
    status = told(tmp_path)
    assert status["study"] == "mine"
    assert status["state"] == "interrupted"
    settings = status["settings"]
    assert settings["epochs"] == {"value": 2, "source": "command line"}
    assert settings["seed"] == {"value": 5, "source": "environment"}
    assert settings["batch_size"] == {"value": 8, "source": "file"}
    assert settings["sampler"] == {"value": "sweep", "source": "default"}


def test_a_study_whose_every_configuration_diverges_ends_in_a_line(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copy(finished / "some.npz", tmp_path)
    wild = SPACE.replace("[fixed]", "[fixed]\nlearning_rate = 1e38")
    (tmp_path / "tiny.toml").write_text(wild)
    _, err = here(tmp_path, *RUN, "--quiet", code=2)
    (line,) = err.splitlines()
    assert re.search(r"all 2 configurations failed.*the (validation )?loss is (NaN|infinite)", line)
    assert told(tmp_path)["state"] == "failed"
