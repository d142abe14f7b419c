"""What this program uses of its libraries that they do not promise: here, and nowhere else.

`tests/test_private.py` says of each what is lost when it changes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.random import seed_generator

_one_at_a_time = threading.RLock()


def adam_moments(adam: keras.optimizers.Adam) -> list[tuple[Any, Any]]:
    """First and second moment, of its shape, of every variable that `adam` was built for.

    That they are the last of its variables, in pairs and in this order, is Keras' habit alone.
    """
    count = (len(adam.variables) - 1) // 2  # iterations and, unless scheduled, learning rate
    moments = adam.variables[-2 * count :] if count else []
    return list(zip(moments[::2], moments[1::2], strict=True))


def forget_kernels() -> None:
    """Free what TensorFlow has made of graphs that nobody holds any more.

    `keras.utils.clear_session` does so as well, but not while another thread traces a network.
    """
    from tensorflow.python.eager import context

    context.context().clear_kernel_cache()


@contextmanager
def seeds_drawn_from(seed: int) -> Iterator[None]:
    """Have Keras draw the seeds of layers and initializers that are given none from ``seed``.

    It asks Python's generator for them, which other threads of a worker use too: a network would
    now and then have other first weights than it has alone.
    """
    with _one_at_a_time:
        shared = seed_generator.python_random
        seed_generator.python_random = random.Random(seed)  # noqa: S311 - no secret
        try:
            yield
        finally:
            seed_generator.python_random = shared
