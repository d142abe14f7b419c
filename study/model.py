"""The network: the tutorial's convolutions as a function of hyperparameters; knows no trial."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from study.errors import SpaceError

if TYPE_CHECKING:
    import keras

DEFAULTS: Mapping[str, int | float] = MappingProxyType(
    {"filters": 16, "k1": 4, "k2": 5, "dense": 32, "dropout": 0.2, "learning_rate": 0.001}
)
"""What a search space may leave out: the tutorial's starting point, and Adam's own step size."""


def check(params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse what `build_cnn` has no network for; imports no Keras.

    Raises SpaceError naming the parameter: an unknown name, a wrong type or range, a kernel that
    does not fit images of `input_shape` (height, width, channels), or images that are too small.
    """
    unknown = [name for name in params if name not in DEFAULTS]
    if unknown:
        allowed = ", ".join(DEFAULTS)
        raise SpaceError(f"the network has no parameter '{unknown[0]}'; it has {allowed}")
    p: dict[str, Any] = {**DEFAULTS, **params}
    for name in ("filters", "k1", "k2", "dense"):
        if type(p[name]) is not int or p[name] < 1:
            raise SpaceError(f"{name} is {p[name]!r}; it must be a whole number from 1")
    if not _is_number(p["dropout"]) or not 0 <= p["dropout"] < 1:
        raise SpaceError(f"dropout is {p['dropout']!r}; it must be a number from 0 to below 1")
    if not _is_number(p["learning_rate"]) or not p["learning_rate"] > 0:
        raise SpaceError(f"learning_rate is {p['learning_rate']!r}; it must be a number above 0")
    _check_fit(p, input_shape, num_classes)


def build_cnn(
    params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int
) -> keras.Sequential:
    """The tutorial's network of stock Keras layers, compiled with Adam.

    Takes images (n, height, width, channels) and gives class probabilities (n, num_classes).
    Parameters that are left out have the values of `DEFAULTS`. Raises SpaceError as `check` does.
    """
    check(params, input_shape, num_classes)
    import keras
    from keras import layers

    p: dict[str, Any] = {**DEFAULTS, **params}
    model = keras.Sequential(
        [
            layers.Input(input_shape),
            layers.Conv2D(p["filters"], p["k1"], padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(p["dropout"]),
            layers.Conv2D(2 * p["filters"], p["k2"], padding="valid", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(p["dropout"]),
            layers.Flatten(),
            layers.Dense(p["dense"]),
            layers.Dropout(p["dropout"]),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(p["learning_rate"]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def count_parameters(
    params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int
) -> int:
    """How many trainable parameters `build_cnn` gives the network; imports no Keras."""
    p: dict[str, Any] = {**DEFAULTS, **params}
    height, width, channels = input_shape
    first, second = p["filters"], 2 * p["filters"]
    rows, columns = ((side // 2 - p["k2"] + 1) // 2 for side in (height, width))
    convolutions = (p["k1"] ** 2 * channels + 1) * first + (p["k2"] ** 2 * first + 1) * second
    dense = (rows * columns * second + 1) * p["dense"] + (p["dense"] + 1) * num_classes
    return int(convolutions + dense)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value)  # type: ignore[arg-type]


def _check_fit(p: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> None:
    if len(input_shape) != 3 or input_shape[2] < 1:
        raise SpaceError(f"images of shape {input_shape}; they need height, width and channels")
    if num_classes < 2:
        raise SpaceError(f"{num_classes} class; the network needs at least 2 to tell apart")
    height, width, _ = input_shape
    side = min(height, width)
    if side < 4:
        raise SpaceError(f"images of {height}x{width} are too small; both sides need 4 pixels")
    if p["k1"] > side:
        raise SpaceError(f"k1 is {p['k1']}; it must be at most {side} on {height}x{width} images")
    largest = side // 2 - 1  # the second pooling needs two rows after a convolution without padding
    if p["k2"] > largest:
        raise SpaceError(
            f"k2 is {p['k2']}; it must be at most {largest} on {height}x{width} images"
            " (they are halved before the second convolution)"
        )
