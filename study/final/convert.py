"""A Keras model made a LiteRT or an ONNX model. Importing this module imports TensorFlow."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from study.errors import ModelError

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
