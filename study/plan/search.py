"""The plan for Optuna's own samplers: a budget of configurations, each with all its repeats.

The sampler sees one finished trial a configuration, its mean, and is seeded by (study seed,
configuration number): its suggestion is a function of stored results and survives a resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from study.errors import SettingsError
from study.plan.comparison import chosen_among, ranked
from study.plan.plan import Option, Plan, PlanState, RunIndex, RunSpec
from study.plan.points import Out, drawn_fitting, fits, fitting_size, points
from study.plan.results import Configuration, StoredTrial
from study.space.metric import Metric
from study.space.search_space import SearchSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SEARCH = "search"
"""The name of the only stage of a search."""

UNCOMPARED: Configuration = ()
"""The reference of a run that may be pruned, but is compared with no particular other one."""

_RETRIES = 20
_OFFERED = 1000  # configurations to suggest that a state lists: more than are ever trained at once


class Search(Plan):
    """A budget of configurations that a sampler of Optuna's suggests, best mean wins.

    ``budget`` counts configurations; a space that has fewer is tried whole. Raises
    ``SettingsError`` for a sampler that does not exist or whose package is missing.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: str,
        budget: int,
        seed: int,
        repeats: int | None = None,
        images: int | None = None,
        metric: Metric | None = None,
        *,
        pool: int | None = None,
        out: Out = fits,
    ) -> None:
        super().__init__(space, repeats, images, metric, pool=pool, out=out)
        self.seed = seed
        self.budget = min(budget, fitting_size(space, out) or budget)
        self.sampler = sampler
        self._inner = _inner_sampler(sampler)

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        """Every configuration so far, and the runs that are left of the budget."""
        index = RunIndex(trials)
        options, best = ranked(
            self._options(trials, index),
            self.images,
            self.pool,
            metric=self.metric,
            looks=self.looks,
        )
        ended = sum(len(option.rows) for option in options if option.state != "open")
        unended = self.budget - sum(option.state != "open" for option in options)
        return chosen_among(
            SEARCH,
            options,
            best,
            self._ready(options, index),
            complete=not unended,
            runs_expected=ended + unended * self.repeats,
            metric=self.metric,
        )

    def _options(self, trials: Sequence[StoredTrial], index: RunIndex) -> tuple[Option, ...]:
        found: dict[int, Configuration] = {}
        for trial in trials:
            if trial.stage == SEARCH:
                number = int(trial.option or 0)
                while found.setdefault(number, trial.configuration) != trial.configuration:
                    number += 1  # taken while this configuration was not in the space
        return tuple(
            index.option(number, found[number], UNCOMPARED, self.repeats)
            for number in sorted(found)
        )

    def _ready(self, options: Sequence[Option], index: RunIndex) -> list[RunSpec]:
        """Missing repeats of the configurations tried so far, then configurations to suggest."""
        ready = index.ready(
            RunSpec(SEARCH, option.value, option.configuration, repeat, UNCOMPARED)
            for option in options
            for repeat in option.missing(self.repeats)
        )
        known = {option.value for option in options}
        new = (number for number in range(self.budget) if number not in known)
        return ready + [
            RunSpec(SEARCH, number, None, 0, UNCOMPARED) for number in islice(new, _OFFERED)
        ]

    def suggest(self, spec: RunSpec, trials: Sequence[StoredTrial]) -> Configuration:
        """The spec's configuration or, if it is left open, what Optuna suggests after ``trials``.

        A suggestion that was tried before is drawn again with another seed; after 20 draws the
        first configuration that was not tried is taken.
        """
        if spec.configuration is not None:
            return spec.configuration
        number = int(spec.option)
        tried = {trial.configuration for trial in trials}
        known = [] if self.sampler == "random" else self._known(number, trials)
        for attempt in range(_RETRIES):
            candidate = self._ask(number, attempt, known)
            if candidate not in tried and not self.out(candidate):
                return candidate
        every = points(self.space)
        rest = (one for one in every if one not in tried and not self.out(one))
        return next(rest, None) or drawn_fitting(
            self.space, np.random.default_rng([self.seed, number]), self.out
        )

    def _known(
        self, number: int, trials: Sequence[StoredTrial]
    ) -> list[tuple[Configuration, float]]:
        """The other configurations that have a mean, with it."""
        options = self._options(trials, RunIndex(trials))
        means = [(one.configuration, _mean(one)) for one in options if one.value != number]
        return [(params, mean) for params, mean in means if mean is not None]

    def _ask(
        self, number: int, attempt: int, known: Sequence[tuple[Configuration, float]]
    ) -> Configuration:
        from study.plan.suggestion import suggested  # imports Optuna

        seed = int(np.random.SeedSequence([self.seed, number, attempt]).generate_state(1)[0])
        return suggested(self.space, self._inner(seed), self.metric.direction, known)


def _mean(option: Option) -> float | None:
    """The value that Optuna's sampler receives: the mean over repeats.

    A pruned repeat counts with its last report. None while repeats are missing, if a run failed,
    and if no number was reported.
    """
    if option.failure:
        return None
    reports = [row.reported[-1:] if row.value is None else (row.value,) for row in option.rows]
    values = [value for report in reports for value in report if math.isfinite(value)]
    return math.fsum(values) / len(values) if values and option.state != "open" else None


def _inner_sampler(name: str) -> Callable[[int], BaseSampler]:
    """How to make Optuna's sampler of this name from a seed."""
    import optuna

    if name == "gp" and find_spec("torch") is None:
        raise SettingsError("--sampler gp needs a package that is not installed: pip install torch")
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    }
    return makers[name]
