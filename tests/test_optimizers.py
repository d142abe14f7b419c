"""Optimizer, batch size, weights of classes, mixup and patience: each is Keras', in any run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_own_model as own
import test_training as base

from study.data.dataset import Dataset, split
from study.errors import ModelError, SpaceError, TrainingFailed
from study.space.metric import ACCURACY, Metric
from study.space.search_space import SearchSpace
from study.training.network import check
from study.training.recipe import OPTIMIZERS, Recipe, balanced_weights, value
from study.training.run import Run
from study.training.train import start_tensorflow, train

SGD = {"optimizer": "sgd", "momentum": 0.9}
PLAIN: dict[str, Any] = {"dropout": 0.0}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"optimizer": "adma"},
            "optimizer is 'adma'; it must be one of adam, adamw, sgd, rmsprop, lion",
        ),
        ({"momentum": 0.9}, 'momentum is for optimizer = "sgd" alone; give it only_if = { opt'),
        ({"momentum": 0.9, "optimizer": "lion"}, 'momentum is for optimizer = "sgd" alone'),
        ({"momentum": 1, "optimizer": "sgd"}, "momentum is 1; it must be a number from 0 to"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be a number from 0 to below 1"),
        ({"class_weight": "even"}, "class_weight is 'even'; it must be one of none, balanced"),
        ({"class_weight": True}, "class_weight is True; it must be one of none, balanced"),
        ({"patience": 0}, "patience is 0; it must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number from 1"),
        ({"mixup": -1.0}, "mixup is -1.0; it must be a number from 0 to below 100"),
        ({"activation": "rleu"}, "activation is 'rleu'; it must be one of relu, elu, gelu"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be a number above 0"),
    ],
)
def test_what_cannot_be_is_named(params: dict[str, Any], said: str) -> None:
    with pytest.raises(SpaceError) as error:
        check(params, (28, 28, 1), 10)
    assert said in str(error.value)


def test_a_balanced_weight_is_the_reciprocal_of_a_classs_images() -> None:
    labels = np.array([0, 0, 0, 2, 2, 2, 2, 2, 2], np.int32)
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == [1.5, 0, 0.75]
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.tensorflow
@pytest.mark.parametrize("metric", [ACCURACY, Metric("val_loss", "minimize")])
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_is_over_where_it_is_over_for_keras(metric: Metric, patience: int) -> None:
    from types import SimpleNamespace

    from keras.callbacks import EarlyStopping

    rng = np.random.default_rng(patience)
    for _ in range(20):
        curve = rng.integers(0, 6, 12).astype(float).tolist()
        stopping = EarlyStopping("value", patience=patience, mode=metric.direction[:3])
        model = SimpleNamespace(stop_training=False)
        stopping.set_model(model)  # type: ignore[arg-type]
        stopping.on_train_begin()
        recipe = Recipe(patience=patience)
        for epoch, one in enumerate(curve):
            stopping.on_epoch_end(epoch, {"value": one})
            assert recipe.ends(curve[: epoch + 1], metric) == model.stop_training
            if model.stop_training:
                break


def test_a_run_without_validation_has_all_the_patience() -> None:
    assert not Recipe(patience=1).ends([float("nan")] * 5, ACCURACY)


RUNS = [
    *({"optimizer": name, "weight_decay": 0.01} for name in OPTIMIZERS),
    SGD,
    {"mixup": 0.4, "class_weight": "balanced", "label_smoothing": 0.1},
    {"batch_size": 7, "patience": 1, "activation": "gelu", "learning_rate": 0.03},
]


@pytest.mark.tensorflow
@pytest.mark.parametrize("params", RUNS, ids=str)
def test_a_run_continues_to_the_same_bits_and_saves_stock_classes(
    params: dict[str, Any], tmp_path: Path
) -> None:
    import keras

    run = base.having(**params)
    whole, _ = base.continued(run, tmp_path)
    plain, _ = base.finish(train(base.RUN, base.DATA))
    assert base.bits(whole[0][:1]) != base.bits(plain[:1])
    (tmp_path / "model.keras").write_bytes(whole[1])
    model = keras.models.load_model(tmp_path / "model.keras")
    wanted = params.get("optimizer", "adam")
    assert type(model.optimizer) is type(keras.optimizers.get(wanted))
    assert int(model.optimizer.iterations) > 0
    if decay := params.get("weight_decay"):
        assert model.optimizer.get_config()["weight_decay"] == decay
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}


@pytest.mark.tensorflow
def test_a_batch_size_among_the_hyperparameters_trains_the_bits_of_one_beside_them(
    tmp_path: Path,
) -> None:
    beside = replace(base.RUN, batch_size=10, epochs=2)
    among = replace(base.having(batch_size=10), batch_size=10, epochs=2)
    pair = [base.finish(train(run, base.DATA)) for run in (beside, among)]
    assert base.same(*pair, tmp_path)


def after_two_epochs(run: Run, data: Dataset, folder: Path) -> list[np.ndarray[Any, Any]]:
    _, model = base.finish(train(replace(run, epochs=2), data))
    return base.weights(model, folder)


def by_keras(run: Run, data: Dataset, **fit: Any) -> list[np.ndarray[Any, Any]]:
    """The weights after two epochs of Keras' own `fit` on the same batches."""
    import keras

    from study.training.network import build_cnn
    from study.training.trainer import Program

    model = build_cnn(dict(run.params), data.input_shape, data.num_classes)
    Program(model, run.batch_size, quick=False).reset(run.initial_seed)
    part = split(data.labels, run.validation, run.seed, run.repeat)
    for epoch in range(2):
        order = run.order(part.train, epoch)
        model.fit(
            data.images[order],
            data.labels[order],
            batch_size=run.batch_size,
            shuffle=False,
            verbose=0,
            **fit,
        )
    assert isinstance(model, keras.Model)
    return model.get_weights()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "params",
    [SGD | {"weight_decay": 0.05}, {"optimizer": "lion"}, {"class_weight": "balanced"}],
    ids=str,
)
def test_it_is_what_keras_does_with_the_same_batches(
    params: dict[str, Any], tmp_path: Path
) -> None:
    labels = base.DATA.labels.copy()
    labels[30:90] = 0
    data = replace(base.DATA, labels=labels)
    run = replace(base.having(**PLAIN, **params), training="stock")
    fit: dict[str, Any] = {}
    if "class_weight" in params:
        trained = labels[split(labels, run.validation, run.seed, run.repeat).train]
        fit["class_weight"] = dict(enumerate(balanced_weights(trained, 3).tolist()))
    pairs = zip(after_two_epochs(run, data, tmp_path), by_keras(run, data, **fit), strict=True)
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


MIXED = """
def build(params, input_shape, num_classes):
    model = keras.Sequential([
        layers.Input(input_shape), layers.Flatten(), layers.Dense(num_classes, "softmax")])
    model.compile(keras.optimizers.SGD(params["rate"]), LOSS, metrics=["accuracy"])
    return model
"""


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "loss", ["'categorical_crossentropy'", "'sparse_categorical_crossentropy'"]
)
def test_mixup_learns_from_mixed_labels_however_the_loss_takes_them(loss: str) -> None:
    import keras

    from study.training.custom_model import build
    from study.training.trainer import Program

    start_tensorflow(1)
    source = own.source(MIXED.replace("LOSS", loss))
    model, _ = build(source, {"rate": 0.5}, (12, 12, 1), 3)
    before = model.get_weights()
    program, order = Program(model, 20, Recipe(mixup=0.4), num_classes=3), np.arange(20)
    program.epoch((base.DATA.images, base.DATA.labels), order, key=3)
    shares = Recipe(mixup=0.4).shares(3, 1)
    assert shares is not None
    share = float(shares[0])
    assert 0.5 <= share < 1
    labels = np.eye(3, dtype=np.float32)[base.DATA.labels[:20]]
    images = base.DATA.images[:20]
    mixed = [share * one + (1 - share) * one[::-1] for one in (images, labels)]
    again, _ = build(
        own.source(MIXED.replace("LOSS", "'categorical_crossentropy'")),
        {"rate": 0.5},
        (12, 12, 1),
        3,
    )
    again.set_weights(before)
    again.train_on_batch(*mixed)
    for found, wanted in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.allclose(found, wanted, atol=1e-6)
    assert not np.allclose(model.get_weights()[0], before[0])
    assert isinstance(model, keras.Model)


UNMIXED = own.SUBCLASSED.replace(
    "    def call(",
    "    def train_step(self, data):\n"
    "        self(data[0], training=True)\n"
    "        return {}\n\n"
    "    def call(",
)


@pytest.mark.tensorflow
def test_mixup_is_refused_where_a_models_own_step_would_not_mix_labels() -> None:
    with pytest.raises(TrainingFailed, match="mixup: the model's train_step does not call compute"):
        base.finish(train(own.run_of(UNMIXED, mixup=0.2), base.DATA))


@pytest.mark.tensorflow
def test_a_run_whose_patience_is_over_ends_with_its_best_epoch(tmp_path: Path) -> None:
    run = replace(base.having(patience=2, learning_rate=0.1), epochs=30)
    epochs, model = base.finish(train(run, base.DATA))
    curve = [epoch.val_accuracy for epoch in epochs]
    best = ACCURACY.best(curve)
    assert len(epochs) == best + 3 < 30
    assert value(dict(run.params), curve, ACCURACY) == curve[best]
    shorter = replace(base.having(learning_rate=0.1), epochs=best + 1)
    _, until_best = base.finish(train(shorter, base.DATA))
    pairs = zip(*(base.weights(one, tmp_path) for one in (model, until_best)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


ADAMAX = own.SEQUENTIAL.replace(
    'params, "categorical_crossentropy")',
    'params, "categorical_crossentropy", rate=keras.optimizers.Adamax(0.002))',
)


@pytest.mark.tensorflow
def test_a_custom_model_gets_the_optimizer_of_the_space(tmp_path: Path) -> None:
    import keras

    from study.training.custom_model import build

    start_tensorflow(1)
    given = (12, 12, 1), 3
    plain, _ = build(own.source(own.SEQUENTIAL), own.PARAMS, *given)
    decayed, _ = build(own.source(own.SEQUENTIAL), own.PARAMS | {"weight_decay": 0.1}, *given)
    swapped, _ = build(own.source(own.SEQUENTIAL), own.PARAMS | SGD, *given)
    faster, _ = build(own.source(own.SEQUENTIAL), own.PARAMS | {"learning_rate": 0.5}, *given)
    found = [
        (type(one.optimizer).__name__, round(float(one.optimizer.learning_rate), 6))
        for one in (plain, decayed, swapped, faster)
    ]
    assert found == [("Adam", 0.01), ("Adam", 0.01), ("SGD", 0.01), ("Adam", 0.5)]
    assert decayed.optimizer.weight_decay == 0.1
    assert swapped.optimizer.momentum == 0.9
    assert swapped.loss == plain.loss
    run = own.run_of(own.SEQUENTIAL, **SGD)
    epochs, saved = base.finish(train(run, base.DATA))
    assert epochs[-1].val_accuracy > 0.6
    (tmp_path / "model.keras").write_bytes(saved)
    model = keras.models.load_model(tmp_path / "model.keras")
    assert type(model.optimizer) is keras.optimizers.SGD


READS = own.SEQUENTIAL.replace("return compiled(", "params['optimizer']; return compiled(")


@pytest.mark.tensorflow
def test_what_a_custom_model_reads_is_left_to_it() -> None:
    from study.training.custom_model import build

    start_tensorflow(1)
    model, _ = build(own.source(READS), own.PARAMS | {"optimizer": "mine"}, (12, 12, 1), 3)
    assert type(model.optimizer).__name__ == "Adam"


SCHEDULED = own.SEQUENTIAL.replace(
    'params, "categorical_crossentropy")',
    'params, "categorical_crossentropy", keras.optimizers.schedules.CosineDecay(0.1, 9))',
)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("text", "params", "said"),
    [
        (SCHEDULED.replace('rate or params["rate"]', "params['rate'] and rate"), SGD, "optimizer"),
        (own.SEQUENTIAL, {"optimizer": "adma"}, "optimizer is 'adma'; it must be one of adam"),
        (own.SEQUENTIAL, {"momentum": 0.9}, 'momentum is for optimizer = "sgd" alone'),
        (
            own.SEQUENTIAL.replace("return", "params['patience']; return", 1),
            {"patience": 3},
            "reads patience, which is the trainer's own: rename it",
        ),
    ],
)
def test_a_custom_model_that_cannot_be_trained_so_is_refused_in_a_line(
    text: str, params: dict[str, Any], said: str
) -> None:
    with pytest.raises((ModelError, SpaceError)) as wrong:
        own.tried(text, own.PARAMS | params)
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


SPACE: dict[str, Any] = {
    "name": "sizes",
    "epochs": 2,
    "repeats": 2,
    "hyperparameters": {"batch_size": {"options": [16, 32], "start": 32}},
}


def test_a_space_has_one_batch_size_at_least_and_at_most() -> None:
    assert SearchSpace.from_dict(SPACE).batch_size is None
    assert SearchSpace.from_dict(SearchSpace.from_dict(SPACE).to_dict()).batch_size is None
    for wrong, said in [
        (SPACE | {"batch_size": 8}, "batch_size: is a hyperparameter too; keep one of them"),
        (
            SPACE | {"hyperparameters": {"dense": {"options": [1], "start": 1}}},
            "batch_size: is missing; give a whole number of at least 1",
        ),
    ]:
        with pytest.raises(SpaceError, match=said):
            SearchSpace.from_dict(wrong)
