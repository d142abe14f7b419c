"""The compiled epoch: what is under the stock layers of a model while it trains.

Stock `fit` pays for every step in Python, and for dropout in random numbers. Here an epoch runs as
a few calls of one traced function over data that is resident in memory. It walks the model's own
layers; only where a stock `Dropout` stands are its random numbers drawn more cheaply, and where
`study.training.fast.layers` knows a pattern is it computed another way, with the same result to
rounding.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import context

from study.data.pixels import Images, unit
from study.training.fast.augment import augmented
from study.training.fast.layers import descent, stages
from study.training.recipe import Recipe

JUDGED_AT_ONCE = 500  # images a call when validating

Tensor = Any
Data = tuple[Tensor, Tensor]  # images (n, height, width, channels) and labels (n,), resident


class Program:
    """A model and its compiled epoch; used by one run at a time, and reset for the next."""

    traces: ClassVar[int] = 0
    """How often this process has traced a step: twice a program, to train and to judge."""

    def __init__(
        self,
        model: keras.Sequential,
        batch_size: int,
        recipe: Recipe | None = None,
        piece_seconds: float = 0.4,
    ) -> None:
        """`model` is built and compiled. Signals are answered between two pieces of an epoch."""
        self.model = model
        self._recipe = recipe or Recipe()
        self._piece_seconds = piece_seconds
        self._batch = batch_size
        self._stages = stages(model.layers, batch_size)
        self._piece = 1
        model.optimizer.build(model.trainable_variables)
        seeds = [v for v in model.variables if v.name == "seed_generator_state"]
        self._descend = descent(model.optimizer)
        self._variables = [*model.weights, *seeds, *model.optimizer.variables]
        self._built = self.state()
        index = tf.TensorSpec([None], tf.int64)
        data = (
            tf.TensorSpec([None, *model.input_shape[1:]], tf.float32),
            tf.TensorSpec([None], tf.int32),
        )
        scalars = [tf.TensorSpec([], tf.int64)] * 3
        rates = [tf.TensorSpec([None], tf.float32)] if self._recipe.scheduled else []
        signature = [data, index, *scalars, *rates]
        self._train = tf.function(self._train_steps, signature, autograph=False)
        self._judge = tf.function(self._judge_batch, [data, index], autograph=False)

    def reset(self, draw: Callable[[int, int], int]) -> None:
        """Begin a new run: optimizer as built, weights from each layer's own initializer.

        `draw(layer, variable)` gives the seed of a variable by the positions of layer and variable.
        """
        self.restore(self._built)
        for position, layer in enumerate(self.model.layers):
            for index, variable in enumerate(layer.variables):
                seed = draw(position, index)
                if variable.name == "seed_generator_state":
                    variable.assign([seed, 0])
                elif initializer := getattr(layer, f"{variable.name}_initializer", None):
                    variable.assign(_seeded(initializer, seed)(variable.shape, variable.dtype))
                elif variable.trainable:
                    raise TypeError(f"no initializer for {variable.path}")

    def state(self) -> tuple[NDArray[Any], ...]:
        """Every variable that decides how training goes on, for `restore`."""
        return tuple(variable.numpy().copy() for variable in self._variables)

    def restore(self, state: Sequence[NDArray[Any]]) -> None:
        """Take up a `state`. Raises ValueError if it is another model's."""
        if [a.shape for a in state] != [tuple(v.shape) for v in self._variables]:
            raise ValueError("the arrays are those of another network")
        for variable, array in zip(self._variables, state, strict=True):
            variable.assign(array)

    def epoch(
        self, data: Data, order: NDArray[np.int64], key: int, number: int = 0, epochs: int = 1
    ) -> tuple[float, float]:
        """Train once over the images in `order`; the last batch may be smaller.

        `key` (63 bits) decides the random numbers, `number` of `epochs` where a schedule stands.
        Returns loss and accuracy, each the mean over the images as they were met. The result does
        not depend on where the pieces were cut.
        """
        steps = -(-len(order) // self._batch)
        resident = tf.constant(order)
        rates = self._recipe.rates(number, epochs, steps)
        scheduled = [] if rates is None else [tf.constant(rates)]
        losses, hits, done = [], [], 0
        while done < steps:
            size, began = min(self._piece, steps - done), time.perf_counter()
            loss, hit = self._train(data, resident, done, done + size, key, *scheduled)
            losses.append(loss.numpy())
            hits.append(hit.numpy())
            done += size
            fitting = size * self._piece_seconds / (time.perf_counter() - began)
            self._piece = max(1, min(int(fitting), 8 * self._piece))
        return _mean(losses, len(order)), _mean(hits, len(order))

    def evaluate(self, data: Data, indices: NDArray[np.int64]) -> tuple[float, float]:
        """Loss and accuracy in inference mode, each the mean over the images at `indices`."""
        parts = [
            self._judge(data, tf.constant(indices[first : first + JUDGED_AT_ONCE]))
            for first in range(0, len(indices), JUDGED_AT_ONCE)
        ]
        losses, hits = zip(*((loss.numpy(), hit.numpy()) for loss, hit in parts), strict=True)
        return _mean(losses, len(indices)), _mean(hits, len(indices))

    def weights(self) -> tuple[NDArray[Any], ...]:
        """What of the `state` is saved in the model."""
        return tuple(self.model.get_weights())

    def saved(self) -> bytes:
        """The model as the bytes of a `.keras` file, which Keras alone can load."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            self.model.save(path)
            return path.read_bytes()

    def _train_steps(
        self,
        data: Data,
        order: Tensor,
        first: Tensor,
        last: Tensor,
        key: Tensor,
        rates: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        Program.traces += 1
        count = tf.cast(last - first, tf.int32)

        def train_one(at: Tensor, losses: Tensor, hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            step = first + tf.cast(at, tf.int64)
            chosen = order[step * self._batch : (step + 1) * self._batch]
            x, y = (tf.gather(part, chosen) for part in data)
            rate = None if rates is None else rates[step]
            loss, hit = self._train_batch(x, y, tf.stack([key, step]), rate)
            return at + 1, losses.write(at, loss), hits.write(at, hit)

        empty = tf.TensorArray(tf.float32, count), tf.TensorArray(tf.int32, count)
        _, losses, hits = tf.while_loop(lambda at, *_: at < count, train_one, (0, *empty))
        return losses.stack(), hits.stack()

    def _train_batch(
        self, x: Tensor, y: Tensor, seed: Tensor, rate: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self._recipe.augments:
            x = augmented(x, self._recipe, seed)
        with tf.GradientTape() as tape:
            probabilities = self._forward(x, seed)
            losses = self._losses(y, probabilities)
            target = tf.add_n([tf.reduce_mean(losses), *self.model.losses])
        variables = self.model.trainable_variables
        self._descend(tape.gradient(target, variables), variables, rate)
        return tf.reduce_sum(losses), tf.reduce_sum(_hits(y, probabilities))

    def _losses(self, y: Tensor, probabilities: Tensor) -> Tensor:
        smoothing = self._recipe.label_smoothing
        if not smoothing:
            return keras.losses.sparse_categorical_crossentropy(y, probabilities)
        truth = tf.one_hot(y, probabilities.shape[-1])
        return keras.losses.categorical_crossentropy(
            truth, probabilities, label_smoothing=smoothing
        )

    def _judge_batch(self, data: Data, chosen: Tensor) -> tuple[Tensor, Tensor]:
        Program.traces += 1
        x, y = (tf.gather(part, chosen) for part in data)
        probabilities = self._forward(x, None)
        losses = keras.losses.sparse_categorical_crossentropy(y, probabilities)
        return losses, _hits(y, probabilities)

    def _forward(self, x: Tensor, seed: Tensor | None) -> Tensor:
        for stage in self._stages:
            x = stage(x, seed)
        return x


def resident(images: Images, labels: NDArray[np.int32]) -> Data:
    """A dataset where TensorFlow has it, to be trained on in any order."""
    return tf.constant(unit(images)), tf.constant(labels)


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
            context.context().clear_kernel_cache()  # and TensorFlow keeps what it has made of them


PROGRAMS = ProgramCache()


def _seeded(initializer: Any, seed: int) -> Any:
    """The same initializer with this seed; those that draw nothing are as they were."""
    config = initializer.get_config()
    return type(initializer).from_config({**config, "seed": seed} if "seed" in config else config)


def _hits(labels: Tensor, probabilities: Tensor) -> Tensor:
    return tf.cast(tf.argmax(probabilities, -1, tf.int32) == labels, tf.int32)


def _mean(parts: Sequence[NDArray[Any]], count: int) -> float:
    """The sum over all parts in float64, by `count`."""
    return float(np.concatenate(parts).sum(dtype=np.float64) / count)
