"""Trains runs in groups of one network each, an epoch at a time.

Between two epochs all of a run is on this side of the device, in its checkpoint's form: a group is
put together anew for every epoch, and loses nothing if it turns out too large.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
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
from study.training.history import Arrays, History, measured
from study.training.recipe import Recipe
from study.training.run import Run
from study.workers.jax.layers import Rate, prepare
from study.workers.jax.program import GroupProgram, Inputs, Outputs

if TYPE_CHECKING:
    from study.data.dataset import Dataset, Split
    from study.space.search_space import Value
    from study.training.checkpoint import Checkpoints
    from study.workers.engine import Training

_log = logging.getLogger(__name__)

SIZES = (1, 2, 4, 8, 16)
"""Of groups: fewer runs are padded, so that few programs are compiled."""

_IDLE = 16  # programs without a run that are kept
_PAUSE = 1.0  # seconds between two checkpoints of a run: a GPU may train several epochs in one

_OWN = frozenset({"dropout", "learning_rate", "schedule", "restore_best_weights", "patience"})
_OWN |= {"rotation", "zoom", "translation"}
"""Hyperparameters that come in as numbers of a run: they make no other program."""


@dataclass(eq=False)
class Member:
    """A run in training: its variables after its last epoch, and the result of its next one.

    ``key`` is that of its group. ``result`` is None until an epoch is trained; an exception, which
    may come before the first, is why the run has failed.
    """

    run: Run
    history: History
    key: Hashable = None
    split: Split = field(init=False)
    recipe: Recipe = field(init=False)
    state: Arrays = ()
    result: tuple[Outputs, float] | Exception | None = None


class Groups:
    """The runs that are trained here on ``dataset``."""

    def __init__(self, dataset: Dataset, checkpoints: Checkpoints | None) -> None:
        self._dataset, self._checkpoints = dataset, checkpoints
        self._images = jnp.asarray(dataset.images)
        self._labels = jnp.asarray(dataset.labels)
        self._programs: dict[Hashable, GroupProgram] = {}
        self._sizes: dict[Hashable, set[int]] = {}
        self._limits: dict[Hashable, int] = {}
        self._members: list[Member] = []

    def add(self, run: Run) -> Member:
        """Begin a run, or continue it from its checkpoint; `train` raises why it cannot be."""
        member = Member(run, History(run, self._checkpoints))
        try:
            self._begin(member)
        except Exception as error:  # noqa: BLE001 - of a custom model, or a checkpoint
            member.result = error
        self._members.append(member)
        return member

    def remove(self, member: Member) -> None:
        """Train a run no further."""
        self._members.remove(member)

    def train(self, member: Member) -> Training:
        """As `training.train`; an epoch is trained with all runs of the group that wait for one."""
        history, due = member.history, 0.0
        yield from history.epochs[: history.end]
        while _has_epochs_left(member):
            if member.result is None:
                self._train_group(member)
            result, member.result = member.result, None
            if isinstance(result, Exception):
                raise result
            assert result is not None
            output, seconds = result
            number, metric = len(history.epochs), member.run.metric
            epoch = measured(number, output.trained, output.validated, seconds, metric)
            member.state = output.state
            history.add(epoch, lambda: self._programs[member.key].weights_in(member.state))
            last, now = len(history.epochs) == history.end, time.monotonic()
            if last or now >= due:
                history.save(member.state)
                due = now + _PAUSE
            yield epoch
        return self._model_of(member) if history.ended else None

    def _begin(self, member: Member) -> None:
        run = member.run
        member.split = data.split(self._dataset.labels, run.validation, run.seed, run.repeat)
        member.key = key = self._key(run, member.split)
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
        stored = member.history.resume(program.fitting, len(state))
        member.state = program.fitting(state if stored is None else stored)
        member.recipe = Recipe.of(params)

    def _train_group(self, member: Member) -> None:
        """Train an epoch of a run, and of others of its group that have no result to take."""
        key = member.key
        others = [one for one in self._members if one.key == key and one is not member]
        waiting = [one for one in others if one.result is None and _has_epochs_left(one)]
        group = [member, *waiting][: self._limits.get(key, SIZES[-1])]
        size = self._size(key, len(group))
        began = time.monotonic()
        try:
            outputs = self._programs[key].epoch([_inputs(one) for one in group], size)
        except Exception as error:  # noqa: BLE001 - a layer's or JAX's: a reason, or too large
            detail = " ".join(str(error).partition("\n")[0].split())[:300]
            out_of_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in detail
            if out_of_memory and len(group) > 1:
                self._limits[key] = limit = SIZES[SIZES.index(size) - 1]
                _log.warning("Out of memory with %d runs at once: now %d", len(group), limit)
                self._train_group(member)
                return
            what = "out of memory" if out_of_memory else type(error).__name__
            for one in group:
                one.result = TrainingFailed(f"{what}: {detail}")
            return
        self._sizes.setdefault(key, set()).add(size)
        seconds = (time.monotonic() - began) / len(group)
        for one, output in zip(group, outputs, strict=True):
            one.result = output, seconds

    def _model_of(self, member: Member) -> bytes:
        """The run's model as a `.keras` file, with the weights that it is to have."""
        built, _ = network_of(member.run, self._dataset)
        built.optimizer.build(built.trainable_variables)
        for variable, array in zip(variables_of(built), member.state, strict=True):
            variable.assign(array)
        if member.history.best:
            built.set_weights(member.history.best)
        return to_bytes(built)

    def _key(self, run: Run, split: Split) -> Hashable:
        """What is the same for all runs of a group."""
        params = {k: v for k, v in run.params if run.model is not None or k not in _OWN}
        if run.model is None:
            # Keras gives a layer of rate 0 no random numbers.
            params["dropout"] = _number(run, "dropout") > 0
        recipe = Recipe.of(dict(run.params))
        sizes = run.batch_size, len(split.train), len(split.validation)
        same = recipe.augments, run.model, run.metric, *sizes
        return (*sorted(params.items()), *same)

    def _release(self) -> None:
        """Forget programs that were not wanted for long; the disk still has what was compiled."""
        used = {member.key for member in self._members}
        idle = [key for key in self._programs if key not in used]
        for key in idle[:-_IDLE]:
            del self._programs[key]
            self._sizes.pop(key, None)

    def _program(self, run: Run) -> GroupProgram:
        built, params = network_of(run, self._dataset)
        rate = Rate()
        prepare(built, rate if run.model is None else None)
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

    def _size(self, key: Hashable, runs: int) -> int:
        """The size of the program to use: up to twice too large, if that is compiled already."""
        fitting = next(size for size in SIZES if size >= runs)
        compiled = self._sizes.get(key, set())
        return next((size for size in (fitting, 2 * fitting) if size in compiled), fitting)


def _has_epochs_left(member: Member) -> bool:
    history = member.history
    return len(history.epochs) < history.end and not history.ended


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
