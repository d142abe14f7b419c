"""A run at work: epoch by epoch on one program, with callbacks, a checkpoint after each."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras.callbacks import CallbackList
from numpy.typing import NDArray

from study.errors import ModelError, TrainingFailed
from study.space.search_space import Value
from study.training import model, own, recipe
from study.training.checkpoint import Checkpoint, Checkpoints
from study.training.fast.step import FastProgram, unknown
from study.training.program import PROGRAMS, Data, Program, resident
from study.training.recipe import Recipe
from study.training.run import Epoch, Run
from study.training.stock import StockProgram

if TYPE_CHECKING:
    from keras.callbacks import Callback

    from study.data.dataset import Dataset, Split

_INITIAL, _ORDER, _NOISE = range(3)  # what random numbers are for: keeps their seeds apart
_log = logging.getLogger(__name__)


def trained(
    run: Run,
    dataset: Dataset,
    split: Split,
    checkpoints: Checkpoints | None,
    callbacks: Sequence[Callback],
) -> Generator[Epoch, None, bytes | None]:
    """As `run.train`, once everything is checked and TensorFlow has started."""
    data = dataset.input_shape, dataset.num_classes
    key = (run.params, run.training, run.model, *data, dataset.images.dtype, run.batch_size)
    with _one_line_reasons(), PROGRAMS.borrow(key, lambda: _program(run, dataset)) as program:
        images = resident(dataset.images, dataset.labels)
        session = Session(run, dataset, split, program, images, checkpoints)
        complete = yield from session.epochs(callbacks)
        if not complete:
            return None
        if session.best:
            program.model.set_weights(session.best)
        return program.saved()


def _program(run: Run, dataset: Dataset) -> Program:
    """A new program of the run's network, fast where it may and can be."""
    network, recipe = _network(run, dataset)
    fast = run.training == "fast" and run.device == "cpu" and unknown(network) is None
    return (FastProgram if fast else StockProgram)(
        network,
        run.batch_size,
        Recipe.of(recipe),
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        bytes_given=dataset.images.dtype == np.uint8,
    )


def _network(run: Run, dataset: Dataset) -> tuple[keras.Model, dict[str, Value]]:
    """A network with the first weights of the run, and what of its hyperparameters is recipe."""
    params, data = dict(run.params), (dataset.input_shape, dataset.num_classes)
    if run.model is None:
        return model.build_cnn(params, *data), params
    seed = int(run.entropy(_INITIAL).generate_state(1)[0])
    try:
        network, read = own.build(run.model, params, *data, seed)
    except ModelError as error:
        raise TrainingFailed(str(error)) from None
    return network, own.recipe_of(params, read)


@dataclass
class Session:
    """One run on one program, epoch by epoch."""

    run: Run
    dataset: Dataset
    split: Split
    program: Program
    images: Data
    checkpoints: Checkpoints | None
    best: tuple[NDArray[Any], ...] = ()  # the best epoch's weights, where a run keeps them

    def epochs(self, callbacks: Sequence[Callback]) -> Generator[Epoch, None, bool]:
        """Every epoch from the first: the stored ones, then those that are trained now.

        Returns whether none is left: they were trained, or a callback has stopped the run.
        """
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
        if self.run.model is None:
            self.program.reset(self._initial_seed)
        else:
            self.program.take(_network(self.run, self.dataset)[0])
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
                what = "NaN" if math.isnan(value) else "infinite"
                raise TrainingFailed(f"the {name} is {what} in epoch {number + 1}")
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
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        detail = str(error).partition("\n")[0]
        raise TrainingFailed(f"out of memory: {detail}" if detail else "out of memory") from error
