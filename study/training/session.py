"""A run at work: epoch by epoch on one program, with callbacks, a checkpoint after each."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from keras.callbacks import CallbackList

from study.errors import TrainingFailed
from study.space.metric import BALANCED
from study.training.checkpoint import Checkpoints
from study.training.compiled import to_bytes
from study.training.fast.step import FastProgram, unknown
from study.training.history import Arrays, History, measured
from study.training.network import network_of
from study.training.program import PROGRAMS, Data, Program, resident
from study.training.recipe import Recipe
from study.training.run import Epoch, Run
from study.training.stock import StockProgram

if TYPE_CHECKING:
    from keras.callbacks import Callback

    from study.data.dataset import Dataset, Split


def trained(
    run: Run,
    dataset: Dataset,
    split: Split,
    checkpoints: Checkpoints | None,
    callbacks: Sequence[Callback],
) -> Generator[Epoch, None, bytes | None]:
    """As `run.train`, once everything is checked and TensorFlow has started."""
    data = dataset.input_shape, dataset.num_classes
    what = run.params, run.training, run.model, run.metric
    key = (*what, *data, dataset.images.dtype, run.batch_size)
    with _one_line_reasons(), PROGRAMS.borrow(key, lambda: _program(run, dataset)) as program:
        images = resident(dataset.images, dataset.labels, run.device)
        session = Session(run, dataset, split, program, images, History(run, checkpoints))
        complete = yield from session.epochs(callbacks)
        if not complete:
            return None
        if session.history.best:
            program.model.set_weights(session.history.best)
        return to_bytes(program.model)


def _program(run: Run, dataset: Dataset) -> Program:
    """A new program of the run's network, fast where it may and can be."""
    built, recipe = network_of(run, dataset)
    may = run.training == "fast" and run.device == "cpu"
    fast = may and unknown(built, run.metric) is None
    return (FastProgram if fast else StockProgram)(
        built,
        run.batch_size,
        Recipe.of(recipe),
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        bytes_given=dataset.images.dtype == np.uint8,
        numbers_given=dataset.labels.dtype == np.float32,
        balanced=run.metric.name == BALANCED,
    )


@dataclass
class Session:
    """One run on one program, epoch by epoch."""

    run: Run
    dataset: Dataset
    split: Split
    program: Program
    images: Data
    history: History

    def epochs(self, callbacks: Sequence[Callback]) -> Generator[Epoch, None, bool]:
        """Every epoch from the first: the stored ones, then those that are trained now.

        Returns whether none is left: they were trained, or a callback has stopped the run.
        """
        network = self.program.model
        hooks = CallbackList(list(callbacks), model=network, epochs=self.run.epochs, verbose=0)
        state = self._begin()
        epochs, end = self.history.epochs, self.history.end
        network.stop_training = False
        hooks.on_train_begin()
        try:
            for epoch in epochs[:end]:
                hooks.on_epoch_begin(epoch.number)
                hooks.on_epoch_end(epoch.number, epoch.logs())
                yield epoch
            if state is not None:  # it holds what the hooks had set
                self.program.restore(state)
            while len(epochs) < end and not network.stop_training:
                hooks.on_epoch_begin(len(epochs))
                self.history.add(self._epoch(len(epochs)), self.program.weights)
                hooks.on_epoch_end(epochs[-1].number, epochs[-1].logs())
                self.history.save(self.program.state())
                yield epochs[-1]
            return end == self.run.epochs or bool(network.stop_training)
        finally:
            hooks.on_train_end(epochs[-1].logs() if epochs else None)

    def _begin(self) -> Arrays | None:
        """Set up a new run, or the stored one; returns the variables that were stored."""
        if self.run.model is None:
            self.program.reset(self.run.initial_seed)
        else:
            self.program.take(network_of(self.run, self.dataset)[0])
        return self.history.resume(self.program.restore, len(self.program.state()))

    def _epoch(self, number: int) -> Epoch:
        began = time.monotonic()
        order, key = self.run.order(self.split.train, number), self.run.noise(number)
        trained = self.program.epoch(self.images, order, key, number, self.run.epochs)
        validated = None
        if len(self.split.validation):
            validated = self.program.evaluate(self.images, self.split.validation)
        seconds = time.monotonic() - began
        return measured(number, trained, validated, seconds, self.run.metric)


@contextmanager
def _one_line_reasons() -> Iterator[None]:
    """Tell a lack of memory as the reason why this run failed."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        detail = str(error).partition("\n")[0]
        raise TrainingFailed(f"out of memory: {detail}" if detail else "out of memory") from error
