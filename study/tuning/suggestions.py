"""What an objective suggests, held against what the plan wants it to train."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a suggestion may be answered with ``value``."""
    truth = isinstance(value, bool)
    if isinstance(distribution, CategoricalDistribution):
        alike = (one for one in distribution.choices if isinstance(one, bool) == truth)
        return value in alike
    if truth or not isinstance(value, int | float):
        return False
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    if not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / (distribution.step or math.inf)
    return math.isclose(steps, round(steps), abs_tol=1e-8)


def untrue(trial: FrozenTrial, params: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """What the objective did not ask for, or did not train with; None where all is well."""
    for name in names:
        planned = params[name]
        if name not in trial.params:
            return (
                f"the objective never suggests {name!r}, which the plan varies: suggest it, or "
                "leave it out of the plan"
            )
        if trial.params[name] != planned:
            return (
                f"{name} was {trial.params[name]!r} where the plan trains {planned!r}: fix a "
                "hyperparameter by leaving its other options out of the plan"
            )
    return None
