"""The network: the tutorial's convolutions as a function of hyperparameters; knows no trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from study.errors import ParameterError, SpaceError
from study.space.architecture import SHAPE, Convolution, blocks
from study.space.keys import hint
from study.space.metric import BALANCED, VAL_ACCURACY
from study.space.model_source import ModelSource
from study.training import recipe
from study.training.recipe import Recipe

if TYPE_CHECKING:
    import keras
    from keras import Layer

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {name: default for name, (default, _) in SHAPE.items()}
    | dict(recipe.DEFAULTS)
    | {"learning_rate": 0.001, "optimizer": "adam"}
)
"""What a search space may leave out, with Adam's own step size."""

METRICS = (VAL_ACCURACY, BALANCED, "val_loss")
"""What the network logs of validation images."""

BOUND_TOGETHER = ("blocks", "k2")
"""Parameters of which each bounds the other; alone, a parameter is bounded by the images."""

RENAMED = {"stretch": "zoom", "shift": "translation", "keep_best": "restore_best_weights"}
"""What parameters were called before they had the words of Keras."""


def implied(model: ModelSource | None, batch_size: int | None) -> dict[str, Any]:
    """The values that a run has of hyperparameters which its space does not name.

    Of a custom model those that the trainer has, and that its text does not name.
    """
    if model is None:
        values = {**DEFAULTS, "weight_decay": 0.0}
    else:
        ours = recipe.OURS - {name for name in recipe.OURS if name in model.text}
        values = {name: recipe.DEFAULTS[name] for name in ours}
    return {
        name: one for name, one in {**values, "batch_size": batch_size}.items() if one is not None
    }


def check(params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse what `build_cnn` has no network for; imports no Keras.

    Raises ParameterError for an unknown name, a wrong type or range, or a kernel that does not fit
    images of `input_shape` (height, width, channels); SpaceError for images that are too small.
    """
    for name in params:
        if name in RENAMED:
            raise ParameterError(name, f"is called {RENAMED[name]} now; write that")
        if name not in DEFAULTS:
            raise ParameterError(name, f"is not a parameter of the network; {hint(name, DEFAULTS)}")
    p: dict[str, Any] = {**DEFAULTS, **params}
    for name, (_, rule) in SHAPE.items():
        rule.check(name, p[name])
    recipe.check(params)
    _check_fit(p, input_shape, num_classes)


def build_cnn(
    params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int
) -> keras.Sequential:
    """The tutorial's network of stock Keras layers, compiled with its optimizer.

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
            *(layer for block in blocks(p) for layer in _block_layers(block, p)),
            layers.Flatten(),
            layers.Dense(p["dense"]),
            layers.Dropout(p["dropout"]),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=Recipe.of(p).new_optimizer(),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def _block_layers(block: Sequence[Convolution], p: Mapping[str, Any]) -> Iterator[Layer]:
    from keras import layers

    for one in block:
        yield layers.Conv2D(
            one.filters,
            one.width,
            one.stride,
            padding=one.padding,
            activation=None if p["batch_norm"] else p["activation"],
            use_bias=not p["batch_norm"],
        )
        if p["batch_norm"]:
            # Keras' own 0.99 would be far behind the weights after an epoch of a few dozen steps.
            yield layers.BatchNormalization(momentum=0.95)
            yield layers.Activation(p["activation"])
    if not p["strided"]:
        yield layers.MaxPooling2D(2)
    yield layers.Dropout(p["dropout"])


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
        problem = f"is {p['k1']}; it must be at most {side} on {height}x{width} images"
        raise ParameterError("k1", problem)
    largest = side // 2 - 1  # the second pooling needs two rows after a convolution without padding
    if p["k2"] > largest:
        raise ParameterError(
            "k2",
            f"is {p['k2']}; it must be at most {largest} on {height}x{width} images"
            " (they are halved before the second convolution)",
        )
    left = side // 2 - p["k2"] + 1
    fitting = left.bit_length()  # blocks before nothing is left to be halved
    if p["blocks"] > fitting:
        raise ParameterError(
            "blocks",
            f"is {p['blocks']}; it must be at most {fitting} on {height}x{width} images"
            f" with k2 = {p['k2']} (every block halves them)",
        )
