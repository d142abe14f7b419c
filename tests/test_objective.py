"""The objective in plain Optuna code, and the callback in a plain `model.fit`."""

import textwrap
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import tomlkit
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, Trial, TrialState

import study.tuning.objective
from study.data.dataset import Dataset
from study.errors import SettingsError, SpaceError, TrainingFailed
from study.plan.sweep import OneAtATime
from study.space.metric import ACCURACY
from study.space.search_space import SearchSpace, Validation
from study.space.settings import Setting, resolve
from study.storage.ledger import summary
from study.storage.trials import StoredTrials
from study.tuning.objective import Objective
from study.tuning.one_at_a_time import OneAtATimeSampler
from study.tuning.pruning import Margin, SweepPruner
from study.tuning.sampler import run_spec

pytestmark = pytest.mark.tensorflow

EPOCHS = 3


def stripes(count: int = 90, side: int = 10) -> Dataset:
    """Three classes that differ in which rows are bright."""
    rng = np.random.default_rng(3)
    labels = (np.arange(count) % 3).astype(np.int32)
    images = np.zeros((count, side, side, 1), np.float32)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 3] = rng.random((3, side, 1), np.float32)
    return Dataset("stripes", images, labels, images[:9], labels[:9], (0, 1, 2), "stripes")


DATA = stripes()


def space_of(**hyperparameters: Any) -> SearchSpace:
    table = {
        "name": "tiny",
        "epochs": EPOCHS,
        "batch_size": 10,
        "repeats": 1,
        "validation": {"folds": 3},
        "hyperparameters": hyperparameters or {"dense": {"options": [4, 8], "start": 4}},
        "fixed": {"filters": 2, "k1": 3, "k2": 3, "learning_rate": 0.02},
    }
    return SearchSpace.from_dict(table)


TINY = space_of()


class At(BasePruner):
    """Stops every run that may be stopped at this epoch, or raises what Ctrl-C raises."""

    def __init__(self, epoch: int, error: type[BaseException] | None = None) -> None:
        self.epoch = epoch
        self.error = error

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        reached = trial.last_step == self.epoch
        if reached and self.error is not None:
            raise self.error
        return reached and run_spec(trial).reference is not None


def sweep_of(pruner: BasePruner | None = None, space: SearchSpace = TINY) -> optuna.Study:
    return optuna.create_study(
        direction="maximize", sampler=OneAtATimeSampler(space), pruner=pruner or NopPruner()
    )


@pytest.fixture(scope="module")
def swept() -> optuna.Study:
    """A sweep of two options that nothing disturbs."""
    found = sweep_of()
    found.optimize(Objective(TINY, DATA))
    return found


def test_the_value_is_the_mean_of_the_last_three_epochs(swept: optuna.Study) -> None:
    assert [trial.state for trial in swept.trials] == [TrialState.COMPLETE] * 2
    for trial in swept.trials:
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == pytest.approx(fmean([*trial.intermediate_values.values()][-3:]))
        assert 0 < trial.value <= 1


def test_every_epoch_and_the_best_one_are_attributes(swept: optuna.Study) -> None:
    for trial in swept.trials:
        curve = trial.user_attrs["curve"]
        assert set(curve) == {"accuracy", "loss", "val_loss", "seconds", "ended"}
        assert {len(series) for series in curve.values()} == {EPOCHS}
        reported = list(trial.intermediate_values.values())
        assert trial.user_attrs["best_val_accuracy"] == max(reported)
        assert reported[trial.user_attrs["best_epoch"] - 1] == max(reported)
        assert trial.user_attrs["seconds"] == pytest.approx(sum(curve["seconds"]), abs=1e-3)


def test_a_run_has_the_same_bits_in_any_study(swept: optuna.Study) -> None:
    again = optuna.create_study(direction="maximize")
    again.enqueue_trial({"dense": 8})
    again.optimize(Objective(TINY, DATA), n_trials=1)  # no plan: the first repeat
    assert again.trials[0].values == swept.trials[1].values
    assert again.trials[0].intermediate_values == swept.trials[1].intermediate_values


OWN = """
import keras

def build(params, input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Flatten(),
        keras.layers.Dense(params["units"], "relu"),
        keras.layers.Dense(num_classes),
    ])
"""


def test_a_network_of_ones_own_is_a_function_or_named_by_the_file_of_a_space(
    tmp_path: Path,
) -> None:
    table = space_of(units={"options": [4, 8], "start": 4}).to_dict() | {"fixed": {}}
    (tmp_path / "net.py").write_text(OWN)
    path = tmp_path / "own.toml"
    path.write_text(tomlkit.dumps(table | {"model": "net.py:build"}))
    defined: dict[str, Any] = {}
    exec(OWN, defined)
    ways = (
        Objective(path, DATA),
        Objective(SearchSpace.from_dict(table), DATA, model=defined["build"]),
    )
    studies = [sweep_of(space=way.space) for way in ways]
    for way, found in zip(ways, studies, strict=True):
        found.optimize(way)
    values = [[trial.intermediate_values for trial in found.trials] for found in studies]
    assert values[0] == values[1]
    assert len(values[0]) == 2
    with pytest.raises(
        SpaceError, match=r"^model: the path of net.py:build counts from the file of"
    ):
        Objective(ways[0].space, DATA)


def test_a_function_of_ones_own_that_fails_says_where() -> None:
    def build(params: Any, input_shape: Any, num_classes: int) -> None:
        raise ValueError(f"too wide: {params['dense']}")

    found = sweep_of()
    with pytest.raises(
        SpaceError, match=r"^test_objective.py:build: line \d+: ValueError: too wide: 4$"
    ):
        found.optimize(Objective(TINY, DATA, model=build), n_trials=1)


def test_a_hyperparameter_that_a_function_of_ones_own_never_reads_is_named() -> None:
    defined: dict[str, Any] = {}
    exec(OWN, defined)
    axes = {name: {"options": [4, 8], "start": 4} for name in ("units", "depth")}
    space = replace(space_of(**axes), fixed={})
    found = sweep_of(space=space)
    with pytest.raises(
        SpaceError, match=r"^.*:build does not read 'depth': let it, or take it out"
    ):
        found.optimize(Objective(space, DATA, model=defined["build"]))
    assert [trial.intermediate_values for trial in found.trials] == [{}]  # nothing was trained


def test_what_only_another_option_has_the_function_read_is_read() -> None:
    defined: dict[str, Any] = {}
    exec(OWN.replace('params["units"]', 'params["units"] if params["wide"] else 4'), defined)
    axes = {"wide": {"options": [False, True], "start": False}}
    space = space_of(**axes, units={"options": [4, 8], "start": 4})
    objective = Objective(replace(space, fixed={}), DATA, model=defined["build"])
    found = sweep_of(space=objective.space)
    found.optimize(objective, n_trials=1)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"]


def test_runs_of_a_study_keep_to_the_kind_of_device_of_those_that_have_begun() -> None:
    found = sweep_of(space=replace(TINY, repeats=3))
    found.optimize(Objective(TINY, DATA), n_trials=1)
    with pytest.raises(SettingsError, match=r"^device='gpu': this study began on another kind"):
        found.optimize(Objective(TINY, DATA, device="gpu"), n_trials=1)
    found.optimize(Objective(TINY, DATA), n_trials=1)  # the refused one is none that has begun


def test_the_first_of_the_queue_keeps_to_the_device_of_a_later_trial_that_has_begun() -> None:
    found = optuna.create_study(direction="maximize")
    found.enqueue_trial({"dense": 4})
    found.add_trial(optuna.create_trial(value=0.5, user_attrs={"device": "gpu"}))
    with pytest.raises(SettingsError, match=r"^device='cpu'"):
        Objective(TINY, DATA)(found.ask())


def test_repeats_and_seeds_differ() -> None:
    found = sweep_of(space=replace(TINY, repeats=2))
    found.optimize(Objective(TINY, DATA), n_trials=2)
    found.sampler = optuna.samplers.RandomSampler()
    found.enqueue_trial({"dense": 4})
    found.optimize(Objective(TINY, DATA, seed=2), n_trials=1)
    losses = [trial.user_attrs["curve"]["loss"] for trial in found.trials]
    assert losses[0] != losses[1]
    assert losses[0] != losses[2]


def test_a_pruned_run_ends_at_once_and_keeps_its_curve() -> None:
    found = sweep_of(At(2))
    found.optimize(Objective(TINY, DATA))
    complete, pruned = found.trials
    assert (complete.state, pruned.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert list(pruned.intermediate_values) == [1, 2]
    assert len(pruned.user_attrs["curve"]["val_loss"]) == 2
    plan_state = OneAtATime(TINY).state(StoredTrials()(found))
    assert plan_state.complete
    assert plan_state.incumbent == plan_state.stages[0].options[0].configuration


def test_a_run_that_diverges_eliminates_its_option_and_says_why() -> None:
    space = space_of(dropout={"options": [0.1, 0.2], "start": 0.1})
    space = replace(space, fixed={**space.fixed, "learning_rate": 1e30})
    found = sweep_of(space=space)
    found.optimize(Objective(space, DATA), catch=(TrainingFailed,))
    failures = [row.failure for row in StoredTrials()(found)]
    assert len(failures) == 2  # one of each option
    assert all(failure and "is NaN in epoch" in failure for failure in failures)


def test_an_interruption_is_no_failure(swept: optuna.Study) -> None:
    found = sweep_of()
    for _ in range(4):
        found.pruner = At(1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            found.optimize(Objective(TINY, DATA))
    found.pruner = NopPruner()
    found.optimize(Objective(TINY, DATA))
    complete = found.get_trials(states=(TrialState.COMPLETE,))
    assert [trial.value for trial in complete] == [trial.value for trial in swept.trials]


def test_the_validation_is_the_spaces_unless_it_is_given() -> None:
    held = Validation("holdout", fraction=0.5)
    assert Objective(TINY, DATA).validation == Validation("folds", folds=3)
    assert Objective(TINY, DATA, validation=held).validation == held


def test_seed_and_validation_are_those_of_the_command_line_for_the_same_space_and_data() -> None:
    for source in ("digits", "my.npz"):
        for space in (TINY, replace(TINY, validation=None, seed=7), replace(TINY, data="my.npz")):
            settings = resolve(space, "my.toml", {"data": Setting(source, "command line")})
            objective = Objective(space, replace(DATA, source=source))
            assert (objective.validation, objective.seed) == (settings.validation, settings["seed"])


def test_the_example_of_the_documentation_runs() -> None:
    documentation = study.tuning.objective.__doc__ or ""
    example = textwrap.dedent(documentation.partition("::\n")[2])
    assert "study.Objective(space, data)" in example
    offered = SimpleNamespace(
        load_space=lambda name: TINY,
        load_data=lambda name: DATA,
        OneAtATimeSampler=OneAtATimeSampler,
        SweepPruner=SweepPruner,
        Objective=Objective,
    )
    names: dict[str, Any] = {"study": offered, "optuna": optuna}
    exec(example, names)
    assert OneAtATime(TINY).state(StoredTrials()(names["optuna_study"])).complete


def test_the_best_epoch_is_the_first_of_equals() -> None:
    curve = {"val_accuracy": [0.5, 0.9, 0.9], "seconds": [0.25] * 3}
    expected = {"best_epoch": 2, "best_val_accuracy": 0.9, "seconds": 0.75}
    assert summary(curve, ACCURACY) == expected


def fit(trial: Trial, epochs: int, *, validated: bool = True) -> tuple[Any, list[str]]:
    """A plain Keras training with the callback; what it and another callback saw."""
    import keras

    from study.tuning.callback import ReportAndPrune

    seen: list[str] = []

    class Other(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            seen.append(f"epoch {epoch}")

        def on_train_end(self, logs: object = None) -> None:
            seen.append("end")

    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    callback = ReportAndPrune(trial)
    data = (DATA.images, DATA.labels)
    model.fit(
        *data,
        epochs=epochs,
        batch_size=90,
        verbose=0,
        validation_data=data if validated else None,
        callbacks=[callback, Other()],
    )
    return callback, seen


def test_the_callback_reports_each_epoch_of_a_plain_fit_from_one() -> None:
    trial = sweep_of().ask()
    callback, seen = fit(trial, 2)
    assert seen == ["epoch 0", "epoch 1", "end"]
    assert not callback.pruned
    assert list(trial.study.trials[0].intermediate_values) == [1, 2]


def test_the_callback_stops_a_plain_fit_and_lets_other_callbacks_end() -> None:
    found = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=2)
    )
    callback, seen = fit(found.ask(), 5)
    assert callback.pruned
    assert seen == ["epoch 0", "end"]


def test_the_callback_needs_validation_data() -> None:
    with pytest.raises(KeyError, match="val_accuracy is not measured"):
        fit(sweep_of().ask(), 1, validated=False)


def test_the_sweep_pruner_stops_a_real_run_that_is_behind() -> None:
    """A learning rate at which nothing is learnt, against one at which everything is."""
    space = space_of(dropout={"options": [0.0, 0.95], "start": 0.0})
    space = replace(space, epochs=8, fixed={**space.fixed, "dense": 16})
    found = sweep_of(SweepPruner(margin=Margin(warmup=4, window=2, least=0.05)), space)
    found.optimize(Objective(space, DATA))
    assert found.trials[0].value == pytest.approx(1.0, abs=0.1)
    assert found.trials[1].state == TrialState.PRUNED
    assert 4 <= len(found.trials[1].intermediate_values) < 8
