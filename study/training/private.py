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


def adam_moments(adam: keras.optimizers.Adam, variable: Any) -> tuple[Any, Any]:
    """The first and the second moment of a TensorFlow variable that `adam` was built for."""
    place = adam._get_variable_index(variable)
    return adam._momentums[place], adam._velocities[place]


def flat_layers(model: keras.Model) -> list[keras.Layer]:
    """All layers of a model, those inside of other layers and of attributes of them too."""
    return list(model._flatten_layers(include_self=False))


def forget_kernels() -> None:
    """Free what TensorFlow has made of graphs that nobody holds any more.

    `keras.utils.clear_session` does so as well, but not while another thread traces a network.
    """
    from tensorflow.python.eager import context

    context.context().clear_kernel_cache()


def compile_with(model: keras.Model, optimizer: keras.Optimizer) -> None:
    """Compile a compiled model once more, as it was but for its optimizer."""
    keras.Model.compile(model, **{**model._compile_config.config, "optimizer": optimizer})


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
