"""TensorFlow is imported where something is trained, quietly, with the threads that are wanted."""

from __future__ import annotations

import logging
from typing import Any

from study.data.backend import imported_quietly
from study.errors import SettingsError


def start_tensorflow(threads: int) -> None:
    """Import TensorFlow quietly, to run with this many threads; takes seconds the first time.

    Raises SettingsError if this process already runs it with another number.
    """
    tf = import_tensorflow()
    config = tf.config.threading
    try:
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # it has begun, with other numbers
        raise SettingsError(
            f"TensorFlow runs in this process already, and not with threads={threads}:"
            " train in a new process, or call start_tensorflow before TensorFlow is used"
        ) from None


def import_tensorflow() -> Any:
    """Import TensorFlow and Keras quietly; leaves open with how many threads they will run."""
    with imported_quietly():
        import tensorflow as tf

        import study.training.session  # noqa: F401 - Keras greets as well

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it counts traces, of many networks
    return tf
