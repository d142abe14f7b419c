"""The search space: what a file may say, and the one line that answers what it may not."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import SpaceError
from study.space.file import load, shipped
from study.space.search_space import Hyperparameter, SearchSpace, Validation

HEAD = 'name = "mine"\nepochs = 2\nbatch_size = 10\nrepeats = 3\n'
K1 = "[hyperparameters.k1]\noptions = [3, 4, 7]\nstart = 4\n"

Refused = Callable[[str | bytes], str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Read a file with this text, and give what follows its path in the error."""

    def read(text: str | bytes) -> str:
        path = tmp_path / "mine.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(SpaceError) as caught:
            load(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert len(message.splitlines()) == 1
        return message.removeprefix(f"{path}: ")

    return read


def k1(text: str) -> str:
    return f"{HEAD}[hyperparameters.k1]\n{text}\n"


def space(*hyperparameters: Hyperparameter, **settings: object) -> SearchSpace:
    return SearchSpace("mine", 2, 10, 3, hyperparameters, **settings)  # type: ignore[arg-type]


# What a file may say


def test_the_mnist_space_is_the_tutorials() -> None:
    mnist = load("mnist")
    assert [(p.name, p.options, p.start) for p in mnist.hyperparameters] == [
        ("filters", (8, 16, 32), 16),
        ("k1", (3, 4, 7), 4),
        ("k2", (3, 5, 7), 5),
        ("dense", (16, 32, 64), 32),
        ("dropout", (0.1, 0.2, 0.3), 0.2),
    ]
    assert (mnist.name, mnist.data, mnist.tie) == ("MNIST hyperopt", "mnist", "best")
    assert (mnist.epochs, mnist.batch_size, mnist.repeats) == (30, 100, 3)
    assert mnist.validation == Validation("holdout", 0.1)


def test_the_digits_space_sweeps_the_same_options_on_folds() -> None:
    assert load("digits").hyperparameters == load("mnist").hyperparameters
    assert load("digits").validation == Validation("folds", folds=3)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_space_can_be_swept_and_says_how(name: str) -> None:
    load(name).require_options("a sweep")
    header = shipped()[name].read_text("utf-8").split("\n\n")[0]
    assert all(word in header for word in ("command", "make study", "time", "score"))


def test_spaces_are_found_in_an_installed_package_before_a_checkout(tmp_path: Path) -> None:
    package = tmp_path / "study"
    beside, inside = tmp_path / "search_spaces", package / "search_spaces"
    beside.mkdir()
    (beside / "checkout.toml").touch()
    assert shipped(package) == {"checkout": beside / "checkout.toml"}
    inside.mkdir(parents=True)
    (inside / "wheel.toml").touch()
    assert shipped(package) == {"wheel": inside / "wheel.toml"}


def test_a_file_with_every_setting_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    settings = (
        'data = "digits"\nvalidation = { folds = 5 }\ntie = "best"\nseed = 7\nsampler = "tpe"\n'
        'pruner = "none"\nconfigurations = 9\n'
    )
    path.write_text(f"\ufeff{HEAD}{settings}{K1}[fixed]\ndense = 8\nstrided = true", "utf-8")
    read = load(str(path))
    assert read == space(
        Hyperparameter("k1", (3, 4, 7), start=4),
        data="digits",
        validation=Validation("folds", folds=5),
        tie="best",
        seed=7,
        sampler="tpe",
        pruner="none",
        configurations=9,
        fixed={"dense": 8, "strided": True},
    )
    assert hash(read) == hash(load(path))
    assert pickle.loads(pickle.dumps(read)) == read


def test_a_space_without_a_name_has_that_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my first.toml"
    path.write_text(HEAD.removeprefix('name = "mine"\n') + K1)
    assert load(path).name == "my first"


def test_a_path_of_data_counts_from_the_file_of_the_space(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for data, read in (("a.npz", tmp_path / "a.npz"), ("/b", Path("/b")), ("mnist", "mnist")):
        path.write_text(f'{HEAD}data = "{data}"\n{K1}')
        assert load(path).data == str(read)


def test_hyperparameters_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = "[hyperparameters.{}]\noptions = [1, 2]\nstart = 1\n"
    path.write_text(HEAD + "".join(table.format(name) for name in "cab"))
    assert list(load(path).start) == ["c", "a", "b"]


def test_whole_numbers_among_decimals_become_decimals() -> None:
    mixed = Hyperparameter("rate", (0, 0.5, 1), start=0)
    assert repr(mixed.options) == "(0.0, 0.5, 1.0)"
    assert repr(mixed.start) == "0.0"
    ranged = Hyperparameter("rate", low=0, high=1, step=0.5, start=1)
    assert repr((ranged.low, ranged.high, ranged.start)) == "(0.0, 1.0, 1.0)"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (np.arange(3), "(0, 1, 2)"),
        ([np.int64(3), 4], "(3, 4)"),
        (np.array([0.25, 0.5]), "(0.25, 0.5)"),
        ([np.bool_(False), True], "(False, True)"),
        (np.array(["relu", "elu"]), "('relu', 'elu')"),
        (range(2), "(0, 1)"),
    ],
)
def test_values_of_numpy_become_plain_ones(options: Any, expected: str) -> None:
    parameter = Hyperparameter("k1", options, start=options[0])
    assert repr(parameter.options) == expected
    assert type(parameter.start) is type(parameter.options[0])
    ranged = Hyperparameter("k1", low=np.int32(1), high=np.int64(9))  # type: ignore[arg-type]
    assert (type(ranged.low), type(ranged.high)) == (int, int)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([None, 1], "None is not allowed; give a list of numbers"),
        ("abc", '"abc" is not allowed; give a list of numbers'),
        (3, "3 is not allowed; give a list of numbers"),
        ([(1, 2)], "[1, 2] is not allowed; give a list of numbers"),
        ([np.zeros(2)], "is not allowed; give a list of numbers"),
        ([float("nan")], "NaN is not allowed; give a list of numbers"),
    ],
)
def test_what_is_no_option_is_refused_in_code_too(options: Any, said: str) -> None:
    with pytest.raises(SpaceError) as refused:
        Hyperparameter("k1", options, start=1)
    assert str(refused.value).startswith("hyperparameters.k1.options: ")
    assert said in str(refused.value)


def test_steps_are_counted_in_decimals() -> None:
    parameter = Hyperparameter("dropout", low=0.1, high=0.7, step=0.1, start=0.3)
    assert parameter.start == 0.3


# What it gives


def test_fixed_parameters_come_before_the_searched_ones() -> None:
    mine = space(Hyperparameter("k1", (3, 4), start=4), fixed={"dense": 8})
    assert list(mine.start.items()) == [("dense", 8), ("k1", 4)]
    trial = optuna.trial.FixedTrial({"k1": 3})
    assert list(mine.suggest(trial).items()) == [("dense", 8), ("k1", 3)]


@pytest.mark.parametrize(
    "parameter",
    [
        Hyperparameter("p", ("relu", "elu"), start="elu"),
        Hyperparameter("p", (False, True), start=False),
        Hyperparameter("p", low=2, high=8),
        Hyperparameter("p", low=2, high=8, step=3),
        Hyperparameter("p", low=2, high=8, log=True),
        Hyperparameter("p", low=0, high=0.5, step=0.25),
        Hyperparameter("p", low=1e-4, high=0.1, log=True),
    ],
    ids=str,
)
def test_a_suggestion_is_of_the_parameters_distribution(parameter: Hyperparameter) -> None:
    sampler = optuna.samplers.RandomSampler(seed=0)
    trial = optuna.create_study(sampler=sampler).ask()
    value = parameter.suggest(trial)
    assert trial.distributions == {"p": parameter.distribution}
    assert type(value) is type(parameter.options[0] if parameter.options else parameter.low)


def test_a_range_without_a_start_has_no_place_in_the_start() -> None:
    mine = space(Hyperparameter("k1", low=2, high=8), Hyperparameter("k2", low=2, high=8, start=5))
    assert mine.start == {"k2": 5}


def test_a_sweep_refuses_a_range() -> None:
    mine = space(Hyperparameter("k1", (3, 4), start=4), Hyperparameter("k2", low=2, high=8))
    with pytest.raises(SpaceError, match=r"hyperparameters\.k2: is a range, .* a start"):
        mine.require_options("a sweep")


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = numbers | st.booleans() | st.text()
options = st.one_of(
    *(
        st.lists(kind, min_size=1, max_size=4, unique=True)
        for kind in (numbers.map(float), st.integers(0, 99), st.booleans(), st.text())
    )
)
parameters = st.one_of(
    options.map(lambda given: {"options": given, "start": given[-1]}),
    st.fixed_dictionaries(
        {"low": st.integers(1, 9), "high": st.integers(10, 20) | st.floats(10, 20)},
        optional={"start": st.just(9), "log": st.booleans()},
    ),
)
names = st.text("abc_", min_size=1)


@given(
    st.dictionaries(names, parameters, min_size=1, max_size=4),
    st.dictionaries(names.map("fixed_".__add__), values, max_size=3),
    st.sampled_from([{"holdout": 0.25}, {"folds": 4}]),
)
def test_what_is_stored_comes_back_with_the_same_types(
    searched: dict[str, object], fixed: dict[str, object], validation: dict[str, object]
) -> None:
    table = {"name": "mine", "epochs": 2, "batch_size": 10, "repeats": 3, "seed": 0}
    table |= {"hyperparameters": searched, "fixed": fixed, "validation": validation}
    made = SearchSpace.from_dict(table)
    stored = made.to_dict()
    assert json.loads(json.dumps(stored)) == stored
    restored = SearchSpace.from_dict(json.loads(json.dumps(stored)))
    assert restored == made
    assert repr(restored) == repr(made)


# What it refuses


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3\n" + HEAD + K1, "epoch: unknown key; did you mean epochs? allowed: name, epo"),
        (
            k1("option = [3, 4]\nstart = 3"),
            "hyperparameters.k1.option: unknown key; did you mean options? allowed: options, low, ",
        ),
        (k1('name = "k2"'), "hyperparameters.k1.name: unknown key"),
        ("hyperparameters = 3\nepoch = 3\n" + HEAD, "epoch: unknown key; did you mean epochs?"),
        (
            HEAD + "validation = { kind = 'none' }\n" + K1,
            "validation.kind: unknown key; allowed: h",
        ),
        (HEAD + "validation = { seed = 3 }\n" + K1, "validation.seed: unknown key; allowed: hold"),
        (
            HEAD + "validation = { fold = 3 }\n" + K1,
            "validation.fold: unknown key; did you mean folds? allowed: holdout, folds",
        ),
        (HEAD + '"two\\nlines" = 1\n' + K1, '"two\\nlines": unknown key'),
    ],
)
def test_an_unknown_key_is_answered_with_the_known_ones(
    refused: Refused, text: str, said: str
) -> None:
    assert refused(text).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + K1 + "[hyperparameters.k1]\n", 'line 8: "[hyperparameters.k1]"'),
        (k1("start = 3\nstart = 4"), 'line 7: "start = 4"'),
        (HEAD + "epochs = 3", 'line 5: "epochs = 3"'),
        (
            HEAD + "validation = { folds = 2, folds = 3 }",
            'line 5: "validation = { folds = 2, folds = 3 }"',
        ),
        (HEAD + "validation = { folds = 2 }\n[validation]", 'line 6: "[validation]"'),
    ],
)
def test_a_duplicate_is_named(refused: Refused, text: str, said: str) -> None:
    assert refused(text) == f"{said} gives a key a second time; keep one of them"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("options = [3, 4, 7]\nstart = 5", "start: 5 is not among the options; allowed: 3, 4, 7"),
        ("options = [1, 2]\nstart = true", "start: true is not among the options; allowed: 1, 2"),
        ("options = [1, 2]\nstart = 1.0", "start: 1.0 is not among the options; allowed: 1, 2"),
        ("options = [1, 2]\nstart = '1'", 'start: "1" is not among the options; allowed: 1, 2'),
        (
            'options = ["8", "16"]\nstart = 8',
            'options: "8", "16" are texts, but start = 8 is not; write both with quotes or both wi',
        ),
        ('options = ["a", "b"]', 'start: is missing; allowed: "a", "b"'),
        ("options = [3, 4, 3]\nstart = 3", "options: 3 is listed twice; keep one of them"),
        ("options = [1, 1.0]\nstart = 1", "options: 1.0 is listed twice; keep one of them"),
        (
            "options = [1, true]\nstart = 1",
            "options: 1, true mix types; give a list of numbers, of texts or of true and false",
        ),
        ('options = [0.5, 1, "a"]\nstart = 1', 'options: 0.5, 1.0, "a" mix types; give a list of'),
        ("options = 3\nstart = 3", "options: 3 is not allowed; give a list of numbers, of texts"),
        ("options = [1979-05-27]\nstart = 3", 'options: "1979-05-27" is not allowed; give a list'),
        ("options = [nan]\nstart = nan", "options: NaN is not allowed; give a list of numbers"),
        ("options = [[3], [4]]\nstart = 3", "options: [3] is not allowed; give a list of numbers"),
        ("options = []\nstart = 3", "options: is missing or empty; give options and a start, or"),
        ("", "options: is missing or empty; give options and a start, or low and high"),
        (
            "options = [3, 4]\nstart = 3\nlow = 2",
            "low: does not go with options; give either options, or low and high",
        ),
        ("options = [3, 4]\nstart = 3\nlog = false", "log: does not go with options"),
        ("low = 3", "high: is missing; a range has low and high"),
        ("high = 3", "low: is missing; a range has low and high"),
        ("low = 5\nhigh = 5", "low: 5 is not allowed; give a number below high = 5"),
        ("low = true\nhigh = 5", "low: true is not allowed; give a number"),
        ("low = 3\nhigh = inf", "high: Infinity is not allowed; give a number"),
        ("low = 3\nhigh = 9223372036854775808", "high: 9223372036854775808 is not allowed; give"),
        ("low = 0\nhigh = 5\nlog = true", "low: 0 is not allowed with log = true; give a number"),
        ("low = 1\nhigh = 5\nlog = true\nstep = 2", "step: does not go with log = true; leave one"),
        ("low = 1\nhigh = 5\nlog = 1", "log: 1 is not allowed; give true or false"),
        ("low = 1\nhigh = 5\nstep = 0", "step: 0 is not allowed; give a number above 0"),
        ("low = 1\nhigh = 5\nstep = 3", "high: 5 is not low = 1 and a whole number of steps of 3"),
        ("low = 1\nhigh = 5\nstart = 6", "start: 6 is not allowed; give a whole number from 1 to"),
        ("low = 1\nhigh = 5\nstart = 1.5", "start: 1.5 is not allowed; give a whole number from"),
        ("low = 0.5\nhigh = 5\nstart = true", "start: true is not allowed; give a number from 0.5"),
        (
            "low = 1\nhigh = 5\nstep = 2\nstart = 2",
            "start: 2 is not allowed; give a whole number from 1 to 5 in steps of 2",
        ),
    ],
)
def test_a_mistaken_hyperparameter_is_refused(refused: Refused, text: str, said: str) -> None:
    assert refused(k1(text)).startswith(f"hyperparameters.k1.{said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "epochs: is missing; give a whole number of at least 1"),
        (K1 + HEAD, "hyperparameters.k1.name: unknown key"),
        (HEAD, "hyperparameters: is missing; give a [hyperparameters.NAME] table for each"),
        (HEAD + "[hyperparameters]", "hyperparameters: are missing; give [hyperparameters.NAME]"),
        (HEAD + "hyperparameters = 3", "hyperparameters: 3 is not allowed; give a [hyperparameter"),
        (HEAD + "[[hyperparameters]]", "hyperparameters: [{}] is not allowed; give a [hyperparam"),
        (
            HEAD + "[hyperparameters]\nk1 = [3, 4]",
            "hyperparameters.k1: [3, 4] is not allowed; give a table of options, low, high, log",
        ),
        (
            HEAD + '[hyperparameters."k 1"]\nlow = 1\nhigh = 2',
            'hyperparameters."k 1": is not a name',
        ),
        (
            HEAD + K1 + "[fixed]\nk1 = 3",
            "fixed.k1: is also in hyperparameters; keep one of them",
        ),
        (HEAD + K1 + "[fixed]\ndense = [3]", "fixed.dense: [3] is not allowed; give NAME = VALUE"),
        (HEAD + "fixed = 3\n" + K1, "fixed: 3 is not allowed; give NAME = VALUE"),
        (
            HEAD.replace("2", "0") + K1,
            "epochs: 0 is not allowed; give a whole number of at least 1",
        ),
        (HEAD.replace("2", "true") + K1, "epochs: true is not allowed; give a whole number of at"),
        (HEAD.replace("2", "2.0") + K1, "epochs: 2.0 is not allowed; give a whole number of at"),
        (HEAD.replace("2", '"2"') + K1, 'epochs: "2" is not allowed; give a whole number of at'),
        (HEAD.replace("10", "0") + K1, "batch_size: 0 is not allowed; give a whole number of at"),
        (HEAD.replace("3", "0") + K1, "repeats: 0 is not allowed; give a whole number from 1 to"),
        (HEAD.replace('"mine"', "3") + K1, "name: 3 is not allowed; give a text of one line"),
        (HEAD.replace("mine", "two\\nlines") + K1, 'name: "two\\nlines" is not allowed; give a te'),
        (HEAD.replace("mine", "m" * 600) + K1, f'name: "{"m" * 56}... is not allowed; give a text'),
        (HEAD + 'tie = "luck"\n' + K1, "tie: \"luck\" is not allowed; give 'cheapest' or 'best'"),
        (HEAD + "seed = -1\n" + K1, "seed: -1 is not allowed; give a whole number from 0 to 42949"),
        (HEAD + "sampler = 1\n" + K1, "sampler: 1 is not allowed; give the name of a sampler"),
    ],
)
def test_a_mistaken_setting_is_refused(refused: Refused, text: str, said: str) -> None:
    assert refused(text).startswith(said)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ("{ holdout = 0.0 }", ".holdout: 0.0 is not allowed; give a fraction above 0 and below 1"),
        ("{ holdout = 1 }", ".holdout: 1 is not allowed; give a fraction above 0 and below 1"),
        ("{ holdout = nan }", ".holdout: NaN is not allowed; give a fraction above 0 and below 1"),
        ("{ folds = 1 }", ".folds: 1 is not allowed; give a whole number of at least 2"),
        ("{ folds = 2.5 }", ".folds: 2.5 is not allowed; give a whole number of at least 2"),
        ("{ holdout = 0.1, folds = 3 }", ": give { holdout = FRACTION } or { folds = NUMBER }"),
        ("{}", ": give { holdout = FRACTION } or { folds = NUMBER }"),
        ("0.1", ": 0.1 is not allowed; give { holdout = FRACTION } or { folds = NUMBER }"),
    ],
)
def test_a_mistaken_validation_is_refused(refused: Refused, given_: str, said: str) -> None:
    assert refused(f"{HEAD}validation = {given_}\n{K1}") == f"validation{said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = \n", 'line 1: "epochs =" is not valid TOML: Invalid value'),
        ("a = 1\nb = 2 3", 'line 2: "b = 2 3" is not valid TOML: Expected newline or end of'),
        ("a = 1\nb = [1,", "not valid TOML: Invalid value (at end of document)"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer and not the file its"),
        (b"a = 1\nb = '\xff'", "line 2 is not UTF-8; save the file as UTF-8"),
        ("a = " + "9" * 5000, "not valid TOML: Exceeds the limit"),
        ("a = " + "[" * 5000, "not valid TOML: maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_toml_is_refused(refused: Refused, text: str | bytes, said: str) -> None:
    assert refused(text).startswith(said)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(SpaceError) as caught:
        load(path)
    said = "no such file; give a TOML file, or one of digits, mnist, modern, smoke"
    assert str(caught.value) == f"{path}: {said}"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError) as caught:
        load(tmp_path)
    said = "is a directory; give a TOML file that can be read"
    assert str(caught.value) == f"{tmp_path}: {said}"


def test_an_unknown_name_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(SpaceError) as caught:
        load("mnits")
    assert str(caught.value) == (
        '"mnits": no such search space; did you mean mnist? allowed: digits, mnist, modern, smoke, '
        "or give the path of a .toml file"
    )


def test_a_stored_space_is_held_to_the_same_rules() -> None:
    stored = load("smoke").to_dict() | {"epochs": 0}
    with pytest.raises(SpaceError, match="the study's space: epochs: 0 is not allowed"):
        SearchSpace.from_dict(stored, "the study's space")


def test_a_stored_space_that_is_no_table_is_refused() -> None:
    with pytest.raises(SpaceError, match="search space: contents: 3 is not allowed; give a table"):
        SearchSpace.from_dict(3)  # type: ignore[arg-type]


def test_reading_a_space_imports_nothing_heavy() -> None:
    code = (
        "import sys; from study.space.file import load; load('mnist');"
        "print({'tensorflow', 'keras', 'mlflow', 'optuna', 'distributed'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
