"""The one-at-a-time sweep as an Optuna sampler.

Used in plain Optuna code like any other sampler::

    sampler = study.OneAtATimeSampler(
        {"filters": [8, 16, 32], "dropout": [0.1, 0.2, 0.3]},
        start={"filters": 16, "dropout": 0.2},
        repeats=3,
    )
    optuna_study = optuna.create_study(direction="maximize", sampler=sampler)
    optuna_study.optimize(
        lambda trial: train(
            filters=trial.suggest_int("filters", 8, 32),
            dropout=trial.suggest_float("dropout", 0, 0.5),
        )
    )
    for stage in sampler.summary(optuna_study):
        print(stage.name, stage.selected.value)

`optimize` ends by itself when the plan is done; `study.slot(trial)` says which stage, option and
repeat a trial is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from study.errors import SpaceError
from study.plan.sweep import OneAtATime
from study.space.file import load
from study.space.search_space import Hyperparameter, SearchSpace, Value
from study.tuning.sampler import PlanSampler


class OneAtATimeSampler(PlanSampler):
    """The one-at-a-time sweep as an Optuna sampler.

    ``space`` is a mapping of names to options, cheapest first, as ``GridSampler`` takes one, with
    the option of each that the sweep begins with in ``start`` (its first one if left out); or a
    ``SearchSpace``, or the name or path of a space. Every configuration is trained ``repeats``
    times (3, or what the space says). A trial counts with its value, one of an `Objective` with
    what the space's ``score`` makes of its epochs. ``images`` is the number of validation images of
    a repeat, where it is known: it bounds the standard errors that decide what is a tie. Raises
    ``SpaceError``, a ``ValueError``.
    """

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Sequence[Value]] | str | Path,
        start: Mapping[str, Value] | None = None,
        repeats: int | None = None,
        images: int | None = None,
    ) -> None:
        if isinstance(space, str | Path):
            space = load(space)
        elif isinstance(space, Mapping):
            space = _space_of(space, start or {})
        elif start is not None:
            raise SpaceError("start: the search space has its own; give start with a mapping alone")
        super().__init__(OneAtATime(space, repeats, images))


def _space_of(options: Mapping[str, Sequence[Value]], start: Mapping[str, Value]) -> SearchSpace:
    """The space of a mapping as ``GridSampler`` takes one."""
    for name in start:
        if name not in options:
            raise SpaceError(f"start.{name}: there are no options for it; list them")
    for name, values in options.items():
        for value in values:
            if not isinstance(value, bool | int | float | str):
                raise SpaceError(
                    f"{name}: {value!r} is not allowed; give numbers, texts or truths, such as a "
                    "text that the objective turns into what is meant"
                )
    hyperparameters = [
        Hyperparameter(name, options=tuple(values), start=start.get(name, next(iter(values), None)))
        for name, values in options.items()
    ]
    return SearchSpace("study", 1, 1, 3, tuple(hyperparameters))
