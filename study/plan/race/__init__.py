"""A search that races: few epochs for many configurations, and more where they decide the most.

`Race` is the plan; `RaceResult` is how sure it is of its leader. Nothing else of this package is
used outside.
"""

from study.plan.race.race import CHOOSING, CONFIDENCE, MEASURED, RACE, Race
from study.plan.race.result import RaceResult

__all__ = ["CHOOSING", "CONFIDENCE", "MEASURED", "RACE", "Race", "RaceResult"]
