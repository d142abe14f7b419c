"""Trained members as one model of stock layers, and that model as LiteRT and ONNX.

A classifier takes pixels of 0..255 and gives class probabilities. Importing this module imports
TensorFlow.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from study.data.pixels import Images
from study.errors import ModelError

AT_ONCE = 500  # images a call

BACKBONE = "backbone"
"""The name of a model's layer whose outputs its members take, if there is one."""


def load_member(
    path: Path, name: str = "member", own: Mapping[str, Any] | None = None
) -> keras.Model:
    """A member as it was trained: images (n, height, width, channels) of 0..1 to (n, classes).

    ``name`` becomes the model's, and ``own`` are the classes of its network's file. Raises
    ``ModelError`` where its file is damaged.
    """
    try:
        member = keras.models.load_model(path, compile=False, custom_objects=own)
    except Exception as error:  # noqa: BLE001 - Keras raises what it likes for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: cannot be loaded ({reason}); delete it, and it is trained again"
        ) from None
    member.name = name
    return member


def with_preprocessing(
    members: Sequence[keras.Model],
    input_shape: tuple[int, ...],
    backbone: keras.Model | None = None,
) -> keras.Model:
    """A model of pixels (n, *input_shape) of 0..255 to probabilities (n, classes), or numbers.

    It is the member, or the mean of several members' outputs, behind a rescaling to 0..1 and the
    ``backbone`` whose outputs they take, if any. The members have different names, and are not
    compiled.
    """
    pixels = keras.Input(input_shape, name="pixels")
    images = keras.layers.Rescaling(1 / 255, name="scale")(pixels)
    if backbone is not None:
        images = backbone(images, training=False)
    outputs = [_normalised(member, images) for member in members]
    output = keras.layers.Average(name="average")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(pixels, output, name="classifier")


def probabilities(model: Any, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """A model's outputs (n, classes) for pixels (n, height, width, channels) of 0..255."""
    parts = [
        np.asarray(
            model(pixels[first : first + AT_ONCE].astype(np.float32, copy=False), training=False)
        )
        for first in range(0, len(pixels), AT_ONCE)
    ]
    return np.concatenate(parts)


def as_pixels(images: Images) -> NDArray[Any]:
    """Images of a dataset as pixels of 0..255; bytes as they are."""
    return images if images.dtype == np.uint8 else images * np.float32(255)


def _normalised(member: keras.Model, images: Any) -> Any:
    """A member's probabilities of images, behind a softmax where it gives logits; or numbers."""
    noise = np.random.default_rng(0).random((8, *images.shape[1:]), dtype=np.float32)
    found, output = np.asarray(member(noise, training=False)), member(images)
    if found.shape[1] == 1 or (np.all(found >= 0) and np.allclose(found.sum(axis=1), 1, atol=1e-3)):
        return output
    return keras.layers.Softmax()(output)


_NAMED = (  # where converters name the operations that they cannot convert
    r"(?:Flex|Custom) ops: ([\w, .]+)",
    r"'tf\.(\w+)' op is neither",
    r"not yet supported for op: '?(\w+)",
    r"Tensorflow op \[[^\]:]*: (\w+)\]",
    r"Unsupported ops?: (?:Counter\(\{')?(\w+)",
    r"failed to legalize operation '([\w.]+)'",
)


def to_tflite(
    model: Any, input_shape: tuple[int, ...], images: NDArray[Any] | None = None
) -> bytes:
    """A model of pixels (n, *input_shape) as LiteRT, of one image at a time.

    With ``images``, pixels (n, *input_shape) of 0..255, all its numbers are int8; they show how
    large numbers become. Pixels are then bytes, and outputs bytes with the scale that the file has.
    Raises ``ModelError`` naming the operation that cannot be converted.
    """
    takes = tf.TensorSpec((1, *input_shape), tf.float32, name="pixels")
    with _explained("LiteRT"):
        traced = tf.function(lambda pixels: model(pixels, training=False))
        frozen = convert_variables_to_constants_v2(traced.get_concrete_function(takes))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        if images is not None:

            def representative() -> Iterator[list[NDArray[np.float32]]]:
                for image in images:
                    yield [image[np.newaxis].astype(np.float32)]

            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        return bytes(converter.convert())


def to_onnx(model: Any) -> bytes:
    """A model as ONNX, of any number of images; raises ``ModelError`` as `to_tflite` does."""
    with _explained("ONNX"), tempfile.TemporaryDirectory(prefix="study-") as folder:
        path = Path(folder, "model.onnx")
        model(np.zeros((1, *model.input_shape[1:]), np.float32))  # Keras exports no unused model
        model.export(path, format="onnx", verbose=False)
        return path.read_bytes()


@contextmanager
def _explained(kind: str) -> Iterator[None]:
    """Keep what converters print, and make of an error a line that names the operation.

    tf2onnx only prints an operation that it does not know, and writes a model that cannot be run.
    """
    why = None
    with tempfile.TemporaryFile() as printed:
        try:
            with _printed_to(printed.fileno()), warnings.catch_warnings(action="ignore"):
                yield
        except Exception as error:  # noqa: BLE001 - converters raise what they like
            why = str(error) or type(error).__name__
        printed.seek(0)
        said = f"{why}\n{printed.read().decode(errors='replace')}"
    if why is None and "Unsupported ops" not in said:
        return
    found = next((match[1] for one in _NAMED if (match := re.search(one, said))), None)
    if found is None:
        why = " ".join(str(why).split())[:200]
        raise ModelError(f"the network cannot be made {kind} ({why})")
    name = found.split(",")[0].strip().removeprefix("Flex").removeprefix("tf.")
    raise ModelError(
        f"the network cannot be made {kind}: it has no operation {name}; use the .keras file, or a "
        "network without it"
    )


@contextmanager
def _printed_to(file: int) -> Iterator[None]:
    """Send what C++ code and loggers write on standard error to a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    handler = logging.StreamHandler(os.fdopen(os.dup(file), "w"))
    logger, other = logging.getLogger("tf2onnx"), logging.getLogger("absl")
    logger.addHandler(handler)
    level = other.level
    other.setLevel(logging.ERROR)
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        other.setLevel(level)
        logger.removeHandler(handler)
        handler.stream.close()
