"""The built-in network as numbers, the cost of a network, and the table `limits` of a space.

`study.training.network` builds the network; nothing here imports Keras.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import StrictInt, StrictStr

from study.errors import SpaceError
from study.space.keys import TRUTH, Number, Rule, closed, fraction, one_of, shown, whole
from study.space.keys import key as _key

OUT = "out: "
"""Begins the reason why a configuration is not trained."""

_SIZE = "a text like '100 kB' or '1.5 MB'"
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2}


@dataclass(frozen=True)
class Cost:
    """What a network costs: trainable parameters, bytes of its model file, time for a picture.

    ``milliseconds`` are those of the processor for one picture at a time on the machine that
    trained it, with their standard error; None if not measured.
    """

    parameters: int
    size: int
    milliseconds: float | None = None
    error: float | None = None

    @property
    def attributes(self) -> dict[str, float]:
        """What is stored of it with a trial."""
        found = {"parameters": self.parameters, "size": self.size}
        if self.milliseconds is None or self.error is None:
            return {**found}
        return {**found, "milliseconds": self.milliseconds, "milliseconds_error": self.error}


@closed
@dataclass(frozen=True)
class Limits:
    """The largest cost of a network; a configuration above it is not trained.

    ``size`` is that of a final model's ``.keras`` file. Raises `SpaceError`.
    """

    parameters: Annotated[StrictInt | None, _key("a whole number of at least 1", ge=1)] = None
    size: Annotated[StrictStr | None, _key(_SIZE)] = None
    milliseconds: Annotated[Number | None, _key("a number above 0", gt=0)] = None

    def __post_init__(self) -> None:
        if self.size is not None and not self.bytes:
            raise SpaceError(f"limits.size: {shown(self.size)} is not allowed; give {_SIZE}")

    @property
    def bytes(self) -> int | None:
        """The limit of the size in bytes; 0 for a text that is no size."""
        if self.size is None:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB)", self.size.strip())
        return round(float(found[1]) * _UNITS[found[2]]) if found else 0

    def exceeded(self, cost: Cost) -> dict[str, str]:
        """What of a cost is above its limit, by the name of the limit, in words."""
        found: dict[str, str] = {}
        if self.parameters is not None and cost.parameters > self.parameters:
            found["parameters"] = f"{cost.parameters:,} parameters, more than {self.parameters:,}"
        if self.bytes is not None and cost.size > self.bytes:
            found["size"] = f"{size_text(cost.size)}, more than {self.size}"
        limit, time = self.milliseconds, cost.milliseconds
        if limit is not None and time is not None and time > limit:
            error = f" ± {cost.error:.2g}" if cost.error is not None else ""
            found["milliseconds"] = f"{time:.3g}{error} ms a picture, more than {limit:g} ms"
        return found

    def reason(self, cost: Cost) -> str | None:
        """Why a network of this cost is not trained, in one line; None if it fits."""
        exceeded = self.exceeded(cost)
        return f"{OUT}{'; '.join(exceeded.values())}" if exceeded else None


def size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1000**2:.2f} MB" if size >= 1000**2 else f"{size / 1000:.1f} kB"


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
