"""Successive halving: many configurations for a few epochs, the better half continues.

At each rung the better half of the configurations continues to the next one (Jamieson and Talwalkar
2016, with a factor of 2). The best that reach the last epoch are the finalists: they and the start
are trained on fresh repeats, in pairs, and the best mean of those is the answer, if it is better
than the start by more than one standard error. What is stated of it owes nothing to the luck that
made it a finalist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from study.errors import SettingsError
from study.plan.budget import Budget, Costs
from study.plan.comparison import chosen_among, ranked
from study.plan.confirm import settled
from study.plan.plan import Option, OptionState, Plan, PlanState, RunIndex, RunSpec
from study.plan.points import Out, drawn_fitting, fits, fitting_size, points, size
from study.plan.results import Configuration, Runs, StoredTrial, configuration, latest
from study.plan.sweep import sweep_epochs
from study.space.metric import Metric
from study.space.search_space import SearchSpace

HALVING, FINAL = "halving", "final"
"""The names of the stages of its runs: choosing the finalists, and their fresh repeats."""

FINALISTS = 3
LEAST_REPEATS = 2
"""Fresh repeats where the budget does not pay for more: a difference needs two."""

MOST_REPEATS = 3
"""Repeats that finalists are chosen by, where the budget pays for more than the whole space."""

_LARGEST = 1000
"""Configurations of a time budget, before it is known what they cost."""

_TYPICAL = 32  # configurations whose mean cost is that of all


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs at which runs may pause: halves of the whole, rounded up; at least an eighth."""
    return tuple(sorted({math.ceil(epochs / 2**power) for power in range(4)}))


class Halving(Plan):
    """The plan of successive halving with confirmed finalists.

    ``budget`` is in epochs or seconds (default: the epochs that the sweep would need at most); as
    many configurations are drawn as it pays for, the space's start among them. Of a time budget
    this is found out at the first rung, as costs become known. ``repeats`` are the fresh ones of
    each finalist (fewer, but two, where the budget is small) and of the start, unless the
    confirmation trains those; the budget also pays for its ``reserved`` runs. Raises
    ``SettingsError`` for a budget that does not pay for two configurations.
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
        budget: Budget | None = None,
        reserved: int = 0,
        out: Out = fits,
    ) -> None:
        super().__init__(space, repeats, images, metric, pool=pool, out=out)
        self.epochs = epochs or space.epochs
        self.rungs = rungs(self.epochs)
        self.reserved = reserved
        sweep = sweep_epochs(space, self.repeats, self.epochs) + reserved * self.epochs
        self.budget = budget or Budget(sweep)
        self._most = fitting_size(space, out) or math.inf
        self.finalists = int(min(FINALISTS, self._most))
        self.choosing, self.fresh = 1, self.repeats
        given = configuration(space.start)
        whole = not reserved and space.is_whole(dict(given)) and not out(given)
        self._start = given if whole else None
        number = min(self._most, _LARGEST)
        if not self.budget.seconds:
            number = self._number(1.0, 0.0)
            while self.choosing < MOST_REPEATS and self._affordable(1.0, 0.0, 1) >= self._most:
                self.choosing += 1
        self._configurations = _drawn(space, int(number), seed, out)

    def _number(self, epoch: float, start: float) -> int:
        """How many configurations the budget pays for.

        A small one first has fewer finalists and then fewer fresh repeats, so that enough begin for
        a choice at every rung.
        """
        enough = min(2 ** (len(self.rungs) - 1), self._most)
        while self._affordable(epoch, start) < max(enough, 2 * self.finalists):
            if self.finalists > 1:
                self.finalists -= 1
            elif self.fresh > LEAST_REPEATS:
                self.fresh -= 1
            else:
                break
        number = min(self._affordable(epoch, start), self._most)
        if number < 2:
            confirmed = f", {self.reserved} runs to confirm" if self.reserved else ""
            also = " and of the start" if self._start else ""
            raise SettingsError(
                f"--budget {self.budget.amount:.0f}: does not pay for two configurations and "
                f"{self.fresh} fresh repeats of the better one{also}{confirmed}; give at least "
                f"{self._cost(2, 1, 1.0, 0.0) + self._measured(1) * self.epochs:.0f}"
            )
        return int(number)

    def _measured(self, finalists: int) -> int:
        """The fresh runs of this many finalists and of the start, and those of somebody else."""
        most = min(finalists + (self._start is not None), self._most)
        return int(most) * self.fresh + self.reserved

    def _cost(self, number: int, repeats: int, epoch: float, start: float) -> float:
        """What choosing among ``number`` configurations costs."""
        steps = np.diff([0, *self.rungs])
        trained = sum(int(s) * math.ceil(number / 2**rung) for rung, s in enumerate(steps))
        return float(repeats * (trained * epoch + number * start))

    def _affordable(self, epoch: float, start: float, more: int = 0) -> int:
        """How many configurations the budget pays for, with ``more`` repeats added to choose by."""
        left = self.budget.amount - self._measured(self.finalists) * (self.epochs * epoch + start)
        repeats = self.choosing + more
        number = max(0, int(left / (repeats * (self.rungs[0] * epoch + start) or 1.0)))
        while number and self._cost(number, repeats, epoch, start) > left:
            number -= 1
        return number

    def _drawn(self, runs: Runs) -> list[Configuration]:
        """The configurations that take part."""
        every = self._configurations
        if not self.budget.seconds:
            return every
        begun = 1 + max((every.index(one) for one, _ in runs), default=1)
        if any((trial.until or self.epochs) > self.rungs[0] for trial in runs.values()):
            return every[:begun]
        costs = Costs(self.budget, runs.values())
        each = [costs.epoch(one) for one in every[:_TYPICAL]]
        epoch = math.fsum(each) / len(each)
        number = self._affordable(epoch, costs.start) if epoch else 2
        return every[: max(2, begun, number)]

    def _going(self, alive: list[Configuration], rung: int, runs: Runs) -> list[Configuration]:
        """Those of the best that a time budget pays for: they may cost more than a typical one."""
        if not self.budget.seconds or not rung or len(alive) < 2:
            return alive
        costs = Costs(self.budget, runs.values())
        done, until = self.rungs[rung - 1 : rung + 1]
        choosing = {one: trial for (one, repeat), trial in runs.items() if not repeat}
        before = math.fsum(
            math.fsum(list(t.curve.get("seconds", ()))[:done]) for t in choosing.values()
        )
        whole = alive[:1] * self._measured(self.finalists)
        left = self.budget.amount - before - costs.runs(whole, self.epochs)
        going = 0
        for one in alive:
            left -= costs.run(one, done, until)
            going += left >= 0
        return alive[: max(1, going)]

    def _paid(self, finalists: list[Configuration], runs: Runs) -> list[Configuration]:
        """Finalists whose fresh repeats the time budget still pays for, at least one."""
        if not self.budget.seconds:
            return finalists[: self.finalists]
        costs = Costs(self.budget, runs.values())
        choosing = [trial for (_, repeat), trial in runs.items() if repeat < self.choosing]
        left = self.budget.amount - math.fsum(map(costs.spent, choosing))
        left -= self.reserved * costs.run(finalists[0], 0, self.epochs) if finalists else 0.0
        left -= costs.runs([self._start] * self.fresh, self.epochs) if self._start else 0.0
        paid = [costs.runs([one] * self.fresh, self.epochs) for one in finalists]
        most = sum(math.fsum(paid[: n + 1]) <= left for n in range(min(FINALISTS, len(paid))))
        return finalists[: max(1, most)]

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        index = RunIndex(trials)
        runs = latest(trials)
        drawn = self._drawn(runs)
        gone = {one for (one, _), trial in runs.items() if trial.state == "failed"}
        alive = [one for one in drawn if one not in gone]
        wanted: list[RunSpec] = []
        for rung, epochs in enumerate(self.rungs):
            most = math.ceil(len(drawn) / 2**rung)
            alive = self._going(alive[:most], rung, runs)
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
        fresh = range(self.choosing, self.choosing + self.fresh)
        finalists = [] if wanted else self._paid(alive, runs)
        if finalists and self._start and self._start not in (*finalists, *gone):
            finalists.append(self._start)
        wanted = wanted or [
            self._spec(one, repeat, self.epochs)
            for repeat in fresh
            for one in finalists
            if (one, repeat) not in runs or runs[one, repeat].state in {"running", "paused"}
        ]
        options, best = ranked(
            [self._option(n, one, runs, finalists) for n, one in enumerate(drawn)],
            self.images,
            self.pool,
            metric=self.metric,
            looks=self.looks,
        )
        choosing = len(drawn) * self.choosing
        state = chosen_among(
            HALVING,
            options,
            best,
            index.ready(wanted),
            complete=not wanted,
            runs_expected=choosing + self._measured(self.finalists) - self.reserved,
            metric=self.metric,
        )
        return settled(state, self._start)

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
        held = [runs[one, r] for r in range(self.choosing + self.fresh) if (one, r) in runs]
        if failed := tuple([trial for trial in held if trial.state == "failed"]):
            return Option(number, one, None, failed, "eliminated")
        ended = [trial for trial in held if trial.state != "running"]
        if one not in finalists:
            state: OptionState = "eliminated" if held and finalists else "open"
            return Option(number, one, None, tuple(ended[-1:]), state)
        fresh = tuple([t for t in ended if t.state == "complete" and t.repeat >= self.choosing])
        return Option(number, one, None, fresh, "complete" if len(fresh) == self.fresh else "open")


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
        while len(found) < min(number, len(every)):
            found[every[next(order)]] = None
        return list(found)
    for _ in range(100 * number):
        if len(found) < number:
            found[drawn_fitting(space, rng, out)] = None
    return list(found)
