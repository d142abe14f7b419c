"""One training run: epochs reported one by one, a checkpoint after each, the model at the end.

Knows neither trial nor database. Importing this module imports no TensorFlow; `train` does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import dataset as data
from study.data.backend import imported_quietly
from study.errors import DataError, SettingsError, TrainingFailed
from study.space.search_space import Validation, Value
from study.training import model, recipe
from study.training.checkpoint import Checkpoint, Checkpoints
from study.training.recipe import Recipe

if TYPE_CHECKING:
    from keras.callbacks import Callback

    from study.data.dataset import Dataset, Split
    from study.training.fast.step import Data, Program

_INITIAL, _ORDER, _NOISE = range(3)  # what random numbers are for: keeps their seeds apart
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Everything that decides the bits of a run, on one machine and with the same versions.

    ``until`` is the number of epochs after which it pauses (None: it trains to its end); a run is
    the same one, with the same key and checkpoint, wherever it pauses.
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

    @property
    def key(self) -> str:
        """A short name of the run, the same in every process: 24 hexadecimal digits."""
        fields = asdict(self) | {"params": sorted(self.params)}
        del fields["until"]
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
    model.check(dict(run.params), dataset.input_shape, dataset.num_classes)
    if dataset.fingerprint != run.data_fingerprint:
        raise DataError(f"{dataset.source} is not the data this run was made for")
    split = data.split(dataset.labels, run.validation, run.seed, run.repeat)
    start_tensorflow(run.threads)
    from study.training.fast.step import PROGRAMS, Program, resident

    def build() -> Program:
        params = dict(run.params)
        network = model.build_cnn(params, dataset.input_shape, dataset.num_classes)
        return Program(network, run.batch_size, Recipe.of(params))

    shape = (dataset.input_shape, dataset.num_classes, run.batch_size)
    with _one_line_reasons(), PROGRAMS.borrow((run.params, shape), build) as program:
        images = resident(dataset.images, dataset.labels)
        session = _Session(run, split, program, images, checkpoints)
        complete = yield from session.epochs(callbacks)
        if not complete:
            return None
        if session.best:
            program.model.set_weights(session.best)
        return program.saved()


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

        import study.training.fast.step  # noqa: F401 - Keras greets as well

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it counts traces, of many networks
    return tf


@dataclass
class _Session:
    """One run on one program, epoch by epoch."""

    run: Run
    split: Split
    program: Program
    images: Data
    checkpoints: Checkpoints | None
    best: tuple[NDArray[Any], ...] = ()  # the best epoch's weights, where a run keeps them

    def epochs(self, callbacks: Sequence[Callback]) -> Generator[Epoch, None, bool]:
        """Every epoch from the first: the stored ones, then those that are trained now.

        Returns whether none is left: they were trained, or a callback has stopped the run.
        """
        from keras.callbacks import CallbackList

        network = self.program.model
        hooks = CallbackList(list(callbacks), model=network, epochs=self.run.epochs, verbose=0)
        history, state = self._begin()
        end = self.run.epochs if self.run.until is None else min(self.run.until, self.run.epochs)
        network.stop_training = False
        hooks.on_train_begin()
        try:
            for epoch in history[:end]:
                hooks.on_epoch_begin(epoch.number)
                hooks.on_epoch_end(epoch.number, epoch.logs())
                yield epoch
            if history:  # then the stored state holds what the hooks had set
                self.program.restore(state)
            while len(history) < end and not network.stop_training:
                hooks.on_epoch_begin(len(history))
                history.append(self._epoch(len(history)))
                self._remember(history)
                hooks.on_epoch_end(history[-1].number, history[-1].logs())
                self._save(history)
                yield history[-1]
            return end == self.run.epochs or bool(network.stop_training)
        finally:
            hooks.on_train_end(history[-1].logs() if history else None)

    def _begin(self) -> tuple[list[Epoch], tuple[NDArray[Any], ...]]:
        """The stored epochs and the variables after them; those of a new run if there are none."""
        self.program.reset(self._initial_seed)
        own = len(self.program.state())
        stored = self.checkpoints.load(self.run.key) if self.checkpoints else None
        if stored is not None:
            try:
                epochs = [Epoch(**record) for record in stored.history]
                self.program.restore(stored.arrays[:own])
            except (TypeError, ValueError) as error:  # written by another version
                _log.warning("a checkpoint is ignored, the run starts anew: %s", error)
            else:
                self.best = stored.arrays[own:]
                return epochs, stored.arrays[:own]
        return [], self.program.state()

    def _initial_seed(self, layer: int, variable: int) -> int:
        return int(self.run.entropy(_INITIAL, layer, variable).generate_state(1)[0])

    def _epoch(self, number: int) -> Epoch:
        began = time.monotonic()
        shuffle = np.random.default_rng(self.run.entropy(_ORDER, number)).permutation
        key = int(self.run.entropy(_NOISE, number).generate_state(1, np.uint64)[0] >> 1)
        order = shuffle(self.split.train)
        loss, acc = self.program.epoch(self.images, order, key, number, self.run.epochs)
        losses = {"loss": loss}
        val_loss = val_acc = math.nan
        if len(self.split.validation):
            val_loss, val_acc = self.program.evaluate(self.images, self.split.validation)
            losses["validation loss"] = val_loss
        for name, value in losses.items():
            if not math.isfinite(value):
                said = "NaN" if math.isnan(value) else "infinite"
                raise TrainingFailed(f"the {name} is {said} in epoch {number + 1}")
        seconds = time.monotonic() - began
        return Epoch(number, acc, loss, val_acc, val_loss, seconds, time.time())

    def _remember(self, history: Sequence[Epoch]) -> None:
        """Keep the weights of the newest epoch if the run keeps its best one's, and it is."""
        if not Recipe.of(dict(self.run.params)).restore_best_weights:
            return
        curve = [epoch.val_acc for epoch in history]
        if math.isnan(curve[-1]) or recipe.best_epoch(curve) == len(curve) - 1:
            self.best = self.program.weights()

    def _save(self, history: Sequence[Epoch]) -> None:
        if self.checkpoints is None:
            return
        records = tuple(asdict(epoch) for epoch in history)
        try:
            arrays = (*self.program.state(), *self.best)
            self.checkpoints.save(Checkpoint(self.run.key, records, arrays))
        except OSError as error:
            _log.warning("no checkpoint of epoch %d: %s", history[-1].number + 1, error)


@contextmanager
def _one_line_reasons() -> Iterator[None]:
    """Tell a lack of memory as the reason why this run failed."""
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        detail = str(error).partition("\n")[0]
        raise TrainingFailed(f"out of memory: {detail}" if detail else "out of memory") from error
