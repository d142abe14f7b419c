"""Runs that are trained in groups, with JAX on the processor, are the runs that Keras trains."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pytest
import test_device
from test_training import RUN, blobs

from study.running.driver import Observers
from study.running.launch import ExecutionOptions, launch
from study.space.model_source import ModelSource
from study.storage import database as storage
from study.storage.location import DEFAULT, Database
from study.storage.trials import StoredTrials
from study.training.checkpoint import Checkpoint, FolderCheckpoints
from study.training.recipe import Recipe
from study.training.run import Epoch, Run
from study.training.train import train
from study.workers.devices import CPU
from study.workers.engine import EpochReported, RunFailed, RunFinished
from study.workers.jax.engine import jax_engine

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(600)]  # XLA compiles

DATA = blobs(count=234)  # of which each fold has as many
SMALL = replace(RUN, epochs=3, batch_size=50, training="grouped")
MODERN = {
    "blocks": 2,
    "strided": True,
    "batch_norm": True,
    "schedule": "one_cycle",
    "label_smoothing": 0.1,
    "restore_best_weights": True,
}
OWN = """
import keras
from keras import layers

def build(params, input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(params["filters"], 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, layers.Conv2D(params["filters"], 1)(inputs)])
    x = layers.GaussianNoise(0.1)(layers.Dropout(params["dropout"])(x))
    outputs = layers.Dense(num_classes, activation="softmax")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@pytest.fixture(scope="module", autouse=True)
def _quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled is kept from one test to the next, and not optimized."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
        yield


def having(run: Run = SMALL, **params: Any) -> Run:
    return replace(run, params=tuple({**dict(run.params), **params}.items()))


class Ends:
    """What became of the runs on an engine: epochs, models and reasons, in the runs' order."""

    def __init__(self, runs: Sequence[Run], folder: Path, epochs: int | None = None) -> None:
        self.epochs: list[list[Epoch]] = [[] for _ in runs]
        self.models: dict[int, bytes | None] = {}
        self.reasons: dict[int, str] = {}
        store = FolderCheckpoints(folder)
        seen = 0
        with closing(jax_engine(DATA, 16, store, "cpu")) as engine:
            for key, run in enumerate(runs):
                engine.submit(key, run)
            while len(self.models) + len(self.reasons) < len(runs) and seen != epochs:
                match engine.next_event():
                    case EpochReported(key=key, epoch=epoch):
                        self.epochs[key].append(epoch)
                        seen += 1
                    case RunFinished(key=key, model=model):
                        self.models[key] = model
                    case RunFailed(key=key, reason=reason):
                        self.reasons[key] = reason

    @property
    def curves(self) -> list[list[tuple[float, ...]]]:
        return [[astuple(epoch)[1:5] for epoch in epochs] for epochs in self.epochs]


def test_an_epoch_is_that_of_keras_alone(tmp_path: Path) -> None:
    """From the same weights, without dropout, in the same order."""
    from study.training import trainer

    plain = having(dropout=0.0)
    modern = having(plain, **MODERN)
    other = having(plain, optimizer="sgd", momentum=0.9, weight_decay=0.01, patience=1)
    other = replace(having(other, activation="tanh", batch_size=25), batch_size=25)
    runs = [replace(run, until=1) for run in (plain, replace(plain, repeat=2), modern, other)]
    store = FolderCheckpoints(tmp_path)
    expected = []
    for run in runs:
        stock = replace(run, training="stock")
        program = trainer._program(stock, DATA)
        program.reset(stock.initial_seed)
        for one in (run, stock):
            store.save(Checkpoint(one.key, (), program.state()))
        expected.append(list(train(stock, DATA, checkpoints=store)))
    found = Ends(runs, tmp_path)
    assert found.models == dict.fromkeys(range(4))
    for [theirs], [ours] in zip(expected, found.epochs, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
        assert ours.val_loss == pytest.approx(theirs.val_loss, abs=1e-4)
        assert (ours.accuracy, ours.val_accuracy) == (theirs.accuracy, theirs.val_accuracy)


def test_a_killed_group_goes_on_with_the_same_bits_and_a_broken_run_fails_alone(
    tmp_path: Path,
) -> None:
    runs = [
        having(dropout=0.1, restore_best_weights=True),
        having(dropout=0.5, learning_rate=0.02, rotation=10, zoom=0.1, schedule="cosine"),
        having(learning_rate=1e30),
    ]
    whole = Ends(runs, tmp_path / "whole")
    assert list(whole.reasons) == [2]
    assert "the loss is NaN in epoch" in whole.reasons[2]
    Ends(runs, tmp_path / "killed", epochs=4)
    again = Ends(runs, tmp_path / "killed")
    assert again.curves == whole.curves
    assert [len(curve) for curve in again.curves if curve] == [3, 3]
    for key in (0, 1):
        assert validated(whole.models[key], runs[key]) == pytest.approx(
            value(runs[key], whole.epochs[key]), abs=0.02
        )


def test_a_stopped_run_leaves_no_checkpoint(tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path)
    endless = replace(having(dropout=0.1), epochs=10_000)
    stopped, other, third, last = (replace(endless, repeat=repeat) for repeat in range(4))
    with closing(jax_engine(DATA, 16, store, "cpu")) as engine:
        for key, run in enumerate((stopped, other, third)):
            engine.submit(key, run)
        while store.load(stopped.key) is None:
            engine.next_event()
        engine.stop(0)
        engine.submit(3, replace(last, until=2))  # what was asked before it is done by its end
        while not isinstance(engine.next_event(), RunFinished):
            pass
        assert store.load(stopped.key) is None
        assert store.load(other.key) is not None


def value(run: Run, epochs: Sequence[Epoch]) -> float:
    best = Recipe.of(dict(run.params)).restore_best_weights
    return max(e.val_accuracy for e in epochs) if best else epochs[-1].val_accuracy


def validated(model: bytes | None, run: Run) -> float:
    """The accuracy of a saved model on the run's validation images, by TensorFlow."""
    import tempfile

    import keras

    from study.data import dataset as data

    assert model is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(model)
        loaded = keras.models.load_model(path)
    dropouts = [one.rate for one in loaded.layers if isinstance(one, keras.layers.Dropout)]
    assert set(dropouts) == {dict(run.params)["dropout"]}
    chosen = data.split(DATA.labels, run.validation, run.seed, run.repeat).validation
    answers = loaded.predict(DATA.images[chosen], verbose=0).argmax(-1)
    return float(np.mean(answers == DATA.labels[chosen]))


def test_a_network_of_ones_own_is_trained_in_a_group(tmp_path: Path) -> None:
    source = ModelSource(str(tmp_path / "own.py"), "build", OWN)
    params = (("filters", 4), ("dropout", 0.2))
    runs = [replace(SMALL, params=params, model=source, repeat=repeat) for repeat in range(3)]
    found = Ends(runs, tmp_path)
    assert not found.reasons
    for epochs in found.epochs:
        assert epochs[-1].loss < epochs[0].loss


def test_augmentation_moves_an_image_as_with_tensorflow() -> None:
    import jax.numpy as jnp
    import tensorflow as tf

    from study.training.recipe import transforms
    from study.workers.jax.layers import moved

    rng = np.random.default_rng(3)
    images = rng.random((6, 9, 12, 2), np.float32)
    draws = rng.uniform(-1, 1, (5, 6)).astype(np.float32)
    recipe = Recipe(rotation=30, zoom=0.2, translation=0.1)
    theirs = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms(tf.unstack(tf.constant(draws)), recipe, 9, 12),
        output_shape=[9, 12],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    ranges = jnp.array([recipe.rotation, recipe.zoom, recipe.translation])
    ours = moved(jnp.asarray(images), ranges, jnp.asarray(draws))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_what_only_a_process_with_jax_can_try() -> None:
    """`in_jax.py`, in one: Keras keeps to the library that it was first imported with."""
    file = Path(__file__).with_name("in_jax.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        cwd=file.parents[1],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_whole_study_is_trained_in_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fake.toml").write_text(test_device.SPACE)
    images = image_files.pictures(shape=(12, 12))
    Path(image_files.npz(Path(), x_train=images, x_test=None, y_test=None)).rename("data.npz")
    study = test_device.prepared(Database.at(DEFAULT), CPU, training="grouped")
    state = launch(study, Observers(), ExecutionOptions(keep_models="none"), print)
    assert state.complete
    opened, _ = storage.load(study.location.database.open())
    trials = StoredTrials()(opened)
    assert {trial.state for trial in trials if trial.value is not None} == {"complete"}
    assert {trial.attributes["training"] for trial in trials} == {"grouped"}
    assert not list(study.location.checkpoints.glob("*"))
