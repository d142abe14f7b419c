"""What a study compares by is measured of its final models too, as Keras would evaluate it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_own_model as own
import test_training as base
from test_metric import run_in
from typer.testing import CliRunner

from study.cli.app import app
from study.data.dataset import Dataset
from study.space.metric import BALANCED, Metric

pytestmark = pytest.mark.tensorflow

COMPILED = """
def build(params, input_shape, num_classes):
    model = keras.Sequential([
        layers.Input(input_shape), layers.Flatten(), layers.Dense(num_classes{activation})])
    params["width"], params["rate"]
    model.compile("adam", {loss}, metrics=["accuracy", {metric}])
    return model
"""
TOP = 'keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")'
F1 = 'keras.metrics.F1Score(average="macro", name="f1")'
SPARSE = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
BY_ITSELF = """
class Net(keras.Sequential):
    def __init__(self, *given):
        super().__init__(*given)
        self.top2 = keras.metrics.Mean(name="top2")

    def test_step(self, data):
        self.top2.update_state(0.5)
        return super().test_step(data)

def build(params, input_shape, num_classes):
    params["width"], params["rate"]
    model = Net([layers.Input(input_shape), layers.Flatten(), layers.Dense(num_classes)])
    return compiled(model, params)
"""


def text(loss: str, metric: str, activation: str = "") -> str:
    return COMPILED.format(loss=loss, metric=metric, activation=activation)


def judged(
    source: str, name: str, members: int = 1, data: Dataset = base.DATA
) -> tuple[Any, list[Any]]:
    """What the judge says of some members together, and the members, compiled."""
    from study.final.judge import Judge
    from study.training.custom_model import build

    run = replace(own.run_of(source), metric=Metric(f"val_{name}", "maximize"))
    given = own.source(source), own.PARAMS, (12, 12, 1), data.num_classes
    built = [build(*given, seed, run.metric)[0] for seed in range(members)]
    (value,) = Judge(run, data).values([built], data.images, data.labels)
    return value, built


@pytest.mark.parametrize(
    ("source", "name", "one_hot"),
    [
        (text(SPARSE, TOP), "loss", False),
        (text(SPARSE, TOP), "top2", False),
        (text('"categorical_crossentropy"', F1, ', activation="softmax"'), "f1", True),
        (text('"categorical_crossentropy"', F1, ', activation="softmax"'), "loss", True),
        (text('"binary_crossentropy"', F1, ', activation="sigmoid"'), "loss", True),
    ],
)
def test_the_metric_of_a_member_is_what_keras_evaluates(
    source: str, name: str, one_hot: bool
) -> None:
    value, (member,) = judged(source, name)
    labels = np.eye(3, dtype=np.float32)[base.DATA.labels] if one_hot else base.DATA.labels
    wanted = member.evaluate(base.DATA.images, labels, batch_size=230, verbose=0, return_dict=True)
    assert value == pytest.approx(wanted[name], rel=1e-5)


def test_the_loss_of_an_average_of_logits_is_that_of_the_mean_probabilities() -> None:
    import keras

    value, members = judged(text(SPARSE, TOP), "loss", members=2)
    shares = [np.array(keras.ops.softmax(one(base.DATA.images))) for one in members]
    right = np.mean(shares, axis=0)[np.arange(230), base.DATA.labels]
    assert value == pytest.approx(-np.log(right).mean(), rel=1e-5)


def test_balanced_accuracy_is_the_mean_of_the_recalls_of_classes() -> None:
    from sklearn.metrics import balanced_accuracy_score

    value, (member,) = judged(own.SEQUENTIAL, BALANCED.removeprefix("val_"))
    said = np.array(member(base.DATA.images)).argmax(1)
    assert value == pytest.approx(balanced_accuracy_score(base.DATA.labels, said))


def test_a_metric_that_code_of_the_network_computes_is_not_guessed() -> None:
    assert judged(BY_ITSELF, "top2")[0] is None


def test_the_loss_of_numbers_is_that_of_the_mean_of_members() -> None:
    squared = text('"mse"', '"mae"').replace('metrics=["accuracy", ', "metrics=[")
    numbers = replace(base.DATA, labels=base.DATA.labels.astype(np.float32), label_names=())
    value, members = judged(squared, "loss", members=2, data=numbers)
    said = np.mean([np.array(one(base.DATA.images))[:, 0] for one in members], axis=0)
    assert value == pytest.approx(np.mean((said - numbers.labels) ** 2), rel=1e-4)


TOPS = """
name = "tops"
data = "{data}"
model = "net.py:build"
metric = "val_top2"
direction = "maximize"
epochs = 1
batch_size = 20
repeats = 2
hyperparameters.width = {{ options = [1, 8], start = 1 }}
fixed.rate = 0.01
"""


def test_final_models_are_measured_by_the_metric_of_their_study_and_all_name_it(
    tmp_path: Path,
) -> None:
    data = base.DATA
    np.savez(tmp_path / "tops.npz", x_train=data.images, y_train=data.labels)
    (tmp_path / "net.py").write_text(own.HEAD + text(SPARSE, TOP))
    done = run_in(tmp_path, TOPS.format(data=tmp_path / "tops.npz"), "--confirm", "0")
    assert done.exit_code == 0, done.output
    storage = ["--storage", f"sqlite:///{tmp_path}/study.db"]
    words = ["finalize", "--members", "2", "--jobs", "1", "--holdout", "0.2", *storage]
    store = f"sqlite:///{tmp_path}/mlflow.db"
    made = CliRunner().invoke(app, [*words, "--json", "--mlflow", store])
    assert made.exit_code == 0, made.output
    models = json.loads(made.stdout)["models"]
    assert [model["model"] for model in models][-1] == "average of 2"
    for model in models:
        kept = model["metric"]
        assert (kept["name"], kept["direction"]) == ("top2", "maximize")
        assert kept["value"] >= model["accuracy"]
        assert kept["validation"] >= model["validation"]
    shown = f", top2 {models[-1]['metric']['value']:.4g}"
    again = CliRunner().invoke(app, [*words, "--mlflow", "none"], env={"COLUMNS": "200"})
    assert shown in again.output
    assert shown in CliRunner().invoke(app, ["gallery", *storage]).output
    assert shown in (tmp_path / "tops-report" / "report.html").read_text()
    assert "test_top2" in metrics_in(tmp_path / "mlflow.db")


def metrics_in(store: Path) -> set[str]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(store)) as opened:
        return {name for (name,) in opened.execute("SELECT DISTINCT key FROM metrics")}
