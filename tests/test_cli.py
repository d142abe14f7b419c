"""The commands: what they print, how they end, and that a mistake is one line that leaves nothing.

Nothing here trains: a study is made by the driver with a fake trainer. `test_commands.py` trains.
"""

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fakes
import image_files
import numpy as np
import optuna
import pytest
import typer
from typer.testing import CliRunner, Result

from study.cli.app import app
from study.errors import TrainingFailed
from study.plan.strategies import STRATEGIES
from study.running.driver import Observers
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import prepare, prepare_again
from study.space.settings import Setting
from study.storage import database as storage
from study.storage.location import DEFAULT, Database
from study.storage.lock import driver_lock
from study.storage.trials import StoredTrials
from study.training.run import Run
from study.tuning.pruning import PRUNERS


def data(**changes: Any) -> str:
    """A file of 40 images of 12x12 in 4 classes, but for the arrays given."""
    good = {"x_train": image_files.pictures(shape=(12, 12)), "x_test": None, "y_test": None}
    return image_files.npz(Path(), **(good | changes))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: a study records where its data is."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with a space and some data and nothing else."""
    shutil.rmtree(home)
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("STUDY_MLFLOW", "none")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    Path("fake.toml").write_text(fakes.SPACE)
    Path(data()).rename("data.npz")
    return home


@pytest.fixture(scope="module")
def database() -> dict[str, bytes]:
    """The database of a complete study, once it was made."""
    return {}


@pytest.fixture
def finished(here: Path, database: dict[str, bytes]) -> None:
    """A complete study."""
    if not database:
        drive_fake()
        with sqlite3.connect("study.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        database["study.db"] = Path("study.db").read_bytes()
    Path("study.db").write_bytes(database["study.db"])


def study(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, words, env=environment)


def drive_fake(trainer: Callable[..., Any] = fakes.train, repeats: int | None = None) -> None:
    """What `run fake.toml --data data.npz` does, or `resume`, with a fake trainer."""
    if repeats is None:
        prepared = prepare(
            "fake.toml", None, Database.at(DEFAULT), {"data": DATA, "confirm": NO_CONFIRM}
        )
    else:
        prepared = prepare_again("fake", Database.at(DEFAULT), repeats)
    launch(
        prepared, Observers(), ExecutionOptions(jobs=1), print, lambda run, *_, **__: trainer(run)
    )


DATA = Setting("data.npz", "command line")
NO_CONFIRM = Setting(0, "command line")


def assert_one_line(result: Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("study: ")
    for fragment in said:
        assert fragment in lines[0]


# What the commands say of a study that is there.


def test_best_names_the_configuration_with_its_mean_for_a_program_and_for_people(
    finished: None,
) -> None:
    answer = json.loads(study("best", "--json").stdout)
    assert answer["dataset"].endswith("data.npz")
    assert answer["params"]["filters"] == 2
    assert 0 < answer["standard_error"] < answer["mean"] < 1
    found = [answer[name] for name in ("study", "repeats", "runs", "state")]
    assert found == ["fake", 2, 6, "complete"]
    assert study("list", "--json").stdout == json.dumps([answer], indent=2) + "\n"
    assert "filters=2" in study("best", "fake").stdout
    assert "fake" in study("list").stdout


def test_the_mean_is_that_of_the_last_three_epochs_of_each_run_wherever_it_stands(
    finished: None,
) -> None:
    answer = json.loads(study("best", "--json").stdout)
    kept, _ = storage.load(Database.at(DEFAULT).open())
    runs = [trial for trial in StoredTrials()(kept) if trial.params == answer["params"]]
    means = [np.mean(run.reported[-3:]) for run in runs]
    assert answer["mean"] == pytest.approx(np.mean(means))
    assert [run.value for run in runs] == pytest.approx(means)
    assert study("report").exit_code == 0
    page = Path("fake-report/report.html").read_text()
    said = f"{100 * answer['mean']:.2f} ± {100 * answer['standard_error']:.2f} %"
    assert all(said in text for text in (study("best").stdout, study("status").stdout, page))
    rule = "The score of a run is the mean of its last 3 epochs"
    assert all(rule in text for text in (study("status").stdout, page))
    with Path("fake-report/stages.csv").open() as table:
        assert answer["mean"] in [float(line["mean"]) for line in csv.DictReader(table)]


def test_status_shows_every_stage_and_where_each_setting_came_from(finished: None) -> None:
    status = json.loads(study("status", "--json").stdout)
    assert [stage["name"] for stage in status["stages"]] == ["filters", "dropout"]
    assert status["stages"][0]["selected"] == 2
    assert status["settings"]["data"]["source"] == "command line"
    assert status["settings"]["epochs"] == {"value": 4, "source": "file"}
    assert status["settings"]["seed"]["source"] == "default"
    shown = study("status").stdout
    assert ", 1 thread per run, " in shown
    assert "State: complete, 6 of at most 6 runs" in shown
    assert "2 folds" in shown
    assert "best mean, selected" in shown


def test_a_study_that_cannot_be_read_is_named_beside_the_list(finished: None) -> None:
    older = optuna.create_study(storage="sqlite:///study.db", study_name="older")
    older.set_user_attr(storage.SETTINGS, {"format": 1})
    told = study("list", "--json")
    assert [one["study"] for one in json.loads(told.stdout)] == ["fake"]
    left_out, last = told.stderr.splitlines()
    assert left_out.startswith("Left out: study 'older' was recorded in format 1, and this version")
    assert (told.exit_code, last) == (1, "study: 1 of the studies could not be read")


def test_a_complete_study_is_told_again_with_its_report_and_not_trained_again(
    finished: None,
) -> None:
    again = study("run", "fake.toml", "--data", "data.npz", "--confirm", "0")
    assert again.exit_code == 0, again.output
    resumed = study("resume")
    assert "tensorflow" not in again.output + resumed.output
    page = Path("fake-report/report.html").resolve()
    for told in (again, resumed):
        assert "Use k1=2, k2=2, filters=2" in told.stdout
        assert told.stdout.splitlines()[-1] == f"Report: {page}"
    assert "Use k1=2" in page.read_text()


def test_a_report_that_cannot_be_written_is_a_line_and_changes_nothing(finished: None) -> None:
    Path("fake-report").write_text("in the way")
    told = study("resume")
    assert told.exit_code == 0
    last = told.stdout.splitlines()[-1]
    assert last.startswith("Report: not written (")
    assert "is not a folder" in last


def test_no_report_is_written_through_a_link_that_came_with_a_database(finished: None) -> None:
    Path("mine").mkdir()
    Path("fake-report").symlink_to("mine")
    assert_one_line(study("report"), "fake-report is a link", "--output")
    assert list(Path("mine").iterdir()) == []
    assert study("report", "--output", "fake-report").exit_code == 0  # that is the user's word


def test_quiet_prints_the_answer_alone(finished: None) -> None:
    said = study("run", "fake.toml", "--data", "data.npz", "--confirm", "0", "--quiet").stdout
    assert said.startswith("Use ")
    assert len(said.splitlines()) == 1


def test_the_address_and_the_name_may_come_from_the_environment(finished: None) -> None:
    Path("study.db").rename("other.db")
    assert study("best", "--json", STUDY_STORAGE="sqlite:///other.db").exit_code == 0


def state() -> str:
    return json.loads(study("best", "--json").stdout)["state"]


def test_a_study_is_running_while_a_process_drives_it(finished: None) -> None:
    with driver_lock(Database.at(DEFAULT).study("fake")):
        assert state() == "running"
    assert state() == "complete"


def test_a_study_that_was_stopped_is_interrupted(here: Path) -> None:
    def interrupted(run: Run):
        yield next(fakes.train(run))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive_fake(interrupted)
    assert state() == "interrupted"
    assert json.loads(study("status", "--json").stdout)["runs"] == 0
    assert study("best").exit_code == 0


def test_a_study_that_was_stopped_before_it_was_stored_is_started_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.running.launch.launch", interrupted)
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stopped = study("run", "fake.toml", "--data", "data.npz", "--mlflow", "none")
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert stopped.exit_code == 130
    assert "Give the same command again to start it." in stopped.stdout
    assert "resume" not in stopped.stdout


def test_a_study_whose_every_run_fails_says_why_in_one_line(here: Path) -> None:
    def broken(run: Run):
        raise TrainingFailed("out of memory")
        yield

    drive_fake(broken)
    assert state() == "failed"
    assert "out of memory" in json.loads(study("status", "--json").stdout)["failure"]
    assert "The study has no answer: " in study("status").stdout


def test_more_repeats_continue_a_complete_study(finished: None) -> None:
    drive_fake(repeats=3)
    answer = json.loads(study("best", "--json").stdout)
    assert answer["repeats"] == 3
    assert answer["runs"] == 9
    assert answer["state"] == "complete"
    assert_one_line(study("resume", "--repeats", "2"), "--repeats 2: the study has 3")


def test_a_search_that_takes_no_score_of_the_space_goes_on_whatever_that_is(here: Path) -> None:
    given = {"data": DATA, "sampler": Setting("grid", "command line")}
    settings = prepare("fake.toml", None, Database.at(DEFAULT), given).settings
    settings = replace(settings, space=replace(settings.space, score="last"))
    storage.create(Database.at(DEFAULT).open(create=True), "fake", settings)
    again = prepare("fake.toml", None, Database.at(DEFAULT), given)
    assert again.settings.space.score == "last"
    assert "mean of its last 3" not in study("status").stdout


def test_a_study_that_failed_has_a_report_that_says_why(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Run, *_: Any, **__: Any):
        raise TrainingFailed("out of memory")
        yield

    monkeypatch.setattr("study.running.launch.launch", partial(launch, trainer=broken))
    failed = study("run", "fake.toml", "--data", "data.npz", "--jobs", "1")
    assert failed.exit_code == 2
    assert "out of memory" in failed.stderr
    assert "out of memory" in Path("fake-report/report.html").read_text()


# What must be withstood.


def test_a_name_that_exists_with_another_space_is_refused_with_both_ways_out(
    finished: None,
) -> None:
    Path("other.toml").write_text(fakes.SPACE.replace("options = [1, 2]", "options = [1, 2, 3]"))
    result = study("run", "other.toml", "--data", "data.npz", "--confirm", "0")
    assert_one_line(
        result,
        "'fake'",
        "filters gains 3: at most 4 runs to train, 6 are kept",
        "--yes",
        "another study with --name",
    )


def test_other_settings_of_an_existing_study_are_named(finished: None) -> None:
    result = study("run", "fake.toml", "--data", "data.npz", "--epochs", "5", "--seed", "2")
    assert_one_line(result, "epochs (4, not 5)", "seed (1, not 2)")


def test_data_that_has_changed_is_refused_on_resume_and_on_run(finished: None) -> None:
    image_files.write_npz(
        Path("data.npz"),
        x_train=image_files.pictures(shape=(12, 12)) // 2,
        y_train=image_files.numbers(),
    )
    assert_one_line(
        study("resume"), "data.npz", "not the data that the study was made with", "--name"
    )
    assert_one_line(
        study("run", "fake.toml", "--data", "data.npz"), "the contents of the data", "--name"
    )


def test_data_that_is_gone_is_missed_on_resume(finished: None) -> None:
    Path("data.npz").unlink()
    assert_one_line(study("resume"), "data.npz")


def test_a_study_that_is_not_there_is_answered_with_those_that_are(finished: None) -> None:
    for command in ("resume", "status", "best"):
        assert_one_line(study(command, "nobody"), "no study named 'nobody'", "fake")


def test_a_study_that_another_process_drives_is_refused_naming_it(finished: None) -> None:
    with driver_lock(Database.at(DEFAULT).study("fake")):
        for words in (["resume"], ["run", "fake.toml", "--data", "data.npz", "--confirm", "0"]):
            result = study(*words)
            assert result.exit_code == 2
            assert f"'fake' is being driven by process {os.getpid()}" in result.stderr


@pytest.mark.parametrize("command", ["resume", "status", "best", "list", "dashboard"])
def test_without_a_database_a_command_says_how_to_make_one(here: Path, command: str) -> None:
    assert_one_line(study(command), "study.db: no such database", "study run")
    assert not list(here.glob("*.db*"))


def edited(old: str, new: str) -> str:
    assert old in fakes.SPACE
    Path("bad.toml").write_text(fakes.SPACE.replace(old, new))
    return "bad.toml"


DENSE = "[hyperparameters.dense]\noptions = [8, 16.5]\nstart = 8\n[fixed]"
JOINT = (
    "[hyperparameters.blocks]\noptions = [2, 3]\nstart = 2\n"
    "[hyperparameters.k2]\noptions = [2, 4]\nstart = 2\n[fixed]\nk1 = 2"
)
LARGE = "hyperparameters.batch_size = { options = [10, 5000], start = 10 }"
LIMITS = "\nlimits = { parameters = 5 }"
SPACES = [  # what is said of a space in which one text is replaced by another
    ("did you mean filters?", "[hyperparameters.filters]", "[hyperparameters.filtres]"),
    ("epoch", "epochs = 4", "epoch = 4"),
    ("hyperparameters.filters", "start = 1", "start = 3"),
    ("holdout", "{ folds = 2 }", "{ holdout = 1.5 }"),
    ("bad.toml", "options = [1, 2]", "options = [1, 2"),
    ("bad.toml", "[hyperparameters.dropout]", "[hyperparameters.filters]"),
    ("bad.toml: fixed.k2 is 20; it must be at most", "k2 = 2", "k2 = 20"),
    ("bad.toml: fixed.dense is 0; it must be", "k2 = 2", "k2 = 2\ndense = 0"),
    ("filters is 16.5; it must be a whole number", "options = [1, 2]", "options = [1, 16.5]"),
    ("dense is 16.5; it must be a whole number", "[fixed]", DENSE),
    ("is called restore_best_weights now", "k2 = 2", "k2 = 2\nkeep_best = true"),
    ("hyperparameters.batch_size: is 5000; a repeat trains on ", "batch_size = 10", LARGE),
    ("batch_size: is a hyperparameter too; keep one", "[fixed]", "[fixed]\nbatch_size = 9"),
    ("fixed.optimizer is 'adma'; it must be one of adam, adamw", "k1 = 2", "optimizer = 'adma'"),
    ('fixed.momentum is for optimizer = "sgd" alone', "[fixed]", "[fixed]\nmomentum = 0.9"),
    ("limits: no configuration fits; the smallest has ", "epochs = 4", "epochs = 4" + LIMITS),
    ('limits.size: "1 GB" is not allowed', "epochs = 4", "epochs = 4\nlimits.size = '1 GB'"),
    ("hyperparameters.blocks is 3; it must be at most 2", "[fixed]\nk1 = 2\nk2 = 2", JOINT),
]


@pytest.mark.parametrize(("said", "old", "new"), SPACES)
def test_a_mistake_in_a_space_is_one_line_and_leaves_nothing(
    here: Path, said: str, old: str, new: str
) -> None:
    assert old in fakes.SPACE
    Path("bad.toml").write_text(fakes.SPACE.replace(old, new))
    assert_one_line(study("run", "bad.toml", "--data", "data.npz"), said)
    assert not list(here.glob("*.db*"))


def test_a_zero_byte_in_a_path_is_one_line(here: Path) -> None:
    Path("bad.toml").write_text('data = "a\\u0000b"\n' + fakes.SPACE)
    assert_one_line(study("run", "bad.toml"), "no such file or folder")
    assert not list(here.glob("*.db*"))


@pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ("mixup = 0.2", "fixed.mixup: --training grouped has none; leave it out or choose"),
        ('class_weight = "balanced"', "fixed.class_weight: --training grouped has none"),
        ("[limits]\nmilliseconds = 5", "limits: --training grouped does not measure a network"),
    ],
)
def test_what_groups_cannot_train_is_one_line(here: Path, fixed: str, said: str) -> None:
    Path("bad.toml").write_text(fakes.SPACE + fixed)
    assert_one_line(study("run", "bad.toml", "--data", "data.npz", "--training", "grouped"), said)
    assert not list(here.glob("*.db*"))


def file(contents: bytes, name: str = "bad.npz") -> str:
    Path(name).write_bytes(contents)
    return name


FILES: dict[str, Callable[[], str]] = {
    "missing": lambda: "nowhere.npz",
    "truncated": lambda: file(Path("data.npz").read_bytes()[:900]),
    "of no known kind": lambda: file(b"these are no images", "bad.txt"),
    "pickled": lambda: data(x_train=np.array([{"a": 1}] * 40, dtype=object)),
    "of one class": lambda: data(y_train=np.zeros(40, int)),
    "too few": lambda: data(x_train=image_files.pictures(5, (12, 12)), y_train=np.arange(5) % 2),
    "an empty folder": lambda: str(Path("folder").mkdir() or "folder"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_mistake_in_the_data_is_one_line_and_leaves_nothing(here: Path, kind: str) -> None:
    path = FILES[kind]()
    assert_one_line(study("run", "fake.toml", "--data", path), Path(path).name)
    assert not list(here.glob("*.db*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sampler", "guess"], "--sampler guess"),
        (["--pruner", "guess"], "--pruner guess"),
        (["--sampler", "tpe", "--pruner", "sweep"], "--pruner sweep"),
        (["--tolerance", "1"], "--tolerance 1.0: only --sampler race uses it"),
        (["--configurations", "5"], "--configurations 5: only --sampler tpe, random and gp use it"),
        (["--sampler", "race", "--tolerance", "0"], "--tolerance 0: give points"),
        (["--sampler", "race", "--tolerance", "nan"], "--tolerance nan: give points"),
        (["--sampler", "race", "--budget", "3"], "--budget 3: does not pay for a run and a fresh"),
        (["--sampler", "race", "--budget", "0"], "--budget 0: give a number above 0"),
        (["--sampler", "race", "--budget=-5min"], "--budget -5min: give a number above 0"),
        (["--sampler", "race", "--budget", "10 parsecs"], "--budget 10 parsecs: give a whole"),
        (["--sampler", "halving", "--budget", "5s"], "--budget 5s: does not pay for compiling"),
        (
            ["--sampler", "halving", "--budget", "10", "--confirm", "3"],
            "--budget 10: does not pay for two configurations",
        ),
        (["--sampler", "race", "--repeats", "1"], "--repeats 1: a race compares repeats"),
        (["--name", "a\nb"], "--name 'a\\nb': give one line of at most 512 characters"),
        (["--name", "\udcff"], "--name '\\xff': give one line"),
        (["--name", "\u202egnp"], "--name '\\u202egnp': give one line"),
        (["--name", " a"], "--name ' a': give one line"),
        (["--name", "a" * 513], "give one line of at most 512"),
        (["--name", ""], "'--name': it is empty; give a value, or leave it out"),
        (["--epochs", "9" * 30], "epochs 999999999999999999999999999999: give at most 1,000,000"),
        (["--repeats", "10001"], "of at least 1 and at most 10000"),
        (["--seed", "99999999999"], "seed 99999999999: give at most 4,294,967,295"),
        (["--checkpoints", "s3://KEY:SECRET@bucket"], "--checkpoints: keys do not belong in an"),
        (["--checkpoints", "s3://"], "--checkpoints s3://: is not an address"),
        (["--checkpoints", "gs://bucket"], "--checkpoints gs://bucket: is not an address"),
        (["--scheduler", "host"], "--scheduler host: is not an address of this kind; write tcp://"),
        (["--scheduler", "tcp://me:SECRET@host:1"], "--scheduler: keys do not belong"),
        (["--data", "http://me:SECRET@host/x.npz"], "http:/"),
        (["--mlflow", "ftp://me:SECRET@host"], "--mlflow ftp://host: is not"),
        (["--storage", "nonsense"], "sqlite:///FILE"),
        (["--storage", "postgresql://host:port/name"], "--storage: is no database URL"),
        (["--mlflow", "http://[host"], "--mlflow http://[host: is not the address"),
        (["--mlflow", "postgresql://me:secret@host:port/name"], "--mlflow postgresql://***@host:"),
        (["--resources", "GPU=1"], "--resources GPU=1: only a cluster has any"),
        (["--resources", "=1"], "--resources =1: write NAME=NUMBER"),
        (["--resources", "GPU=nan"], "--resources GPU=nan: write NAME=NUMBER"),
        (["--storage", "sqlite:///none/study.db"], "none: no such folder"),
        (["--storage", "sqlite:///fake.toml"], "no SQLite database"),
    ],
)
def test_a_mistake_in_an_option_is_one_line_and_leaves_nothing(
    here: Path, options: list[str], said: str
) -> None:
    result = study("run", "fake.toml", "--data", "data.npz", *options)
    assert_one_line(result, said)
    assert "SECRET" not in result.stderr
    assert not list(here.glob("*.db*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "run --epoch 3",
            "No such option: --epoch; did you mean --epochs? (see: study run",
        ),
        ("finalize --nothing", "No such option: --nothing (see: study finalize --help)"),
        ("run nothing", "digits, mnist, modern, smoke"),
        ("run nowhere.toml", "nowhere.toml"),
        ("runn", "No such command 'runn'. Did you mean 'run'? (see: study --help)"),
        ("run --epochs many", "--epochs many is not allowed; give a whole number of at least 1"),
        ("run --epochs 0", "--epochs 0 is not allowed; give a whole number of at least 1 (see:"),
        ("run --tolerance x", "--tolerance x is not allowed; give a number (see: "),
        ("finalize --holdout 1", "give a number of at least 0 and at most 0.9 (see: "),
        ("run --epochs", "requires an argument (see: study run --help)"),
        ("best --json=yes", "Option '--json' does not take a value"),
        ("predict", "Missing argument 'MODEL' (see: study predict --help)"),
        ("list of studies", "Got unexpected extra argument"),
    ],
)
def test_a_misspelt_command_line_is_one_line_that_says_how_it_is_spelt(
    words: str, said: str
) -> None:
    assert_one_line(study(*words.split()), said)


def test_a_number_of_the_environment_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUDY_EPOCHS", "many")
    assert_one_line(study("run"), "--epochs many (from STUDY_EPOCHS) is not allowed; give a whole")


def test_without_a_word_the_help_is_shown() -> None:
    assert "Usage: " in study().stdout
    assert study().exit_code == 0


@pytest.mark.slow
def test_mnist_without_a_network_is_one_line_and_nothing_of_tensorflows(here: Path) -> None:
    """No proxy listens at port 9, so the download fails wherever the tests run."""
    told = subprocess.run(
        [sys.executable, "-m", "study", "run", "--data", "mnist"],
        check=False,
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PATH": "",
            "KERAS_HOME": str(here),
            "https_proxy": "http://127.0.0.1:9",
        },
    )
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("study: mnist: cannot be downloaded")
    assert len(told.stderr.splitlines()) == 1


def test_a_corrupt_database_is_refused_and_left_alone(finished: None) -> None:
    whole = Path("study.db").read_bytes()
    Path("study.db").write_bytes(whole[: len(whole) // 2])
    for words in (["status"], ["resume"], ["run", "fake.toml", "--data", "data.npz"]):
        assert_one_line(study(*words), "study.db", "damaged")
    assert Path("study.db").read_bytes() == whole[: len(whole) // 2]


# Help.


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_every_command_has_help_with_examples(command: str) -> None:
    said = study(command, "--help").stdout
    assert "Examples" in said
    assert f"study {command}" in said


def test_the_help_of_run_reads_in_a_screen_and_a_half() -> None:
    lines = study("run", "--help", COLUMNS="100").stdout.splitlines()
    assert len(lines) <= 60
    panels = re.findall(r"─ ([A-Z][a-z ]+) ─", "\n".join(lines))
    assert panels[1:] == ["Options", "Study", "Search", "Training", "Where it runs", "Output"]


def test_every_sampler_and_pruner_of_the_help_exists() -> None:
    said = " ".join(study("run", "--help").stdout.split())
    samplers = re.search(r"\b(sweep, grid[a-z, ]+)\.", said)
    assert samplers
    assert set(re.split(", | or ", samplers[1])) <= STRATEGIES.keys()
    pruners = re.search(r"\b(none, sweep[a-z, ]+)\.", said)
    assert pruners
    assert set(re.split(", | or ", pruners[1])) == set(PRUNERS)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["status"], ["list"]])
def test_what_trains_nothing_imports_nothing_heavy(here: Path, words: list[str]) -> None:
    program = (
        "import sys\nfrom study.cli.app import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & {"tensorflow", "keras", "mlflow", "optuna_dashboard", "dask", "distributed"}
