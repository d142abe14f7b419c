"""The built-in network as numbers: its hyperparameters, its convolutions, how large it is.

`study.training.network` builds it; nothing here imports Keras.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from study.space.limits import Cost
from study.space.rules import TRUTH, Rule, fraction, one_of, whole

SHAPE: Mapping[str, tuple[Any, Rule]] = {
    "filters": (16, whole(1)),
    "k1": (4, whole(1)),
    "k2": (5, whole(1)),
    "dense": (32, whole(1)),
    "dropout": (0.2, fraction()),
    "activation": ("relu", one_of("relu", "elu", "gelu", "leaky_relu", "selu", "silu", "tanh")),
    "blocks": (2, whole(2)),
    "convolutions": (1, whole(1)),
    "strided": (False, TRUTH),
    "batch_norm": (False, TRUTH),
}
"""The hyperparameters of the network itself: the tutorial's starting point, what goes further than
the tutorial, which is off, and the values that are allowed. ``activation`` is that of convolutions,
by Keras' name; the dense layer has none, as in the tutorial."""

# Bytes that Keras 3.15 writes besides weights: of a whole file, and of a layer (docs/log.md).
_FILE, _CONVOLUTION, _BATCH_NORM, _POOLING, _DROPOUT = 30_600, 3_670, 6_500, 2_220, 2_360

_DEFAULTS: Mapping[str, Any] = {name: default for name, (default, _) in SHAPE.items()}


@dataclass(frozen=True)
class Convolution:
    """A convolution: its filters, the width of its kernel, its stride and its padding."""

    filters: int
    width: int
    stride: int = 1
    padding: str = "same"

    def side(self, side: int) -> int:
        """The height or width of what comes out."""
        left = side if self.padding == "same" else side - self.width + 1
        return -(-left // self.stride)


def count_parameters(
    params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int
) -> int:
    """How many trainable parameters the built-in network has."""
    p: dict[str, Any] = {**_DEFAULTS, **params}
    *sides, channels = input_shape
    beside = 2 if p["batch_norm"] else 1  # scale and offset, or a bias
    count = 0
    for block in blocks(p):
        for one in block:
            count += (one.width**2 * channels + beside) * one.filters
            channels, sides = one.filters, [one.side(side) for side in sides]
        sides = [_pooled(side, p) for side in sides]
    rows, columns = sides
    count += (rows * columns * channels + 1) * p["dense"] + (p["dense"] + 1) * num_classes
    return int(count)


def cost_of(params: Mapping[str, object], input_shape: tuple[int, ...], num_classes: int) -> Cost:
    """What the built-in network costs before it is trained: parameters and size.

    The size is that of a final model's file: its weights in float32 and what Keras writes besides.
    """
    p: dict[str, Any] = {**_DEFAULTS, **params}
    convolutions = [one for block in blocks(p) for one in block]
    trainable = count_parameters(params, input_shape, num_classes)
    moving = 2 * sum(one.filters for one in convolutions) if p["batch_norm"] else 0
    each = _CONVOLUTION + (_BATCH_NORM if p["batch_norm"] else 0)
    each_block = _DROPOUT + (0 if p["strided"] else _POOLING)
    written = _FILE + each * len(convolutions) + each_block * p["blocks"]
    return Cost(trainable, 4 * (trainable + moving) + written)


def count_activations(params: Mapping[str, object], input_shape: tuple[int, ...]) -> int:
    """How many numbers the network's convolutions make of an image; imports no Keras."""
    p: dict[str, Any] = {**_DEFAULTS, **params}
    *sides, _ = input_shape
    count = 0
    for block in blocks(p):
        for one in block:
            sides = [one.side(side) for side in sides]
            count += math.prod(sides) * one.filters
        sides = [_pooled(side, p) for side in sides]
    return count


def blocks(p: Mapping[str, Any]) -> Iterator[list[Convolution]]:
    """The convolutions of each block; the second block has twice the filters, the third twice more.

    The tutorial's two blocks have one each, the second without padding. Strided convolutions stand
    where the tutorial pools.
    """
    for number in range(p["blocks"]):
        filters, width = p["filters"] * 2**number, p["k1"] if number == 0 else p["k2"]
        first = Convolution(filters, width, padding="valid" if number == 1 else "same")
        block = [first] + [Convolution(filters, width)] * (p["convolutions"] - 1)
        yield [*block, Convolution(filters, width, stride=2)] if p["strided"] else block


def _pooled(side: int, p: Mapping[str, Any]) -> int:
    return side if p["strided"] else side // 2
