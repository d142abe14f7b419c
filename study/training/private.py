"""All uses of private parts of libraries.

`tests/test_private.py` has a test of each, which says what breaks when it changes.
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


def flat_layers(model: keras.Layer) -> list[keras.Layer]:
    """All layers of a model, each before those inside of it, from the first to the last.

    Keras' own walk has the inner layers backwards.
    """
    found: dict[int, keras.Layer] = {}
    for layer in model._layers:
        for one in (layer, *flat_layers(layer)):
            found.setdefault(id(one), one)
    return list(found.values())


def forget_kernels() -> None:
    """Free the kernels of graphs that are not referenced any more.

    `keras.utils.clear_session` does so as well, but not while another thread traces a network.
    """
    from tensorflow.python.eager import context

    context.context().clear_kernel_cache()


def compile_with(
    model: keras.Model, optimizer: keras.Optimizer, like: keras.Model | None = None
) -> None:
    """Compile a model as it was, or as another one is, but for its optimizer."""
    given = (like or model)._compile_config.config
    keras.Model.compile(model, **{**given, "optimizer": optimizer})


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
