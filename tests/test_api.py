"""The Python interface: a study from arrays and a function, its result, and its errors."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import mirror_fakes
import numpy as np
import pytest
from fakes import drive
from keras import layers
from optuna.storages import InMemoryStorage

import study
from study.api import Result, RunOptions
from study.cli import options
from study.errors import SettingsError, SpaceError, StorageError, StudyError
from study.plan.plan import Confirmation
from study.plan.statistics import Difference, Score
from study.running.from_python import source_file, source_of
from study.storage.location import Database

WIDTH = 3

SPACE = {
    "name": "arrays",
    "epochs": 1,
    "batch_size": 16,
    "repeats": 2,
    "validation": {"folds": 2},
    "hyperparameters": {"units": {"options": [2, 4], "start": 2}},
}


def build(params: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> Any:
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(WIDTH, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(params["units"], activation="relu"),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


@pytest.fixture
def arrays() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 2
    return (rng.random((80, 8, 8)) * 100 + 100 * labels[:, None, None]).astype(np.uint8), labels


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.tensorflow
def test_a_study_of_arrays_and_a_function_gives_a_result_that_can_be_loaded(
    arrays: tuple[Any, Any],
) -> None:
    result = study.run(SPACE, data=arrays, model=build, jobs=1, progress=False)
    assert result.state == "complete"
    assert result.params is not None
    assert set(result.params) == {"units"}
    assert result.mean is not None
    assert result.interval is not None
    low, high = result.interval
    assert 0 <= low <= result.mean <= high <= 1
    trials = result.trials()
    assert set(trials["state"]) <= {"complete", "pruned"}
    assert (trials["state"] == "complete").sum() >= 2
    assert list(result.stages()["option"])[:2] == [2, 4]
    assert "<table" in result._repr_html_()
    assert (result.gain is None) == (result.params == {"units": 2})
    assert len(result.plot("curves")) == len(result.plot("stages")) == len(result.plan.stages)
    assert len(result.plot("effects")) == 1
    final = result.finalize(members=2, progress=False)
    assert final.model.input_shape == (None, 8, 8, 1)
    assert final.test_accuracy == final.models[-1].value
    assert result.finalize(members=2, progress=False).models == final.models
    assert study.studies() == ["arrays"]
    again = study.load("arrays")
    assert (again.params, again.mean) == (result.params, result.mean)
    same = study.run(SPACE, data=arrays, model=build, jobs=1, progress=False)
    assert len(same.trials()) == len(trials)
    Path("there").mkdir()
    for path in list(Path().iterdir()):
        if path.name != "there":
            path.rename(Path("there") / path.name)
    moved = study.load("arrays", storage="sqlite:///there/study.db")
    assert moved.finalize(members=2, progress=False).models == final.models


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"space": "smoke", "repeat": 3}, "unknown argument 'repeat'"),
        ({"space": "smok"}, "no such search space"),
        ({"space": 3}, "run: space 3: give a name"),
        ({"space": "smoke", "mlflow": 3}, "run: mlflow 3: give an address"),
        ({"space": {"name": "x"}}, "space: "),
        ({"space": SPACE, "data": np.zeros((3, 3))}, "a pair"),
        ({"space": SPACE, "data": (np.zeros((3, 3)), np.zeros(3))}, r"\(3, 3\)"),
        ({"space": SPACE, "data": (np.zeros((3, 4, 4)), np.zeros(2))}, "do not fit"),
        ({"space": SPACE, "model": lambda params, *_: None}, "a lambda"),
        ({"space": SPACE, "model": keras.Sequential}, "model: type cannot travel"),
        ({"space": "smoke", "storage": "nonsense"}, "no database URL"),
        ({"space": SPACE, "data": ([np.zeros((2, 2)), np.zeros((3, 3))], [0, 1])}, "several sizes"),
        (
            {"space": SPACE, "data": (np.zeros((2, 4, 4)), np.array([0, "a"], object))},
            "type object",
        ),
        (
            {"space": SPACE, "data": (np.zeros((2, 4, 4)), np.zeros(2))},
            "y_train: an array of float64",
        ),
        ({"space": "smoke", "repeats": "3"}, 'repeats: "3" is not allowed; give a whole number'),
        ({"space": "smoke", "jobs": 0}, "jobs: 0 is not allowed"),
        ({"space": "smoke", "timeout": -1}, "timeout: -1 is not allowed; give a number above 0"),
        ({"space": "smoke", "scheduler": "here"}, "write tcp://HOST:PORT"),
        ({"space": "smoke", "sampler": "best"}, "no such sampler"),
    ],
)
def test_a_mistake_is_an_exception_of_one_line_and_nothing_is_made(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError, match=said) as raised:
        study.run(**arguments)
    assert "\n" not in str(raised.value)
    assert list(Path().iterdir()) == []


def test_a_database_that_is_not_there_is_said_and_not_made() -> None:
    for read in (lambda: study.load("digits"), study.studies):
        with pytest.raises(StorageError, match=r"study\.db"):
            read()
    assert list(Path().iterdir()) == []


def test_a_database_that_is_gone_is_said_by_every_method(tmp_path: Path) -> None:
    made = mirror_fakes.make(tmp_path)
    mirror_fakes.complete(made)
    result = study.load()
    mean = result.mean
    (tmp_path / "study.db").unlink()
    for read in (result.trials, result.plot, result.report, result.finalize):
        with pytest.raises(StorageError) as raised:
            read()
        assert "\n" not in str(raised.value)
    assert result.mean == mean


def test_a_plot_or_a_member_that_is_not_there_is_said() -> None:
    result = of_confirmation(None)
    with pytest.raises(SettingsError, match=r"did you mean stages\?"):
        result.plot("stage")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="members: 0 is not allowed"):
        result.finalize(members=0)
    with pytest.raises(SettingsError, match=r"a fraction from 0 to 0\.9"):
        result.finalize(holdout=2)


def of_confirmation(confirmation: Confirmation | None) -> Result:
    """The result of a study of fake curves, with this confirmation."""
    storage = InMemoryStorage()
    state = replace(drive(storage), confirmation=confirmation)
    location = Database.at("sqlite:///study.db").study("fake")
    return Result("fake", "complete", mirror_fakes.settings(), state, location)


def test_the_gain_is_the_paired_difference_on_fresh_repeats() -> None:
    gain = Difference(3, 0.01, 0.004, 20)
    confirmed = Confirmation(Score(3, 0.9, 0.01), Score(3, 0.89, 0.01), gain)
    assert of_confirmation(confirmed).gain == gain
    assert of_confirmation(Confirmation(Score(3, 0.9, 0.01))).gain is None
    assert of_confirmation(None).gain is None


def test_a_space_made_in_python_is_checked_as_a_file_is() -> None:
    widths = {"width": {"options": [np.int64(4), 8], "start": 4}}
    space = study.Space(widths, epochs=2, batch_size=8, validation={"folds": 2})
    assert space.to_dict()["hyperparameters"] == {"width": {"options": [4, 8], "start": 4}}
    with pytest.raises(SpaceError, match=r"Space: epoch: unknown key; did you mean epochs\?"):
        study.Space(widths, epochs=2, batch_size=8, epoch=3)
    with pytest.raises(SpaceError, match=r'Space: epochs: "2" is not allowed'):
        study.Space(widths, epochs="2", batch_size=8)  # type: ignore[arg-type]


def test_a_study_that_is_refused_leaves_the_function_of_an_earlier_one_as_it_was() -> None:
    first, second = (
        source_file(one, Database.at("sqlite:///study.db"), "a") for one in (build, other)
    )
    assert first[0] != second[0]
    assert first[0].name.startswith("a-")


def test_the_source_of_a_function_runs_in_a_file_of_its_own(tmp_path: Path) -> None:
    text = source_of(build)
    assert "WIDTH = 3" in text
    assert "import keras as keras" in text
    names: dict[str, Any] = {}
    exec(compile(text, "net.py", "exec"), names)
    assert callable(names["build"])


def helper(units: int) -> Any:
    return layers.Dense(units + WIDTH)


def other(params: Any, shape: Any, classes: Any) -> Any:
    heads = [helper(units) for units in (1, 2)]

    def inner() -> Any:
        return np.zeros(WIDTH), heads

    return inner()


def test_functions_and_names_that_are_used_inside_another_function_travel_with_it() -> None:
    names: dict[str, Any] = {}
    exec(compile(source_of(other), "net.py", "exec"), names)
    zeros, heads = names["other"]({}, (), 2)
    assert len(zeros) == WIDTH
    assert [head.units for head in heads] == [4, 5]


def test_a_function_that_uses_what_cannot_travel_is_refused() -> None:
    weights = [1, 2]

    def around(params: Any, shape: Any, classes: Any) -> Any:
        return weights

    with pytest.raises(StudyError, match="uses 'weights' of the function around it"):
        source_of(around)


def uses_an_array(params: Any, shape: Any, classes: Any) -> Any:
    return SPACE


def test_an_object_of_the_module_that_cannot_travel_is_named() -> None:
    with pytest.raises(StudyError, match="uses 'SPACE', which cannot travel"):
        source_of(uses_an_array)


def test_run_takes_the_options_of_the_command() -> None:
    panels = (options.SEARCH, options.TRAINING, options.WHERE, options.LIMITS)
    assert {name for panel in panels for name in panel} <= set(RunOptions.__annotations__)


def test_the_package_lists_its_names_and_imports_nothing_heavy() -> None:
    assert set(dir(study)) == set(study.__all__)
    assert all(getattr(study, name).__doc__ for name in study.__all__)
    page = (Path(study.__file__).parents[1] / "docs" / "reference" / "api.md").read_text("utf-8")
    assert [name for name in study.__all__ if not re.search(rf"\b{name}\b", page)] == []
    heavy = {"numpy", "optuna", "keras", "tensorflow", "mlflow", "pandas", "matplotlib", "pydantic"}
    heavy |= {"sqlalchemy", "typer", "rich", "sklearn", "scipy"}
    code = f"import study, sys; print({heavy} & set(sys.modules), len(sys.modules))"
    bare = f"import sys; print({heavy} & set(sys.modules), len(sys.modules))"
    with_it, without = (
        subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, check=True)
        for one in (code, bare)
    )
    assert with_it.stdout.startswith("set()")
    assert int(with_it.stdout.split()[-1]) - int(without.stdout.split()[-1]) < 10
