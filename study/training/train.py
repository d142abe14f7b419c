"""Trains a run: epochs reported one by one, a checkpoint after each, the model at the end.

Importing this module imports no TensorFlow; `train` does.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from study.data import dataset as data
from study.errors import DataError
from study.training import network
from study.training.run import Epoch, Run
from study.training.startup import start_tensorflow

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
