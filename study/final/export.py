"""Members as models for everybody: pixels of 0..255 in, class probabilities out, stock layers.

Importing this module imports Keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

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
