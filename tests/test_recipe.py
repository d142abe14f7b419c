"""What goes further than the tutorial: off it changes nothing, on it is what it says."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_training as base

from study.data.dataset import split
from study.errors import SpaceError
from study.space.architecture import count_activations, count_parameters
from study.space.file import load
from study.space.metric import ACCURACY, Metric
from study.space.search_space import Score, Validation
from study.training.network import DEFAULTS, build_cnn, check
from study.training.recipe import Recipe, value
from study.training.train import train

OFF = {n: v for n, v in DEFAULTS.items() if n not in base.PARAMS and v is not None}
ON: dict[str, Any] = {
    "blocks": 3,
    "convolutions": 2,
    "strided": True,
    "batch_norm": True,
    "rotation": 10.0,
    "zoom": 0.1,
    "translation": 0.1,
    "schedule": "one_cycle",
    "label_smoothing": 0.1,
    "restore_best_weights": True,
}
MNIST = (28, 28, 1)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"rotation": -1}, "rotation is -1; it must be a number from 0 to below 180 degrees"),
        ({"zoom": 1}, "zoom is 1; it must be a number from 0 to below 1"),
        ({"translation": True}, "translation is True; it must be a number"),
        ({"label_smoothing": "0.1"}, "label_smoothing is '0.1'; it must be a number"),
        ({"schedule": "cosinus"}, "schedule is 'cosinus'; it must be one of constant, cosine, one"),
        ({"restore_best_weights": 1}, "restore_best_weights is 1; it must be true or false"),
        ({"batch_norm": "yes"}, "batch_norm is 'yes'; it must be true or false"),
        ({"blocks": 1}, "blocks is 1; it must be a whole number from 2"),
        ({"convolutions": 0}, "convolutions is 0; it must be a whole number from 1"),
        ({"blocks": 5}, "blocks is 5; it must be at most 4 on 28x28 images with k2 = 5"),
    ],
)
def test_an_option_that_cannot_be_is_named(params: dict[str, Any], said: str) -> None:
    with pytest.raises(SpaceError) as error:
        check(params, MNIST, 10)
    assert said in str(error.value)


def test_the_modern_space_fits_mnist() -> None:
    space = load("modern")
    for parameter in space.hyperparameters:
        for option in parameter.options:
            check(space.start | {parameter.name: option}, MNIST, 10)


def test_a_run_is_judged_by_its_last_epoch_unless_it_keeps_the_best() -> None:
    curve = [0.5, 0.9, 0.9, 0.8]
    assert value({}, curve, ACCURACY) == 0.8
    assert value({"restore_best_weights": True}, curve, ACCURACY) == 0.9
    assert value({"restore_best_weights": True}, curve, Metric("val_loss", "minimize")) == 0.5


def test_the_rate_falls_to_nothing_and_one_cycle_rises_first() -> None:
    cosine = np.concatenate([Recipe(schedule="cosine").rates(e, 4, 25) for e in range(4)])
    cycle = np.concatenate([Recipe(schedule="one_cycle").rates(e, 4, 25) for e in range(4)])
    assert cosine[0] == 1
    assert (np.diff(cosine) < 0).all()
    assert cycle[20] == cycle.max() == 1
    assert (np.diff(cycle[:21]) > 0).all()
    assert 0 < cosine[-1] < 0.001 > cycle[-1] > 0
    assert Recipe().rates(0, 4, 25) is None


def test_a_run_without_options_has_the_key_it_always_had() -> None:
    assert base.RUN.key == "51db6c521536111e55bc8417"


def test_no_validation_part_is_every_image_and_a_seed_of_its_own_is_one_part_for_all() -> None:
    labels = base.DATA.labels
    everything = split(labels, Validation("none"), 1, 0)
    assert (len(everything.train), len(everything.validation)) == (len(labels), 0)
    own = Validation("holdout", 0.2, seed=3)
    parts = [split(labels, own, seed, repeat).validation for seed, repeat in [(1, 0), (9, 2)]]
    assert np.array_equal(*parts)
    drawn = Validation("holdout", 0.2)
    assert not np.array_equal(split(labels, drawn, 1, 0).validation, parts[0])


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "params", [{}, {"batch_norm": True}, {"strided": True}, {"blocks": 3}, {"convolutions": 3}, ON]
)
@pytest.mark.parametrize("shape", [(28, 28, 1), (17, 21, 3)])
def test_parameters_and_activations_are_counted_without_keras(
    params: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    wanted = {"filters": 3, "k1": 2, "k2": 3} | params
    built = build_cnn(wanted, shape, 4)
    trainable = sum(int(np.prod(v.shape)) for v in built.trainable_variables)
    assert count_parameters(wanted, shape, 4) == trainable
    made = [int(np.prod(one.output.shape[1:])) for one in built.layers if "conv" in one.name]
    assert count_activations(wanted, shape) == sum(made)
    names = {type(layer).__module__.rpartition(".")[0] for layer in built.layers}
    assert all(name.startswith("keras.src.layers") for name in names)


@pytest.mark.tensorflow
def test_with_every_option_off_the_bits_are_those_of_a_run_without_options(tmp_path: Path) -> None:
    plain, off = base.finish(train(base.RUN, base.DATA)), base.having(**OFF)
    assert base.same(base.finish(train(off, base.DATA)), plain, tmp_path)


@pytest.mark.tensorflow
def test_a_run_with_every_option_on_continues_to_the_same_bits(tmp_path: Path) -> None:
    run = base.having(**ON)
    _, store = base.continued(run, tmp_path)
    checkpoint = store.load(run.key)
    assert checkpoint is not None
    moving = [array for array in checkpoint.arrays if array.shape == (4,)]
    assert any(array.any() and not (array == 1).all() for array in moving)


@pytest.mark.tensorflow
def test_the_best_epochs_weights_are_kept(tmp_path: Path) -> None:
    wild = base.having(restore_best_weights=True, learning_rate=0.1)
    epochs, model = base.finish(train(replace(wild, epochs=8), base.DATA))
    best = max(epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.number))
    assert best.number < 7
    run = base.having(learning_rate=0.1)
    _, short = base.finish(train(replace(run, epochs=best.number + 1), base.DATA))
    for kept, wanted in zip(
        base.weights(model, tmp_path), base.weights(short, tmp_path), strict=True
    ):
        assert np.array_equal(kept, wanted)


@pytest.mark.tensorflow
def test_a_run_on_every_image_reports_no_validation() -> None:
    run = replace(base.RUN, validation=Validation("none"), epochs=2)
    epochs, model = base.finish(train(run, base.DATA))
    assert [np.isnan(epoch.val_accuracy) for epoch in epochs] == [True, True]
    assert hashlib.sha256(model).digest()


@pytest.mark.tensorflow
def test_images_are_moved_and_labels_smoothed_while_it_trains_and_not_while_it_is_judged(
    tmp_path: Path,
) -> None:
    import keras

    wild = base.having(rotation=170.0, zoom=0.5, translation=0.5, label_smoothing=0.3)
    epochs, model = base.finish(train(wild, base.DATA))
    (tmp_path / "model.keras").write_bytes(model)
    part = split(base.DATA.labels, wild.validation, wild.seed, wild.repeat).validation
    saved = keras.models.load_model(tmp_path / "model.keras")
    loss, accuracy = saved.evaluate(base.DATA.images[part], base.DATA.labels[part], verbose=0)
    assert epochs[-1].val_accuracy == pytest.approx(accuracy)
    assert epochs[-1].val_loss == pytest.approx(loss, rel=1e-4)
    plain, _ = base.finish(train(base.RUN, base.DATA))
    assert plain[-1].loss < epochs[-1].loss


@pytest.mark.tensorflow
def test_images_are_moved_as_the_recipe_says() -> None:
    import tensorflow as tf

    from study.training.recipe import augmented

    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 4, 6] = 1
    batch = tf.constant(np.repeat(image, 500, axis=0))
    seed = tf.constant([3, 5], tf.int64)

    def found(recipe: Recipe) -> Any:
        moved = augmented(batch, recipe, seed).numpy()
        weight = moved.sum(axis=(1, 2, 3))
        places = [np.tensordot(moved[..., 0], axis, 2) / weight for axis in np.mgrid[:9, :9]]
        return np.stack(places, axis=1)  # centre of mass: row, column

    assert np.array_equal(augmented(batch, Recipe(rotation=1e-9), seed), batch)
    turned = found(Recipe(rotation=40.0)) - 4
    angles = np.degrees(np.arctan2(turned[:, 0], turned[:, 1]))
    assert 35 < np.abs(angles).max() < 45
    assert abs(angles.mean()) < 4
    shifted = found(Recipe(translation=0.2)) - (4, 6)
    assert 1.5 < np.abs(shifted).max() < 1.9
    assert abs(np.corrcoef(shifted.T)[0, 1]) < 0.2
    stretched = found(Recipe(zoom=0.3)) - (4, 6)
    assert np.allclose(stretched[:, 0], 0, atol=1e-4)
    assert 0.3 < np.abs(stretched[:, 1]).max() < 0.8
    assert np.array_equal(found(Recipe(rotation=40.0)) - 4, turned)


@pytest.mark.tensorflow
def test_smoothed_labels_give_keras_own_loss_and_a_schedule_scales_any_optimizer() -> None:
    import keras
    from test_step import cnn, images, seeds

    from study.training.trainer import Program, resident

    x, y = images((12, 12, 1))
    smoothed = Recipe(label_smoothing=0.2)
    program = Program(cnn(), 100, smoothed)
    program.reset(seeds)
    wanted = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)(
        np.eye(3)[y], program.model.predict(x, verbose=0)
    )
    loss = program.epoch(resident(x, y), np.arange(len(y)), key=1)["loss"]
    assert loss == pytest.approx(float(wanted), rel=1e-5)

    falling = Program(cnn(), 100, Recipe(schedule="cosine"))
    falling.reset(seeds)
    before = falling.weights()
    falling.epoch(resident(x, y), np.arange(len(y)), 1, number=1, epochs=2)
    by_half = [a - b for a, b in zip(falling.weights(), before, strict=True)]
    whole = Program(cnn(), 100)
    whole.reset(seeds)
    whole.epoch(resident(x, y), np.arange(len(y)), 1)
    for half, full, start in zip(by_half, whole.weights(), before, strict=True):
        np.testing.assert_allclose(half, (full - start) / 2, atol=1e-6)
    assert float(falling.model.optimizer.learning_rate) == pytest.approx(0.1)


LUCKY = (0.90, 0.70, 0.80, 0.95)


@pytest.mark.parametrize(
    ("curve", "score", "params", "expected"),
    [
        (LUCKY, "mean of last 3", {}, 0.81667),
        (LUCKY, "last", {}, 0.95),
        ((0.8, 0.9), "mean of last 3", {}, 0.85),
        ((0.8,), "mean of last 3", {}, 0.8),
        ((0.9, 0.7, 0.8), "mean of last 3", {"restore_best_weights": True}, 0.9),
        ((0.9, 0.7, 0.8), "last", {"restore_best_weights": False}, 0.8),
    ],
)
def test_the_value_of_a_run_is_what_its_score_says_or_that_of_the_weights_it_keeps(
    curve: tuple[float, ...], score: Score, params: dict[str, bool], expected: float
) -> None:
    assert value(params, curve, ACCURACY, score) == pytest.approx(expected, abs=1e-5)
