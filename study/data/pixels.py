"""Pixels of any number type -> images in [0, 1].

Whole numbers must lie within 0..255 and are divided by 255, even where only 0 and 1 occur. Floats
must lie within [0, 1] and stay, or else within [0, 255] and are divided by 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError


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
