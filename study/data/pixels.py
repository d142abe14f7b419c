"""Pixels of any number type -> images in [0, 1], or the bytes that stand for them.

The rule: black and white are the ends of the smallest usual range (`USUAL`) that holds every pixel
of the training images; floats may exceed it by 1 % (resampling does) and are clipped. The range is
looked for once for each way to store pixels, so that bytes and deeper pictures can be mixed, and
is recorded with a final model, whose images are read by it. Where the result is a byte by 255, the
byte is kept: a quarter of the memory, made float32 a batch at a time.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError

Images = NDArray[np.uint8] | NDArray[np.float32]
"""Images (n, height, width, channels): float32 in [0, 1], or uint8 that stands for x / 255."""

Kind = Literal["bytes", "integers", "floats"]
"""How pixels are stored: in 8 bits, as wider integers, or as floating point numbers."""

Range = tuple[float, float]
"""The numbers that are black and white."""

Scales = Mapping[Kind, Range]
"""The range of each `Kind` of pixels that there is."""

USUAL: tuple[Range, ...] = (
    (0, 1),
    (-1, 1),
    (0, 255),
    (-128, 127),
    (0, 1023),
    (0, 4095),
    (0, 16383),
    (0, 65535),
)
"""Fractions, centred fractions, bytes, signed bytes, 10, 12, 14 and 16 bits."""

BYTES: Scales = {"bytes": (0, 255)}

PLAIN: Scales = {"bytes": (0, 255), "integers": (0, 255), "floats": (0, 1)}
"""The ranges of arrays that need no note."""

_TOLERANCE = 0.01  # by which floats may exceed a range
_NARROW = 0.1  # of the range from black to white: images that use less of it are nearly uniform
_FLAT = 0.01  # of it: one image that uses less is uniform, or was saved on another scale
_AT_ONCE = 2**24  # pixels


def aligned(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Room for images as bytes, at the start of a page: TensorFlow trains on it where it lies."""
    return np.frombuffer(mmap.mmap(-1, max(1, math.prod(shape))), np.uint8)[
        : math.prod(shape)
    ].reshape(shape)


def is_aligned(images: NDArray[Any]) -> bool:
    """Whether bytes lie where TensorFlow can train on them without a copy."""
    return images.dtype == np.uint8 and images.flags.c_contiguous and not images.ctypes.data % 64


def take(images: Images, indices: NDArray[np.int64]) -> Images:
    """A copy of the images at ``indices``."""
    if images.dtype != np.uint8:
        return images[indices]
    room = aligned((len(indices), *images.shape[1:]))
    return np.take(images, indices, axis=0, out=room, mode="clip")  # "raise" would take it twice


def to_float01(images: NDArray[Any]) -> NDArray[np.float32]:
    """Images as float32 in [0, 1]; float32 is returned as it is."""
    if images.dtype != np.uint8:
        return images
    return images.astype(np.float32) / np.float32(255)


def batches(images: Images) -> Iterator[NDArray[np.float32]]:
    """All images in order as float32 in [0, 1], some 64 MB at a time."""
    size = max(1, _AT_ONCE // max(1, math.prod(images.shape[1:])))
    for first in range(0, len(images), size):
        yield to_float01(images[first : first + size])


def brightness(images: Images) -> float:
    """The mean of all pixels, in [0, 1]."""
    return float(images.mean()) / (255 if images.dtype == np.uint8 else 1)


def as_images(array: NDArray[Any], where: str) -> NDArray[Any]:
    """An array of pixels as (n, height, width, channels), not yet scaled.

    Raises `DataError`, beginning with ``where``, for another shape or number type, or no images.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: pixels of type {array.dtype}; save uint8 or float32")
    if array.size == 0:
        raise DataError(f"{where}: no images (shape {array.shape}); add some")
    images = array[..., np.newaxis] if array.ndim == 3 else array
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{where}: an array of shape {array.shape}; images are (n, height, "
            f"width) or (n, height, width, channels) with 1 or 3 channels"
        )
    return images


def kind_of(pixels: NDArray[Any]) -> Kind:
    """How pixels are stored."""
    if pixels.dtype.itemsize == 1 and pixels.dtype.kind in "bu":
        return "bytes"
    return "floats" if pixels.dtype.kind == "f" else "integers"


def extremes(pixels: NDArray[Any], where: str) -> Range:
    """The smallest and the largest pixel; `DataError` for NaN and infinity."""
    low, high = float(pixels.min()), float(pixels.max())  # both are NaN where a pixel is
    if not (math.isfinite(low) and math.isfinite(high)):
        count = np.count_nonzero(~np.isfinite(pixels))
        raise DataError(f"{where}: {count} pixels are NaN or infinite; replace them")
    return low, high


def scale_of(kind: Kind, found: Range, where: str) -> Range:
    """The smallest usual range that holds pixels whose `extremes` are ``found``.

    A range with negative numbers must be used at least half way down: a few slightly negative
    numbers are a mistake. Raises `DataError` where no range holds them.
    """
    room = _TOLERANCE * max(map(abs, found)) if kind == "floats" else 0
    for scale in USUAL:
        if _holds(scale, found, room) and (scale[0] >= 0 or found[0] <= scale[0] / 2):
            return scale
    raise DataError(
        f"{where}: pixels lie within [{found[0]:g}, {found[1]:g}]; save whole numbers of 8, 10, "
        "12, 14 or 16 bits, or floats within [0, 1], [-1, 1] or [0, 255]"
    )


def scale_by(scales: Scales, kind: Kind, found: Range, where: str) -> Range:
    """The range to read more pixels by, where training has found ``scales``.

    It is that of training if it holds them (of bytes and of wider integers that only hold bytes,
    the one of the other will do), else the smallest usual one.
    """
    known = {**scales}
    if kind != "floats":
        other = scales.get("integers" if kind == "bytes" else "bytes")
        if other and other[1] <= 255:
            known.setdefault(kind, other)
    if kind in known:
        black, white = known[kind]
        room = _TOLERANCE * (white - black) if kind == "floats" else 0
        if _holds(known[kind], found, room):
            return known[kind]
    return BYTES["bytes"] if kind == "bytes" else scale_of(kind, found, where)


def _holds(scale: Range, found: Range, room: float) -> bool:
    return scale[0] - room <= found[0] and found[1] <= scale[1] + room


def scaled(pixels: NDArray[Any], scale: Range) -> Images:
    """Pixels as images in [0, 1]: bytes where that is exact, else float32."""
    black, white = scale
    if kind_of(pixels) != "floats" and (black, white) == (0, 255):
        return np.ascontiguousarray(pixels, dtype=np.uint8)
    floats = np.ascontiguousarray(pixels, dtype=np.float32)
    if black:
        floats = floats - np.float32(black)
    floats = np.clip(floats / np.float32(white - black), np.float32(0), np.float32(1))
    as_bytes = np.rint(floats * 255).astype(np.uint8)
    exact = all(np.array_equal(to_float01(some), floats[at]) for at, some in enumerate(as_bytes))
    result: Images = as_bytes if exact else floats
    return result


def levels(pixels: NDArray[Any], scale: Range) -> NDArray[np.float32]:
    """Pixels as float32 in 0..255, not rounded."""
    black, white = scale
    above = pixels.astype(np.float32) - np.float32(black)
    found: NDArray[np.float32] = above * np.float32(255 / (white - black))
    return np.clip(found, np.float32(0), np.float32(255))


def notes(scales: Scales, images: Images, plain: Scales) -> Iterator[str]:
    """Notes on how training images were scaled: by a range that is not ``plain``, or narrow."""
    for kind, (black, white) in scales.items():
        if (black, white) != plain.get(kind):
            yield f"pixels are {kind}, from {black:g} (black) to {white:g} (white)"
    some = images.reshape(-1)[:: max(1, images.size // 2**20)]
    low, high = (float(end) for end in np.quantile(some, (0.001, 0.999)))
    used = (high - low) / (255 if images.dtype == np.uint8 else 1)
    if used < _NARROW:
        yield (
            f"Warning: nearly all pixels are alike (99.8 % of them use {used:.1%} of the range "
            "from black to white); check how the images were saved"
        )
    elif count := np.count_nonzero(_contrasts(images) < _FLAT):
        yield (
            f"Warning: {count} of {len(images)} images use less than {_FLAT:.0%} of the range from "
            "black to white; check whether they were saved like the others"
        )


def _contrasts(images: Images) -> NDArray[np.float32]:
    """The largest pixel of each image less its smallest, in [0, 1]."""
    axes = (1, 2, 3)
    return to_float01(images.max(axis=axes)) - to_float01(images.min(axis=axes))
