"""The Python interface: a study from arrays and a function, its result, and its errors."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import study
from study.api import source_of
from study.errors import StudyError

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
    assert study.studies() == ["arrays"]
    again = study.load("arrays")
    assert (again.params, again.mean) == (result.params, result.mean)
    same = study.run(SPACE, data=arrays, model=build, jobs=1, progress=False)
    assert len(same.trials()) == len(trials)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"space": "smoke", "repeat": 3}, "unknown argument 'repeat'"),
        ({"space": "smok"}, "no such search space"),
        ({"space": {"name": "x"}}, "space: "),
        ({"space": SPACE, "data": np.zeros((3, 3))}, "a pair"),
        ({"space": SPACE, "data": (np.zeros((3, 3)), np.zeros(3))}, r"\(3, 3\)"),
        ({"space": SPACE, "data": (np.zeros((3, 4, 4)), np.zeros(2))}, "do not fit"),
        ({"space": SPACE, "model": lambda params, *_: None}, "a lambda"),
        ({"space": "smoke", "storage": "nonsense"}, "no database URL"),
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
    with pytest.raises(StudyError):
        study.load("digits")
    assert list(Path().iterdir()) == []


def test_the_source_of_a_function_runs_in_a_file_of_its_own(tmp_path: Path) -> None:
    text = source_of(build)
    assert "WIDTH = 3" in text
    assert "import keras as keras" in text
    names: dict[str, Any] = {}
    exec(compile(text, "net.py", "exec"), names)
    assert callable(names["build"])


def test_a_function_that_uses_what_cannot_travel_is_refused() -> None:
    weights = [1, 2]

    def around(params: Any, shape: Any, classes: Any) -> Any:
        return weights

    with pytest.raises(StudyError, match="uses 'weights' of the function around it"):
        source_of(around)


def test_the_package_says_what_it_has_and_imports_fast() -> None:
    assert {"run", "load", "studies", "Result", "Space", "Objective"} <= set(dir(study))
    code = "import study, sys; print({'numpy', 'optuna', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
