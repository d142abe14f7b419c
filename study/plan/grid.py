"""The plan of a grid: every configuration with every repeat, compared with each other at the end.

Affordable for small spaces only; it is what tables of curves are recorded with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from study.errors import SpaceError
from study.plan.plan import Plan, PlanState, RunIndex, Slot, Stage, compared
from study.plan.results import Row, Spread, configuration
from study.space.search_space import SearchSpace

GRID = "grid"
"""The name of the only stage."""

LARGEST = 10_000
"""Configurations of a grid: they are all held in memory, and looked at whenever a run ends."""


class Grid(Plan):
    """Every configuration of ``space`` with all its repeats; the best mean wins.

    ``images`` is the number of validation images of a repeat. Raises ``SpaceError`` where a
    hyperparameter is a range, and for more than ``LARGEST`` configurations.
    """

    def __init__(
        self, space: SearchSpace, repeats: int | None = None, images: int | None = None
    ) -> None:
        self.space = space
        self.repeats = space.repeats if repeats is None else repeats
        self.images = images
        for parameter in space.hyperparameters:
            if not parameter.options:
                raise SpaceError(
                    f"hyperparameters.{parameter.name}: is a range, and a grid needs options; "
                    "list options or choose another sampler"
                )
        size = math.prod(len(parameter.options) for parameter in space.hyperparameters)
        if size > LARGEST:
            raise SpaceError(
                f"hyperparameters: a grid trains all {size} configurations, and {LARGEST} are the "
                "most; list fewer options or choose another sampler"
            )
        names = [parameter.name for parameter in space.hyperparameters]
        options = (parameter.options for parameter in space.hyperparameters)
        self._configurations = [
            configuration(space.fixed | dict(zip(names, values, strict=True)))
            for values in itertools.product(*options)
        ]

    def standing(self, rows: Sequence[Row]) -> PlanState:
        index, spread = RunIndex(rows), Spread(self.images)
        options = tuple(
            [
                index.option(number, one, None, self.repeats)
                for number, one in enumerate(self._configurations)
            ]
        )
        complete = [option for option in options if option.state == "complete"]
        spread.learn((option.values, None) for option in complete)
        options = compared(options, spread, maximize=self.maximize) if complete else options
        best = next((one for one in options if one.score and one.gap is None), None)
        missing = [
            Slot(GRID, one.value, one.configuration, repeat, None)
            for one in options
            for repeat in one.missing(self.repeats)
        ]
        slots, failed = index.slots(missing)
        answer = best.configuration if best else None
        selected = None if missing else best
        stage = Stage(GRID, "configurations", answer or (), options, best, selected)
        return PlanState(
            stages=(stage,),
            incumbent=answer,
            score=best.score if best else None,
            slots=tuple(slots),
            complete=not missing,
            runs=sum(len(one.rows) for one in options),
            runs_expected=len(options) * self.repeats,
            failed=failed,
            failure=index.reason(failed) if failed else None,
        )
