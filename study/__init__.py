"""A hyperparameter study for small image classifiers.

The names below are imported when they are first used: importing the package costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # `typing` would be imported from the current folder by `python -m study`
if TYPE_CHECKING:
    from study.api import FinalResult, Result, Space, load, run, studies
    from study.data.dataset import load as load_data
    from study.errors import StudyError
    from study.space.file import load as load_space
    from study.tuning.objective import Objective
    from study.tuning.one_at_a_time import OneAtATimeSampler
    from study.tuning.pruning import SweepPruner
    from study.tuning.sampler import PlanSampler, run_spec

__all__ = [
    "FinalResult",
    "Objective",
    "OneAtATimeSampler",
    "PlanSampler",
    "Result",
    "Space",
    "StudyError",
    "SweepPruner",
    "load",
    "load_data",
    "load_space",
    "run",
    "run_spec",
    "studies",
]

_HOMES = {
    "Objective": ("study.tuning.objective", "Objective"),
    "OneAtATimeSampler": ("study.tuning.one_at_a_time", "OneAtATimeSampler"),
    "PlanSampler": ("study.tuning.sampler", "PlanSampler"),
    "SweepPruner": ("study.tuning.pruning", "SweepPruner"),
    "FinalResult": ("study.api", "FinalResult"),
    "Result": ("study.api", "Result"),
    "Space": ("study.api", "Space"),
    "StudyError": ("study.errors", "StudyError"),
    "load": ("study.api", "load"),
    "run": ("study.api", "run"),
    "studies": ("study.api", "studies"),
    "load_data": ("study.data.dataset", "load"),
    "load_space": ("study.space.file", "load"),
    "run_spec": ("study.tuning.sampler", "run_spec"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'study' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
