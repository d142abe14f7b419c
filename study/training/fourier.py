"""Convolutions as products of Fourier coefficients: the same sums from fewer multiplications.

A convolution whose kernel stays inside the image is a circular one, with the image's own size as
its period, of which the outputs that wrap around are left out. So images and kernels are
transformed, multiplied coefficient by coefficient over the channels, and transformed back (Mathieu,
Henaff and LeCun 2013, arXiv:1312.5851). Images are small here: a transform is a product with a
constant matrix along one axis, and TensorFlow knows its gradient. A product of complex
coefficients is three of real ones (Gauss), for which the same matrices prepare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Tensor = Any
Matrix = NDArray[np.float64]

WORTH = 2.0
"""How much longer a multiplication takes in many small products than in a convolution (docs/log.md,
"Convolutions by way of Fourier coefficients")."""


@dataclass(frozen=True)
class _Products:
    """`back @ ((image @ x) * (kernel @ w))` are the sums of products of x with w wherever w fits.

    Matrices (r, n), (r, k) and (n - k + 1, r) for n pixels, k taps and r products. Of complex
    signals n, k and n - k + 1 are twice as many: all real parts, then all imaginary ones.
    """

    image: Matrix
    kernel: Matrix
    back: Matrix


class Correlation:
    """`tf.nn.conv2d` with padding `VALID`, equal to rounding, for images of one size.

    The lines of an image are transformed down its height first. Coefficients of no and of half a
    wave a pixel stay real lines; the others are pairs of a real and an imaginary line. Each kind
    has its own products along the width.
    """

    def __init__(self, sides: tuple[int, int], taps: tuple[int, int]) -> None:
        """`sides` are height and width of the images, `taps` those of the kernel: no larger."""
        (height, width), (rows, columns) = self._sides, self._taps = sides, taps
        self._outputs = height - rows + 1, width - columns + 1
        real, cosines, sines = _waves(height)
        pairs = np.stack([cosines, sines], axis=1).reshape(-1, height)
        self._down = np.concatenate([real, pairs])
        self._up = np.concatenate([real, 2 * pairs])[:, : self._outputs[0]].T / height
        kinds = (len(real), _of_real(width, columns)), (len(cosines), _of_complex(width, columns))
        self._kinds = [(count, products) for count, products in kinds if count]
        self._lines = [len(real), len(pairs)][: len(self._kinds)]

    def pays(self, channels: int, filters: int, batch: int) -> bool:
        """Whether this is faster than the convolution itself, for batches of this size.

        Counts multiplications, so the answer, and with it a run's bits, is not the machine's.
        """
        return self.saving(channels, filters, batch) > WORTH

    def saving(self, channels: int, filters: int, batch: int) -> float:
        """How many multiplications of the convolution stand against one of this."""
        (height, width), (rows, columns) = self._sides, self._taps
        kinds = self._kinds
        image = height**2 * width + sum(n * kind.image.size for n, kind in kinds)
        back = self._up.size * self._outputs[1] + sum(n * kind.back.size for n, kind in kinds)
        kernel = height * rows * columns + sum(n * kind.kernel.size for n, kind in kinds)
        products = sum(n * len(kind.image) for n, kind in kinds)
        pairs = channels * filters
        ours = image * channels + back * filters + (products + kernel / batch) * pairs
        return math.prod(self._outputs) * math.prod(self._taps) * pairs / ours

    def __call__(self, images: Tensor, kernel: Tensor) -> Tensor:
        """Images (n, height, width, channels) with a kernel (rows, columns, channels, filters)."""
        x = self._coefficients(
            tf.transpose(images, [1, 2, 0, 3]), [k.image for _, k in self._kinds]
        )
        w = self._coefficients(kernel, [kind.kernel for _, kind in self._kinds])
        lines = [
            tf.reshape(_times(kind.back, tf.matmul(*factors), count), [along, -1])
            for (count, kind), along, *factors in zip(self._kinds, self._lines, x, w, strict=True)
        ]
        y = _times(self._up, tf.concat(lines, 0))
        y = tf.reshape(y, [*self._outputs, -1, kernel.shape[-1]])
        return tf.transpose(y, [2, 0, 1, 3])

    def _coefficients(self, x: Tensor, matrices: Sequence[Matrix]) -> list[Tensor]:
        """Of (rows, columns, n, m), for each kind of line: (products, n, m)."""
        lines = tf.split(_times(self._down[:, : x.shape[0]], x), self._lines)
        return [
            tf.reshape(_times(matrix, part, count), [count * len(matrix), -1, x.shape[-1]])
            for matrix, part, (count, _) in zip(matrices, lines, self._kinds, strict=True)
        ]


def _times(matrix: Matrix, x: Tensor, count: int | None = None) -> Tensor:
    """The matrix times x, or times each of `count` equal parts of it, for any shape of x."""
    parts = [] if count is None else [count]
    return tf.matmul(tf.constant(matrix, tf.float32), tf.reshape(x, [*parts, matrix.shape[1], -1]))


def _waves(n: int) -> tuple[Matrix, Matrix, Matrix]:
    """Rows of n pixels: the real coefficients' waves, and real and imaginary ones of the others."""
    cos, sin = _circles(n)
    real = [0] if n % 2 else [0, n // 2]
    others = slice(1, (n + 1) // 2)
    return cos[real], cos[others], -sin[others]


def _of_real(n: int, k: int) -> _Products:
    """Of a real line of n pixels with k taps."""
    real, a, b = _waves(n)
    m = n - k + 1
    image, kernel, back = _gauss(a, b, a[:, :k], b[:, :k], 2 * a[:, :m], 2 * b[:, :m])
    return _Products(
        np.concatenate([real, image]),
        np.concatenate([real[:, :k], kernel]),
        np.concatenate([real[:, :m].T, back], axis=1) / n,
    )


def _of_complex(n: int, k: int) -> _Products:
    """Of a pair of lines of n pixels with k taps."""
    cos, sin = _circles(n)
    a, b = np.hstack([cos, sin]), np.hstack([-sin, cos])
    taps, outputs = (np.r_[:m, n : n + m] for m in (k, n - k + 1))
    image, kernel, back = _gauss(a, b, a[:, taps], b[:, taps], a[:, outputs], b[:, outputs])
    return _Products(image, kernel, back / n)


def _circles(n: int) -> tuple[Matrix, Matrix]:
    """Cosines and sines of 0 to n - 1 waves in n pixels, a wave a row."""
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    return np.cos(angle), np.sin(angle)


def _gauss(*waves: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Three products a coefficient of the image and of the kernel's conjugate, and their way back.

    Takes waves of real and imaginary parts (coefficients, ...) of image, kernel and outputs.
    """
    a, b, c, d, e, f = waves  # (a + ib)(c - id) = (ac + bd) + i(bc - ad)
    image = np.concatenate([a + b, a, b])
    kernel = np.concatenate([c, -d - c, c - d])
    return image, kernel, np.concatenate([e + f, f, -e]).T
