"""What this program uses of its libraries that they do not promise: here, and nowhere else.

`tests/test_private.py` says of each what is lost when it changes.
"""

from __future__ import annotations

from typing import Any

import keras
from tensorflow.python.eager import context


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
    context.context().clear_kernel_cache()
