"""Successive halving: many configurations for a few epochs, the better half continues.

At each rung the better half of the configurations continues to the next one (Jamieson and Talwalkar
2016, with a factor of 2). The best that reach the last epoch are the finalists: they are trained on
fresh repeats, in pairs, and the best mean of those is the answer. What is stated of it owes nothing
to the luck that made it a finalist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from study.errors import SettingsError
from study.plan.comparison import chosen_among, ranked
from study.plan.plan import Option, OptionState, Plan, PlanState, RunIndex, RunSpec
from study.plan.points import Out, drawn_fitting, fits, fitting_size, points, size
from study.plan.results import Configuration, Runs, StoredTrial, configuration, latest
from study.plan.sweep import sweep_epochs
from study.space.metric import Metric
from study.space.search_space import SearchSpace

HALVING, FINAL = "halving", "final"
"""The names of the stages of its runs: choosing the finalists, and their fresh repeats."""

FINALISTS = 3
MOST_REPEATS = 3
"""Repeats that finalists are chosen by, where the budget pays for more than the whole space."""


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs at which runs may pause: halves of the whole, rounded up; at least an eighth."""
    return tuple(sorted({math.ceil(epochs / 2**power) for power in range(4)}))


class Halving(Plan):
    """The plan of successive halving with confirmed finalists.

    ``budget`` is in epochs (default: the most that the sweep would need); as many configurations
    are drawn as it pays for, the space's start among them. ``repeats`` are the fresh ones of each
    finalist. Raises ``SettingsError`` for a budget that does not pay for two configurations.
    """

    def __init__(
        self,
        space: SearchSpace,
        repeats: int | None = None,
        images: int | None = None,
        metric: Metric | None = None,
        *,
        pool: int | None = None,
        seed: int = 0,
        epochs: int | None = None,
        budget: int | None = None,
        out: Out = fits,
    ) -> None:
        super().__init__(space, repeats, images, metric, pool=pool, out=out)
        self.epochs = epochs or space.epochs
        self.rungs = rungs(self.epochs)
        self.budget = sweep_epochs(space, self.repeats, self.epochs) if budget is None else budget
        most = fitting_size(space, out) or math.inf
        self.finalists = int(min(FINALISTS, most))
        while self.finalists > 1 and self._affordable(1) < 2 * self.finalists:
            self.finalists -= 1
        number = min(self._affordable(1), most)
        if number < 2:
            least = self._cost(2, 1) + self.repeats * self.epochs
            raise SettingsError(
                f"--budget {self.budget}: does not pay for two configurations and "
                f"{self.repeats} fresh repeats of the better one; give at least {least}"
            )
        self.choosing = 1
        while self.choosing < MOST_REPEATS and self._affordable(self.choosing + 1) >= most:
            self.choosing += 1
        self._configurations = _drawn(space, int(number), seed, out)

    def _cost(self, number: int, repeats: int) -> int:
        """The epochs that choosing among ``number`` configurations takes."""
        steps = np.diff([0, *self.rungs])
        return sum(
            int(step) * repeats * math.ceil(number / 2**rung) for rung, step in enumerate(steps)
        )

    def _affordable(self, repeats: int) -> int:
        """How many configurations the budget pays for, less the finalists' fresh repeats."""
        left = self.budget - self.finalists * self.repeats * self.epochs
        number = max(0, left // (repeats * self.rungs[0]))
        while number and self._cost(number, repeats) > left:
            number -= 1
        return number

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        index = RunIndex(trials)
        runs = latest(trials)
        gone = {one for (one, _), trial in runs.items() if trial.state == "failed"}
        alive = [one for one in self._configurations if one not in gone]
        wanted: list[RunSpec] = []
        for rung, epochs in enumerate(self.rungs):
            most = math.ceil(len(self._configurations) / 2**rung)
            alive = alive[:most]
            wanted = [
                self._spec(one, repeat, epochs)
                for repeat in range(self.choosing)
                for one in alive
                if self._reached(runs.get((one, repeat))) < epochs
            ]
            if wanted:
                break
            levels = {one: self._level(runs, one, epochs) for one in alive}
            alive.sort(key=lambda one: -levels[one])
        fresh = range(self.choosing, self.choosing + self.repeats)
        finalists = [] if wanted else alive[: self.finalists]
        wanted = wanted or [
            self._spec(one, repeat, self.epochs)
            for repeat in fresh
            for one in finalists
            if (one, repeat) not in runs or runs[one, repeat].state in {"running", "paused"}
        ]
        options, best = ranked(
            [self._option(n, one, runs, finalists) for n, one in enumerate(self._configurations)],
            self.images,
            self.pool,
            metric=self.metric,
            looks=self.looks,
        )
        choosing = len(self._configurations) * self.choosing
        return chosen_among(
            HALVING,
            options,
            best,
            index.ready(wanted),
            complete=not wanted,
            runs_expected=choosing + self.finalists * self.repeats,
            metric=self.metric,
        )

    def _spec(self, one: Configuration, repeat: int, epochs: int) -> RunSpec:
        stage = HALVING if repeat < self.choosing else FINAL
        number = self._configurations.index(one)
        return RunSpec(stage, number, one, repeat, None, None if epochs == self.epochs else epochs)

    def _reached(self, trial: StoredTrial | None) -> int:
        """The epochs that are known of a run."""
        if trial is None:
            return 0
        known = trial.reported if trial.state == "running" else trial.continued(self.epochs)
        return len(known)

    def _level(self, runs: Runs, one: Configuration, epochs: int) -> float:
        """The mean of a rung's last quarter of epochs over repeats; more is better."""
        last = slice(epochs - max(1, epochs // 4), epochs)
        curves = [runs[one, repeat].continued(self.epochs) for repeat in range(self.choosing)]
        held = [curve[last] for curve in curves]
        mean = self.metric.sign * float(np.mean(held))
        return mean if math.isfinite(mean) else -math.inf

    def _option(
        self, number: int, one: Configuration, runs: Runs, finalists: Sequence[Configuration]
    ) -> Option:
        """A finalist with its fresh repeats; any other configuration with the runs it has."""
        held = [runs[one, r] for r in range(self.choosing + self.repeats) if (one, r) in runs]
        if failed := tuple([trial for trial in held if trial.state == "failed"]):
            return Option(number, one, None, failed, "eliminated")
        ended = [trial for trial in held if trial.state != "running"]
        if one not in finalists:
            state: OptionState = "eliminated" if held and finalists else "open"
            return Option(number, one, None, tuple(ended[-1:]), state)
        fresh = tuple([t for t in ended if t.state == "complete" and t.repeat >= self.choosing])
        return Option(
            number, one, None, fresh, "complete" if len(fresh) == self.repeats else "open"
        )


def _drawn(space: SearchSpace, number: int, seed: int, out: Out) -> list[Configuration]:
    """Different configurations: the start, if it is complete, and random ones."""
    rng = np.random.default_rng([seed, 1])
    found: dict[Configuration, None] = {}
    start = configuration(space.start)
    if space.is_whole(dict(start)) and not out(start):
        found[start] = None
    whole = size(space)
    if whole is not None and whole <= 100_000:
        every = [one for one in points(space) if not out(one)]
        order = iter(rng.permutation(len(every)))
        while len(found) < number:
            found[every[next(order)]] = None
    while len(found) < number:
        found[drawn_fitting(space, rng, out)] = None
    return list(found)
