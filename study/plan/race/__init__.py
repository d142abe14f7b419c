"""A search that races: few epochs for many configurations, and more where they decide the most.

`Race` is the plan; `RaceResult` is how sure it is of its leader; `Effects` are what it has learnt
of each hyperparameter. Nothing else of this package is used outside.
"""

from study.plan.race.effects import Effect, Effects, Pair
from study.plan.race.race import CHOOSING, CONFIDENCE, MEASURED, RACE, Race
from study.plan.race.result import Contender, RaceResult

__all__ = [
    "CHOOSING",
    "CONFIDENCE",
    "MEASURED",
    "RACE",
    "Contender",
    "Effect",
    "Effects",
    "Pair",
    "Race",
    "RaceResult",
]
