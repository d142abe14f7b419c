"""Convolutions by way of Fourier coefficients are the convolutions, where they are less work."""

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

SIZES = [
    ((14, 14), (5, 5)),
    ((14, 14), (7, 7)),
    ((13, 9), (3, 4)),
    ((4, 4), (3, 3)),
    ((3, 8), (3, 8)),
    ((2, 5), (1, 2)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(("sides", "taps"), SIZES)
def test_sums_and_their_gradients_are_those_of_a_convolution(
    sides: tuple[int, int], taps: tuple[int, int]
) -> None:
    import tensorflow as tf

    from study.training.fourier import Correlation

    images = tf.random.stateless_normal([6, *sides, 3], [1, 2])
    kernel = tf.random.stateless_normal([*taps, 3, 8], [3, 4])
    correlate = Correlation(sides, taps)
    found = []
    for compute in (correlate, lambda x, w: tf.nn.conv2d(x, w, 1, "VALID")):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            y = compute(images, kernel)
            target = tf.reduce_sum(tf.sin(y))
        found.append([y, *tape.gradient(target, [images, kernel])])
    for ours, stock in zip(*found, strict=True):
        size = float(tf.reduce_max(tf.abs(stock)))
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-5 * size)


def test_no_image_of_a_batch_reaches_another() -> None:
    import tensorflow as tf

    from study.training.fourier import Correlation

    images = tf.random.stateless_normal([5, 14, 14, 3], [1, 2])
    kernel = tf.random.stateless_normal([5, 5, 3, 8], [3, 4])
    correlate = Correlation((14, 14), (5, 5))
    others = tf.concat([1000 * images[:2], images[2:3], 1000 * images[3:]], 0)
    alone, among = correlate(images[2:3], kernel)[0], correlate(others, kernel)[2]
    np.testing.assert_allclose(alone, among, rtol=0, atol=1e-5 * float(tf.reduce_max(alone)))


@pytest.mark.parametrize(
    ("sides", "taps", "channels", "filters", "batch", "pays"),
    [
        (14, 7, 32, 64, 100, True),  # measured: 2.9 times as fast
        (14, 5, 32, 64, 32, True),  # 1.6
        (14, 5, 16, 32, 100, True),  # 1.6
        (14, 3, 32, 64, 32, False),  # 0.9
        (28, 7, 1, 32, 100, False),
        (14, 5, 32, 64, 1, False),  # the kernel's coefficients would serve one image alone
    ],
)
def test_the_work_decides(
    sides: int, taps: int, channels: int, filters: int, batch: int, *, pays: bool
) -> None:
    from study.training.fourier import Correlation

    correlate = Correlation((sides, sides), (taps, taps))
    assert correlate.pays(channels, filters, batch) is pays


def is_used(monkeypatch: pytest.MonkeyPatch, **how: Any) -> bool:
    """Whether a convolution of 14 x 14 pixels and 16 channels is computed this way."""
    import keras
    import tensorflow as tf
    from keras import layers

    from study.training import quick_layers
    from study.training.fourier import Correlation

    inputs = layers.Input((14, 14, 16))
    layer = layers.Conv2D(32, **{"kernel_size": 7} | how)
    model = keras.Model(inputs, layer(inputs))
    model.compile("adam", "mse")
    quick_layers.prepare(model, batch=100)
    images, called, compute = tf.random.normal([2, 14, 14, 16]), [], Correlation.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Correlation, "__call__", lambda *a: called.append(1) or compute(*a))
        found = layer(images)
    np.testing.assert_allclose(found, type(layer).call(layer, images), rtol=0, atol=1e-5)
    return bool(called)


def test_a_plain_convolution_is_computed_this_way_and_any_other_by_keras(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for how in ({}, {"padding": "same", "use_bias": False}, {"activation": "relu"}):
        assert is_used(monkeypatch, **how), how
    for how in ({"strides": 2}, {"dilation_rate": 2}, {"groups": 2}, {"kernel_size": 3}):
        assert not is_used(monkeypatch, **how), how
