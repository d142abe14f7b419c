"""An epoch has the numbers of Keras' own steps; its bits depend on its seeds."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import keras_layers
import numpy as np
import pytest

from study.training.network import build_cnn

pytestmark = pytest.mark.tensorflow

IMAGES, BATCH = 57, 20
LOSS = "sparse_categorical_crossentropy"
SHAPE = (12, 12, 1)
Make = Callable[[], Any]
"""Makes the same compiled model at each call, but for its first weights."""


def images(shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Half of every image is exactly 0: maxima are tied there, as on MNIST's background."""
    draws = np.random.default_rng(3)
    x = draws.random((IMAGES, *shape), np.float32)
    x[:, : shape[0] // 2] = 0
    return x, draws.integers(0, 3, IMAGES).astype(np.int32)


def seeds(layer: int, variable: int) -> int:
    return 10 * layer + variable


def cnn(shape: tuple[int, int, int] = SHAPE, **params: Any) -> Any:
    """Trained by plain gradient descent: Adam's first steps are signs, which hide every size."""
    import keras

    chosen = {"filters": 4, "k1": 3, "k2": 3, "dense": 8, "dropout": 0.0} | params
    model = build_cnn(chosen, shape, 3)
    model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
    return model


def chain(*inner: Any, optimizer: Any = "sgd", loss: Any = LOSS, **compiled: Any) -> Any:
    """A chain of layers with a classifier behind them, compiled to run eagerly if not else said."""
    import keras
    from keras import layers

    images = x = layers.Input(SHAPE)
    for layer in (*inner, layers.Flatten(), layers.Dense(3, activation="softmax", name="out")):
        x = layer(x)
    model = keras.Model(images, x)
    model.compile(optimizer, loss, **{"metrics": ["accuracy"], "run_eagerly": True} | compiled)
    return model


def random_tower() -> Any:
    """Layers with a state of their own, and random ones beside dropout."""
    from keras import layers

    return chain(
        layers.RandomTranslation(0.1, 0.1),
        layers.Conv2D(4, 3, kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.GaussianNoise(0.1),
        layers.Dropout(0.3),
        optimizer="adam",
    )


def program_of(model: Any, **how: Any) -> Any:
    from study.training.trainer import Program

    return Program(model, **{"batch_size": BATCH, "input_shape": SHAPE, "num_classes": 3} | how)


def identical(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def assert_trains_as_keras(
    make: Make, judged: float = 1e-4, *, shape: tuple[int, ...] = SHAPE
) -> None:
    """An epoch of ours and the same steps of Keras, eagerly, from the same weights.

    ``judged`` is a tolerance of what is logged of images that are judged.
    """
    import keras

    from study.training.compiled import takes_one_hot, variables_of
    from study.training.trainer import resident

    keras.utils.set_random_seed(1)
    x, y = images(shape)
    ours, theirs = make(), make()
    program = program_of(ours, input_shape=shape)
    theirs.optimizer.build(theirs.trainable_variables)
    for own, its in zip(variables_of(ours), variables_of(theirs), strict=True):
        its.assign(own)
    trained = program.epoch(resident(x, y), np.arange(IMAGES), key=1)
    validated = program.evaluate(resident(x, y), np.arange(IMAGES))
    labels = np.eye(3, dtype=np.float32)[y] if takes_one_hot(theirs) else y
    for first in range(0, IMAGES, BATCH):
        theirs.train_step((x[first : first + BATCH], labels[first : first + BATCH]))
    logs = numbers(theirs.get_metrics_result())
    assert trained == pytest.approx(logs, rel=1e-4, nan_ok=True)
    theirs.reset_metrics()
    theirs.test_step((x, labels))
    logs = numbers(theirs.get_metrics_result())
    assert validated == pytest.approx(logs, rel=judged, nan_ok=True)
    for mine, keras_own in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-3, atol=2e-6)


def numbers(logs: Any) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


@pytest.mark.parametrize(
    ("shape", "k1", "k2"),
    [((12, 12, 1), 3, 5), ((13, 11, 3), 4, 3), ((17, 16, 1), 7, 7), ((9, 14, 3), 5, 2)],
)
@pytest.mark.parametrize("fourier", [False, True])
def test_the_network_trains_as_keras_does(
    shape: tuple[int, int, int], k1: int, k2: int, *, fourier: bool, monkeypatch: Any
) -> None:
    from study.training.fourier import Correlation

    monkeypatch.setattr(Correlation, "pays", lambda *_: fourier)
    assert_trains_as_keras(lambda: cnn(shape, k1=k1, k2=k2), shape=shape)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", keras_layers.NAMES)
def test_every_layer_of_keras_is_loaded_from_a_file_and_trains_as_keras_does(
    name: str, monkeypatch: Any, tmp_path: Any
) -> None:
    import keras

    from study.training import keras_file
    from study.training.fourier import Correlation

    keras.utils.set_random_seed(1)
    model, path = keras_layers.model_of(name), tmp_path / "model.keras"
    model.save(path)
    described = keras_file.description(path)
    described.pop("compile_config")
    assert keras_file.foreign(described) == []
    loaded = keras.models.load_model(path, safe_mode=True)
    assert identical(loaded.get_weights(), model.get_weights())
    for layer in (*model.layers, *loaded.layers):
        if type(layer) is keras.layers.Dropout:
            layer.rate = 0  # it draws in another way
    # Fourier coefficients round otherwise, and Adam makes a step of nearly nothing at an edge
    # such as that of ReLU: test_fourier has them.
    monkeypatch.setattr(Correlation, "pays", lambda *_: False)
    made = iter([model, loaded])
    assert_trains_as_keras(lambda: next(made), shape=keras_layers.IMAGE, judged=1e-3)


OPTIMIZERS = {
    "loss scale": "LossScaleOptimizer(SGD(0.1))",
    "dynamic scale": "LossScaleOptimizer(Adam(0.01), initial_scale=8, dynamic_growth_steps=2)",
    "scale factor": "SGD(0.1, loss_scale_factor=1024)",
    "scaled Adam": "Adam(0.01, loss_scale_factor=1024)",
    "accumulation": "Adam(0.01, gradient_accumulation_steps=2)",
    "averages": "Adam(0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)",
    "clipnorm": "Adam(0.01, clipnorm=0.01)",
    "clipvalue": "SGD(0.1, clipvalue=0.001)",
    "global clipnorm": "SGD(0.1, global_clipnorm=0.01)",
    "weight decay": "AdamW(0.01, weight_decay=0.1)",
    "amsgrad": "Adam(0.01, amsgrad=True)",
    "momenta": "Adam(0.01, beta_1=0.8, beta_2=0.9, epsilon=0.1)",
    "schedule": "Adam(schedules.ExponentialDecay(0.01, 2, 0.5))",
    "a sibling": "Nadam(0.01)",
    "a distant one": "Lion(0.001)",
}


TRACED = {"dynamic scale", "accumulation", "averages"}  # where a step has branches


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_option_of_an_optimizer_is_obeyed(name: str) -> None:
    import keras
    from keras import layers

    def make() -> Any:
        optimizer = eval(OPTIMIZERS[name], vars(keras.optimizers) | {})
        hidden = layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization()
        return chain(*hidden, optimizer=optimizer, run_eagerly=name not in TRACED)

    assert_trains_as_keras(make, judged=1e-3)


COMPILED: dict[str, dict[str, Any]] = {
    "loss by output": {"loss": {"out": LOSS}},
    "loss in a list": {"loss": [LOSS]},
    "one-hot by output": {"loss": {"out": "categorical_crossentropy"}},
    "loss weight": {"loss_weights": 0.01},
    "loss weight in a list": {"loss": [LOSS], "loss_weights": [0.01]},
    "weighted metrics": {"weighted_metrics": ["accuracy"], "metrics": None},
    "metrics by output": {"metrics": {"out": ["accuracy", LOSS]}},
    "steps in a call": {"steps_per_execution": 4},
    "no XLA": {"jit_compile": False, "run_eagerly": False},
    "XLA": {"jit_compile": True, "run_eagerly": False},
    "another loss": {"loss": "kl_divergence"},
}


@pytest.mark.parametrize("name", COMPILED)
def test_every_argument_of_compile_is_obeyed(name: str) -> None:
    from keras import layers

    def make() -> Any:
        return chain(layers.Conv2D(4, 3, kernel_regularizer="l2"), **COMPILED[name])

    assert_trains_as_keras(make)


def nested() -> Any:
    """Branches, a block that is used twice, and a model inside of a model."""
    import keras
    from keras import layers

    x = layers.Input((12, 12, 4))
    block = keras.Model(x, layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)))
    inputs = layers.Input(SHAPE)
    x = layers.Conv2D(4, 5, padding="same", activation="relu")(inputs)
    for _ in range(2):
        x = layers.Add()([x, layers.Activation("relu")(block(x))])
    model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(x)))
    model.compile("sgd", LOSS, metrics=["accuracy"])
    return model


def subclassed() -> Any:
    """A user's layer around layers of Keras, in a user's model with a step of its own."""
    import keras
    from keras import layers

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = layers.Conv2D(4, 5, activation="relu"), None

        def build(self, shape: Any) -> None:
            self.norm = layers.BatchNormalization()

        def call(self, x: Any, training: bool = False) -> Any:
            return self.norm(self.inner(x), training=training)

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.all = [Block(), layers.Flatten(), layers.Dense(3, "softmax")]

        def call(self, x: Any, training: bool = False) -> Any:
            x = self.all[0](x, training=training)
            return self.all[2](self.all[1](x))

        def train_step(self, data: Any) -> Any:
            return super().train_step((data[0] / 2, data[1]))

    model = Net()
    model(np.zeros((1, *SHAPE), np.float32))
    model.compile("sgd", LOSS, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("make", [nested, subclassed])
def test_layers_inside_of_models_and_layers_compute_faster_to_the_same_numbers(
    make: Make, monkeypatch: Any
) -> None:
    from study.training.fourier import Correlation

    called = []
    original = Correlation.__call__
    monkeypatch.setattr(Correlation, "pays", lambda *_: True)
    monkeypatch.setattr(Correlation, "__call__", lambda *a: called.append(1) or original(*a))
    assert_trains_as_keras(make, judged=1e-3)
    assert called


@pytest.mark.parametrize(
    "chosen", [{}, {"momentum": 0.9, "epsilon": 0.1}, {"scale": False}, {"axis": 1}]
)
def test_batch_normalization_remembers_what_that_of_keras_does(chosen: dict[str, Any]) -> None:
    from keras import layers

    def make() -> Any:
        return chain(layers.Conv2D(4, 3), layers.BatchNormalization(**chosen))

    assert_trains_as_keras(make, judged=1e-3)


def twice(layer: Any, inputs: Any, kernel: Any) -> Any:
    return 2 * super(type(layer), layer).convolution_op(inputs, kernel)


def frozen(layer: Any) -> Any:
    layer.trainable = False
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        lambda layers: layers.Conv2D(4, 3, dilation_rate=2),
        lambda layers: layers.Conv2D(4, 3, strides=2),
        lambda layers: layers.Conv2D(4, 3, kernel_constraint="max_norm", bias_constraint="non_neg"),
        lambda layers: layers.Conv2D(4, 3, lora_rank=1),
        lambda layers: layers.Conv2D(4, 3, use_bias=False, activation="relu"),
        lambda layers: type("Mine", (layers.Conv2D,), {"convolution_op": twice})(4, 3),
        lambda layers: layers.BatchNormalization(renorm=True),
        lambda layers: layers.BatchNormalization(gamma_constraint="non_neg", center=False),
        lambda layers: frozen(layers.BatchNormalization()),
        lambda layers: layers.Conv2D(4, 3, activity_regularizer="l2"),
        lambda layers: layers.Conv2D(4, 3, dtype="mixed_float16"),
    ],
)
def test_options_of_layers_are_obeyed(layer: Any, monkeypatch: Any) -> None:
    from keras import layers

    from study.training.fourier import Correlation

    monkeypatch.setattr(Correlation, "pays", lambda *_: True)
    assert_trains_as_keras(lambda: chain(layer(layers)), judged=1e-3)


# Random numbers ----------------------------------------------------------------------------------


def dropped(rate: float, shape: tuple[int, ...], calls: int = 1, **options: Any) -> Any:
    """What dropout makes of ones in training, at each call."""
    import tensorflow as tf
    from keras import layers

    x = layers.Input(shape[1:])
    model = chain()
    layer = layers.Dropout(rate, seed=3, **options)
    layer(x)
    model.dropout = layer
    program_of(model)
    return np.array([layer(tf.ones(shape), training=True) for _ in range(calls)])


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(100, 14, 14, 16), (1000, 5, 5, 3), (2000, 33)])
def test_dropout_zeroes_its_share_and_scales_the_rest(rate: float, shape: tuple[int, ...]) -> None:
    x = dropped(rate, shape)
    spread = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(np.mean(x == 0) - rate) < 4 * spread
    assert np.unique(x[x != 0]) == pytest.approx(1 / (1 - rate))


def test_dropout_has_its_rate_exactly_where_16_bits_cannot_say_it() -> None:
    count = np.sum(dropped(2.5 / 65536, (64, 256), calls=400) == 0)
    assert 220 < count < 280  # 250 expected; 200 or 300 if the threshold were always the same


def test_dropout_draws_anew_at_each_call_and_the_same_from_the_same_state() -> None:
    one, other = dropped(0.5, (50, 20), calls=2)
    assert 0.4 < np.mean(one == other) < 0.6
    assert np.array_equal(dropped(0.5, (50, 20), calls=2), [one, other])


def test_channels_that_are_dropped_together_stay_together() -> None:
    (x,) = dropped(0.5, (20, 6, 6, 4), noise_shape=(20, 1, 1, 4))
    assert np.array_equal(x, np.broadcast_to(x[:, :1, :1], x.shape))


def test_dropout_passes_gradients_where_it_passes_values_and_rests_when_judging() -> None:
    import tensorflow as tf
    from keras import layers

    layer = layers.Dropout(0.5)
    program_of(chain(layer))
    x = tf.random.stateless_normal([20, *SHAPE], [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_allclose(tape.gradient(y, x) * x, y)
    assert np.array_equal(layer(x, training=False), x)


# States and files --------------------------------------------------------------------------------


def test_a_saved_model_holds_stock_classes_and_goes_on_as_keras_has_it(tmp_path: Any) -> None:
    import keras

    from study.training.trainer import resident

    x, y = images()
    model = random_tower()
    program_of(model).epoch(resident(x, y), np.arange(IMAGES), key=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.Adam
    assert identical(
        [v.numpy() for v in loaded.optimizer.variables],
        [v.numpy() for v in model.optimizer.variables],
    )
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    assert loaded.fit(x, y, verbose=0).history["loss"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.layers", "Lambda"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "StringLookup"),
        ("keras.src.layers.core.lambda_layer", "Lambda"),
        ("keras.utils", "get_file"),
        ("keras.models", "load_model"),
        ("keras.applications", "MobileNet"),
        ("keras.datasets.mnist", "load_data"),
        ("keras.src.saving.saving_lib", "SavedModel"),
        ("os", "System"),
        ("kerasx.layers", "Dense"),
        ("builtins", "function"),
    ],
)
def test_what_runs_code_or_opens_files_is_named(module: str, name: str) -> None:
    from study.training import keras_file

    part = {"module": module, "class_name": name, "config": "f", "registered_name": None}
    assert keras_file.foreign({"config": {"layers": [part]}})


def test_stock_training_leaves_every_layer_alone() -> None:
    model = random_tower()
    program_of(model, quick=False)
    assert not any("call" in vars(layer) for layer in model.layers)
    program_of(model)
    changed = [type(layer).__name__ for layer in model.layers if "call" in vars(layer)]
    assert changed == ["Conv2D", "BatchNormalization", "Dropout"]


def test_the_bits_do_not_depend_on_where_the_pieces_are_cut() -> None:
    from study.training.trainer import resident

    data = resident(*images())
    ends = []
    for piece_seconds in (0.0, 1e9):
        program = program_of(cnn(dropout=0.2), batch_size=2, piece_seconds=piece_seconds)
        program.reset(seeds)
        curve = [program.epoch(data, np.arange(IMAGES), key) for key in range(3)]
        ends.append((curve, program.state()))
    assert ends[0][0] == ends[1][0]
    assert identical(ends[0][1], ends[1][1])


@pytest.mark.parametrize("quick", [True, False])
def test_layers_with_states_of_their_own_continue_to_the_same_bits(quick: bool) -> None:
    from study.training.trainer import resident

    data, order = resident(*images()), np.arange(IMAGES)
    program = program_of(random_tower(), quick=quick)
    program.reset(seeds)
    program.epoch(data, order, key=1)
    middle = program.state()
    program.epoch(data, order, key=2)
    end = program.state()

    other = program_of(random_tower(), quick=quick)
    other.reset(lambda layer, variable: 999)
    other.restore(middle)
    other.epoch(data, order, key=2)
    assert identical(other.state(), end)
    assert not identical(middle, end)


def test_a_reset_forgets_everything_that_was_trained() -> None:
    from study.training.trainer import resident

    data, order = resident(*images()), np.arange(IMAGES)
    program = program_of(random_tower())
    program.reset(seeds)
    fresh = program.state()
    program.epoch(data, order, key=1)
    program.model.optimizer.learning_rate = 0.5
    program.reset(seeds)
    assert identical(program.state(), fresh)


def test_the_state_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="another network"):
        program_of(cnn()).restore(program_of(cnn(dense=9)).state())


def test_images_that_are_bytes_train_to_the_bits_of_their_fractions() -> None:
    from study.data.pixels import to_float01
    from study.training.trainer import resident

    x, y = images()
    as_bytes, ends = (x * 255).astype(np.uint8), []
    for given in (as_bytes, to_float01(as_bytes)):
        program = program_of(cnn(), bytes_given=given.dtype == np.uint8)
        program.reset(seeds)
        data, order = resident(given, y), np.arange(IMAGES)
        ends.append((program.epoch(data, order, key=1), program.evaluate(data, order)))
        ends[-1] += program.state()
    assert ends[0][:2] == ends[1][:2]
    assert identical(ends[0][2:], ends[1][2:])


def test_released_programs_leave_the_memory() -> None:
    from study.training.trainer import ProgramCache

    cache, kept = ProgramCache(size=1), []
    for filters in (1, 2):
        with cache.borrow(filters, lambda n=filters: program_of(cnn(filters=n))) as program:
            kept.append(weakref.ref(program.model))
        del program
    gc.collect()
    assert [model() is None for model in kept] == [True, False]


def test_a_program_serves_one_user_at_a_time_and_none_after_a_failure() -> None:
    from study.training.trainer import ProgramCache

    cache = ProgramCache()

    def borrowed() -> Any:
        return cache.borrow("same", lambda: program_of(cnn()))

    with borrowed() as one, borrowed() as other:
        assert one is not other
    failed = []

    def fail() -> None:
        with borrowed() as again:
            failed.append(again)
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert failed[0] in (one, other)
    with borrowed() as last:
        assert last is not failed[0]


def test_no_layer_of_keras_is_forgotten() -> None:
    from keras import layers

    classes = {one for one in vars(layers).values() if isinstance(one, type)}
    known = {getattr(layers, name) for name in [*keras_layers.NAMES, *keras_layers.LEFT_OUT]}
    assert {one for one in classes if issubclass(one, layers.Layer)} == known
