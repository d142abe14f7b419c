"""A network and its compiled epoch: what a run trains with.

Many steps are one call of a `tf.function` over data that is resident in memory, so a step costs no
Python. What a step is, `stock` (Keras' own) and `fast` (the same for less) say.
"""

from __future__ import annotations

import gc
import math
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from study.data.pixels import Images, chosen, is_aligned
from study.data.splitting import Labels
from study.training.augment import augmented
from study.training.compiled import Logs, initialize, variables_of
from study.training.private import forget_kernels
from study.training.recipe import Recipe

Tensor = Any
Data = tuple[Tensor, Tensor]
"""Images (n, height, width, channels), float32 from 0 to 1 or uint8; labels (n,), int32, or float32
where they are numbers."""

Parts = list[list[NDArray[Any]]]
"""What each call of a compiled function has given, an array for each of its results."""

# Memory with large pictures: docs/log.md, "Own pictures".
_LARGE = 2**28  # bytes
_JUDGED_AT_ONCE = 500  # images a call when validating, fewer where they are
_JUDGED_PIXELS = 2**23  # so large that there are more of these


def resident(images: Images, labels: Labels, device: str = "cpu") -> Data:
    """A dataset where TensorFlow has it, to be trained on in any order; on a GPU, on the card.

    Many images as bytes are not copied on the processor: they are trained on where they lie, and
    must not change.
    """
    if device == "gpu" or images.nbytes < _LARGE or images.dtype != np.uint8:
        return tf.constant(images), tf.constant(labels)
    if not is_aligned(images):
        images = chosen(images, np.arange(len(images)))
    shared = images.view()
    try:
        shared.setflags(write=True)  # DLPack has no word for what may only be read
    except ValueError:  # memory that is not Python's, of what has travelled
        shared = chosen(images, np.arange(len(images)))
    return tf.experimental.dlpack.from_dlpack(shared.__dlpack__()), tf.constant(labels)


class Program(ABC):
    """A model and its compiled epoch; used by one run at a time, and reset for the next.

    `model` is built and compiled; it takes images of `input_shape` (height, width, channels) and
    gives `num_classes` numbers, None where the model itself knows, in batches of `batch_size`.
    With `bytes_given` the data's images are uint8, of which a batch at a time is made float32; with
    `numbers_given` its labels are numbers. With `balanced` the mean of the classes' recall is
    logged of images that are judged. An epoch is cut into pieces, calls of about `piece_seconds`,
    between which signals are answered.
    """

    traces: ClassVar[int] = 0
    """How often this process has traced a step: twice a program, to train and to judge."""

    _results: ClassVar[tuple[Any, ...]] = ()
    """The types of the numbers that `_step` returns."""

    def __init__(
        self,
        model: keras.Model,
        batch_size: int,
        recipe: Recipe | None = None,
        piece_seconds: float = 0.4,
        input_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        *,
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
        rates = [tf.TensorSpec([None], tf.float32)] if self._recipe.scheduled else []
        signature = [data, index, *scalars, *rates]
        self._train = tf.function(self._train_steps, signature, autograph=False)
        self._judge = tf.function(self._judge_traced, [data, index], autograph=False)

    @abstractmethod
    def epoch(
        self, data: Data, order: NDArray[np.int64], key: int, number: int = 0, epochs: int = 1
    ) -> Logs:
        """Train once over the images in `order`; the last batch may be smaller.

        `key` (63 bits) decides the random numbers, `number` of `epochs` where a schedule stands.
        Loss and accuracy are means over the images as they were met. The result does not depend on
        where the pieces were cut.
        """

    @abstractmethod
    def evaluate(self, data: Data, indices: NDArray[np.int64]) -> Logs:
        """What the model logs in inference mode of the images at `indices`."""

    @abstractmethod
    def _step(self, x: Tensor, y: Tensor, seed: Tensor, rate: Tensor | None) -> Sequence[Tensor]:
        """Train on a batch: images (n, height, width, channels) and labels (n,).

        `seed` is (key, step), two int64; `rate` the share of the learning rate, None: all of it.
        Returns numbers of the types in `_results`.
        """

    @abstractmethod
    def _judge_batch(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        """Judge a batch; returns tensors (n,), hits at last, or nothing where metrics remember."""

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
        """Every variable that decides how training goes on, for `restore`."""
        return tuple(variable.numpy().copy() for variable in self._variables)

    def restore(self, state: Sequence[NDArray[Any]]) -> None:
        """Take up a `state`. Raises ValueError if it is another model's."""
        if [a.shape for a in state] != [tuple(v.shape) for v in self._variables]:
            raise ValueError("the arrays are those of another network")
        for variable, array in zip(self._variables, state, strict=True):
            variable.assign(array)

    def weights(self) -> tuple[NDArray[Any], ...]:
        """What of the `state` is saved in the model."""
        return tuple(self.model.get_weights())

    def _trained(
        self, data: Data, order: NDArray[np.int64], key: int, number: int, epochs: int
    ) -> Parts:
        """Train an epoch, in pieces that grow until they take `piece_seconds`."""
        steps = -(-len(order) // self._batch)
        shuffled = tf.constant(order)
        rates = self._recipe.rates(number, epochs, steps)
        scheduled = [] if rates is None else [tf.constant(rates)]
        parts, done = [], 0
        while done < steps:
            size, began = min(self._piece, steps - done), time.perf_counter()
            results = self._train(data, shuffled, done, done + size, key, *scheduled)
            parts.append([result.numpy() for result in results])
            done += size
            fitting = size * self._piece_seconds / (time.perf_counter() - began)
            self._piece = max(1, min(int(fitting), 8 * self._piece))
        return parts

    def _judged(self, data: Data, indices: NDArray[np.int64]) -> Parts:
        pixels = math.prod(data[0].shape[1:])
        at_once = max(1, min(_JUDGED_AT_ONCE, _JUDGED_PIXELS // pixels))
        return [
            [part.numpy() for part in self._judge(data, tf.constant(indices[first:last]))]
            for first in range(0, len(indices), at_once)
            if (last := first + at_once)
        ]

    def _by_classes(self, data: Data, indices: NDArray[np.int64], parts: Parts) -> Logs:
        """The mean of the classes' recall, where it is asked for, of the hits that parts end in."""
        if not self._balanced:
            return {}
        right, labels = np.concatenate([part[-1] for part in parts]), data[1].numpy()[indices]
        images = np.bincount(labels)
        recall = np.bincount(labels, right)[images > 0] / images[images > 0]
        return {"balanced_accuracy": float(recall.mean())}

    def _train_steps(
        self,
        data: Data,
        order: Tensor,
        first: Tensor,
        last: Tensor,
        key: Tensor,
        rates: Tensor | None = None,
    ) -> list[Tensor]:
        """Steps `first` to `last` of an epoch; returns each result of `_step` as (steps,)."""
        Program.traces += 1
        count = tf.cast(last - first, tf.int32)

        def train_one(at: Tensor, *results: Tensor) -> tuple[Tensor, ...]:
            step = first + tf.cast(at, tf.int64)
            chosen = order[step * self._batch : (step + 1) * self._batch]
            x, y = self._batch_of(data, chosen)
            seed = tf.stack([key, step])
            if self._recipe.augments:
                x = augmented(x, self._recipe, seed)
            numbers = self._step(x, y, seed, None if rates is None else rates[step])
            written = (
                result.write(at, number) for result, number in zip(results, numbers, strict=True)
            )
            return at + 1, *written

        empty = [tf.TensorArray(dtype, count) for dtype in self._results]
        _, *results = tf.while_loop(lambda at, *_: at < count, train_one, (0, *empty))
        return [result.stack() for result in results]

    def _judge_traced(self, data: Data, chosen: Tensor) -> list[Tensor]:
        Program.traces += 1
        return list(self._judge_batch(*self._batch_of(data, chosen)))

    def _batch_of(self, data: Data, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen images, float32 from 0 to 1, and labels."""
        images, labels = (tf.gather(part, chosen) for part in data)
        if images.dtype == tf.uint8:
            images = tf.cast(images, tf.float32) / self._white
        return images, labels


class ProgramCache:
    """Programs that wait for a run of the same configuration; the least used are released."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._idle: OrderedDict[Hashable, Program] = OrderedDict()

    @contextmanager
    def borrow(self, key: Hashable, build: Callable[[], Program]) -> Iterator[Program]:
        """A program for this one user, who may be in any thread; dropped if its use fails."""
        program = self._idle.pop(key, None) or build()
        try:
            yield program
        except Exception:
            raise
        except BaseException:  # interrupted, or given up: nothing is wrong with the program
            self._keep(key, program)
            raise
        self._keep(key, program)

    def _keep(self, key: Hashable, program: Program) -> None:
        self._idle[key] = program
        while len(self._idle) > self._size:
            self._idle.popitem(last=False)
            gc.collect()  # a model and its graphs refer to each other,
            forget_kernels()  # and TensorFlow keeps what it has made of them


PROGRAMS = ProgramCache()


@contextmanager
def at_rate(optimizer: keras.Optimizer, share: Tensor | None) -> Iterator[None]:
    """Have the optimizer take a step at this share of its learning rate; None: at all of it."""
    if share is None:
        yield
        return
    whole = tf.identity(optimizer.learning_rate)
    optimizer.learning_rate.assign(whole * share)
    yield
    optimizer.learning_rate.assign(whole)


def hits(labels: Tensor, outputs: Tensor) -> Tensor:
    """Which of the outputs (n, classes) are highest at the label: (n,) of 0 and 1."""
    return tf.cast(tf.argmax(outputs, -1, tf.int32) == labels, tf.int32)
