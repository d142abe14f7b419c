"""Trains a run on TensorFlow: a compiled epoch of Keras' own steps, with callbacks and checkpoints.

A step is the model's own `train_step`. Many steps are one call of a `tf.function` over data that is
resident in memory, so a step costs no Python. With `quick_layers` some layers compute faster.
"""

from __future__ import annotations

import gc
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras.callbacks import CallbackList
from numpy.typing import NDArray

from study.data.pixels import Images, is_aligned, take
from study.data.splitting import Labels
from study.errors import StudyError, TrainingFailed
from study.space.metric import BALANCED
from study.training import quick_layers
from study.training.checkpoint import Checkpoints
from study.training.compiled import (
    Logs,
    initialize,
    judge,
    logs_in,
    smoothed,
    takes_one_hot,
    to_bytes,
    variables_of,
)
from study.training.cost import measured as measured_cost
from study.training.custom_model import network_of
from study.training.history import Arrays, History, measured
from study.training.mixing import Mixing
from study.training.private import forget_kernels
from study.training.recipe import Recipe, augmented, balanced_weights
from study.training.run import Epoch, Run
from study.training.user_code import why

if TYPE_CHECKING:
    from keras.callbacks import Callback

    from study.data.dataset import Dataset, Split

Tensor = Any
Data = tuple[Tensor, Tensor]
"""Images (n, height, width, channels), float32 from 0 to 1 or uint8; labels (n,), int32, or float32
where they are numbers."""

# Memory with large pictures: docs/log.md, "Own pictures".
_LARGE = 2**28  # bytes
_JUDGED_AT_ONCE = 500  # images a call when validating, fewer where they are
_JUDGED_PIXELS = 2**23  # so large that there are more of these


def resident(images: Images, labels: Labels, device: str = "cpu") -> Data:
    """A dataset as tensors; on a GPU in its memory.

    On the processor many images as bytes are not copied: the tensor shares their memory, so they
    must not change.
    """
    if device == "gpu" or images.nbytes < _LARGE or images.dtype != np.uint8:
        return tf.constant(images), tf.constant(labels)
    if not is_aligned(images):
        images = take(images, np.arange(len(images)))
    shared = images.view()
    try:
        shared.setflags(write=True)  # DLPack cannot mark memory as read-only
    except ValueError:  # memory of another process, which Python does not own
        shared = take(images, np.arange(len(images)))
    return tf.experimental.dlpack.from_dlpack(shared.__dlpack__()), tf.constant(labels)


class Program:
    """A model and its compiled epoch; used by one run at a time, and reset for the next.

    `model` is built and compiled; it takes images of `input_shape` (height, width, channels) and
    gives `num_classes` numbers (None: as the model itself says), in batches of `batch_size`.
    Labels reach its loss as class numbers, or one-hot where the loss is one of Keras' that needs
    them so. With `quick` its layers are prepared by `quick_layers`. With `bytes_given` the data's
    images are uint8, of which a batch at a time is made float32; with `numbers_given` its labels
    are numbers. With `balanced` the mean of the classes' recall is logged of images that are
    judged. An epoch is cut into pieces, calls of about `piece_seconds`, between which signals are
    answered.

    ``class_weights`` (classes,) are those of the run that trains, where the recipe weighs classes.
    """

    traces: ClassVar[int] = 0
    """How often this process has traced a step: twice a program, to train and to judge."""

    def __init__(
        self,
        model: keras.Model,
        batch_size: int,
        recipe: Recipe | None = None,
        piece_seconds: float = 0.4,
        input_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        *,
        quick: bool = True,
        bytes_given: bool = False,
        numbers_given: bool = False,
        balanced: bool = False,
    ) -> None:
        self.model = model
        self._recipe = recipe or Recipe()
        self._batch = batch_size
        self._piece_seconds = piece_seconds
        self._piece = 1  # steps
        self._classes = num_classes or model.output_shape[-1]
        self._numbers, self._balanced = numbers_given, balanced
        # TensorFlow makes a division by a constant a multiplication, which is another rounding.
        self._white = tf.Variable(255.0, trainable=False)
        model.optimizer.build(model.trainable_variables)
        if quick:
            quick_layers.prepare(model, batch_size)
        self._learner = smoothed(model, self._recipe.label_smoothing)
        self._mixing = Mixing(self._learner) if self._recipe.mixup else None
        self.class_weights = tf.Variable(tf.ones(self._classes), trainable=False)
        self._make_metrics(input_shape or model.input_shape[1:])
        self._variables = variables_of(model)
        self._built = self.state()
        index = tf.TensorSpec([None], tf.int64)
        data = (
            tf.TensorSpec(
                [None, *(input_shape or model.input_shape[1:])],
                tf.uint8 if bytes_given else tf.float32,
            ),
            tf.TensorSpec([None], tf.float32 if numbers_given else tf.int32),
        )
        scalars = [tf.TensorSpec([], tf.int64)] * 3
        numbers = [tf.TensorSpec([None], tf.float32)] * 2
        self._train = self._compiled(self._train_steps, [data, index, *scalars, *numbers])
        self._judge = self._compiled(self._judge_batch, [data, index])

    def _compiled(self, function: Callable[..., Any], signature: list[Any]) -> Callable[..., Any]:
        """The function as one call of TensorFlow, unless the model is compiled to run eagerly."""
        if self.model.run_eagerly:
            return function
        traced: Callable[..., Any] = tf.function(function, signature, autograph=False)
        return traced

    def _make_metrics(self, shape: tuple[int, ...]) -> None:
        """Have Keras create the variables of its metrics; TensorFlow would trace again later."""
        image, label = (
            tf.zeros([1, *shape]),
            tf.zeros([1], tf.float32 if self._numbers else tf.int32),
        )
        for model in (self.model, self._learner):
            judge(model, image, self._labels(model, label))
            model.reset_metrics()

    def epoch(
        self, data: Data, order: NDArray[np.int64], key: int, number: int = 0, epochs: int = 1
    ) -> Logs:
        """Train once over the images in `order`; the last batch may be smaller.

        `key` (63 bits) decides augmentation and mixup, `number` of `epochs` the place in a
        schedule. Loss and metrics are means over the steps. The result does not depend on where
        the pieces were cut.
        """
        steps = -(-len(order) // self._batch)
        shuffled = tf.constant(order)
        numbers = self._recipe.rates(number, epochs, steps), self._recipe.shares(key, steps)
        given = [tf.zeros(0) if one is None else tf.constant(one) for one in numbers]
        self._learner.reset_metrics()
        done = 0
        while done < steps:
            size, began = min(self._piece, steps - done), time.perf_counter()
            self._train(data, shuffled, done, done + size, key, *given)
            done += size
            fitting = size * self._piece_seconds / (time.perf_counter() - began)
            self._piece = max(1, min(int(fitting), 8 * self._piece))
        return logs_in(self._learner.get_metrics_result(), len(order))

    def evaluate(self, data: Data, indices: NDArray[np.int64]) -> Logs:
        """The logs of the model in inference mode for the images at `indices`."""
        at_once = max(1, min(_JUDGED_AT_ONCE, _JUDGED_PIXELS // math.prod(data[0].shape[1:])))
        self.model.reset_metrics()
        hits = [
            self._judge(data, tf.constant(indices[first : first + at_once]))
            for first in range(0, len(indices), at_once)
        ]
        logs = logs_in(self.model.get_metrics_result(), len(indices))
        if self._balanced:
            labels = data[1].numpy()[indices]
            right = np.bincount(labels, np.concatenate([part.numpy() for part in hits]))
            images = np.bincount(labels)
            logs["balanced_accuracy"] = float((right[images > 0] / images[images > 0]).mean())
        return logs

    def reset(self, draw: Callable[[int, int], int]) -> None:
        """Begin a new run: optimizer as built, weights from each layer's own initializer.

        `draw(layer, variable)` gives the seed of a variable by the positions of layer and variable.
        """
        self.restore(self._built)
        initialize(self.model, draw)

    def take(self, model: keras.Model) -> None:
        """Begin a new run with the variables of another model, built and compiled alike."""
        model.optimizer.build(model.trainable_variables)
        self.restore([variable.numpy() for variable in variables_of(model)])

    def state(self) -> tuple[NDArray[Any], ...]:
        """Every variable that training depends on, for `restore`."""
        return tuple(variable.numpy().copy() for variable in self._variables)

    def restore(self, state: Sequence[NDArray[Any]]) -> None:
        """Assign a `state`. Raises ValueError if it belongs to another model."""
        if [a.shape for a in state] != [tuple(v.shape) for v in self._variables]:
            raise ValueError("the arrays are those of another network")
        for variable, array in zip(self._variables, state, strict=True):
            variable.assign(array)

    def weights(self) -> tuple[NDArray[Any], ...]:
        """The part of the `state` that is saved in the model."""
        return tuple(self.model.get_weights())

    def _train_steps(
        self,
        data: Data,
        order: Tensor,
        first: Tensor,
        last: Tensor,
        key: Tensor,
        rates: Tensor,
        shares: Tensor,
    ) -> None:
        """Steps `first` to `last` of an epoch; `rates` and `shares` are empty where unused."""
        Program.traces += 1

        def train_one(step: Tensor) -> tuple[Tensor]:
            batch = order[step * self._batch : (step + 1) * self._batch]
            images, labels = self._batch_of(data, batch)
            if self._recipe.augments:
                images = augmented(images, self._recipe, tf.stack([key, step]))
            weights = tf.gather(self.class_weights, labels) if self._recipe.weighs else None
            wanted = self._labels(self._learner, labels)
            rate = rates[step] if self._recipe.scheduled else None
            with at_rate(self._learner.optimizer, rate):
                if self._mixing:
                    self._mixing.step(images, wanted, weights, shares[step])
                elif weights is None:
                    self._learner.train_step((images, wanted))
                else:
                    self._learner.train_step((images, wanted, weights))
            return (step + 1,)

        tf.while_loop(lambda step: step < last, train_one, (tf.cast(first, tf.int64),))

    def _judge_batch(self, data: Data, batch: Tensor) -> Tensor | None:
        """Judge the images at `batch`; which are right, (n,) of 0 and 1, where that is needed."""
        Program.traces += 1
        images, labels = self._batch_of(data, batch)
        self.model.test_step((images, self._labels(self.model, labels)))
        if not self._balanced:
            return None
        outputs = self.model(images, training=False)
        return tf.cast(tf.argmax(outputs, -1, tf.int32) == labels, tf.int32)

    def _batch_of(self, data: Data, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen images, float32 from 0 to 1, and labels."""
        images, labels = (tf.gather(part, chosen) for part in data)
        if images.dtype == tf.uint8:
            images = tf.cast(images, tf.float32) / self._white
        return images, labels

    def _labels(self, model: keras.Model, labels: Tensor) -> Tensor:
        """Labels (n,) as a loss takes them: as they are, one-hot (n, classes), numbers (n, 1)."""
        if self._numbers:
            return labels[:, None]
        return tf.one_hot(labels, self._classes) if takes_one_hot(model) else labels


class ProgramCache:
    """Programs kept for the next run of the same configuration; the least used are released."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._idle: OrderedDict[Hashable, Program] = OrderedDict()

    @contextmanager
    def borrow(self, key: Hashable, build: Callable[[], Program]) -> Iterator[Program]:
        """A program for one user, in any thread; it is dropped if its use fails."""
        program = self._idle.pop(key, None) or build()
        try:
            yield program
        except Exception:
            raise
        except BaseException:  # interrupted or closed: the program is sound
            self._keep(key, program)
            raise
        self._keep(key, program)

    def _keep(self, key: Hashable, program: Program) -> None:
        self._idle[key] = program
        while len(self._idle) > self._size:
            self._idle.popitem(last=False)
            gc.collect()  # a model and its graphs refer to each other,
            forget_kernels()  # and TensorFlow keeps their kernels


PROGRAMS = ProgramCache()


@contextmanager
def at_rate(optimizer: keras.Optimizer, share: Tensor | None) -> Iterator[None]:
    """Let the optimizer take a step at this share of its learning rate (None: all of it)."""
    if share is None:
        yield
        return
    whole = tf.identity(optimizer.learning_rate)
    optimizer.learning_rate.assign(whole * share)
    yield
    optimizer.learning_rate.assign(whole)


def trained(
    run: Run,
    dataset: Dataset,
    split: Split,
    checkpoints: Checkpoints | None,
    callbacks: Sequence[Callback],
) -> Generator[Epoch, None, bytes | None]:
    """Train a run as `train.train` does, which has checked it and started TensorFlow."""
    data = dataset.input_shape, dataset.num_classes
    what = run.params, run.training, run.model, run.metric, run.tuning
    key = (*what, *data, dataset.images.dtype, run.batch_size)
    with _out_of_memory(), PROGRAMS.borrow(key, lambda: _program(run, dataset)) as program:
        images = resident(dataset.images, dataset.labels, run.device)
        session = Session(run, dataset, split, program, images, History(run, checkpoints))
        complete = yield from session.epochs(callbacks)
        if not complete:
            return None
        if session.history.best:
            program.model.set_weights(session.history.best)
        return to_bytes(program.model)


def _program(run: Run, dataset: Dataset) -> Program:
    """A new program of the run's network; on a GPU, and with "stock", all layers are Keras' own."""
    with _one_line_reasons(run):
        built, recipe = network_of(run, dataset)
        return Program(
            built,
            run.batch_size,
            Recipe.of(recipe),
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            quick=run.training == "fast" and run.device == "cpu",
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
        cost = measured_cost(self.run, self.dataset) if self.run.limits and not epochs else None
        network.stop_training = False
        hooks.on_train_begin()
        try:
            for epoch in epochs[:end]:
                hooks.on_epoch_begin(epoch.number)
                hooks.on_epoch_end(epoch.number, epoch.logs())
                yield epoch
            if state is not None:  # it holds what the hooks had set
                self.program.restore(state)
            while len(epochs) < end and not (self.history.ended or network.stop_training):
                hooks.on_epoch_begin(len(epochs))
                epoch = replace(self._epoch(len(epochs)), cost=None if epochs else cost)
                self.history.add(epoch, self.program.weights)
                hooks.on_epoch_end(epochs[-1].number, epochs[-1].logs())
                self.history.save(self.program.state())
                yield epochs[-1]
            return self.history.ended or bool(network.stop_training)
        finally:
            hooks.on_train_end(epochs[-1].logs() if epochs else None)

    def _begin(self) -> Arrays | None:
        """Set up a new run, or the stored one; returns the variables that were stored."""
        if self.run.model is None:
            self.program.reset(self.run.initial_seed)
        else:
            self.program.take(network_of(self.run, self.dataset)[0])
        if self.run.recipe.weighs:
            labels = self.dataset.labels[self.split.train]
            self.program.class_weights.assign(balanced_weights(labels, self.dataset.num_classes))
        return self.history.resume(self._restore, len(self.program.state()))

    def _restore(self, state: Arrays) -> None:
        """Take up a stored state; ValueError where it is not that after the stored epochs."""
        self.program.restore(state)
        steps = -(-len(self.split.train) // self.run.batch_size)
        taken = int(self.program.model.optimizer.iterations)
        if self.run.model is None and taken != steps * len(self.history.epochs):
            raise ValueError(f"its network was trained for {taken / steps:g} epochs")

    def _epoch(self, number: int) -> Epoch:
        began = time.monotonic()
        order, key = self.run.order(self.split.train, number), self.run.noise(number)
        validated = None
        with _one_line_reasons(self.run):
            trained = self.program.epoch(self.images, order, key, number, self.run.epochs)
            if len(self.split.validation):
                validated = self.program.evaluate(self.images, self.split.validation)
        seconds = time.monotonic() - began
        return measured(number, trained, validated, seconds, self.run.metric)


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """Report a lack of memory as the reason why a run failed."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        detail = str(error).partition("\n")[0]
        raise TrainingFailed(f"out of memory: {detail}" if detail else "out of memory") from error


@contextmanager
def _one_line_reasons(run: Run) -> Iterator[None]:
    """Report an error of TensorFlow or of a custom model as the reason why the run failed."""
    with _out_of_memory():
        try:
            yield
        except (StudyError, TrainingFailed, MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:
            if run.model is not None:
                raise TrainingFailed(f"{run.model.name}: {why(error, run.model)}") from error
            if isinstance(error, tf.errors.OpError):
                detail = " ".join(str(error).split())[:300]
                raise TrainingFailed(f"{type(error).__name__}: {detail}") from error
            raise
