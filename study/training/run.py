"""One training run: epochs reported one by one, a checkpoint after each, the model at the end.

Knows neither trial nor database. Importing this module imports no TensorFlow; `train` does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from study.data import dataset as data
from study.errors import DataError
from study.space.model_source import ModelSource
from study.space.search_space import Validation, Value
from study.training import model
from study.training.startup import start_tensorflow

if TYPE_CHECKING:
    from keras.callbacks import Callback

    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class Run:
    """Everything that decides the bits of a run, on one machine and with the same versions.

    ``model`` builds the network, `model.build_cnn` where it is None. ``training`` is "stock"
    (Keras' own steps), or "fast", with stock ones for what that does not know. ``until`` is the
    number of epochs after which it pauses (None: it trains to its end); it is the same run, with
    the same key and checkpoint, wherever it pauses.
    """

    params: tuple[tuple[str, Value], ...]
    repeat: int
    seed: int
    epochs: int
    batch_size: int
    validation: Validation
    threads: int
    data_fingerprint: str
    until: int | None = None
    training: str = "fast"
    model: ModelSource | None = None

    @property
    def key(self) -> str:
        """A short name of the run, the same in every process: 24 hexadecimal digits."""
        fields = asdict(self) | {"params": sorted(self.params)}
        del fields["until"]
        fields["model"] = self.model and self.model.fingerprint
        for name, usual in (("training", "fast"), ("model", None)):
            if fields[name] == usual:  # as it was named when there was no other
                del fields[name]
        if self.validation.seed is None:  # as it was named before there was such a seed
            del fields["validation"]["seed"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:24]

    def entropy(self, purpose: int, *position: int) -> np.random.SeedSequence:
        """The seeds of this repeat, the same for every configuration."""
        return np.random.SeedSequence((self.seed, self.repeat, purpose, *position))


@dataclass(frozen=True)
class Epoch:
    """What one epoch reports: accuracies in 0..1, seconds of training and validation, Unix time.

    `number` counts from 0. `acc` and `loss` are means over the epoch, while it was trained; `loss`
    is of smoothed labels where a run smooths them, `val_loss` never. A run that trains on every
    image has NaN for `val_acc` and `val_loss`.
    """

    number: int
    acc: float
    loss: float
    val_acc: float
    val_loss: float
    seconds: float
    ended: float

    def logs(self) -> dict[str, float]:
        """What Keras callbacks are told of it."""
        return {
            "accuracy": self.acc,
            "loss": self.loss,
            "val_accuracy": self.val_acc,
            "val_loss": self.val_loss,
        }


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
    runs with other threads, TrainingFailed with a reason in one line.
    """
    if run.model is None:
        model.check(dict(run.params), dataset.input_shape, dataset.num_classes)
    if dataset.fingerprint != run.data_fingerprint:
        raise DataError(f"{dataset.source} is not the data this run was made for")
    split = data.split(dataset.labels, run.validation, run.seed, run.repeat)
    start_tensorflow(run.threads)
    from study.training.session import trained

    return (yield from trained(run, dataset, split, checkpoints, callbacks))
