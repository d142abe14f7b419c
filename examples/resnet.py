"""A small residual network for images of any size, grey or colour, as a function to search over.

python -m study run examples/resnet.toml
python -m study run examples/resnet.toml --data my_pictures/
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers


def build(
    params: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    """A model that takes images (n, *input_shape) and gives logits (n, num_classes).

    The program itself applies `translation` and `schedule` of the space.
    """
    images = keras.Input(input_shape)
    x = _normalised(layers.Conv2D(params["width"], 3, padding="same", use_bias=False)(images))
    for stage in range(params["stages"]):
        for block in range(params["blocks"]):
            halved = stage > 0 and block == 0
            x = _residual(x, params["width"] * 2**stage, stride=2 if halved else 1)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(num_classes)(layers.Dropout(params["dropout"])(x))
    model = keras.Model(images, outputs, name="resnet")
    model.compile(
        keras.optimizers.Adam(params["learning_rate"]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _residual(x: Any, width: int, stride: int) -> Any:
    """Two convolutions beside a shortcut, which is projected where its shape changes."""
    inner = _normalised(layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x))
    inner = layers.Conv2D(width, 3, padding="same", use_bias=False)(inner)
    inner = layers.BatchNormalization(momentum=0.9)(inner)
    if stride > 1 or x.shape[-1] != width:
        x = layers.Conv2D(width, 1, stride, use_bias=False)(x)
    return layers.ReLU()(layers.Add()([x, inner]))


def _normalised(x: Any) -> Any:
    # Keras' own momentum of 0.99 would lag behind the weights after an epoch of a few dozen steps.
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
