"""TensorFlow is imported where something is trained, quietly, with what it is to train on."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from study.data.backend import imported_quietly
from study.errors import SettingsError

# On a GPU: take memory as it is needed, so that a card can be shared, and let the processor's own
# kernels be. Both must be said before TensorFlow starts.
_ON_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_ENABLE_ONEDNN_OPTS": "0"}


def start_tensorflow(threads: int, device: str = "cpu") -> None:
    """Import TensorFlow quietly, to run with this many threads; takes seconds the first time.

    With "cpu" it sees no GPU, where there is one too; with "gpu" float32 is that, not TF32. Raises
    SettingsError if this process already runs it otherwise, or if it sees no GPU for "gpu".
    """
    if device == "gpu":
        for name, value in _ON_GPU.items():
            os.environ.setdefault(name, value)
    tf = import_tensorflow()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        _choose(tf, device)
    except RuntimeError:  # it has begun, with other numbers
        raise SettingsError(
            f"TensorFlow runs in this process already, and not with threads={threads} on the "
            f"{device}: train in a new process, or call start_tensorflow before TensorFlow is used"
        ) from None


def _choose(tf: Any, device: str) -> None:
    cards = tf.config.list_physical_devices("GPU")
    if device == "cpu":
        if cards:
            tf.config.set_visible_devices([], "GPU")
    elif cards:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    else:
        raise SettingsError(
            f"TensorFlow sees no GPU on {socket.gethostname()}; nothing is lost: what is missing "
            "says study doctor"
        )


def import_tensorflow() -> Any:
    """Import TensorFlow and Keras quietly; leaves open with how many threads they will run."""
    with imported_quietly():
        import tensorflow as tf

        import study.training.trainer  # noqa: F401 - Keras greets as well

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it counts traces, of many networks
    return tf
