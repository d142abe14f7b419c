"""Custom models: any Keras model is trained, and a mistake is one line before the study starts."""

import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_training as base

from study.data.dataset import load as load_data
from study.errors import ModelError, SettingsError, SpaceError, TrainingFailed
from study.running.checks import model_on_disk, same_model
from study.space.file import load as load_space
from study.space.model_source import ModelSource
from study.space.search_space import SearchSpace
from study.space.settings import Settings, resolve
from study.storage.location import Database
from study.text import sentences
from study.training.checkpoint import FolderCheckpoints
from study.training.run import Run
from study.training.train import start_tensorflow, train

pytestmark = pytest.mark.tensorflow

HEAD = """
import keras
from keras import layers

def compiled(model, params, loss="sparse_categorical_crossentropy", rate=None):
    model.compile(keras.optimizers.Adam(rate or params["rate"]), loss, metrics=["accuracy"])
    return model
"""
SEQUENTIAL = """
def build(params, input_shape, num_classes):
    return compiled(keras.Sequential([
        layers.Input(input_shape),
        layers.Conv2D(params["width"], 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(params.get("drop", 0.0)),
        layers.Dense(num_classes, activation="softmax"),
    ]), params, "categorical_crossentropy")
"""
RESIDUAL = """
def build(params, input_shape, num_classes):
    images = layers.Input(input_shape)
    x = layers.Conv2D(params["width"], 3, padding="same", activation="relu")(images)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Add()([x, layers.Conv2D(params["width"], 3, padding="same")(x)])
    x = layers.Flatten()(layers.Dropout(params.get("drop", 0.0))(x))
    return compiled(keras.Model(images, layers.Dense(num_classes, "softmax")(x)), params)
"""
SUBCLASSED = """
class Net(keras.Model):
    def __init__(self, width, drop, classes):
        super().__init__()
        self.inner = layers.Conv2D(width, 3, activation="relu")
        self.flat, self.drop = layers.Flatten(), layers.Dropout(drop)
        self.out = layers.Dense(classes)

    def get_config(self):
        return {"width": 4, "drop": 0.0, "classes": 3}

    def call(self, x, training=False):
        return self.out(self.drop(self.flat(self.inner(x)), training=training))

def build(params, input_shape, num_classes):
    params["rate"]
    return Net(params["width"], params.get("drop", 0.0), num_classes)
"""
OUTSIDE = """
def build(params, input_shape, num_classes):
    images = layers.Input(input_shape)
    x = layers.Flatten()((images - 0.5) / 0.25)
    x = layers.Dense(params["width"], "relu")(x)
    return compiled(keras.Model(images, keras.ops.softmax(layers.Dense(num_classes)(x))), params)
"""
CONSTRAINED = """
def build(params, input_shape, num_classes):
    norm = keras.constraints.MaxNorm(1.0)
    return compiled(keras.Sequential([
        layers.Input(input_shape),
        layers.Flatten(),
        layers.Dense(params["width"], "relu", kernel_constraint=norm),
        layers.Dense(num_classes, "softmax"),
    ]), params)
"""
PARAMS = {"width": 4, "rate": 0.01}


def source(text: str, function: str = "build") -> ModelSource:
    return ModelSource("/nowhere/my_model.py", function, HEAD + textwrap.dedent(text))


def run_of(text: str, **params: Any) -> Run:
    return replace(base.RUN, params=tuple((PARAMS | params).items()), model=source(text))


def tried(text: str, *configurations: dict[str, Any], loadable: bool = False) -> Any:
    from study.training import probe

    start_tensorflow(1)
    given = source(text), configurations or (PARAMS,)
    return probe.tried(*given, (12, 12, 1), 3, loadable=loadable)


@pytest.mark.parametrize("text", [SEQUENTIAL, RESIDUAL, SUBCLASSED])
def test_any_model_learns_and_continues_to_the_same_bits(text: str, tmp_path: Path) -> None:
    from study.training.custom_model import build
    from study.training.keras_file import count_parameters

    run = run_of(text, drop=0.3)
    epochs, saved = base.finish(train(run, base.DATA))
    assert epochs[-1].val_accuracy > 0.9
    store = FolderCheckpoints(tmp_path)
    training = train(run, base.DATA, checkpoints=store)
    next(training), next(training)
    training.close()
    again, saved_again = base.finish(train(run, base.DATA, checkpoints=store))
    assert base.bits(again) == base.bits(epochs)
    built, _ = build(run.model, dict(run.params), (12, 12, 1), 3)
    assert count_parameters(saved) == built.count_params()
    if text != SUBCLASSED:  # its class is the user's, and needed to load it
        assert base.same((again, saved_again), (epochs, saved), tmp_path)


def test_layers_of_a_custom_model_compute_faster_to_the_numbers_of_stock() -> None:
    for text in (RESIDUAL, SUBCLASSED, OUTSIDE):  # constraints: test_step
        curves = [
            base.finish(train(replace(run_of(text), training=path, epochs=2), base.DATA))[0]
            for path in ("fast", "stock")
        ]
        for one, other in zip(*map(base.bits, curves), strict=True):
            assert one == pytest.approx(other, rel=2e-3)


def test_a_repeat_starts_with_the_same_weights_in_every_configuration() -> None:
    from study.training.custom_model import build

    def weights(seed: int, drop: float) -> Any:
        model, _ = build(source(SEQUENTIAL), PARAMS | {"drop": drop}, (12, 12, 1), 3, seed)
        return model.get_weights()[0]

    assert np.array_equal(weights(1, 0.1), weights(1, 0.3))
    assert not np.array_equal(weights(1, 0.1), weights(2, 0.1))


def test_who_else_draws_random_numbers_changes_no_weights() -> None:
    from study.training.custom_model import build

    def weights(text: str) -> Any:
        return build(source(text), PARAMS, (12, 12, 1), 3, 1)[0].get_weights()[0]

    meddling = SEQUENTIAL.replace(
        "return compiled", "import random; random.random(); return compiled"
    )
    assert np.array_equal(weights(SEQUENTIAL), weights(meddling))


DECAY = 'keras.optimizers.schedules.ExponentialDecay(params["rate"], 8, 0.5)'
SCHEDULED = SEQUENTIAL.replace('"categorical_crossentropy"', f'"categorical_crossentropy", {DECAY}')


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_a_schedule_that_a_model_is_compiled_with_goes_on_where_it_was(
    path: str, tmp_path: Path
) -> None:
    run = replace(run_of(SCHEDULED, drop=0.3), training=path, epochs=3)
    epochs, _ = base.finish(train(run, base.DATA))
    constant, _ = base.finish(train(replace(run, model=source(SEQUENTIAL)), base.DATA))
    assert base.bits(epochs) != base.bits(constant)
    store = FolderCheckpoints(tmp_path)
    training = train(run, base.DATA, checkpoints=store)
    next(training)
    training.close()
    assert base.bits(base.finish(train(run, base.DATA, checkpoints=store))[0]) == base.bits(epochs)


NAMELESS = """
class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01 / (1.0 + keras.ops.cast(step, "float32"))

"""


@pytest.mark.parametrize("text", [SCHEDULED, NAMELESS + SCHEDULED.replace(DECAY, "Falling()")])
def test_two_schedules_are_refused(text: str) -> None:
    with pytest.raises(
        ModelError, match="with a learning-rate schedule, and the space has another"
    ):
        tried(text, PARAMS | {"schedule": "cosine"})


def test_how_a_model_is_trained_need_not_be_read_and_is_obeyed() -> None:
    plain, _ = base.finish(train(run_of(SEQUENTIAL), base.DATA))
    turned, _ = base.finish(train(run_of(SEQUENTIAL, rotation=90.0), base.DATA))
    assert base.bits(plain) != base.bits(turned)
    tried(SEQUENTIAL, PARAMS | {"rotation": 90.0, "schedule": "cosine"})
    with pytest.raises(SpaceError, match=r"rotation is 181\.0"):
        tried(SEQUENTIAL, PARAMS | {"rotation": 181.0})


RETURNS = "def build(params, input_shape, num_classes):\n    params['rate'], params['width']\n    "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(:", "my_model.py:build: line 8: invalid syntax"),
        ("1 / 0", "line 8: ZeroDivisionError: division by zero"),
        ("import no_such_thing", "needs the package 'no_such_thing', which is not installed here"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("", "the file has no function 'build'"),
        ("build = 3", "the file has no function 'build'"),
        ("def build(params): return 1", "TypeError: build() takes 1 positional argument but 3"),
        (RETURNS + "return None", "gives NoneType, not a Keras model: return the model"),
        (
            RETURNS + "return keras.Sequential([layers.Flatten(), layers.Dense(5)])",
            "gives (1, 5) for one image; it must be (1, 3), a number a class: use num_classes",
        ),
        (
            RETURNS + "return keras.Sequential([layers.Input((28, 28, 1)), layers.Flatten(),"
            " layers.Dense(3)])",
            "does not take images of 12x12x1: ",
        ),
        (
            SEQUENTIAL.replace("width", "wide"),
            "my_model.py:build reads 'wide', which the space does not have; it has width, rate",
        ),
        (
            SEQUENTIAL.replace('params["width"]', "4"),
            "my_model.py:build does not read 'width': let it, or take it out of the space",
        ),
        (
            SEQUENTIAL.replace("compiled(keras.Sequential([", "bare(keras.Sequential([")
            + "def bare(model, params, loss):\n"
            "    params['rate']\n    model.compile('adam', loss)\n    return model\n",
            "does not log val_accuracy: compile it with that metric, or give metric = one of",
        ),
        (
            SUBCLASSED.replace("get_config", "configuration"),
            "my_model.py:build: Keras cannot save it: give the class Net, or the layer that",
        ),
    ],
)
def test_what_is_wrong_with_a_model_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ModelError) as wrong:
        tried(text)
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_model_that_cannot_be_built_for_one_option_alone_says_so() -> None:
    text = SEQUENTIAL.replace("    return ", "    assert params['width'] < 9\n    return ", 1)
    (said,) = tried(text, PARAMS, PARAMS | {"width": 9}).unbuilt
    assert re.fullmatch(r"with width=9 \(my_model.py:build: line \d+: AssertionError.*\)", said)
    with pytest.raises(ModelError, match="AssertionError"):
        tried(text, PARAMS | {"width": 9}, PARAMS)


SCALED = """
def build(params, input_shape, num_classes):
    images = layers.Input(input_shape)
    x = layers.Conv2D(params["width"], 3)(SCALE(images))
    x = layers.Dense(num_classes, "softmax")(layers.Flatten()(x))
    return compiled(keras.Model(images, x), params)
"""
FAINT = {
    "divided": "(lambda x: x / 255.0)",
    "mobilenet": "keras.applications.mobilenet.preprocess_input",
    "as bytes": '(lambda x: keras.ops.cast(keras.ops.cast(x, "uint8"), "float32"))',
    "adapted": "layers.Normalization(mean=[33.0], variance=[6000.0])",
    "rescaled": "layers.Rescaling(1 / 255)",
    "centred": "layers.Rescaling(1 / 127.5, -1)",
    "mean of another range": "(lambda x: x - 110.0)",
    "nested": "keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(2, 3)])",
    "before batch normalization": "keras.Sequential([layers.Rescaling(1 / 255),"
    " layers.BatchNormalization()])",
}
CLEAR = {
    "as it comes": "",
    "scaled twice": "keras.Sequential([layers.Rescaling(255.0), layers.Rescaling(1 / 127.5, -1)])",
    "scaled back": "(lambda x: keras.applications.mobilenet.preprocess_input(x * 255.0))",
    "centred": "layers.Rescaling(2.0, -1.0)",
    "adapted": "layers.Normalization(mean=[0.13], variance=[0.09])",
    "each image": "(lambda x: x - keras.ops.mean(x, (1, 2, 3), keepdims=True))",
    "batch normalization": "layers.BatchNormalization()",
    "sigmoid": 'layers.Activation("sigmoid")',
    "averages": "(lambda x: layers.UpSampling2D(4)(layers.AveragePooling2D(12)(x)))",
    "binary": '(lambda x: keras.ops.cast(x > 0.5, "float32"))',
    "augmented": 'keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomContrast(0.2)])',
    "a tenth": "(lambda x: x / 10)",
}


@pytest.mark.parametrize("name", FAINT)
def test_a_model_that_makes_images_all_but_constant_is_refused(name: str) -> None:
    said = "images come within 0..1, of which its layer [a-z0-9_]+ sees almost no contrast"
    with pytest.raises(ModelError, match=said):
        tried(SCALED.replace("SCALE", FAINT[name]))


@pytest.mark.parametrize("name", CLEAR)
def test_a_model_that_keeps_their_contrast_is_not(name: str) -> None:
    assert tried(SCALED.replace("SCALE", CLEAR[name])).parameters > 0


SEVERAL_LAYERS = """
class Tokens(keras.Model):
    def __init__(self, width, classes):
        super().__init__()
        self.place, self.token = layers.Embedding(9, 4), layers.Dense(4)
        self.width, self.out = layers.Dense(width), layers.Dense(classes)

    def get_config(self):
        return {"width": 4, "classes": 3}

    def call(self, x, training=False):
        places = self.place(keras.ops.arange(9))
        tokens = self.token(keras.ops.reshape(x SCALE, (-1, 9, 16)))
        return self.out(self.width(keras.ops.mean(tokens + places, 1)))

def build(params, input_shape, num_classes):
    params["rate"]
    return Tokens(params["width"], num_classes)
"""


def test_the_first_layer_that_is_given_images_counts() -> None:
    tried(SEVERAL_LAYERS.replace("SCALE", ""))
    with pytest.raises(ModelError, match="sees almost no contrast"):
        tried(SEVERAL_LAYERS.replace("SCALE", "/ 255.0"))


def test_methods_that_are_never_called_are_named() -> None:
    assert tried(SUBCLASSED).unused == ()
    fit = "    def fit(self, *args, **kwargs):\n        return super().fit(*args, **kwargs)\n\n"
    found = tried(SUBCLASSED.replace("    def call(", f"{fit}    def call(")).unused
    assert found == ("fit",)
    callbacks = SEQUENTIAL.replace("return compiled(", "model = compiled(")
    callbacks += "    model.callbacks = [keras.callbacks.TerminateOnNaN()]\n    return model\n"
    facts = tried(callbacks)
    assert facts.unused == ("callbacks",)
    settings = replace(resolve(SPACE, "my.toml", {}), model=source(callbacks), network=facts)
    assert "its own callbacks are never called" in (sentences.network(settings) or "")


def test_what_a_model_prints_is_seen_by_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    from study.training.custom_model import build

    text = SUBCLASSED.replace("return self.out", "print('called'); return self.out")
    text = "print('read')\n" + text.replace("return Net", "print('built'); return Net")
    build(source(text), PARAMS, (12, 12, 1), 3)
    assert capsys.readouterr().out == ""


def test_a_model_that_fails_in_a_worker_is_a_failed_run() -> None:
    with pytest.raises(TrainingFailed, match=r"^my_model.py:build: line 9: ValueError: too wide$"):
        next(train(run_of("def build(*_):\n    raise ValueError('too wide')"), base.DATA))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ValueError('only\\nhere')", "line 20: ValueError: .*only here"),
        ("MemoryError('all of it')", "^out of memory: "),
        ("RuntimeError", "line 20: RuntimeError"),
    ],
)
def test_what_a_model_raises_in_training_is_the_reason_of_its_run(raised: str, said: str) -> None:
    text = SUBCLASSED.replace(
        "        return self.out(", f"        if training: raise {raised}\n        return self.out("
    )
    with pytest.raises(TrainingFailed, match=said) as failed:
        next(train(run_of(text), base.DATA))
    assert str(failed.value).isprintable()


def test_the_process_that_tries_a_model_may_print_and_die() -> None:
    from study.training.probe import probe

    noisy = "import os; print('hello'); os.write(1, b'{}'); os.write(2, b'oh')\n"
    found = probe(source(noisy + SEQUENTIAL), [PARAMS], (12, 12, 1), 3)
    assert found.parameters == 343
    with pytest.raises(ModelError, match="process that tried it has ended with exit code 7"):
        probe(source("import os; os._exit(7)"), [PARAMS], (12, 12, 1), 3)


def test_the_example_is_keras_own_mnist_network_and_trains() -> None:
    from study.training.custom_model import build

    space, network = example("keras_mnist")
    model, read = build(network, space.start, (28, 28, 1), 10)
    assert model.count_params() == 34_826
    assert read == set(space.start)
    digits = load_data("digits")
    run = replace(
        base.RUN,
        params=tuple(space.start.items()),
        model=network,
        data_fingerprint=digits.fingerprint,
        epochs=2,
    )
    epochs, _ = base.finish(train(run, digits))
    assert epochs[-1].val_accuracy > 0.85


def example(name: str) -> tuple[SearchSpace, ModelSource]:
    path = Path(__file__).parents[1] / "examples" / f"{name}.toml"
    space = load_space(path)
    return space, ModelSource.read(space.model, path.parent, str(path))


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 20, 3)])
def test_the_residual_example_takes_images_of_any_size(shape: tuple[int, ...]) -> None:
    from study.training.custom_model import build, recipe_of

    space, network = example("resnet")
    params = space.start | {"stages": 3, "blocks": 2}
    model, read = build(network, params, shape, 7)
    assert model.output_shape == (None, 7)
    assert recipe_of(params, read) == {"translation": 0.0, "schedule": "one_cycle"}


def test_the_residual_example_learns() -> None:
    space, network = example("resnet")
    data = base.blobs(channels=3)
    params = space.start | {"width": 4}
    run = replace(
        base.RUN,
        params=tuple(params.items()),
        model=network,
        data_fingerprint=data.fingerprint,
        epochs=6,
    )
    epochs, _ = base.finish(train(run, data))
    assert epochs[-1].val_accuracy > 0.8


def test_another_text_or_function_is_another_run() -> None:
    one = run_of(SEQUENTIAL)
    moved = replace(one, model=replace(source(SEQUENTIAL), path="/elsewhere/my_model.py"))
    assert one.key == moved.key
    assert len({one.key, run_of(RESIDUAL).key, replace(one, model=None).key}) == 3
    assert replace(one, model=source(SEQUENTIAL, "other")).key != one.key


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("my_model.py", 'model: "my_model.py" is not allowed; give "FILE.py:FUNCTION"'),
        ("my_model:build", "is not allowed"),
        ("absent.py:build", "absent.py is not there; its path counts from the space's folder"),
        ("~nobody-here/absent.py:build", "absent.py is not there"),
        ("latin.py:build", "latin.py cannot be read"),
        ("wrong.py:build", "wrong.py: line 1: invalid syntax; correct the file"),
        ("big.py:build", "big.py: a Git LFS pointer and not the file itself; fetch it with: git"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(reference: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    (tmp_path / "wrong.py").write_text("def build(:")
    (tmp_path / "big.py").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d")
    with pytest.raises(SpaceError) as wrong:
        ModelSource.read(reference, tmp_path, "my.toml")
    assert said in str(wrong.value)
    assert str(wrong.value).startswith("my.toml: model: ")


SPACE = SearchSpace.from_dict(
    {
        "name": "own",
        "model": "my_model.py:build",
        "epochs": 1,
        "batch_size": 8,
        "repeats": 1,
        "hyperparameters": {
            "width": {"options": [4, 5], "start": 4},
            "rate": {"options": [0.1, 0.2], "start": 0.1},
        },
    }
)
LOCATION = Database.at("sqlite:///own.db").study("own")


def recorded(folder: Path, text: str = SEQUENTIAL) -> Settings:
    """The settings of a study, as they were stored, with the model's file in a folder."""
    (folder / "my_model.py").write_text(HEAD + text)
    model = ModelSource.read("my_model.py:build", folder, "my.toml")
    settled = replace(resolve(SPACE, str(folder / "my.toml"), {}), model=model)
    stored = Settings.from_dict(json.loads(json.dumps(settled.to_dict())))
    assert stored.model == model
    return stored


def test_a_file_that_has_changed_is_refused_or_accepted(tmp_path: Path) -> None:
    existing = recorded(tmp_path)
    same = model_on_disk(existing, tmp_path)
    assert same_model(existing, same, LOCATION, base.DATA, accept=None) == existing
    (tmp_path / "my_model.py").write_text(HEAD + RESIDUAL)
    now = model_on_disk(existing, tmp_path)
    changed = r"my_model.py has changed since the study 'own' was made: restore it"
    with pytest.raises(SettingsError, match=f"{changed}, .* --accept-changed-model$"):
        same_model(existing, now, LOCATION, base.DATA, accept=False)
    with pytest.raises(SettingsError, match=f"{changed}$"):
        same_model(existing, now, LOCATION, base.DATA, accept=None)
    accepted = same_model(existing, now, LOCATION, base.DATA, accept=True)
    assert (accepted.model, accepted.network and accepted.network.parameters) == (now, 1935)


def test_only_a_file_on_this_machine_is_run_and_one_that_is_gone_is_asked_for(
    tmp_path: Path,
) -> None:
    existing = recorded(tmp_path)
    assert existing.model is not None
    (tmp_path / "my_model.py").unlink()
    with pytest.raises(SettingsError) as refused:
        model_on_disk(existing, tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/my_model.py: the study runs this file, which is not there")
    assert existing.model.digest in said


def test_the_file_of_a_project_that_was_moved_lies_beside_its_space(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    existing = recorded(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    moved = model_on_disk(replace(existing, origin=str(tmp_path / "after/my.toml")), tmp_path)
    assert moved.path == str(tmp_path / "after/my_model.py")
    found = same_model(existing, moved, LOCATION, base.DATA, accept=False)
    assert found.model == moved
    assert model_on_disk(existing, tmp_path / "after") == moved  # the database is there too


OWN_CLASSES = """
@keras.saving.register_keras_serializable(package="mine")
class Patch(layers.Layer):
    def __init__(self, step=2, **more):
        super().__init__(**more)
        self.step = step

    def get_config(self):
        return {**super().get_config(), "step": self.step}

    def call(self, x):
        return x[:, :: self.step, :: self.step]

def swish(x):
    return x * keras.ops.sigmoid(x)

def build(params, input_shape, num_classes):
    return compiled(keras.Sequential([
        layers.Input(input_shape),
        Patch(2),
        layers.Conv2D(params["width"], 3, activation=swish),
        layers.Flatten(),
        layers.Dense(num_classes, "softmax"),
    ]), params)
"""
FORGETFUL = SUBCLASSED.replace('"width": 4', '"wide": 4')


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        (RESIDUAL, ()),
        (OUTSIDE, ()),
        (CONSTRAINED, ()),
        (SUBCLASSED, ("Net",)),
        (OWN_CLASSES, ("mine>Patch", "swish")),
    ],
)
def test_the_classes_that_a_saved_model_needs_are_found_beforehand(
    text: str, classes: tuple[str, ...]
) -> None:
    assert tried(text).classes == classes


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FORGETFUL, "Keras cannot load it again: "),
        (
            SEQUENTIAL.replace("layers.Flatten()", "layers.Lambda(lambda x: x), layers.Flatten()"),
            "it holds a Lambda, which is not loaded from a file: make a class of the user's file",
        ),
    ],
)
def test_a_model_that_no_file_gives_back_is_refused_before_the_search(text: str, why: str) -> None:
    tried(text)  # in Python code, which makes no final models
    with pytest.raises(ModelError, match=f"no final model can be made of it: {why}"):
        tried(text, loadable=True)


@pytest.mark.parametrize("text", [SUBCLASSED, OWN_CLASSES])
def test_a_model_of_own_classes_is_loaded_with_the_file_it_was_made_with(
    text: str, tmp_path: Path
) -> None:
    from study.final import archive, classifier
    from study.training import user_code
    from study.training.compiled import to_bytes

    run, path = run_of(text), tmp_path / "model.keras"
    _, member = base.finish(train(replace(run, epochs=1), base.DATA))
    path.write_bytes(member)
    own = user_code.classes(source(text))
    members = [classifier.load_member(path, name, own) for name in ("member_1", "member_2")]
    model = classifier.with_preprocessing(members, (12, 12, 1))
    needed = archive.Needed.of(source(text), tried(text).classes)
    card = archive.Card("one", "own", (0, 1, 2), (12, 12, 1), 0.5, "b", ("one",), needed=needed)
    path.write_bytes(archive.with_card(to_bytes(model), card))
    assert archive.read_card(path) == card

    kept, another = tmp_path / "kept.py", tmp_path / "another.py"
    kept.write_text(source(text).text)
    another.write_text("import os; os._exit(3)")
    pixels = base.DATA.images[:4] * 255
    loaded, _ = archive.load(path, archive.source_of(path, card, kept))
    said = classifier.probabilities(loaded, pixels)
    assert np.allclose(said, classifier.probabilities(model, pixels), atol=1e-6)
    with pytest.raises(ModelError, match=r"needs .* of my_model.py .* with --network, which runs"):
        archive.source_of(path, card, None)
    with pytest.raises(ModelError, match=r"is not the my_model\.py that the model was made with"):
        archive.source_of(path, card, another)
    with pytest.raises(ModelError, match="is in no file that was given"):
        archive.load(path)


def test_a_model_with_residuals_is_loaded_from_its_file_and_one_with_code_in_it_never(
    tmp_path: Path,
) -> None:
    import keras

    from study.final.archive import Card, load, with_card
    from study.training.custom_model import build

    def written(model: Any) -> Path:
        model.save(path := tmp_path / "model.keras")
        card = Card("one", "own", (0, 1, 2), (12, 12, 1), 0.5, "b", ("one",))
        path.write_bytes(with_card(path.read_bytes(), card))
        return path

    model, _ = build(source(RESIDUAL), PARAMS, (12, 12, 1), 3)
    loaded, _ = load(written(keras.Model(model.input, model.output)))  # as finalize does
    images = base.DATA.images[:2]
    assert np.array_equal(loaded(images), model(images, training=False))
    coded = keras.Sequential([keras.layers.Input((12, 12, 1)), keras.layers.Lambda(lambda x: x)])
    with pytest.raises(ModelError, match="holds a Lambda"):
        load(written(coded))


def test_a_final_model_gives_probabilities_also_where_its_members_give_logits() -> None:
    import keras

    from study.final.classifier import probabilities, with_preprocessing

    member = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)
    found = probabilities(with_preprocessing([member], (4, 4, 1)), pixels)
    assert np.all(found >= 0)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
