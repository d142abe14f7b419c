"""What is maximized or minimized is the user's choice: how it compares, and how it is written."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import test_training as base
from PIL import Image
from typer.testing import CliRunner

from study.cli.app import app
from study.data.dataset import Dataset, load, split
from study.data.reading import ImageOptions
from study.errors import DataError, SettingsError, SpaceError
from study.plan.strategies import completed, plan_of
from study.running.prepare import prepare
from study.space.metric import ACCURACY, BALANCED, Metric
from study.space.search_space import SearchSpace, Validation
from study.space.settings import Setting, resolve
from study.storage.database import load as stored
from study.storage.location import Database
from study.training.train import train
from study.tuning.one_at_a_time import OneAtATimeSampler

LOSS = Metric("val_loss", "minimize")
SKEWED = Metric(BALANCED)
TABLE: dict[str, Any] = {
    "name": "metric",
    "data": "digits",
    "epochs": 2,
    "batch_size": 50,
    "repeats": 2,
    "hyperparameters": {"filters": {"options": [4, 8], "start": 4}},
}


def space(**changes: Any) -> SearchSpace:
    return SearchSpace.from_dict(TABLE | changes)


def settled(sampler: str = "sweep", **changes: Any):
    given = {"sampler": Setting(sampler, "command line")}
    return completed(resolve(space(**changes), "metric.toml", given))


def test_accuracy_is_maximized_where_nothing_else_is_said() -> None:
    assert space().metric == ACCURACY
    assert space(metric=BALANCED).metric == SKEWED


def test_the_best_of_what_is_minimized_is_the_first_of_the_least() -> None:
    assert LOSS.best([0.5, 0.2, 0.2, 0.9]) == 1
    assert LOSS.best([math.nan, 0.7, 0.9]) == 1
    assert ACCURACY.best([0.5, 0.9, 0.9, math.nan]) == 1


@pytest.mark.parametrize(
    ("metric", "shown", "uncertain"),
    [
        (ACCURACY, "41.91 %", "41.91 ± 2.46"),
        (SKEWED, "41.91 %", "41.91 ± 2.46"),
        (LOSS, "0.4191", "0.419 ± 0.025"),
    ],
)
def test_only_an_accuracy_is_written_in_per_cent(
    metric: Metric, shown: str, uncertain: str
) -> None:
    assert metric.text(0.41912) == shown
    assert metric.uncertain(0.41912, 0.02455) == uncertain


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (12345.6, 321.0, "12346 ± 321"),
        (0.00123456, 0.0000123, "0.001235 ± 0.000012"),
        (3.0, 0.0, "3 ± 0"),
        (3.0, None, "3"),
        (1e-9, 1e-10, "1e-09 ± 1e-10"),
    ],
)
def test_a_plain_number_has_as_many_digits_as_its_error_allows(
    value: float, error: float, shown: str
) -> None:
    assert LOSS.uncertain(value, error) == shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "val_loss"}, "direction: is missing; val_loss needs 'maximize' or 'minimize'"),
        ({"metric": "val_inaccuracy"}, "direction: is missing; val_inaccuracy needs 'maximize'"),
        ({"metric": "accuracy"}, 'metric: "accuracy" is not allowed; give the name of a metric of'),
        (
            {"direction": "down"},
            "direction: \"down\" is not allowed; give 'maximize' or 'minimize'",
        ),
    ],
)
def test_a_metric_without_a_meaning_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpaceError) as wrong:
        space(**changes)
    assert said in str(wrong.value)


def test_a_metric_that_the_network_does_not_log_names_those_that_it_does(tmp_path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        'name = "wrong"\nepochs = 1\nbatch_size = 50\nrepeats = 1\nmetric = "val_top_accuracy"\n'
        "[hyperparameters.filters]\noptions = [4, 8]\nstart = 4\n"
    )
    database = Database.at(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(SpaceError, match=r"is not logged by the network; did you mean val_"):
        prepare(str(file), None, database, {})
    assert not database.exists


def test_a_run_is_pruned_by_chance_of_images_only_where_an_accuracy_has_it() -> None:
    assert settled()["pruner"] == "sweep"
    assert settled(metric=BALANCED)["pruner"] == "sweep"
    assert settled(metric="val_loss", direction="minimize")["pruner"] == "none"
    with pytest.raises(SettingsError, match="knows how far accuracies differ by chance"):
        plan_of(settled(metric="val_loss", direction="minimize", pruner="sweep"))


@pytest.mark.parametrize("sampler", ["sweep", "grid", "random", "tpe"])
def test_a_plan_compares_by_the_metric_of_its_space(sampler: str) -> None:
    plan = plan_of(settled(sampler, metric="val_loss", direction="minimize"))
    assert plan.metric == LOSS
    assert plan.state([]).metric == LOSS


def test_a_study_of_another_direction_than_its_space_is_refused() -> None:
    sampler = OneAtATimeSampler(space(metric="val_loss", direction="minimize"))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.raises(SettingsError, match="the space is to minimize val_loss: create the study"):
        study.ask()


def skewed() -> Dataset:
    """All images of the first class, and few of the others."""
    labels = base.DATA.labels
    chosen = np.flatnonzero((labels == 0) | (np.arange(len(labels)) % 4 == 0))
    return replace(base.DATA, images=base.DATA.images[chosen], labels=labels[chosen])


@pytest.mark.tensorflow
@pytest.mark.parametrize("training", ["fast", "stock"])
def test_balanced_accuracy_is_the_mean_of_the_recalls_of_classes(
    training: str, tmp_path: Path
) -> None:
    import keras
    from sklearn.metrics import balanced_accuracy_score

    data = skewed()
    run = replace(base.RUN, training=training, metric=SKEWED, epochs=2)
    epochs, saved = base.finish(train(run, data))
    part = split(data.labels, run.validation, run.seed, run.repeat).validation
    (tmp_path / "model.keras").write_bytes(saved)
    said = keras.models.load_model(tmp_path / "model.keras").predict(data.images[part], verbose=0)
    wanted = balanced_accuracy_score(data.labels[part], said.argmax(1))
    assert epochs[-1].logs()[BALANCED] == pytest.approx(wanted)
    assert wanted != pytest.approx(epochs[-1].val_accuracy)


@pytest.mark.tensorflow
def test_the_metric_decides_whose_weights_are_kept(tmp_path: Path) -> None:
    params = (*base.RUN.params, ("restore_best_weights", True))
    ends = []
    for direction in ("maximize", "minimize"):
        metric = Metric("val_loss", direction)
        epochs, saved = base.finish(
            train(replace(base.RUN, params=params, metric=metric), base.DATA)
        )
        ends.append((base.bits(epochs), base.weights(saved, tmp_path)))
    (worst, of_worst), (best, of_best) = ends
    assert worst == best  # the same training
    assert any((a != b).any() for a, b in zip(of_worst, of_best, strict=True))


def run_in(folder: Path, text: str, *more: str) -> Any:
    """The command `run` on a space of this text in a folder; what it gave."""
    (folder / "space.toml").write_text(text)
    words = ["run", str(folder / "space.toml"), "--jobs", "1", "--mlflow", "none", *more]
    return CliRunner().invoke(app, [*words, "--storage", f"sqlite:///{folder}/study.db"])


NUMBERS = """
name = "size"
data = "{data}"
task = "regression"
model = "net.py:build"
metric = "val_mae"
direction = "minimize"
epochs = 8
batch_size = 10
repeats = 2
hyperparameters.width = {{ options = [1, 8], start = 1 }}
"""
NETWORK = """
import keras
from keras import layers

def build(params, input_shape, num_classes):
    assert num_classes == 1
    return keras.Sequential([
        layers.Input(input_shape), layers.Flatten(), layers.Dense(params["width"], "relu"),
        layers.Dense(1),
    ])
"""


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    """A folder with images of squares whose label is the side, and a network for them."""
    rng = np.random.default_rng(0)
    side = rng.integers(1, 8, 240)
    images = np.zeros((240, 8, 8), np.uint8)
    for image, size in zip(images, side, strict=True):
        image[:size, :size] = 255
    np.savez(tmp_path / "sizes.npz", x_train=images, y_train=side + 0.5)
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


@pytest.mark.tensorflow
def test_a_regression_is_searched_finalized_and_predicts_numbers(sizes: Path) -> None:
    storage = ["--storage", f"sqlite:///{sizes}/study.db"]
    done = run_in(sizes, NUMBERS.format(data=sizes / "sizes.npz"))
    assert done.exit_code == 0, done.output
    assert "labels are numbers" in done.output
    assert re.search(r"Use width=\d: validation mae [\d.]+ ± [\d.]+ on 3 fresh", done.output)
    answer = json.loads(CliRunner().invoke(app, ["best", "--json", *storage]).stdout)
    assert (answer["metric"], answer["direction"]) == ("val_mae", "minimize")
    page = (sizes / "size-report" / "report.html").read_text()
    assert "validation mae (less is better)" in page
    assert " points" not in page

    words = ["finalize", "--members", "2", "--jobs", "1", "--mlflow", "none", *storage]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    assert "mae" in made.output
    image = sizes / "four.png"
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), (0, 4))).save(image)
    model = sizes / "size-models" / "average-of-2.keras"
    said = CliRunner().invoke(app, ["predict", str(model), str(image), "--json"])
    assert 0 < json.loads(said.stdout)[0]["label"] < 20
    refused = CliRunner().invoke(app, ["gallery", *storage])
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({'task = "regression"\n': ""}, 'whole numbers, or give a space task = "regression"'),
        ({'model = "net.py:build"\n': ""}, "give a model of your own for numbers"),
        (
            {"repeats = 2": 'repeats = 2\nfixed.class_weight = "balanced"'},
            "weighs classes, and the",
        ),
    ],
)
def test_what_does_not_fit_numbers_is_said_before_anything_is_made(
    sizes: Path, change: dict[str, str], said: str
) -> None:
    text = NUMBERS.format(data=sizes / "sizes.npz")
    for old, new in change.items():
        text = text.replace(old, new)
    done = run_in(sizes, text)
    assert done.exit_code == 2
    assert said in done.output
    assert not (sizes / "study.db").exists()


def test_numbers_of_listed_pictures_are_their_labels_and_split_in_tenths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(100):
        Image.fromarray(rng.integers(0, 255, (6, 6), np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number / 4}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    found = load(str(tmp_path / "list.csv"), ImageOptions(regression=True))
    assert found.regression
    assert sorted([*found.labels, *found.test_labels]) == [number / 4 for number in range(100)]
    part = split(found.labels, Validation("holdout", 0.25), 1, 0).validation
    assert abs(found.labels[part].mean() - found.labels.mean()) < 1
    with pytest.raises(
        DataError, match=r'class, [\d.]+, has 1; .* give a space task = "regression"'
    ):
        load(str(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("\n".join([*lines, "1.png,large"]))
    with pytest.raises(DataError, match="its label large is not a number"):
        load(str(tmp_path / "list.csv"), ImageOptions(regression=True))


SKEW = """
name = "skew"
data = "{data}"
metric = "val_balanced_accuracy"
epochs = 1
batch_size = 20
repeats = 2
pruner = "none"
hyperparameters.filters = {{ options = [1, 2], start = 1 }}
"""


@pytest.mark.tensorflow
def test_a_study_of_skewed_classes_is_judged_by_all_of_them_alike(tmp_path: Path) -> None:
    data, rare = base.DATA, np.flatnonzero(base.DATA.labels == 2)[20:]
    images, labels = (np.delete(part, rare, axis=0) for part in (data.images, data.labels))
    np.savez(tmp_path / "skew.npz", x_train=images, y_train=labels)
    done = run_in(tmp_path, SKEW.format(data=tmp_path / "skew.npz"), "--confirm", "0")
    assert done.exit_code == 0, done.output
    assert re.search(r"validation balanced accuracy [\d.]+ ± [\d.]+ %", done.output)
    study, settings = stored(Database.at(f"sqlite:///{tmp_path}/study.db").open())
    assert settings.images is not None
    assert settings.data is not None
    assert 0 < settings.images < settings.data.validation  # rare classes make it less sure
    trial = study.trials[0]
    reported = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    assert trial.value == pytest.approx(np.mean(reported[-3:]))
