"""Exported files, LiteRT (.tflite) and ONNX: the card inside, and the runtime that reads them.

A card is in a zip archive at the end of a .tflite file, where LiteRT has associated files, and
among the metadata of an .onnx file. It has the SHA-256 of the model, so that a damaged file is
refused before a runtime reads it. Operations that could run other code are refused too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data.backend import held_back
from study.errors import ModelError
from study.files import printable
from study.training import keras_file

CARD = "study.json"
SUFFIXES = (".tflite", ".onnx")

_LARGEST_FILE = 2**31  # bytes; a protocol buffer has no more
_LARGEST_TENSOR = 2**28  # numbers
_EXTRA = ("onnx", "onnxruntime", "tf2onnx")


def require_onnx() -> None:
    """Raise ``ModelError`` with the command that installs what ONNX files need."""
    if missing := [name for name in _EXTRA if importlib.util.find_spec(name) is None]:
        raise ModelError(f"ONNX needs the package {missing[0]}: pip install '.[onnx]'")


def digest(model: bytes) -> str:
    """The SHA-256 of a model without its card."""
    return hashlib.sha256(model).hexdigest()


def with_card(model: bytes, suffix: str, card: dict[str, Any]) -> bytes:
    """The file of a model: with its card, and of LiteRT the labels, a line each, for other apps."""
    text = json.dumps({**card, "digest": digest(model)}, indent=1)
    if suffix == ".onnx":
        return model + _entry(text)
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD, text)
        archive.writestr("labels.txt", "".join(f"{printable(one)}\n" for one in card["labels"]))
    return file.getvalue()


def read(path: Path) -> tuple[bytes, Any]:
    """The model in an exported file and its card, as stored; no runtime is asked.

    Raises ``ModelError`` for a file that is missing, damaged, too large or has no card.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise ModelError(f"{path}: {size / 1e9:.1f} GB, which no exported model has")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a model that study export wrote") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        found = _of_onnx(content) if path.suffix == ".onnx" else _of_tflite(content)
    except ModelError:
        raise
    except Exception:  # noqa: BLE001 - parsers raise what they like for a damaged file
        raise ModelError(f"{path}: {_kind(path)}, or a damaged one; export it again") from None
    if found is None:
        raise ModelError(
            f"{path}: has no {CARD}, so its labels and the scale of its pixels are not known; "
            "give a model that study export wrote"
        )
    model, card = found
    if not isinstance(card, dict) or card.get("digest") != digest(model):
        raise ModelError(f"{path}: damaged (its SHA-256 is another one); export it again")
    return model, card


def load(path: Path, model: bytes, shape: Sequence[int], outputs: int) -> Any:
    """The function of an exported model: pixels (n, *shape) of 0..255 to outputs (n, outputs).

    Raises ``ModelError`` where the runtime refuses the model, where it holds more than plain
    operations, or where it takes or gives another shape.
    """
    try:
        function = _Onnx(model) if path.suffix == ".onnx" else _LiteRT(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - runtimes raise what they like
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: its runtime cannot load it ({why}); export it again") from None
    if (function.takes, function.gives) != (tuple(shape), (outputs,)):
        raise ModelError(f"{path}: its {CARD} is that of another model; export it again")
    return function


def _kind(path: Path) -> str:
    return "not an .onnx file" if path.suffix == ".onnx" else "not a .tflite file"


# --- LiteRT --------------------------------------------------------------------------------------


def _of_tflite(content: bytes) -> tuple[bytes, Any] | None:
    if content[4:8] != b"TFL3":
        raise ValueError("no model")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = min((one.header_offset for one in archive.infolist()), default=0)
        if CARD not in archive.namelist():
            return None
        return content[:start], keras_file.entry(archive, CARD)


class _LiteRT:
    """A LiteRT model and its interpreter, which takes one image at a time."""

    def __init__(self, model: bytes) -> None:
        import tensorflow as tf
        from tensorflow.lite.python import schema_py_generated as schema

        with warnings.catch_warnings(action="ignore"):  # it will move to another package
            self._interpreter = tf.lite.Interpreter(model_content=model, num_threads=1)
        described = schema.Model.GetRootAsModel(model, 0)  # which the interpreter has verified
        for place in range(described.OperatorCodesLength()):
            if custom := described.OperatorCodes(place).CustomCode():
                name = printable(custom.decode(errors="replace"))[:60]
                raise ModelError(f"holds the operation {name}, which is none of LiteRT's own")
        _check_sizes(one["shape"] for one in self._interpreter.get_tensor_details())
        with held_back():  # it greets
            self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self.takes = _shape(self._input["shape"])
        self.gives = _shape(self._output["shape"])

    def __call__(self, pixels: NDArray[Any], *, training: bool = False) -> NDArray[np.float32]:
        said = [self._one(one) for one in pixels]
        return np.stack(said) if said else np.empty((0, *self.gives), np.float32)

    def _one(self, image: NDArray[Any]) -> NDArray[np.float32]:
        scale, zero = self._input["quantization"]
        if scale:
            limits = np.iinfo(self._input["dtype"])
            image = np.clip(np.rint(image / scale + zero), limits.min, limits.max)
        given = image.astype(self._input["dtype"])[np.newaxis]
        self._interpreter.set_tensor(self._input["index"], given)
        self._interpreter.invoke()
        said = self._interpreter.get_tensor(self._output["index"])[0].astype(np.float32)
        scale, zero = self._output["quantization"]
        if not scale:
            return np.asarray(said)
        steps = said - zero
        if len(steps) > 1:  # a probability of 0 steps is one of less than half a step
            steps = np.maximum(steps, 0.5)
            return np.asarray(steps / steps.sum(), np.float32)
        return np.asarray(steps * scale, np.float32)


# --- ONNX ----------------------------------------------------------------------------------------


def _entry(card: str) -> bytes:
    """The metadata field of a ModelProto with the card; fields may follow a message that ended."""
    from onnx import ModelProto

    described = ModelProto()
    described.metadata_props.add(key=CARD, value=card)
    return bytes(described.SerializeToString())


def _of_onnx(content: bytes) -> tuple[bytes, Any] | None:
    require_onnx()
    import onnx

    described = onnx.load_model_from_string(content)
    if not described.graph.node:
        raise ValueError("no model")
    texts = [one.value for one in described.metadata_props if one.key == CARD]
    if not texts:
        return None
    entry = _entry(texts[-1])
    if not content.endswith(entry):
        raise ValueError("the card is not at the end")
    return content[: -len(entry)], json.loads(texts[-1])


class _Onnx:
    """An ONNX model and its session."""

    def __init__(self, model: bytes) -> None:
        import onnx
        import onnxruntime

        described = onnx.load_model_from_string(model)
        for node in described.graph.node:
            if node.domain not in ("", "ai.onnx") or any(
                one.HasField("g") for one in node.attribute
            ):
                name = printable(f"{node.domain}.{node.op_type}".lstrip("."))[:60]
                raise ModelError(f"holds the operation {name}, which is not loaded from a file")
        if any(
            one.data_location == onnx.TensorProto.EXTERNAL for one in described.graph.initializer
        ):
            raise ModelError("takes weights from another file, which is not loaded")
        found = onnx.shape_inference.infer_shapes(described, data_prop=True).graph
        tensors = [*found.value_info, *found.input, *found.output]
        _check_sizes([d.dim_value or 1 for d in one.type.tensor_type.shape.dim] for one in tensors)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        (self._input,) = self._session.get_inputs()
        (output,) = self._session.get_outputs()
        self.takes, self.gives = _shape(self._input.shape), _shape(output.shape)

    def __call__(self, pixels: NDArray[Any], *, training: bool = False) -> NDArray[np.float32]:
        given = np.ascontiguousarray(pixels, np.float32)
        return np.asarray(self._session.run(None, {self._input.name: given})[0])


def _shape(dimensions: Iterable[Any]) -> tuple[Any, ...]:
    """A shape without the number of images."""
    whole = [int(one) if isinstance(one, int | np.integer) else one for one in dimensions]
    return tuple(whole[1:])


def _check_sizes(shapes: Iterable[Iterable[int]]) -> None:
    """Refuse a model before it fills the memory."""
    if any(math.prod(map(int, shape)) > _LARGEST_TENSOR for shape in shapes):
        raise ModelError("takes more memory than a network for images does")
