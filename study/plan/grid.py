"""Plans that train every configuration with every repeat: the grid, and the base of final runs.

A grid is affordable for small spaces only; tables of curves are recorded with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.errors import SpaceError
from study.plan.comparison import chosen_among, ranked
from study.plan.plan import Plan, PlanState, RunIndex, RunSpec
from study.plan.points import Out, fits, points, size
from study.plan.results import Configuration, StoredTrial
from study.space.metric import Metric
from study.space.search_space import SearchSpace

LARGEST = 10_000
"""Configurations of a grid: they are all held in memory, and looked at whenever a run ends."""


class EveryRun(Plan):
    """Trains each of ``configurations`` with all its repeats; the best mean wins."""

    stage: str
    """The name of the only stage."""

    configurations: Sequence[Configuration]

    def counted(self, trials: Sequence[StoredTrial]) -> Iterable[StoredTrial]:
        """The trials that count as runs of this plan."""
        return trials

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        index = RunIndex(self.counted(trials), self.out)
        found = [
            index.option(number, one, None, self.repeats)
            for number, one in enumerate(self.configurations)
        ]
        options, best = ranked(found, self.images, self.pool, metric=self.metric, looks=self.looks)
        missing = [
            RunSpec(self.stage, one.value, one.configuration, repeat, None)
            for one in options
            for repeat in one.missing(self.repeats)
        ]
        return chosen_among(
            self.stage,
            options,
            best,
            index.ready(missing),
            complete=not missing,
            runs_expected=sum(not one.out for one in options) * self.repeats,
            metric=self.metric,
        )


class Grid(EveryRun):
    """Every configuration of ``space`` with all its repeats; the best mean wins.

    Raises ``SpaceError`` where a hyperparameter is a range, and for more than ``LARGEST``
    configurations.
    """

    stage = "grid"

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
        self.configurations = list(points(space))
