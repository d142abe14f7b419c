"""The network of Keras' own MNIST example, of 34,826 parameters, as a function to search over.

    python -m study run examples/keras_mnist.toml

The space lists every hyperparameter that `build` reads from `params`.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers


def build(
    params: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    """A compiled model that takes images (n, *input_shape) and gives (n, num_classes)."""
    model = keras.Sequential(
        [
            keras.Input(shape=input_shape),
            layers.Conv2D(params["filters"], kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(2 * params["filters"], kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(params["dropout"]),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.compile(
        loss="categorical_crossentropy",
        optimizer=keras.optimizers.Adam(params["learning_rate"]),
        metrics=["accuracy"],
    )
    return model
