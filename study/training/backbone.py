"""The frozen backbone of a study: built from the user's file, checked, and joined with a head.

A backbone always runs in inference mode: dropout does nothing, batch normalization uses its moving
statistics. So its outputs for an image, the features, are the same every time.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from study.data.pixels import Images, to_float01
from study.errors import ModelError
from study.training import keras_file
from study.training.private import flat_layers, seeds_drawn_from
from study.training.user_code import function, why

if TYPE_CHECKING:
    from study.space.model_source import BackboneFacts, ModelSource


_TRIED = 8  # images
_PIXELS, _MOST = 2**22, 100  # pixels and images that a backbone is given at once
_NO_NETWORK = "URL fetch failure"  # how Keras begins to say that weights cannot be fetched


def built(source: ModelSource, input_shape: tuple[int, ...]) -> keras.Model:
    """The backbone that the file's function returns for images of ``input_shape``, checked.

    It takes images (n, *input_shape) of 0..1. What it draws at random follows from a fixed seed,
    so it has the same weights in every process. Raises ModelError, in one line.
    """
    assert source.features is not None
    with redirect_stdout(io.StringIO()):  # it may print
        try:
            make = function(source, source.features)  # which may run the file, and draw
            with seeds_drawn_from(0):
                keras.utils.set_random_seed(0)
                model = make(tuple(input_shape))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code
            if _NO_NETWORK in str(error):
                raise ModelError(
                    f"{source.backbone} cannot download its weights ({_reason(error)}): connect "
                    "this machine to the internet once, or load the weights from a file"
                ) from None
            raise ModelError(f"{source.backbone}: {why(error, source)}") from None
        if not isinstance(model, keras.Model):
            raise ModelError(
                f"{source.backbone} gives {type(model).__name__}, not a Keras model: return the "
                "model"
            )
        _check(source, model, input_shape)
    model.name = "backbone"  # other layers have numbers
    return model


def _reason(error: BaseException) -> str:
    return " ".join(str(error).rpartition(" -- ")[2].split())[:100]


def _check(source: ModelSource, model: keras.Model, input_shape: tuple[int, ...]) -> None:
    """Refuse a model whose outputs cannot be computed once in place of images."""
    name = source.backbone
    inputs = getattr(model, "inputs", None) or ()
    if len(inputs) > 1:
        raise ModelError(f"{name} takes {len(inputs)} inputs: it must take images alone")
    images = np.random.default_rng(0).random((_TRIED, *input_shape), np.float32)
    try:
        first, again = (model(images, training=False) for _ in range(2))
        alone = model(images[:1], training=False)
    except Exception as error:  # noqa: BLE001 - its layers may raise anything
        size = "x".join(map(str, input_shape))
        raise ModelError(
            f"{name} does not take images of {size}: {why(error, source)}; use input_shape, or "
            "give the space another size"
        ) from None
    shape = getattr(first, "shape", None)
    if shape is None or len(shape) < 2 or shape[0] != _TRIED or not math.prod(shape):
        found = type(first).__name__ if shape is None else tuple(shape)
        raise ModelError(
            f"{name} gives {found} for {_TRIED} images: return a model with one output of "
            f"({_TRIED}, ...)"
        )
    if any(weight.trainable for weight in model.weights):
        raise ModelError(f"{name} is trainable: set trainable = False on the model it returns")
    outputs = [np.asarray(one, np.float32) for one in (first, again, alone)]
    if not all(np.isfinite(one).all() for one in outputs):
        raise ModelError(f"{name} gives NaN or infinite numbers for images of 0..1: scale them")
    tolerance = 1e-3 * float(np.abs(outputs[0]).max())
    if not np.allclose(outputs[0], outputs[1], atol=tolerance):
        raise ModelError(
            f"{name} changes its output between two calls: take out training=True and layers that "
            "draw at random"
        )
    if not np.allclose(outputs[0][:1], outputs[2], atol=tolerance):
        raise ModelError(
            f"{name} gives another output for an image that is alone: take out training=True"
        )


def tunable(model: keras.Model) -> list[keras.Layer]:
    """The layers of a backbone that can be fine-tuned, from the first to the last.

    They have weights and no layers inside. Batch normalization stays frozen: its statistics come
    from far more images.
    """
    return [
        layer
        for layer in flat_layers(model)
        if layer.weights
        and not flat_layers(layer)
        and not isinstance(layer, keras.layers.BatchNormalization)
    ]


def unfreeze(model: keras.Model, layers: int) -> None:
    """Make the last ``layers`` tunable layers of a backbone trainable, and no other."""
    model.trainable = True
    last = tunable(model)[-layers:]
    for layer in flat_layers(model):
        if not flat_layers(layer):
            layer.trainable = layer in last


def digest(model: keras.Model, source: ModelSource) -> str:
    """The SHA-256 of a backbone's layers and weights; of its file too, if it has own classes.

    Names do not count: Keras numbers layers as a process makes them.
    """
    layers = keras.saving.serialize_keras_object(model)
    described = json.dumps(layers, sort_keys=True)
    for place, layer in enumerate([model, *flat_layers(model)]):
        described = described.replace(json.dumps(layer.name), f'"layer {place}"')
    found = hashlib.sha256(described.encode())
    found.update(source.text.encode() if keras_file.foreign(layers) else b"")
    for weight in model.weights:
        array = np.ascontiguousarray(weight)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()


def recorded(
    source: ModelSource, input_shape: tuple[int, ...], facts: BackboneFacts
) -> keras.Model:
    """The backbone of a study, built again; ModelError where its weights are others now."""
    model = built(source, input_shape)
    if digest(model, source) != facts.digest:
        raise ModelError(
            f"{source.backbone} has other layers or weights than when the study was made: restore "
            "them, or start a study with another --name"
        )
    return model


def features(source: ModelSource, model: keras.Model, images: Images) -> Iterator[NDArray[Any]]:
    """The outputs of a backbone for all images in order, float32, some at a time.

    Raises ModelError for NaN and infinite numbers.
    """
    import tensorflow as tf

    shape = images.shape[1:]
    compute = tf.function(
        lambda batch: model(batch, training=False),
        [tf.TensorSpec([None, *shape], tf.float32)],
        autograph=False,
    )
    size = max(1, min(_MOST, _PIXELS // math.prod(shape)))
    for first in range(0, len(images), size):
        found = np.asarray(compute(to_float01(images[first : first + size])), np.float32)
        wrong = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1)
        if wrong.any():
            raise ModelError(
                f"{source.backbone} gives NaN or infinite numbers for training image "
                f"{first + int(wrong.argmax())}, counted from 0: replace the image, or scale its "
                "pixels"
            )
        yield found
