"""A head on MobileNetV2, for a few thousand photographs of at least 32x32 pixels.

python -m study run examples/mobilenet.toml --data my_pictures/

The first time, `keras.applications` downloads the weights of MobileNetV2 for ImageNet without its
last layer (about 9 MB) to `~/.keras/models`. Only the process that starts the study does so.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

WEIGHTS = "imagenet"


def backbone(input_shape: tuple[int, int, int]) -> keras.Model:
    """The frozen network: takes images (n, *input_shape) of 0..1, returns (n, 1280)."""
    images = keras.Input(input_shape)
    x = layers.Concatenate()([images] * 3) if input_shape[-1] == 1 else images
    x = layers.Rescaling(2.0, -1.0)(x)  # as its preprocess_input does with pixels of 0..255
    pretrained = keras.applications.MobileNetV2(
        x.shape[1:], include_top=False, pooling="avg", weights=WEIGHTS
    )
    model = keras.Model(images, pretrained(x))
    model.trainable = False
    return model


def build(params: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """The head: takes features (n, *input_shape), returns logits (n, num_classes)."""
    features = keras.Input(input_shape)
    x = layers.Dropout(params["dropout"])(features)
    if params["width"]:
        x = layers.Dense(params["width"], activation="relu")(x)
    model = keras.Model(features, layers.Dense(num_classes)(x))
    model.compile(
        keras.optimizers.Adam(params["learning_rate"]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
