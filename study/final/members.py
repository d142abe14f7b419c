"""The final runs: the chosen configurations trained with fresh seeds, as a plan of the driver.

They are trials of a separate Optuna study in the same database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from study.errors import ModelError
from study.plan.grid import EveryRun
from study.plan.plan import PlanState
from study.plan.results import Configuration, StoredTrial
from study.space.search_space import SearchSpace, Validation
from study.training.run import FineTuning, Run

if TYPE_CHECKING:
    from study.space.settings import Settings

_FRESH = 99  # keeps the seeds of final models apart from everything a study draws


@dataclass(frozen=True)
class Member:
    """A trained final run: its name among the others, its run, its model's file, its score.

    ``best`` is the metric of the held-out images in the best epoch; None without a holdout.
    """

    name: str
    run: Run
    file: Path
    best: float | None

    @property
    def key(self) -> str:
        return self.run.key


@dataclass(frozen=True)
class FinalRuns:
    """Which runs are trained: ``seeds`` of each configuration, with a part held out or without.

    With a ``holdout`` (a fraction) all runs leave the same images out, and each keeps the weights
    of the epoch that was best on them. With 0 every image is trained on, and the last epoch's
    weights are kept. With ``tuning`` they fine-tune the backbone and start from the trained
    ``heads``.
    """

    settings: Settings
    configurations: tuple[Configuration, ...]
    seeds: int
    holdout: float
    fingerprint: str
    tuning: FineTuning | None = None
    heads: FinalRuns | None = None

    def run(self, configuration: Configuration, repeat: int) -> Run:
        """The run of a configuration with the fresh seed number ``repeat`` (from 0)."""
        params = {**dict(configuration), "restore_best_weights": bool(self.holdout)}
        validation = Validation("none")
        if self.holdout:
            seed = seed_of(self.settings, 0)
            validation = Validation("holdout", self.holdout, seed=seed)
        run = Run.of(self.settings, self.fingerprint, tuple(params.items()))
        seed = seed_of(self.settings, repeat + 1)
        return replace(run, seed=seed, validation=validation, limits=None, tuning=self.tuning)

    def fine_tuned(self, tuning: FineTuning, fingerprint: str) -> FinalRuns:
        """The runs that fine-tune the models of these, on the data of this ``fingerprint``."""
        return replace(self, tuning=tuning, fingerprint=fingerprint, heads=self)

    def name(self, place: int, repeat: int) -> str:
        """The name of the run of the configuration at ``place``; both count from 0."""
        which = f"configuration {place + 1}, " if len(self.configurations) > 1 else ""
        return f"{which}seed {repeat + 1}{', fine-tuned' if self.tuning else ''}"

    @property
    def all(self) -> list[tuple[str, Configuration, int]]:
        """Name, configuration and repeat (from 0) of every run, in order."""
        return [
            (self.name(place, repeat), configuration, repeat)
            for place, configuration in enumerate(self.configurations)
            for repeat in range(self.seeds)
        ]

    @property
    def space(self) -> SearchSpace:
        """The space, with the training loss as its metric where nothing is held out."""
        space = self.settings.space
        return space if self.holdout else replace(space, metric_name="loss", direction="minimize")

    def plan(self, ignored: frozenset[int]) -> FinalPlan:
        """The plan of these runs, which trains those of the ``ignored`` trials (numbers) again."""
        return FinalPlan(self.space, self.configurations, self.seeds, ignored)


class FinalPlan(EveryRun):
    """Every one of ``configurations`` with ``seeds`` repeats, without the ``ignored`` trials."""

    stage = "final"

    def __init__(
        self,
        space: SearchSpace,
        configurations: Sequence[Configuration],
        seeds: int,
        ignored: frozenset[int],
    ) -> None:
        super().__init__(space, seeds)
        self.configurations = configurations
        self._ignored = ignored

    def counted(self, trials: Sequence[StoredTrial]) -> Iterable[StoredTrial]:
        return (trial for trial in trials if trial.number not in self._ignored)


def chosen(plan_state: PlanState, repeats: int, top: int | None) -> list[Configuration]:
    """The configuration that the study chose; or its ``top`` best by mean, the best first.

    The study has an answer. Raises ``ModelError`` where fewer than ``top`` configurations have all
    their repeats.
    """
    assert plan_state.incumbent is not None
    if top is None:
        return [plan_state.incumbent]
    means = {
        option.configuration: fmean(option.values)
        for stage in plan_state.stages
        for option in stage.options
        if set(range(repeats)) <= {row.repeat for row in option.rows if row.state == "complete"}
    }
    if len(means) < top:
        raise ModelError(
            f"--top {top}: the study has {len(means)} configurations with all their repeats"
        )
    sign = plan_state.metric.sign
    return sorted(means, key=lambda one: -sign * means[one])[:top]


def seed_of(settings: Settings, number: int) -> int:
    """The fresh seed ``number`` (from 1) of a study: always the same, and not the study's seed."""
    own = int(settings["seed"])
    drawn = int(np.random.SeedSequence((own, _FRESH, number)).generate_state(1)[0])
    return drawn if drawn != own else drawn ^ 1
