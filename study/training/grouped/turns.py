"""Runs at work: in groups of one network each, which take turns, an epoch at a time.

Between two epochs all of a run is on this side of the device, in its checkpoint's form: a group is
put together anew at each turn, and loses nothing where it turns out too large.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from study.data import dataset as data
from study.errors import TrainingFailed
from study.space.metric import BALANCED
from study.training import network
from study.training.compiled import to_bytes, variables_of
from study.training.custom_model import network_of
from study.training.grouped.layers import Rate, prepare
from study.training.grouped.program import GroupProgram, Inputs
from study.training.history import Arrays, History, measured
from study.training.recipe import Recipe
from study.training.run import Run

if TYPE_CHECKING:
    from study.data.dataset import Dataset, Split
    from study.space.search_space import Value
    from study.training.checkpoint import Checkpoints

SIZES = (1, 2, 4, 8, 16)
"""Of groups: fewer runs are padded, so that few programs are compiled."""

_IDLE = 16  # programs without a run that are kept

_OWN = frozenset({"dropout", "learning_rate", "schedule", "restore_best_weights"})
_OWN |= {"rotation", "zoom", "translation"}
"""Hyperparameters that come in as numbers of a run: they make no other program."""


@dataclass(eq=False)
class Member:
    """A run at work, with its variables after its last epoch."""

    run: Run
    split: Split
    history: History
    state: Arrays
    recipe: Recipe


@dataclass(frozen=True)
class Turn:
    """What an epoch has made of a run: what is to be kept of it, or why it has failed."""

    member: Member
    history: History
    state: Arrays
    failure: TrainingFailed | None = None


class Turns:
    """The runs that are trained here on ``dataset``; ``say`` is told what the user should know."""

    def __init__(
        self,
        dataset: Dataset,
        checkpoints: Checkpoints | None,
        say: Callable[[str], None],
        split: Callable[..., Split] = data.split,
    ) -> None:
        self._dataset, self._checkpoints, self._say = dataset, checkpoints, say
        self._split = split
        self._images = jnp.asarray(dataset.images)
        self._labels = jnp.asarray(dataset.labels)
        self._programs: dict[Hashable, GroupProgram] = {}
        self._sizes: dict[Hashable, set[int]] = {}
        self._limits: dict[Hashable, int] = {}
        self._groups: dict[Hashable, list[Member]] = {}  # the one that waits longest is first

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, run: Run) -> Member:
        """Begin a run, or go on with its checkpoint. Raises TrainingFailed."""
        split = self._split(self._dataset.labels, run.validation, run.seed, run.repeat)
        key = self._key(run, split)
        program = self._programs.pop(key, None) or self._program(run)
        self._release()
        self._programs[key] = program
        params: dict[str, Value] = dict(run.params)
        if run.model is None:
            state = program.beginning(run.initial_seed, _number(run, "learning_rate"))
        else:
            built, params = network_of(run, self._dataset)
            built.optimizer.build(built.trainable_variables)
            state = tuple(np.array(variable) for variable in variables_of(built))
        history = History(run, self._checkpoints)
        stored = history.resume(program.fitting, len(state))
        state = program.fitting(state if stored is None else stored)
        member = Member(run, split, history, state, Recipe.of(params))
        if len(history.epochs) < history.end:
            self._groups.setdefault(key, []).append(member)
        return member

    def drop(self, member: Member) -> None:
        """Train a run no further."""
        for key, members in list(self._groups.items()):
            if member in members:
                members.remove(member)
                if not members:
                    del self._groups[key]

    def next(self) -> list[Turn]:
        """Train the group whose turn it is for an epoch; runs at their end leave it."""
        key, members = next(iter(self._groups.items()))
        del self._groups[key]
        self._groups[key] = members
        limit = self._limits.get(key, SIZES[-1])
        group = sorted(members, key=lambda one: len(one.history.epochs))[:limit]
        try:
            turns = self._epoch(key, group)
        except Exception as error:  # noqa: BLE001 - a layer's or JAX's: a reason, or too large
            turns = self._failed(key, group, error)
        for turn in turns:
            if turn.failure or len(turn.history.epochs) == turn.history.end:
                self.drop(turn.member)
        return turns

    def as_it_is(self, member: Member) -> Turn:
        """What a run has come to that is not to be trained any further."""
        return Turn(member, member.history, member.state)

    def model_of(self, turn: Turn) -> bytes:
        """The run's model as a `.keras` file, with the weights that it is to have."""
        built, _ = network_of(turn.member.run, self._dataset)
        built.optimizer.build(built.trainable_variables)
        for variable, array in zip(variables_of(built), turn.state, strict=True):
            variable.assign(array)
        if turn.history.best:
            built.set_weights(turn.history.best)
        return to_bytes(built)

    def _key(self, run: Run, split: Split) -> Hashable:
        """What is the same for all runs of a group."""
        params = {k: v for k, v in run.params if run.model is not None or k not in _OWN}
        if run.model is None:
            # Keras gives a layer of rate 0 no random numbers.
            params["dropout"] = _number(run, "dropout") > 0
        recipe = Recipe.of(dict(run.params))
        sizes = run.batch_size, len(split.train), len(split.validation)
        same = recipe.augments, run.model, run.metric, run.precision, *sizes
        return (*sorted(params.items()), *same)

    def _release(self) -> None:
        """Forget programs that were not wanted for long; the disk still has what was compiled."""
        idle = [key for key in self._programs if key not in self._groups]
        for key in idle[:-_IDLE]:
            del self._programs[key]
            self._sizes.pop(key, None)

    def _program(self, run: Run) -> GroupProgram:
        built, params = network_of(run, self._dataset)
        rate = Rate()
        prepare(built, rate if run.model is None else None, run.precision)
        return GroupProgram(
            built,
            Recipe.of(params),
            run.batch_size,
            rate,
            self._images,
            self._labels,
            self._dataset.num_classes,
            balanced=run.metric.name == BALANCED,
        )

    def _epoch(self, key: Hashable, group: list[Member]) -> list[Turn]:
        began = time.monotonic()
        size = self._size(key, len(group))
        outputs = self._programs[key].epoch([_inputs(one) for one in group], size)
        self._sizes.setdefault(key, set()).add(size)
        seconds = (time.monotonic() - began) / len(group)
        turns = []
        for member, output in zip(group, outputs, strict=True):
            number = len(member.history.epochs)
            try:
                epoch = measured(
                    number, output.trained, output.validated, seconds, member.run.metric
                )
            except TrainingFailed as failure:
                turns.append(Turn(member, member.history, member.state, failure))
                continue
            member.state = output.state
            member.history.add(epoch, partial(self._programs[key].weights_in, output.state))
            history = replace(member.history, epochs=list(member.history.epochs))
            turns.append(Turn(member, history, member.state))
        return turns

    def _size(self, key: Hashable, runs: int) -> int:
        """Of the program for so many runs: one up to twice too large, if it is compiled already."""
        fitting = next(size for size in SIZES if size >= runs)
        compiled = self._sizes.get(key, set())
        return next((size for size in (fitting, 2 * fitting) if size in compiled), fitting)

    def _failed(self, key: Hashable, group: list[Member], error: Exception) -> list[Turn]:
        """What becomes of a group whose epoch has failed.

        Where the memory is too small for it, nothing is lost: halves of it take turns.
        """
        detail = " ".join(str(error).partition("\n")[0].split())[:300]
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in detail:
            failure = TrainingFailed(f"{type(error).__name__}: {detail}")
        elif len(group) == 1:
            failure = TrainingFailed(f"out of memory: {detail}")
        else:
            self._limits[key] = limit = SIZES[SIZES.index(self._size(key, len(group))) - 1]
            self._say(f"Out of memory with {len(group)} runs at once: {limit} now take turns")
            return []
        return [Turn(one, one.history, one.state, failure) for one in group]


def _inputs(member: Member) -> Inputs:
    """What a run brings to its next epoch."""
    run, recipe, number = member.run, member.recipe, len(member.history.epochs)
    steps = -(-len(member.split.train) // run.batch_size)
    shares: NDArray[np.float32] | None = recipe.rates(number, run.epochs, steps)
    noise = run.noise(number)
    return Inputs(
        state=member.state,
        order=run.order(member.split.train, number).astype(np.int32),
        validation=member.split.validation.astype(np.int32),
        shares=np.ones(steps, np.float32) if shares is None else shares,
        noise=np.array([noise >> 32, noise & 0xFFFFFFFF], np.uint32),
        dropout=_number(run, "dropout") if run.model is None else 0.0,
        ranges=(recipe.rotation, recipe.zoom, recipe.translation),
    )


def _number(run: Run, name: str) -> float:
    """A hyperparameter of a run of the program's own network."""
    params: dict[str, Any] = {**network.DEFAULTS, **dict(run.params)}
    return float(params[name])
