"""A hyperparameter study for small image classifiers.

The names below are imported when they are first used: importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.data import load as load_data
    from study.objective import Objective
    from study.pruning import SweepPruner
    from study.sampler import OneAtATimeSampler, PlanSampler, slot
    from study.space_file import load as load_space

__all__ = [
    "Objective",
    "OneAtATimeSampler",
    "PlanSampler",
    "SweepPruner",
    "load_data",
    "load_space",
    "slot",
]

_HOMES = {
    "Objective": ("study.objective", "Objective"),
    "OneAtATimeSampler": ("study.sampler", "OneAtATimeSampler"),
    "PlanSampler": ("study.sampler", "PlanSampler"),
    "SweepPruner": ("study.pruning", "SweepPruner"),
    "load_data": ("study.data", "load"),
    "load_space": ("study.space_file", "load"),
    "slot": ("study.sampler", "slot"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'study' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
