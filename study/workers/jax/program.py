"""The epoch of a group: `jax.vmap` over runs of one `lax.scan` over steps, each Keras' own.

Runs of a group have the same network, batch size and numbers of images. What is a run's own comes
in as arrays: its variables, the order of its images, its learning rates, its dropout rate and the
range of its augmentation. Jitted once for each size of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from numpy.typing import NDArray

from study.training.compiled import (
    Logs,
    initialize,
    judge,
    logs_in,
    smoothed,
    takes_one_hot,
    variables_of,
)
from study.training.history import Arrays
from study.training.recipe import Recipe
from study.workers.jax.layers import Rate, augmented

Array = Any

_JUDGED_AT_ONCE = 500  # images of a run


@dataclass(frozen=True)
class Inputs:
    """What one run brings to an epoch.

    ``order`` are the indices of its images (n,), ``validation`` of those it is judged by (m,);
    ``shares`` of the learning rate at each step (steps,); ``ranges`` of rotation, zoom and
    translation (3,).
    """

    state: Arrays
    order: NDArray[np.int32]
    validation: NDArray[np.int32]
    shares: NDArray[np.float32]
    noise: NDArray[np.uint32]
    dropout: float
    ranges: tuple[float, float, float]


@dataclass(frozen=True)
class Outputs:
    """What becomes of it: variables, and what the model logs in training and validation."""

    state: Arrays
    trained: Logs
    validated: Logs | None


class GroupProgram:
    """A compiled model that many runs train; ``rate`` is the one its dropout layers look at.

    ``images`` (n, height, width, channels), bytes or float32, and ``labels`` (n,) are on the
    device. With ``balanced`` it logs the mean of the classes' recall where it judges.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        batch_size: int,
        rate: Rate,
        images: Array,
        labels: Array,
        classes: int,
        *,
        balanced: bool = False,
    ) -> None:
        self.model = model
        self._recipe, self._batch, self._rate = recipe, batch_size, rate
        self._data, self._classes, self._balanced = (images, labels), classes, balanced
        model.optimizer.build(model.trainable_variables)
        self._learner = smoothed(model, recipe.label_smoothing)
        self._make_metrics(images.shape[1:])
        self.variables = variables_of(model)
        self._where = {id(variable): place for place, variable in enumerate(self.variables)}
        self._rates = [
            self._where[id(variable)]
            for variable in [getattr(model.optimizer, "_learning_rate", None)]
            if id(variable) in self._where
        ]
        self._train = jax.jit(jax.vmap(self._epoch, in_axes=(None, 0, 0, 0, 0, 0, 0)))
        self._judge = jax.jit(jax.vmap(self._judged, in_axes=(None, 0, 0)))

    def beginning(self, draw: Callable[[int, int], int], learning_rate: float) -> Arrays:
        """The variables of a new run, drawn as `initialize` does, in the order of a checkpoint."""
        initialize(self.model, draw)
        self.model.optimizer.learning_rate = learning_rate
        return tuple(np.array(variable) for variable in self.variables)

    def fitting(self, state: Sequence[NDArray[Any]]) -> Arrays:
        """A `state` with the types that the variables have here; ValueError if it is another's."""
        if [a.shape for a in state] != [tuple(v.shape) for v in self.variables]:
            raise ValueError("the arrays are those of another network")
        return tuple(
            np.asarray(array).astype(variable.dtype)
            for array, variable in zip(state, self.variables, strict=True)
        )

    def weights_in(self, state: Arrays) -> Arrays:
        """What of a `state` is saved in the model."""
        return tuple(state[self._where[id(variable)]] for variable in self.model.weights)

    def epoch(self, runs: Sequence[Inputs], size: int) -> list[Outputs]:
        """Train every run once over its images, and judge it; ``size`` is that of the program."""
        padded = [*runs, *[runs[0]] * (size - len(runs))]
        states = [np.stack(parts) for parts in zip(*(run.state for run in padded), strict=True)]
        trained, logs = self._train(
            self._data,
            states,
            *(np.stack([getattr(run, name) for run in padded]) for name in ("order", "noise")),
            np.stack([run.shares for run in padded]),
            np.array([run.dropout for run in padded], np.float32),
            np.array([run.ranges for run in padded], np.float32),
        )
        judged = None
        if len(runs[0].validation):
            judged = self._judge(self._data, trained, np.stack([run.validation for run in padded]))
        trained, logs, judged = jax.device_get((trained, logs, judged))
        return [
            Outputs(
                tuple(part[place] for part in trained),
                _metrics(logs, place, len(run.order)),
                judged and _metrics(judged, place, len(run.validation)),
            )
            for place, run in enumerate(runs)
        ]

    def _make_metrics(self, shape: tuple[int, ...]) -> None:
        """Have Keras make the variables of its metrics, which it does when it first needs them."""
        for model in {id(one): one for one in (self.model, self._learner)}.values():
            image, label = np.zeros((1, *shape), np.float32), jnp.zeros(1, self._data[1].dtype)
            judge(model, image, np.asarray(self._labels(model, label)))
            model.reset_metrics()

    def _epoch(
        self,
        data: tuple[Array, Array],
        state: list[Array],
        order: Array,
        noise: Array,
        shares: Array,
        dropout: Array,
        ranges: Array,
    ) -> tuple[list[Array], dict[str, Array]]:
        """One run's epoch; the last batch may be smaller, and is a step outside of the scan."""

        def step(carry: Any, now: Any) -> Any:
            (state, metrics), (number, chosen, share) = carry, now
            x, y = self._batch_of(data, chosen)
            if self._recipe.augments:
                x = augmented(x, ranges, jax.random.fold_in(noise, number))
            return self._step(state, metrics, x, y, share, dropout)

        return self._steps(step, (state, _fresh(self._learner)), order, self._batch, shares)

    def _judged(self, data: tuple[Array, Array], state: list[Array], indices: Array) -> Any:
        calls = -(-indices.shape[0] // _JUDGED_AT_ONCE)

        def step(carry: Any, now: Any) -> Any:
            state, metrics, *counts = carry
            x, y = self._batch_of(data, now[1])
            trainable, others = (
                self._of(state, variables)
                for variables in (
                    self.model.trainable_variables,
                    self.model.non_trainable_variables,
                )
            )
            logs, (*_, metrics) = self.model.test_step(
                (trainable, others, metrics), (x, self._labels(self.model, y))
            )
            if counts:
                outputs, _ = self.model.stateless_call(trainable, others, x, training=False)
                images, right = counts
                counts = [images.at[y].add(1), right.at[y].add(jnp.argmax(outputs, -1) == y)]
                recalls = counts[1] / jnp.maximum(counts[0], 1)
                logs["balanced_accuracy"] = recalls.sum() / (counts[0] > 0).sum()
            return (state, metrics, *counts), logs

        counts = [jnp.zeros(self._classes, jnp.int32)] * 2 if self._balanced else []
        carry = state, _fresh(self.model), *counts
        return self._steps(step, carry, indices, indices.shape[0] // calls)[1]

    def _steps(
        self, step: Any, carry: Any, order: Array, batch: int, shares: Array | None = None
    ) -> tuple[list[Array], dict[str, Array]]:
        """The steps of an epoch: of ``batch`` images each, then of those that are left."""
        whole, left = divmod(order.shape[0], batch)
        shares = jnp.ones(whole + 1) if shares is None else shares
        logs: Any = {}
        if whole:
            steps = jnp.arange(whole), order[: whole * batch].reshape(whole, batch), shares[:whole]
            carry, every = jax.lax.scan(step, carry, steps)
            logs = {name: values[-1] for name, values in every.items()}
        if left:
            carry, logs = step(carry, (whole, order[whole * batch :], shares[whole]))
        return carry[0], logs

    def _step(
        self,
        state: list[Array],
        metrics: list[Array],
        x: Array,
        y: Array,
        share: Array,
        dropout: Array,
    ) -> Any:
        model, before = self._learner, list(state)
        for place in self._rates:
            before[place] = state[place] * share
        variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        self._rate.value = dropout
        logs, (*changed, metrics) = model.train_step(
            (*(self._of(before, own) for own in variables), metrics), (x, self._labels(model, y))
        )
        after = list(before)
        for own, values in zip(variables, changed, strict=True):
            for variable, value in zip(own, values, strict=True):
                after[self._where[id(variable)]] = value
        for place in self._rates:
            after[place] = state[place]
        return (after, metrics), logs

    def _of(self, state: list[Array], variables: Sequence[Any]) -> list[Array]:
        return [state[self._where[id(variable)]] for variable in variables]

    def _batch_of(self, data: tuple[Array, Array], chosen: Array) -> tuple[Array, Array]:
        """The chosen images, float32 from 0 to 1, and labels."""
        images, labels = (part[chosen] for part in data)
        if images.dtype == jnp.uint8:
            images = images.astype(jnp.float32) / 255
        return images, labels

    def _labels(self, model: keras.Model, labels: Array) -> Array:
        """Labels (n,) as a loss takes them: as they are, one-hot (n, classes), numbers (n, 1)."""
        if labels.dtype == jnp.float32:
            return labels[:, None]
        return jax.nn.one_hot(labels, self._classes) if takes_one_hot(model) else labels


def _fresh(model: keras.Model) -> list[Array]:
    """The metrics' variables as they are before an epoch."""
    return [jnp.asarray(variable.value) for variable in model.metrics_variables]


def _metrics(logs: dict[str, Array], place: int, images: int) -> Logs:
    return logs_in({name: values[place] for name, values in logs.items()}, images)
