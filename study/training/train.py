"""Trains a run: epochs reported one by one, a checkpoint after each, the model at the end.

Importing this module imports no TensorFlow; `train` and `start_tensorflow` do, quietly.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from study.data import dataset as data
from study.data.backend import imported_quietly
from study.errors import DataError, SettingsError
from study.training import network
from study.training.run import Epoch, Run

if TYPE_CHECKING:
    from keras.callbacks import Callback

    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints


def train(
    run: Run,
    dataset: Dataset,
    *,
    checkpoints: Checkpoints | None = None,
    callbacks: Sequence[Callback] = (),
) -> Generator[Epoch, None, bytes | None]:
    """Train `run`, yielding every epoch from the first; returns the bytes of its `.keras` file.

    Returns None where it pauses with epochs left (`run.until`); its checkpoint stays.
    With `checkpoints` the run continues after its last stored epoch: the stored ones are yielded
    at once, and the rest has the same bits as if the run had never stopped. Whoever has recorded
    the result deletes the checkpoint (`checkpoints.delete(run.key)`). Closing the generator gives
    the run up; its checkpoint stays.

    Keras callbacks have their epoch and train hooks called, for stored epochs too, and may set
    `model.stop_training`; batches are not announced, as many are trained in one call.

    Raises SpaceError or DataError before anything is trained, SettingsError if TensorFlow already
    runs with other threads or sees no GPU for a run on one, TrainingFailed with a reason in one
    line.
    """
    if run.model is None:
        network.check(dict(run.params), dataset.input_shape, dataset.num_classes)
    if dataset.fingerprint != run.data_fingerprint:
        raise DataError(f"{dataset.source} is not the data this run was made for")
    split = data.split(dataset.labels, run.validation, run.seed, run.repeat)
    start_tensorflow(run.threads, run.device)
    from study.training.trainer import trained

    return (yield from trained(run, dataset, split, checkpoints, callbacks))


# On a GPU: allocate memory as it is needed, so that a card can be shared, and leave the processor's
# kernels alone. Both must be set before TensorFlow starts.
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
            f"TensorFlow sees no GPU on {socket.gethostname()}; nothing is lost; study "
            "doctor says what is missing"
        )


def import_tensorflow() -> Any:
    """Import TensorFlow and Keras quietly; leaves open with how many threads they will run."""
    with imported_quietly():
        import tensorflow as tf

        import study.training.trainer  # noqa: F401 - Keras greets as well

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it counts traces, of many networks
    return tf
