"""Suggestions of Optuna's samplers after given results, without a separate Optuna study.

Adding 10,000 trials to a study checks and copies each of them, which takes seconds; here they are
handed to the sampler as they are.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from study.plan.points import value
from study.plan.results import Configuration, configuration
from study.space.metric import Direction
from study.space.search_space import Hyperparameter, SearchSpace, Value


class _Given(optuna.storages.InMemoryStorage):
    """A storage whose trials are given."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [one for one in self._given if states is None or one.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Nothing: TPE notes its suggestion at the trial, which is not kept."""


def suggested(
    space: SearchSpace,
    sampler: BaseSampler,
    direction: Direction,
    known: Sequence[tuple[Configuration, float]],
) -> Configuration:
    """The next configuration by ``sampler``, which is new, after ``known`` ones with values."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ordered = {p.name: _ordered(p) for p in space.hyperparameters}
    distributions = {p.name: _distribution(p, ordered[p.name]) for p in space.hyperparameters}
    places = {
        name: {one: at for at, one in enumerate(options)} for name, options in ordered.items()
    }
    past = [
        _trial(
            number,
            {name: distributions[name] for name, _ in params if name in places},
            {
                name: places[name][one] if places[name] else one
                for name, one in params
                if name in places
            },
            result,
        )
        for number, (params, result) in enumerate(known)
    ]
    alike = {tuple(one.params): one for one in past}  # trials show the search space by their names
    trial = _trial(len(past), {}, {}, None)
    study, small = (
        optuna.create_study(storage=_Given(trials), direction=direction, sampler=sampler)
        for trials in (past, [*alike.values()])
    )
    sampler.before_trial(study, trial)
    together = sampler.sample_relative(
        study, trial, sampler.infer_relative_search_space(small, trial)
    )
    values = dict(space.fixed)
    for parameter in space.hyperparameters:
        if not parameter.applies(values):
            continue
        name, distribution = parameter.name, distributions[parameter.name]
        if distribution.single():
            values[name] = value(parameter, 0)
            continue
        found = together.get(name)
        if found is None:
            found = sampler.sample_independent(study, trial, name, distribution)
        values[name] = ordered[name][found] if ordered[name] else found
    return configuration(values)


def _ordered(parameter: Hyperparameter) -> list[Value]:
    """The options in the order of their numbers; none of a range, and of truths and texts."""
    numbers = not any(isinstance(option, bool | str) for option in parameter.options)
    return sorted(parameter.options) if numbers else []


def _distribution(parameter: Hyperparameter, ordered: Sequence[Value]) -> BaseDistribution:
    """What the sampler chooses from; options that are numbers are places in their order.

    As categories 8, 16 and 32 would be no nearer to each other than to 1024.
    """
    return IntDistribution(0, len(ordered) - 1) if ordered else parameter.distribution


def _trial(
    number: int,
    distributions: Mapping[str, BaseDistribution],
    params: Mapping[str, Value],
    result: float | None,
) -> FrozenTrial:
    """A complete trial; without a result a running one."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING if result is None else TrialState.COMPLETE,
        value=result,
        datetime_start=None,
        datetime_complete=None,
        params={name: params[name] for name in distributions},
        distributions=dict(distributions),
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
