"""The plan of a grid: every configuration with every repeat, compared with each other at the end.

Affordable for small spaces only; it is what tables of curves are recorded with.
"""

from __future__ import annotations

from collections.abc import Sequence

from study.errors import SpaceError
from study.plan.comparison import chosen_among, ranked
from study.plan.plan import Plan, PlanState, RunIndex, RunSpec
from study.plan.points import Out, fits, points, size
from study.plan.results import StoredTrial
from study.space.metric import Metric
from study.space.search_space import SearchSpace

GRID = "grid"
"""The name of the only stage."""

LARGEST = 10_000
"""Configurations of a grid: they are all held in memory, and looked at whenever a run ends."""


class Grid(Plan):
    """Every configuration of ``space`` with all its repeats; the best mean wins.

    Raises ``SpaceError`` where a hyperparameter is a range, and for more than ``LARGEST``
    configurations.
    """

    def __init__(
        self,
        space: SearchSpace,
        repeats: int | None = None,
        images: int | None = None,
        metric: Metric | None = None,
        *,
        pool: int | None = None,
        out: Out = fits,
    ) -> None:
        super().__init__(space, repeats, images, metric, pool=pool, out=out)
        space.require_options("a grid")
        number = size(space) or 0
        if number > LARGEST:
            raise SpaceError(
                f"hyperparameters: a grid trains all {number} configurations, and {LARGEST} are "
                "the most; list fewer options or choose another sampler"
            )
        self._configurations = list(points(space))

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        index = RunIndex(trials, self.out)
        found = [
            index.option(number, one, None, self.repeats)
            for number, one in enumerate(self._configurations)
        ]
        options, best = ranked(found, self.images, self.pool, metric=self.metric, looks=self.looks)
        missing = [
            RunSpec(GRID, one.value, one.configuration, repeat, None)
            for one in options
            for repeat in one.missing(self.repeats)
        ]
        return chosen_among(
            GRID,
            options,
            best,
            index.ready(missing),
            complete=not missing,
            runs_expected=sum(not one.out for one in options) * self.repeats,
            metric=self.metric,
        )
