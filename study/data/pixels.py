"""Pixels of any number type -> images in [0, 1], or the bytes that stand for them.

Whole numbers must lie within 0..255 and are divided by 255, even where only 0 and 1 occur. Floats
must lie within [0, 1] and stay, or else within [0, 255] and are divided by 255. Where the result is
a byte by 255, the byte is kept: a quarter of the memory, made float32 a batch at a time.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError

Images = NDArray[np.uint8] | NDArray[np.float32]
"""Images (n, height, width, channels): float32 in [0, 1], or uint8 that stands for x / 255."""

_AT_ONCE = 2**24  # pixels


def aligned(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Room for images as bytes, at the start of a page: TensorFlow trains on it where it lies."""
    return np.frombuffer(mmap.mmap(-1, max(1, math.prod(shape))), np.uint8)[
        : math.prod(shape)
    ].reshape(shape)


def is_aligned(images: NDArray[Any]) -> bool:
    """Whether bytes lie where TensorFlow can train on them without a copy."""
    return images.dtype == np.uint8 and images.flags.c_contiguous and not images.ctypes.data % 64


def chosen(images: Images, indices: NDArray[np.int64]) -> Images:
    """Some of the images, in memory of their own."""
    if images.dtype != np.uint8:
        return images[indices]
    room = aligned((len(indices), *images.shape[1:]))
    return np.take(images, indices, axis=0, out=room, mode="clip")  # "raise" would take it twice


def unit(images: NDArray[Any]) -> NDArray[np.float32]:
    """Images, or some of them, as float32 in [0, 1]; what is float32 stays."""
    if images.dtype != np.uint8:
        return images
    return images.astype(np.float32) / np.float32(255)


def batches(images: Images) -> Iterator[NDArray[np.float32]]:
    """All images in order as float32 in [0, 1], some 64 MB at a time."""
    size = max(1, _AT_ONCE // max(1, math.prod(images.shape[1:])))
    for first in range(0, len(images), size):
        yield unit(images[first : first + size])


def brightness(images: Images) -> float:
    """The mean of all pixels, in [0, 1]."""
    return float(images.mean()) / (255 if images.dtype == np.uint8 else 1)


def packed(images: NDArray[Any], divisor: int) -> Images:
    """Pixels by their ``divisor``: as bytes where they are bytes by 255, else as float32."""
    if images.dtype.kind != "f":
        return np.ascontiguousarray(images, dtype=np.uint8)
    floats = np.ascontiguousarray(images, dtype=np.float32) / np.float32(divisor)
    as_bytes = np.rint(floats * 255).astype(np.uint8)
    exact = all(np.array_equal(unit(some), floats[at]) for at, some in enumerate(as_bytes))
    return as_bytes if exact else floats


def as_images(array: NDArray[Any], where: str) -> NDArray[Any]:
    """An array of pixels as (n, height, width, channels), not yet scaled.

    Raises `DataError`, beginning with ``where``, for another shape or number type, or no images.
    """
    if array.dtype.kind not in "iuf":
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


def divisor(images: NDArray[Any], where: str) -> int:
    """What brings the pixels into [0, 1], 1 or 255; `DataError` where neither does."""
    low, high = images.min(), images.max()  # both are NaN where a pixel is
    if not (np.isfinite(low) and np.isfinite(high)):
        count = np.count_nonzero(~np.isfinite(images))
        raise DataError(f"{where}: {count} pixels are NaN or infinite; replace them")
    if low < 0 or high > 255:
        raise DataError(
            f"{where}: pixels lie within [{low}, {high}]; "
            f"save whole numbers within 0..255, or floats within [0, 1] or [0, 255]"
        )
    return 1 if images.dtype.kind == "f" and high <= 1 else 255
