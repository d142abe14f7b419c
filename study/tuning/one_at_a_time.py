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

`optimize` ends by itself when the plan is complete; `study.run_spec(trial)` says which stage,
option and repeat a trial is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.errors import SpaceError
from study.plan.sweep import OneAtATime
from study.space.file import load
from study.space.search_space import Hyperparameter, SearchSpace
from study.tuning.sampler import PlanSampler


class OneAtATimeSampler(PlanSampler):
    """The one-at-a-time sweep as an Optuna sampler.

    ``space`` is a mapping of names to options, cheapest first, as ``GridSampler`` takes one, with
    the option of each that the sweep begins with in ``start`` (its first one if left out); or a
    ``SearchSpace``, or the name or path of a space. Options may be NumPy's numbers and arrays;
    options of a list with None are texts in stages and in the summary.
    Every configuration is trained ``repeats`` times (3, or what the space says). A trial counts
    with its value. ``images`` is the number of validation images of a repeat, if known: it bounds
    the standard errors that decide what is a tie. Raises ``SpaceError``, a ``ValueError``.

    Of an objective that raises, the option is eliminated. A trial with a user attribute
    ``cancelled`` never counts, and its run is trained again.
    """

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Sequence[Any]] | str | Path,
        start: Mapping[str, Any] | None = None,
        repeats: int | None = None,
        images: int | None = None,
    ) -> None:
        self._texts: dict[str, dict[str, Any]] = {}
        if isinstance(space, str | Path):
            space = load(space)
        elif isinstance(space, Mapping):
            space = self._space_of(space, start or {})
        elif start is not None:
            raise SpaceError("start: the search space has its own; give start with a mapping alone")
        super().__init__(OneAtATime(space, repeats, images))

    def given(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options as they were given, for the plan's values."""
        return {name: self._texts.get(name, {}).get(value, value) for name, value in params.items()}

    def _space_of(self, options: Mapping[str, Any], start: Mapping[str, Any]) -> SearchSpace:
        """The space of a mapping as ``GridSampler`` takes one."""
        for name in start:
            if name not in options:
                raise SpaceError(f"start.{name}: there are no options for it; list them")
        hyperparameters = []
        for name, given in options.items():
            values = [_plain(name, value) for value in given]
            first = _plain(name, start[name]) if name in start else next(iter(values), None)
            if None in values:  # which no file, and no column of a database, can hold
                self._texts[name] = {str(value): value for value in values}
                values, first = [*self._texts[name]], str(first)
            hyperparameters.append(Hyperparameter(name, options=tuple(values), start=first))
        return SearchSpace("study", 1, 1, 3, tuple(hyperparameters))


def _plain(name: str, value: Any) -> Any:
    """An option as Python's own number, text, truth or None."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # of NumPy
        value = value.item()
    if value is not None and not isinstance(value, bool | int | float | str):
        raise SpaceError(
            f"{name}: {value!r} is not allowed; give numbers, texts, truths or None, such as a "
            "text that the objective turns into what is meant"
        )
    return value
