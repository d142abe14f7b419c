"""A pretrained start: a frozen backbone's outputs are computed once, and heads train on them."""

import contextlib
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import test_training as base
from engine_contract import ended
from test_commands import finish, here

from study.data.reading import ProgressCallbacks
from study.errors import ModelError, SettingsError, SpaceError, TrainingFailed
from study.running import features as cache
from study.running.prepare import Prepared, prepare, prepare_again
from study.space.file import load
from study.space.model_source import ModelSource
from study.space.search_space import SearchSpace
from study.space.settings import Setting, Settings
from study.storage.location import DEFAULT, Database
from study.training.checkpoint import FolderCheckpoints
from study.training.run import FineTuning, Run
from study.training.train import start_tensorflow, train
from study.workers.devices import Devices

pytestmark = pytest.mark.tensorflow

SHAPE = (12, 12, 1)
HEAD = """
from pathlib import Path

import keras
from keras import layers

def frozen(model):
    model.trainable = False
    return model

def body(input_shape, *more):
    return keras.Sequential([
        layers.Input(input_shape), layers.Conv2D(6, 3, activation="relu"), *more, layers.Flatten(),
    ])

def build(params, input_shape, num_classes):
    first = keras.initializers.GlorotUniform(seed=1)
    return keras.Sequential([
        layers.Input(input_shape),
        layers.Dropout(params["dropout"]),
        layers.Dense(num_classes, "softmax", kernel_initializer=first),
    ])
"""
RESTLESS = """
class Always(layers.Dropout):
    def call(self, x, training=False):
        return super().call(x, training=True)

class Noisy(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))

class Centred(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0)
"""
PLAIN = """
def backbone(input_shape):
    return frozen(body(input_shape))
"""
PRETRAINED = """
def backbone(input_shape):
    with Path(__file__).with_name("calls.txt").open("a") as calls:
        calls.write("called\\n")
    model = body(input_shape)
    model.load_weights(Path(__file__).with_name("pretrained.weights.h5"))
    return frozen(model)

def through(params, input_shape, num_classes):
    model = body(input_shape)
    model.load_weights(Path(__file__).with_name("pretrained.weights.h5"))
    images = layers.Input(input_shape)
    x = frozen(model)(images, training=False)
    return keras.Model(images, build(params, x.shape[1:], num_classes)(x))
"""
SPACE = """
name = "photos"
model = "net.py:build"
features = "net.py:backbone"
files = ["pretrained.weights.h5"]
data = "some.npz"
epochs = 3
batch_size = 20
repeats = 2
validation = { folds = 2 }

[hyperparameters.dropout]
options = [0.0, 0.3]
start = 0.0
"""


def source(text: str) -> ModelSource:
    return ModelSource("/nowhere/net.py", "build", HEAD + text, features="backbone")


def tried(text: str, **params: Any) -> Any:
    from study.training import probe

    start_tensorflow(1)
    return probe.tried(source(text), [{"dropout": 0.0, **params}], SHAPE, 3, loadable=True)


# What is wrong with a backbone -------------------------------------------------------------------

BAD = {
    "trainable": (
        "return body(s)",
        "is trainable: set trainable = False on the model it returns",
    ),
    "one trainable layer": (
        "m = body(s); m.trainable = False; m.layers[0].trainable = True; return m",
        "is trainable: set trainable = False",
    ),
    "a list": ("return [body(s)]", "gives list, not a Keras model: return the model"),
    "None": ("frozen(body(s))", "gives NoneType, not a Keras model"),
    "a model of two outputs": (
        "i = layers.Input(s); return frozen(keras.Model(i, [layers.Flatten()(i), i]))",
        "gives list for 8 images: return a model with one output of (8, ...)",
    ),
    "a number for all images": (
        "i = layers.Input(s); return frozen(keras.Model(i, keras.ops.mean(i)))",
        "gives () for 8 images",
    ),
    "another size": (
        "return frozen(body((32, 32, 3)))",
        "does not take images of 12x12x1: ",
    ),
    "several inputs": (
        (
            "a, b = layers.Input(s), layers.Input(s); "
            "return frozen(keras.Model([a, b], layers.Flatten()(a + b)))"
        ),
        "takes 2 inputs: it must take images alone",
    ),
    "dropout that never rests": (
        "return frozen(body(s, Always(0.5)))",
        "changes its output between two calls: take out training=True and layers that draw",
    ),
    "noise": (
        "return frozen(body(s, Noisy()))",
        "changes its output between two calls",
    ),
    "the mean of the batch": (
        "return frozen(body(s, Centred()))",
        "gives another output for an image that is alone: take out training=True",
    ),
    "NaN": (
        "i = layers.Input(s); return frozen(keras.Model(i, keras.ops.log(i - 2)))",
        "gives NaN or infinite numbers for images of 0..1",
    ),
    "missing weights": (
        "m = body(s); m.load_weights('/nowhere/gone.weights.h5'); return frozen(m)",
        "gone.weights.h5",
    ),
    "weights of another network": (
        "import numpy as np; m = body(s); m.set_weights([np.zeros(3)]); return frozen(m)",
        "ValueError",
    ),
    "no internet": (
        (
            "raise Exception('URL fetch failure on https://somewhere/w.h5: None -- "
            "[Errno -2] Name or service not known')"
        ),
        "cannot download its weights ([Errno -2] Name or service not known): connect this machine",
    ),
    "a mistake": ("return 1 / 0", "ZeroDivisionError: division by zero"),
    "an exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "images divided again": (
        "return frozen(keras.Sequential([layers.Input(s), layers.Rescaling(1 / 255), body(s)]))",
        "net.py:backbone: images come within 0..1, of which its layer",
    ),
    "a Lambda": (
        "return frozen(body(s, layers.Lambda(lambda x: x)))",
        "no final model can be made of it: it holds a Lambda",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_backbone_is_said_in_a_line(name: str) -> None:
    does, said = BAD[name]
    with pytest.raises(ModelError) as wrong:
        tried(f"{RESTLESS}\ndef backbone(s):\n    {does}\n")
    assert str(wrong.value).startswith("net.py:backbone")
    assert said in str(wrong.value)
    assert str(wrong.value).isprintable()


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match=r"net.py:backbone: the file has no function 'backbone'"):
        tried("")


def test_a_head_that_does_not_fit_the_outputs_is_named() -> None:
    narrow = PLAIN.replace("body(input_shape)", "keras.Sequential([body(input_shape)])")
    narrow += "\nHEAD = build\ndef build(params, input_shape, num_classes):\n"
    narrow += "    return HEAD(params, (3,), num_classes)\n"
    with pytest.raises(
        ModelError, match=r"does not take outputs of net.py:backbone, of shape 600:"
    ):
        tried(narrow)


def test_augmentation_is_refused_with_the_reason() -> None:
    tried(PLAIN, rotation=0.0, schedule="cosine")
    with pytest.raises(ModelError, match=r"change images, but the outputs of net.py:backbone are"):
        tried(PLAIN, rotation=10.0)


def test_dropout_and_normalization_of_a_backbone_rest() -> None:
    rests = "layers.BatchNormalization(), layers.Dropout(0.5), layers.RandomFlip()"
    found = tried(f"def backbone(s):\n    return frozen(body(s, {rests}))\n")
    assert (found.backbone.shape, found.classes) == ((600,), ())


def test_classes_that_a_backbone_needs_are_found() -> None:
    own = (
        "class Half(layers.Layer):\n    def call(self, x):\n        return x / 2\n\n"
        "def backbone(s):\n    return frozen(body(s, Half()))\n"
    )
    assert tried(own).classes == ("Half",)
    assert tried(own).backbone.digest != tried(own.replace("x / 2", "x / 3")).backbone.digest


def test_a_backbone_is_recognised_by_layers_and_weights() -> None:
    one = tried(PLAIN).backbone
    assert tried("import keras as k\nk.layers.Dense(3)\n" + PLAIN).backbone == one
    doubled = "m = body(input_shape); m.set_weights([2 * w for w in m.get_weights()])"
    others = [
        PLAIN.replace("body(input_shape)", "body(input_shape, layers.ReLU())"),
        PLAIN.replace("return frozen(body(input_shape))", f"{doubled}; return frozen(m)"),
    ]
    assert len({one.digest, *(tried(other).backbone.digest for other in others)}) == 3


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"features": "net.py:backbone"}, "features: is the backbone that a model is the head of"),
        (
            {"features": "a.py:b", "model": "a.py:c", "limits": {"parameters": 9}},
            "limits: are those of whole networks, and with features runs train heads",
        ),
        ({"features": 3, "model": "net.py:build"}, "features: 3 is not allowed; give 'FILE.py:F"),
    ],
)
def test_features_need_a_model(keys: dict[str, Any], said: str) -> None:
    table = {"name": "a", "epochs": 1, "batch_size": 1, "repeats": 1}
    table |= {"hyperparameters": {"dense": {"options": [1], "start": 1}}}
    with pytest.raises(SpaceError, match=said):
        SearchSpace.from_dict(table | keys)


@pytest.mark.parametrize("features", ["backbone", "other.py:backbone", "net.py:", "net.py:a b"])
def test_features_name_a_function_of_the_file_of_the_model(features: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(HEAD + PLAIN)
    said = f'^my.toml: features: "{features}" is not allowed; give a function of the file of model,'
    with pytest.raises(SpaceError, match=said):
        ModelSource.read("net.py:build", tmp_path, "my.toml", (), features)
    one, other = (
        ModelSource.read("./net.py:build", tmp_path, "my.toml", (), name)
        for name in ("net.py:backbone", "net.py:body")
    )
    assert one.fingerprint != other.fingerprint


# The file of an array ----------------------------------------------------------------------------

ARRAY = np.arange(24, dtype=np.float32).reshape(6, 2, 2)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "array.npy"
    with path.open("xb") as file:
        cache.write_array(file, (6, 2, 2), [ARRAY[:4], ARRAY[4:]])
    return path


def test_an_array_is_a_npy_file_and_is_read_without_a_copy(stored: Path) -> None:
    found = cache.read_array(stored, (6, 2, 2))
    assert found is not None
    assert np.array_equal(found, ARRAY)
    assert np.array_equal(np.load(stored, allow_pickle=False), ARRAY)
    assert not found.flags.writeable
    assert not found.flags.owndata
    assert np.array_equal(pickle.loads(pickle.dumps(found)), ARRAY)


def test_a_damaged_array_is_none_at_every_byte(stored: Path) -> None:
    whole = stored.read_bytes()
    for place in range(len(whole)):
        stored.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.read_array(stored, (6, 2, 2)) is None, place
    for cut in (whole[:-1], whole + b"0", whole[:64], b""):
        stored.write_bytes(cut)
        assert cache.read_array(stored, (6, 2, 2)) is None


def test_another_array_and_what_is_no_file_is_none(stored: Path, tmp_path: Path) -> None:
    assert cache.read_array(stored, (6, 4)) is None
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert cache.read_array(tmp_path / "pickled.npy", (1,)) is None
    os.mkfifo(tmp_path / "pipe.npy")
    assert cache.read_array(tmp_path / "pipe.npy", (1,)) is None
    (tmp_path / "link.npy").symlink_to(stored)
    with pytest.raises(OSError, match="symbolic link"):
        cache.read_array(tmp_path / "link.npy", (6, 2, 2))


# A study -----------------------------------------------------------------------------------------


def given(folder: Path) -> Path:
    """A folder with a space, images, and a backbone that was trained on others."""
    import keras

    start_tensorflow(1)
    names: dict[str, Any] = {}
    exec(HEAD, names)
    body = names["body"](SHAPE)
    trained = keras.Sequential([body, keras.layers.Dense(3, "softmax")])
    trained.compile("adam", "sparse_categorical_crossentropy")
    others = base.blobs(count=60)
    trained.fit(others.images, others.labels, epochs=1, verbose=0)
    body.save_weights(folder / "pretrained.weights.h5")
    data = base.blobs(count=120)
    np.savez(folder / "some.npz", x_train=np.uint8(data.images * 255), y_train=data.labels)
    np.savez(folder / "new.npz", x_test=np.uint8(data.images * 255))
    (folder / "net.py").write_text(HEAD + PRETRAINED)
    (folder / "photos.toml").write_text(SPACE)
    return folder


def calls(folder: Path) -> int:
    """How often the backbone of a folder was built."""
    return len((folder / "calls.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of two worker processes."""
    folder = given(tmp_path_factory.mktemp("features"))
    here(folder, "run", "photos.toml", "--mlflow", "none", "--jobs", "2")
    return folder


@pytest.fixture
def at(finished: Path) -> Iterator[Path]:
    with contextlib.chdir(finished):
        yield finished


def again(said: list[str] | None = None) -> Prepared:
    callbacks = ProgressCallbacks(([] if said is None else said).append)
    return prepare_again("photos", Database.at(DEFAULT), None, callbacks)


def test_features_are_the_outputs_of_the_backbone_and_computed_once(at: Path) -> None:
    from study.training import backbone

    built = calls(at)
    assert built == 2  # by the process that tries it, and by the one that computes
    prepared, also = again(), again()
    assert calls(at) == built
    assert np.array_equal(prepared.inputs.images, also.inputs.images)
    assert prepared.inputs.input_shape == (600,)
    assert len(prepared.inputs.test_labels) == 0
    settings = prepared.settings
    assert settings.model is not None
    assert settings.network is not None
    assert settings.network.backbone is not None
    model = backbone.recorded(settings.model, SHAPE, settings.network.backbone)
    outputs = np.asarray(model(prepared.dataset.images[:20] / np.float32(255)))
    assert prepared.inputs.images[:20] == pytest.approx(outputs, abs=1e-5)


def test_the_settings_of_a_study_with_features_are_stored(at: Path) -> None:
    settings = again().settings
    assert Settings.from_dict(settings.to_dict()) == settings
    other = replace(settings, space=replace(settings.space, features="net.py:body"))
    assert settings.differences(other) == ["features (net.py:backbone, not net.py:body)"]


def run_of(prepared: Prepared, **changes: Any) -> Run:
    settings = prepared.settings
    params = tuple(settings.space.start.items())
    return replace(Run.of(settings, prepared.inputs.fingerprint, params), **changes)


def test_a_head_learns_what_it_learns_through_the_backbone(at: Path) -> None:
    prepared = again()
    head = base.finish(train(run_of(prepared), prepared.inputs))[0]
    model = replace(prepared.settings.model, function="through", features=None)
    through = run_of(prepared, model=model, data_fingerprint=prepared.dataset.fingerprint)
    whole = base.finish(train(through, prepared.dataset))[0]
    for one, other in zip(base.bits(head), base.bits(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3)


def test_features_travel_to_a_worker_which_builds_no_backbone(at: Path) -> None:
    prepared, built = again(), calls(at)
    run = run_of(prepared, epochs=2)
    here_ = base.finish(train(run, prepared.inputs))[0]
    with closing(local_pool_of(prepared)) as engine:
        epochs, model = ended(engine, run)
    assert base.bits(epochs) == base.bits(here_)
    assert model is not None
    copied = pickle.loads(pickle.dumps(prepared.inputs))  # as Dask does
    assert base.bits(base.finish(train(run, copied))[0]) == base.bits(here_)
    assert calls(at) == built


def local_pool_of(prepared: Prepared) -> Any:
    from study.workers.pool import local_pool

    return local_pool(prepared.inputs, 1)


def test_weights_of_the_backbone_are_not_needed_where_heads_train(at: Path) -> None:
    prepared = again()
    assert prepared.settings.model is not None
    replace(prepared.settings.model, path="/nowhere/net.py").check_files()
    weights, content = at / "pretrained.weights.h5", (at / "pretrained.weights.h5").read_bytes()
    weights.write_bytes(b"others")
    with pytest.raises(ModelError, match="is another file here"):
        prepared.settings.model.check_files()
    weights.write_bytes(content)


def test_damaged_features_are_computed_again_with_a_note(at: Path) -> None:
    (file,) = (at / "study.db.features").iterdir()
    whole, before = file.read_bytes(), again().inputs.images.copy()
    file.write_bytes(whole[:-40] + b"damage" + whole[-34:])
    said: list[str] = []
    assert np.array_equal(again(said).inputs.images, before)
    assert said[0] == f"{file}: is damaged, so the features are computed again"
    assert "for 96 images, once for all runs" in said[1]
    assert file.read_bytes() == whole
    assert again(said)
    assert len(said) == 2


def test_a_link_is_neither_read_nor_written_through(at: Path, tmp_path: Path) -> None:
    folder = at / "study.db.features"
    (file,) = folder.iterdir()
    file.rename(tmp_path / "elsewhere.npy")
    file.symlink_to(tmp_path / "elsewhere.npy")
    content = (tmp_path / "elsewhere.npy").read_bytes()
    said: list[str] = []
    again(said)
    assert "is damaged" in said[0]
    assert not file.is_symlink()
    assert (tmp_path / "elsewhere.npy").read_bytes() == content
    folder.rename(tmp_path / "folder")
    folder.symlink_to(tmp_path / "folder")
    with pytest.raises(SettingsError, match="features: is not a folder of this program; move it"):
        again()
    folder.unlink()
    (tmp_path / "folder").rename(folder)


def test_other_weights_are_refused_before_anything_is_computed(at: Path) -> None:
    from study.training import backbone

    settings = again().settings
    assert settings.model is not None
    assert settings.network is not None
    assert settings.network.backbone is not None
    other = replace(settings.network.backbone, digest="0" * 64)
    with pytest.raises(ModelError, match=r"net.py:backbone has other layers or weights than when"):
        backbone.recorded(settings.model, SHAPE, other)


def test_a_command_that_is_stopped_while_it_computes_leaves_nothing(
    at: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = at / "study.db.features"
    folder.rename(tmp_path / "kept")

    def stopped(*_: Any) -> None:
        assert len(list(folder.iterdir())) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_ask", stopped)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert not folder.exists()
    (tmp_path / "kept").rename(folder)
    again()


def test_what_a_killed_command_has_left_is_removed(at: Path, monkeypatch: Any) -> None:
    (file,) = (at / "study.db.features").iterdir()
    whole = file.read_bytes()
    file.rename(file.with_name(f".{file.name}.00ff.tmp"))
    monkeypatch.setattr(cache, "_ask", lambda question, *_: os.write(question[4], whole))
    again()
    assert list(file.parent.iterdir()) == [file]


def test_groups_on_a_gpu_are_refused_and_never_the_default(at: Path) -> None:
    from study.running.checks import placed
    from study.space.settings import resolve

    grouped = {"training": Setting("grouped", "command line")}
    with pytest.raises(
        SettingsError, match=r"^--training grouped: trains on images alone, and the"
    ):
        prepare("photos.toml", "groups", Database.at("sqlite:///other.db"), grouped)
    assert not (at / "other.db").exists()
    cards = Devices("gpu", libraries=("tensorflow", "jax"))
    settings = resolve(load("photos.toml"), "photos.toml", {})
    assert placed(settings, cards)["training"] == "stock"
    plain = replace(settings, space=replace(settings.space, features=None))
    assert placed(plain, cards)["training"] == "grouped"


def test_the_final_model_takes_pixels_and_needs_no_file(at: Path) -> None:
    from study.final import archive, classifier, gradcam

    here(at, "finalize", "--members", "2", "--mlflow", "none")
    model, card = archive.load(at / "photos-models/average-of-2.keras")
    assert (card.input_shape, card.needed) == (SHAPE, None)
    assert [layer.name for layer in model.layers].count("backbone") == 1
    prepared = again()
    pixels = classifier.as_pixels(prepared.dataset.images)
    sure = classifier.probabilities(model, pixels)
    assert (sure.argmax(1) == prepared.dataset.labels).mean() > 0.9
    seen = gradcam.heat_maps(model, pixels[:3], np.zeros(3, np.int64))
    assert (seen.shape, float(seen.max())) == ((3, 12, 12), 1.0)
    heads = [
        classifier.load_member(path, path.stem) for path in (at / "photos-models/members").iterdir()
    ]
    said = np.mean([np.asarray(head(prepared.inputs.images)) for head in heads], axis=0)
    assert sure == pytest.approx(said, abs=1e-4)
    out, _ = here(at, "predict", "photos-models/seed-1.keras", "new.npz", "--json")
    assert out.count('"label"') == 120
    assert "net.py:backbone" in (at / "photos-report/report.html").read_text()


@pytest.mark.parametrize("metric", ["val_loss"])
def test_another_metric_of_final_models_is_measured(metric: str, tmp_path: Path) -> None:
    given(tmp_path)
    space = SPACE.replace("data =", f'metric = "{metric}"\ndirection = "minimize"\ndata =')
    (tmp_path / "photos.toml").write_text(space.replace("repeats = 2", "repeats = 1"))
    here(tmp_path, "run", "photos.toml", "--mlflow", "none", "--jobs", "1")
    out, _ = here(tmp_path, "finalize", "--members", "1", "--mlflow", "none")
    assert "loss 0." in out


# Fine-tuning -------------------------------------------------------------------------------------


NOISY = (("dropout", 0.3),)


def tuned_run(prepared: Prepared, layers: int, rate: float | None = None) -> tuple[Run, Any]:
    """A run that fine-tunes, its head trained for one epoch, and the data it trains on."""
    from study.final.finalize import FinalOptions, _on_images

    _, head = base.finish(train(run_of(prepared, epochs=1, params=NOISY), prepared.inputs))
    data = _on_images(prepared, FinalOptions(fine_tune=layers)).inputs
    tuning = FineTuning(layers, rate, head)
    changes = {"tuning": tuning, "data_fingerprint": data.fingerprint, "params": NOISY}
    return run_of(prepared, epochs=3, **changes), data


def test_fine_tuning_starts_from_the_trained_head_and_moves_the_last_layers(at: Path) -> None:
    from study.training.custom_model import network_of

    prepared = again()
    run, data = tuned_run(prepared, 1)
    model, _ = network_of(run, data)
    head, _ = network_of(run_of(prepared), prepared.inputs)
    assert float(model.optimizer.learning_rate) == pytest.approx(
        float(head.optimizer.learning_rate) / 10
    )
    stated, _ = network_of(replace(run, tuning=replace(run.tuning, rate=0.5)), data)
    assert float(stated.optimizer.learning_rate) == 0.5
    images = prepared.dataset.images[:20] / np.float32(255)
    (at / "head.keras").write_bytes(run.tuning.head)
    import keras

    says = keras.models.load_model(at / "head.keras")(prepared.inputs.images[:20])
    assert np.asarray(model(images)) == pytest.approx(np.asarray(says), abs=1e-4)
    (at / "head.keras").unlink()
    before = model.get_weights()
    saved = base.weights(base.finish(train(run, data))[1], at)
    (at / "model.keras").unlink()
    moved = [not np.array_equal(one, other) for one, other in zip(before, saved, strict=True)]
    assert moved == [True] * 4  # kernel and bias of the convolution, and of the head


def test_only_the_last_layers_of_a_backbone_are_tuned_and_no_normalization() -> None:
    import keras
    from keras import layers

    from study.training import backbone

    inner = keras.Sequential([layers.Conv2D(3, 3), layers.BatchNormalization()])
    inner.add(layers.Conv2D(5, 3))
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(2, 3), inner, layers.Conv2D(4, 3), layers.ReLU()]
    )
    model.trainable = False
    assert [layer.filters for layer in backbone.tunable(model)] == [2, 3, 5, 4]
    for number, filters in ((1, {4}), (2, {5, 4}), (3, {3, 5, 4})):
        backbone.unfreeze(model, number)
        assert {weight.shape[-1] for weight in model.trainable_weights} == filters
        assert len(model.trainable_weights) == 2 * number


def test_a_fine_tuned_run_continues_to_the_same_bits(at: Path, tmp_path: Path) -> None:
    run, data = tuned_run(again(), 1)
    whole = base.finish(train(run, data))[0]
    store = FolderCheckpoints(tmp_path)
    training = train(run, data, checkpoints=store)
    next(training)
    training.close()
    assert base.bits(base.finish(train(run, data, checkpoints=store))[0]) == base.bits(whole)
    assert run.key != replace(run, tuning=replace(run.tuning, layers=2)).key
    assert run.key == replace(run, tuning=replace(run.tuning, head=b"")).key
    assert run.key != replace(run, tuning=None).key


def test_a_head_with_a_step_of_its_own_is_not_fine_tuned(at: Path) -> None:
    run, data = tuned_run(again(), 1)
    text = run.model.text.replace(
        "return keras.Sequential([\n        layers.Input(input_shape),\n"
        "        layers.Dropout(params",
        "return Own([\n        layers.Input(input_shape),\n        layers.Dropout(params",
    )
    text += "\nclass Own(keras.Sequential):\n    def train_step(self, data):\n        return {}\n"
    with pytest.raises(TrainingFailed, match="has its own train_step, which fine-tuning would not"):
        next(train(replace(run, model=replace(run.model, text=text)), data))


def test_final_models_are_fine_tuned_in_workers_that_build_no_backbone(at: Path) -> None:
    from study.final import archive

    built = calls(at)
    words = ("finalize", "--members", "2", "--fine-tune", "1", "--mlflow", "none")
    out, _ = here(at, *words, "--jobs", "2")
    assert re.search(r"Held out: .* % with the frozen backbone, .* % fine-tuned", out)
    assert "seed 1, fine-tuned" in out
    assert calls(at) == built + 1
    model, card = archive.load(at / "photos-models/average-of-2-fine-tuned.keras")
    assert (card.input_shape, card.needed, model.input_shape[1:]) == (SHAPE, None, SHAPE)
    out, _ = here(at, *words)
    assert "the test set was not opened for it again" in out
    out, _ = here(at, "predict", "photos-models/seed-1-fine-tuned.keras", "new.npz", "--json")
    assert out.count('"label"') == 120


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fine-tune", "2"), "normalization, are 1; give at most that"),
        (("--fine-tune-rate", "0.1"), "--fine-tune-rate: is that of --fine-tune; give the number"),
        (("--fine-tune", "1", "--fine-tune-rate", "0"), "--fine-tune-rate 0: give a number above"),
        (("--fine-tune", "1", "--fine-tune-rate", "nan"), "--fine-tune-rate nan: give a number"),
    ],
)
def test_what_cannot_be_fine_tuned_is_a_line(words: tuple[str, ...], said: str, at: Path) -> None:
    _, err = here(at, "finalize", *words, "--mlflow", "none", code=2)
    assert said in err
    assert len(err.splitlines()) == 1


# Commands ----------------------------------------------------------------------------------------


SHARES = """
def backbone(input_shape):
    images = layers.Input(input_shape)
    x = layers.Flatten()(images)
    return frozen(keras.Model(images, x / keras.ops.sum(x, axis=1, keepdims=True)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def backbone(s):\n    return body(s)\n", "photos.toml: net.py:backbone is trainable"),
        (SHARES, "net.py:backbone gives NaN or infinite numbers for training image "),
    ],
)
def test_a_backbone_of_no_use_is_a_line_and_leaves_nothing(
    text: str, said: str, tmp_path: Path
) -> None:
    given(tmp_path)
    (tmp_path / "net.py").write_text(HEAD + text)
    images = np.ones((24, *SHAPE), np.uint8)
    images[:12] = 0
    np.savez(tmp_path / "some.npz", x_train=images, y_train=np.arange(24) % 3)
    before = {path.name for path in tmp_path.iterdir()}
    _, err = finish(tmp_path, "run", "photos.toml", "--mlflow", "none", code=2)
    (line,) = err.splitlines()
    assert line.startswith("study: ")
    assert said in line
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_example_is_mobilenet_and_tells_the_network_what_it_expects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from study.training import backbone, probe

    path = Path(__file__).parents[1] / "examples" / "mobilenet.toml"
    space = load(path)
    given = ModelSource.read(space.model or "", path.parent, str(path), (), space.features)
    assert "downloads the weights" in given.text
    untrained = replace(given, text=given.text.replace('"imagenet"', "None"))
    start_tensorflow(1)
    found = probe.tried(untrained, [space.start], (32, 32, 1), 5, loadable=True)
    assert found.backbone is not None
    assert (found.backbone.shape, found.classes) == ((1280,), ())
    assert found.parameters == 1281 * 5
    model = backbone.built(untrained, (32, 32, 1))
    assert [layer.name for layer in backbone.tunable(model)][-1] == "Conv_1"

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", offline)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"mobilenet.py:backbone cannot download its weights"):
        backbone.built(given, (96, 96, 3))
