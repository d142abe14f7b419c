"""Every command that is printed as a hint does what it says, pasted into any folder."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import postgres
import pytest
import servers
import test_cli as commands
import typer
from test_cli import database, finished, here, home, study  # noqa: F401
from typer.testing import CliRunner

from study.cli.app import app
from study.cli.options import amounts, resume_options
from study.mirror.tracker import resolve
from study.running.launch import ExecutionOptions
from study.storage.location import Database
from study.training.run import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ELSEWHERE = "sqlite:///some%20where/it's.db"


SHELL = 'study() { printf \'%s\\0\' "$PWD" "$@"; }; '


def pasted(said: str, folder: Path, *more: str, **environment: str) -> str:
    """What the one command in a message prints where a shell in another folder is given it.

    A shell reads the line; the command itself runs in this process, which has imported all.
    """
    (line,) = re.findall(
        r"(?:cd \S+ && )?\bstudy (?:run|resume|finalize|mirror) .*?(?=\)\.|, or| \(with|\)$|$)",
        said,
        re.MULTILINE,
    )
    read = subprocess.run(
        ["/bin/sh", "-c", f"{SHELL}{line} {' '.join(more)}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    there, *words = read.stdout.split("\0")[:-1]
    mine = dict.fromkeys(name for name in os.environ if name.startswith(("STUDY_", "MLFLOW_")))
    with contextlib.chdir(there):
        done = CliRunner().invoke(app, words, env=mine | environment)
    assert done.exit_code == 0, (line, done.output)
    return done.output


@pytest.fixture
def moved(finished: None) -> str:  # noqa: F811
    """A complete study in another database than the usual one; its name has to be quoted."""
    Path("some where").mkdir()
    Path("study.db").rename("some where/it's.db")
    return ELSEWHERE


def stopped() -> None:
    """A study that was stopped before its first run ended."""

    def interrupted(run: Run):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        commands.drive_fake(interrupted)


def test_resume_after_other_settings_were_asked_for(moved: str, tmp_path: Path) -> None:
    said = study("run", "fake.toml", "--data", "data.npz", "--seed", "2", "--storage", moved).stderr
    assert "Use k1=2" in pasted(said, tmp_path, STUDY_MLFLOW="none")
    assert list(tmp_path.iterdir()) == []


def test_a_new_study_where_there_is_no_database(here: Path, tmp_path: Path) -> None:  # noqa: F811
    said = study("status").stderr
    there = f"{here}/fake.toml --data {here}/data.npz --epochs 0"
    with pytest.raises(AssertionError, match=r"--epochs .* is not allowed"):
        pasted(said, tmp_path, there)  # the command is understood, and its database is this one
    assert f"--storage sqlite:///{here / 'study.db'}" in said


def test_a_new_study_where_there_is_none_of_this_name(moved: str, tmp_path: Path) -> None:
    said = study("best", "nobody", "--storage", moved).stderr
    assert "which holds fake" in said
    there = f"{Path.cwd()}/fake.toml --data {Path.cwd()}/data.npz --mlflow none --confirm 0"
    assert "Use k1=2" in pasted(said, tmp_path, there)


@pytest.mark.tensorflow
@pytest.mark.usefixtures("here")
def test_every_hint_of_a_study_that_was_stopped(tmp_path: Path) -> None:
    stopped()
    for said in (study("finalize").stderr, report()):
        line = re.findall(r"study resume fake --storage \S+db", said)
        assert line == [Database.at("sqlite:///study.db").study("fake").command("resume")]
    words = ("run", "fake.toml", "--data", "data.npz", "--timeout", "0", "--jobs", "1")
    said = study(*words, "--confirm", "0").stdout
    assert "Continue with: " in said
    told = pasted(said, tmp_path)
    assert "6 of at most 6 runs" in told
    assert "MLflow" not in told  # --mlflow none was given, and is given again
    assert list(tmp_path.iterdir()) == []

    said = study("gallery").stderr
    assert "The test set has been opened once" in pasted(
        said, tmp_path, "--mlflow none --members 1"
    )


@pytest.mark.usefixtures("here")
def test_resume_of_a_study_on_a_server_with_a_password(tmp_path: Path) -> None:
    url = postgres.database().replace(":@", ":secret@", 1)
    assert "secret" in url
    words = ("--storage", url, "--timeout", "0", "--jobs", "1")
    said = study("run", "fake.toml", "--data", "data.npz", *words).stdout
    assert "secret" not in said
    told = pasted(said, tmp_path, "--timeout 0", STUDY_STORAGE=url)
    assert "Study 'fake', space" in told
    assert list(tmp_path.iterdir()) == []


def report() -> str:
    """The page of a study that is not complete."""
    study("report")
    return Path("fake-report/report.html").read_text()


def test_what_a_server_that_was_down_has_missed(moved: str, tmp_path: Path) -> None:
    server = servers.running()
    port = servers.free_port()
    away = f"http://127.0.0.1:{port}"
    said = study("resume", "--storage", moved, "--mlflow", away).stdout
    assert f"shown at {away}" in said
    rest = said[said.index("send the rest with: ") :].splitlines()[0]
    assert f"--mlflow {away}" in rest
    told = pasted(rest.replace(away, server.mlflow.url), tmp_path)  # now it is there
    assert f"Study 'fake' is mirrored to {server.mlflow.url}" in told
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AssertionError, match="is not there"):  # and is not sent to another place
        pasted(rest, tmp_path)


HIDDEN: list[tuple[dict[str, str], Callable[[str], bool]]] = [
    ({"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}, lambda s: "MLFLOW_TRACKING_URI" in s),
    ({"MFLUX_TOKEN": "secret", "MFLUX_HOST": "http://127.0.0.1:9"}, lambda s: "MFLUX_TOKEN" in s),
]


@pytest.mark.parametrize(("environ", "named"), HIDDEN)
def test_a_secret_is_named_by_its_variable(
    finished: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    named: Callable[[str], bool],
) -> None:
    monkeypatch.delenv("STUDY_MLFLOW")
    said = study("resume", **environ).stdout
    hint = said[said.index("send the rest with: ") :].splitlines()[0]
    assert named(hint)
    assert "secret" not in said


@pytest.mark.parametrize("command", ["resume", "finalize"])
def test_what_was_given_is_given_again(command: str, tmp_path: Path) -> None:
    there = Database.at(f"sqlite:///{tmp_path / 'study.db'}")
    means = ExecutionOptions(
        jobs=3,
        scheduler="tcp://host:8786",
        resources={"GPU": 1.0},
        checkpoints="there",
        mirror=resolve("sqlite:///mine.db", {}, there),
    )
    line = there.command(command, *resume_options(means), name="-odd name")
    parsed = (
        typer.main.get_command(app).commands[command].make_context("study", shlex.split(line)[2:])
    )
    given = parsed.params
    assert given["name"] == "-odd name"
    assert given["storage"] == there.url
    assert (given["jobs"], given["scheduler"]) == (3, "tcp://host:8786")
    assert amounts(given["resources"]) == {"GPU": 1.0}
    assert given["checkpoints"] == str(Path("there").resolve())
    assert given["mlflow"] == f"sqlite:///{Path('mine.db').resolve()}"


def test_a_word_that_is_misspelt(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "study", "run", "--epoch", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "--epochs" in pasted(done.stderr, tmp_path)
