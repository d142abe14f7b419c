"""Accuracy against cost: every configuration measured, and the smallest that is good enough."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from study.plan.comparison import ranked
from study.plan.plan import Option, PlanState
from study.plan.results import Configuration
from study.plan.statistics import Difference, Score


@dataclass(frozen=True, slots=True)
class Rated:
    """A configuration with its score and its cost; what was not recorded is None.

    ``gap`` is how much better the best mean is, in pairs; None for the best itself. ``seconds`` are
    those of a run, ``size`` is in bytes, ``milliseconds`` are those for a picture.
    """

    configuration: Configuration
    score: Score
    gap: Difference | None
    seconds: float | None
    parameters: float | None
    size: float | None
    milliseconds: float | None
    milliseconds_error: float | None

    def record(self) -> dict[str, Any]:
        """The configuration for a program; accuracies are fractions."""
        return {
            "params": dict(self.configuration),
            "mean": self.score.mean,
            "standard_error": self.score.standard_error,
            "gap_to_best": self.gap and self.gap.mean,
            "gap_to_best_standard_error": self.gap and self.gap.standard_error,
            "clearly_worse": self.worse,
            "seconds": self.seconds,
            "parameters": self.parameters,
            "size": self.size,
            "milliseconds": self.milliseconds,
            "milliseconds_standard_error": self.milliseconds_error,
        }

    @property
    def worse(self) -> bool:
        """Whether the best is better by a paired t-test at 95 %, of this difference alone.

        Not over all comparisons, as a claim is: to miss a difference is the error that costs here.
        """
        return self.gap is not None and replace(self.gap, comparisons=1).clear


def rated(state: PlanState, images: int | None, pool: int | None) -> tuple[Rated, ...]:
    """The configurations that were trained on the repeats of the answer, the best mean first.

    ``images`` and ``pool`` as in `Plan`. Fresh repeats of the answer are left out: others have
    none.
    """
    stages = [stage for stage in state.stages if stage.kind != "confirmed"]
    options = {one.configuration: one for s in stages for one in s.options if one.values}
    other = state.confirmation.found if state.confirmation else None
    answer = options.get(state.incumbent or ()) or options.get(other or ())
    if answer is None:
        return ()
    wanted = {row.repeat for row in answer.rows if row.state == "complete"}
    alike = []
    for option in options.values():
        rows = [row for row in option.rows if row.state == "complete" and row.repeat in wanted]
        if len(rows) == len(wanted) and option.state != "eliminated":
            rows.sort(key=lambda row: row.repeat)
            alike.append(replace(option, rows=tuple(rows), state="complete", score=None, gap=None))
    scored, _ = ranked(alike, images, pool, metric=state.metric)
    found = [_rated(option) for option in scored]
    return tuple(sorted(found, key=lambda one: -state.metric.sign * one.score.mean))


def _rated(option: Option) -> Rated:
    assert option.score is not None
    names = ("seconds", "parameters", "size", "milliseconds", "milliseconds_error")
    costs = [_mean(row.attributes.get(name) for row in option.rows) for name in names]
    return Rated(option.configuration, option.score, option.gap, *costs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def smallest(found: Iterable[Rated]) -> Rated | None:
    """The configuration with the fewest parameters that is not clearly worse than the best.

    Of equal ones the best mean. None where no parameters were recorded.
    """
    able = [one for one in found if not one.worse and one.parameters is not None]
    return min(able, key=lambda one: one.parameters or 0, default=None)
