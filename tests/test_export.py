"""Final models for LiteRT and ONNX: converted, read back, measured; damaged files are refused."""

import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import assert_one_line, study
from test_predict import saved

from study.data.arrays import digits
from study.errors import DataError, ModelError
from study.final import archive, calibration, runtimes
from study.final import export as exporting
from study.final.archive import Card
from study.final.export import ExportOptions
from study.final.predict import Classifier
from study.final.records import FinalModel

pytestmark = pytest.mark.tensorflow

SHAPE = (28, 28, 1)
DIGITS = Card("seed 1", "digits", tuple(range(10)), SHAPE, 0.3, "abc", ("key",))
NEEDS_ONNX = "needs the extra onnx: pip install '.[onnx]'"


@pytest.fixture(scope="module")
def pictures() -> tuple[Any, Any]:
    """Pixels of 0..255 of the digits, and their labels."""
    part, _ = digits()
    return np.rint(part.images[..., np.newaxis] * 255), part.labels


@pytest.fixture(scope="module")
def network(pictures: tuple[Any, Any]) -> Any:
    """A small network for the digits, trained for a few epochs, with its preprocessing."""
    from study.training.train import start_tensorflow

    start_tensorflow(1)
    import keras

    from study.final.classifier import with_preprocessing
    from study.training.network import build_cnn

    pixels, labels = pictures
    params = {"filters": 8, "k1": 3, "k2": 3, "dense": 16, "dropout": 0.1}
    keras.utils.set_random_seed(1)
    member = build_cnn(params, SHAPE, 10)
    member.fit(pixels[:1200] / 255, labels[:1200], epochs=12, batch_size=32, verbose=0)
    return with_preprocessing([member], SHAPE)


@pytest.fixture(scope="module")
def int8(network: Any, pictures: tuple[Any, Any]) -> bytes:
    from study.final.classifier import to_tflite

    return to_tflite(network, SHAPE, pictures[0][:300])


@pytest.fixture(scope="module")
def onnx_model(network: Any) -> bytes:
    pytest.importorskip("tf2onnx", reason=NEEDS_ONNX)
    from study.final.classifier import to_onnx

    return to_onnx(network)


def written(path: Path, model: bytes, card: Card = DIGITS) -> Path:
    path.write_bytes(runtimes.with_card(model, path.suffix, asdict(card)))
    return path


def outputs(model: Any, pixels: Any) -> Any:
    from study.final.classifier import probabilities

    return probabilities(model, pixels)


def test_an_int8_model_of_the_digits_is_small_and_as_good(
    network: Any, int8: bytes, pictures: tuple[Any, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "digits.tflite", int8)
    assert path.stat().st_size < 20_000
    model, card = archive.load(path)
    said = outputs(model, pictures[0])
    cost = exporting.compared(outputs(network, pictures[0]), said, pictures[1])
    assert abs(100 * cost.difference) <= 0.3
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    assert said.min() > 0  # a temperature can be fitted on it
    assert card.digest == runtimes.digest(int8)


def test_a_float_model_says_what_keras_says(
    network: Any, pictures: tuple[Any, Any], tmp_path: Path
) -> None:
    from study.final.classifier import to_tflite

    model, _ = archive.load(written(tmp_path / "float.tflite", to_tflite(network, SHAPE)))
    pixels = pictures[0][:40]
    np.testing.assert_allclose(outputs(model, pixels), outputs(network, pixels), atol=1e-4)


def test_an_onnx_model_says_what_keras_says(
    network: Any, onnx_model: bytes, pictures: tuple[Any, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "digits.onnx", onnx_model)
    model, card = archive.load(path)
    assert replace(card, digest="") == DIGITS
    pixels = pictures[0][:40]
    np.testing.assert_allclose(outputs(model, pixels), outputs(network, pixels), atol=1e-4)


def test_other_programs_read_the_files_and_their_labels(
    int8: bytes, onnx_model: bytes, tmp_path: Path
) -> None:
    import onnxruntime
    import tensorflow as tf

    light = written(tmp_path / "a.tflite", int8)
    with zipfile.ZipFile(light) as opened:
        assert opened.read("labels.txt").decode().split() == [str(label) for label in range(10)]
    with pytest.warns(UserWarning, match="Interpreter"):
        whole = tf.lite.Interpreter(model_path=str(light))
    whole.allocate_tensors()
    assert whole.get_input_details()[0]["dtype"] is np.uint8
    session = onnxruntime.InferenceSession(written(tmp_path / "a.onnx", onnx_model))
    (card,) = session.get_modelmeta().custom_metadata_map.values()
    assert json.loads(card)["labels"] == list(range(10))


def test_predict_reads_exported_files_and_calibrates_them(
    int8: bytes, onnx_model: bytes, pictures: tuple[Any, Any], tmp_path: Path
) -> None:
    sharp = replace(DIGITS, temperature=3.0)
    picture = saved(pictures[0][0, ..., 0].astype(np.uint8), str(tmp_path / "0.png"))
    for name, model in {"a.tflite": int8, "a.onnx": onnx_model}.items():
        confidence = []
        for card in (DIGITS, sharp):
            path = written(tmp_path / name, model, card)
            (found,) = json.loads(study("predict", str(path), picture, "--json").stdout)
            assert found["label"] == pictures[1][0]
            confidence.append(found["confidence"])
        assert confidence[1] < confidence[0]
        loaded = Classifier.load(path)
        raw = outputs(loaded.model, pictures[0][:1])
        assert confidence[1] == pytest.approx(calibration.calibrated(raw, 3.0).max(), abs=1e-6)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    half = len(content) // 3
    return content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :]


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, ""),
        (flipped, ""),
        (lambda _: b"", "or a damaged one; export it again"),
        (lambda _: b"nonsense" * 99, "or a damaged one; export it again"),
    ],
)
def test_a_damaged_file_is_one_line(
    request: pytest.FixtureRequest, suffix: str, damage: Any, said: str, tmp_path: Path
) -> None:
    model = request.getfixturevalue("int8" if suffix == ".tflite" else "onnx_model")
    path = written(tmp_path / f"a{suffix}", model)
    path.write_bytes(damage(path.read_bytes()))
    assert_one_line(study("predict", str(path), "x.png"), f"a{suffix}: ", said)


def test_a_file_without_metadata_is_one_line(
    int8: bytes, onnx_model: bytes, tmp_path: Path
) -> None:
    for name, model in {"a.tflite": int8, "a.onnx": onnx_model}.items():
        (tmp_path / name).write_bytes(model)
        assert_one_line(study("predict", str(tmp_path / name), "x.png"), "has no study.json")
    assert_one_line(study("predict", str(tmp_path / "b.onnx"), "x.png"), "no such file")


def test_hostile_sizes_in_a_card_or_a_model_are_one_line(
    int8: bytes, onnx_model: bytes, tmp_path: Path
) -> None:
    import onnx

    huge = replace(DIGITS, input_shape=(2**30, 2**30, 1))
    path = written(tmp_path / "a.tflite", int8, huge)
    assert_one_line(study("predict", str(path), "x.png"), "its study.json is damaged")
    other = written(tmp_path / "b.tflite", int8, replace(DIGITS, input_shape=(9, 9, 1)))
    picture = saved(np.zeros((28, 28), np.uint8), str(tmp_path / "0.png"))
    assert_one_line(study("predict", str(other), picture), "that of another model")

    node = onnx.helper.make_node("ConstantOfShape", ["size"], ["large"])
    size = onnx.numpy_helper.from_array(np.array([2**40], np.int64), "size")
    bomb = onnx.load_model_from_string(onnx_model)
    bomb.graph.node.append(node)
    bomb.graph.initializer.append(size)
    path = written(tmp_path / "c.onnx", bomb.SerializeToString())
    assert_one_line(study("predict", str(path), picture), "more memory than a network")


def test_a_model_that_could_run_or_read_something_else_is_refused(
    onnx_model: bytes, tmp_path: Path
) -> None:
    import onnx
    import tensorflow as tf

    picture = saved(np.zeros((28, 28), np.uint8), str(tmp_path / "0.png"))

    @tf.function(input_signature=[tf.TensorSpec((1, *SHAPE), tf.float32)])
    def foreign(pixels: Any) -> Any:
        return tf.linalg.inv(pixels[..., 0])[:, 0, :10]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([foreign.get_concrete_function()])
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    path = written(tmp_path / "a.tflite", converter.convert())
    assert_one_line(
        study("predict", str(path), picture),
        "holds the operation FlexMatrixInverse",
        "LiteRT's own",
    )

    custom = onnx.load_model_from_string(onnx_model)
    custom.graph.node[0].domain = "mine"
    path = written(tmp_path / "b.onnx", custom.SerializeToString())
    assert_one_line(study("predict", str(path), picture), "holds the operation mine.")
    outside = onnx.load_model_from_string(onnx_model)
    outside.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    path = written(tmp_path / "c.onnx", outside.SerializeToString())
    assert_one_line(study("predict", str(path), picture), "takes weights from another file")


@pytest.mark.parametrize("kind", ["LiteRT", "LiteRT int8", "ONNX"])
def test_a_network_that_cannot_be_converted_is_named_with_the_operation(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "ONNX":
        pytest.importorskip("tf2onnx", reason=NEEDS_ONNX)
    import keras
    import tensorflow as tf

    from study.final import classifier

    class Odd(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return tf.math.igamma(keras.ops.abs(inputs) + 1, inputs)

    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(Odd()(inputs))))
    images = np.zeros((3, *SHAPE), np.float32) if "int8" in kind else None
    said = f"made {kind.removesuffix(' int8')}: it has no operation Igamma"
    with pytest.raises(ModelError, match=said):
        classifier.to_onnx(model) if kind == "ONNX" else classifier.to_tflite(model, SHAPE, images)
    assert capfd.readouterr() == ("", "")


def test_what_a_conversion_costs_is_compared_in_pairs() -> None:
    labels = np.array([0, 1, 0, 1])
    before = np.eye(2)[[0, 1, 0, 0]]
    after = np.eye(2)[[0, 1, 1, 0]]
    cost = exporting.compared(before, after, labels)
    assert (cost.images, cost.difference, cost.error, cost.changed) == (4, -0.25, 0.25, 1)
    numbers = exporting.compared(np.array([[1.0], [2.0]]), np.array([[1.5], [2.0]]), [1, 2])
    assert (numbers.difference, numbers.changed) == (0.25, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ExportOptions("coreml"), "--to coreml: unknown format; give tflite, onnx, keras"),
        (ExportOptions("keras", int8=True), "--int8: is for --to tflite, not for keras"),
        (ExportOptions("tflite", output=Path("a.onnx")), "a.onnx: must end with .tflite"),
    ],
)
def test_a_wrong_wish_is_one_line(options: ExportOptions, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        exporting.check(options)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install '\.\[onnx\]'"):
        exporting.check(ExportOptions("onnx"))
    saved(np.zeros((28, 28), np.uint8))
    Path("a.onnx").write_bytes(b"x")
    assert_one_line(study("predict", "a.onnx", "image.png"), "ONNX needs the package onnx: pip")


FINAL = FinalModel("seed 1", "a.keras", ("k",), ({},), "abc", "2026", 8, 90, "accuracy", 1, 0, 1)


def test_an_output_that_is_there_or_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    there = tmp_path / "there.tflite"
    there.write_text("mine")
    (tmp_path / "folder.tflite").mkdir()
    for output, said in {
        there: "exists already; name another file with --output, or delete it",
        tmp_path / "folder.tflite": "is a folder; name another",
        there / "below.tflite": "cannot be written there",
        Path("/proc/none/a.tflite"): "cannot be written",
    }.items():
        with pytest.raises(ModelError, match=said):
            exporting.records.write(
                exporting.target(tmp_path, FINAL, ExportOptions("tflite", output=output)), b""
            )
    assert there.read_text() == "mine"
    found = exporting.target(tmp_path, FINAL, ExportOptions("tflite", int8=True))
    assert found == tmp_path / "a-int8.tflite"


def test_int8_without_the_training_images_is_one_line_and_other_kinds_are_not_measured() -> None:
    def gone() -> Any:
        raise DataError("digits.npz: no such file")

    with pytest.raises(ModelError, match="--int8 needs the training images: digits"):
        exporting._data(gone, ExportOptions("tflite", int8=True))
    assert exporting._data(gone, ExportOptions("tflite")) is None
    made = exporting.Exported("seed 1", Path("a.tflite"), 16672, None, None, "accuracy")
    assert made.words == "16,672 bytes; not measured: there are no held-out images"


def test_what_an_export_says_is_a_difference_with_its_error_a_size_and_a_time() -> None:
    cost = exporting.Cost(144, -0.001, 0.0011, 1)
    made = exporting.Exported("seed 1", Path("a.tflite"), 16672, 0.4, cost, "accuracy")
    assert made.words == (
        "-0.10 ± 0.11 points on 144 held-out images (1 prediction changed), 16,672 bytes, "
        "0.40 ms an image"
    )
    assert json.loads(json.dumps(made.to_json()))["cost"]["changed"] == 1


def test_a_model_is_picked_by_its_name() -> None:
    names = {"seed 1": ("a",), "seed 2": ("b",), "best by validation": ("a",)}
    models = [replace(FINAL, model=name, members=keys) for name, keys in names.items()]
    models.append(replace(FINAL, model="average of 2", members=("a", "b")))
    picked = [exporting.picked(models, name).model for name in (None, "best", "average", "seed 2")]
    assert picked == ["average of 2", "best by validation", "average of 2", "seed 2"]
    with pytest.raises(ModelError, match="there are seed 1, seed 2, best, average"):
        exporting.picked(models, "seed 9")


def test_grad_cam_looks_where_the_ink_is(network: Any, pictures: tuple[Any, Any]) -> None:
    from study.final.gradcam import heat_maps

    pixels, labels = pictures[0][:30], pictures[1][:30]
    heat = heat_maps(network, pixels, labels.astype(np.int64))
    assert heat.shape == (30, 28, 28)
    assert (heat.min(), heat.max()) == (0, 1)
    ink = pixels[..., 0] > 100
    assert heat[ink].mean() > heat[~ink].mean()


def test_grad_cam_of_a_network_without_convolutions_is_one_line() -> None:
    import keras

    from study.final.classifier import with_preprocessing
    from study.final.gradcam import heat_maps

    flat = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ModelError, match="--grad-cam: the network has no convolution"):
        heat_maps(with_preprocessing([flat], SHAPE), np.zeros((1, *SHAPE)), np.zeros(1, np.int64))
