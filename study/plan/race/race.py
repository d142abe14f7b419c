"""A race: it spends epochs where they decide the most, and says how sure it is.

It begins with a few epochs of configurations that together show every effect and pair. From then on
every rung has its share of the epochs, and within a rung those runs start or resume that reduce the
expected regret the most for what they cost (`FinalLevels.variance_reduction`). Once a run is
complete, only configurations with complete runs lead. Where early epochs say too little of the end,
runs are trained to the end at once. Once the leader is within the tolerance of the best with the
confidence asked for, or once the rest of the budget is needed for it, the leader and the start are
trained on repeats that had no part in choosing. The start stays the answer unless, with these, the
leader is better with a probability of 0.95: on new images it might well be worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from study.errors import SettingsError, SpaceError
from study.plan.budget import Budget, Costs
from study.plan.confirm import confirmation_of
from study.plan.contenders import contenders, spread_of
from study.plan.halving import rungs
from study.plan.plan import (
    Confirmation,
    Option,
    OptionState,
    Plan,
    PlanState,
    RunIndex,
    RunSpec,
    Stage,
    all_failed,
)
from study.plan.points import Out, fits
from study.plan.race.candidates import CandidateSet, degrees_of_freedom, initial_design
from study.plan.race.model import Array, Cells, FinalLevels, Places
from study.plan.race.observations import Errors
from study.plan.race.result import Posterior, RaceResult, Reason
from study.plan.results import Configuration, Runs, StoredTrial, configuration, latest
from study.plan.statistics import Score, Spread
from study.plan.sweep import sweep_epochs
from study.space.metric import Metric
from study.space.search_space import SearchSpace

RACE = "race"
MEASURED = "measured"
"""The names of the stages: choosing, and the winner's fresh repeats."""

CHOOSING = 5
"""Repeats that configurations are chosen by; those after them measure the winner and the start."""

TOLERANCE, CONFIDENCE = 0.2, 0.95

_START = 2.5
"""Configurations that a race starts with, for each number that the effects are."""

_STARTED = 0.4  # the share of the budget that they may have
_RIVALS = 32  # configurations that epochs may go to
_NEAR = 8  # configurations whose neighbours are candidates, in a large space
_LAST = 3  # how many times the epochs of each other rung the last one has
_MEASURING = 8  # runs that the budget pays for, for each fresh repeat of the leader and the start


class Step(NamedTuple):
    """A run's next step: from the epochs that it has to a rung."""

    configuration: Configuration
    repeat: int
    done: int
    rung: int


class Race(Plan):
    """The plan of a race.

    ``tolerance`` is in percentage points or, of a metric that is no accuracy, in its own unit
    (default: 0.2 points, or a twentieth of the least error); ``budget`` in epochs or seconds
    (default: the epochs that the sweep would need at most). The leader and the start are measured
    on up to ``repeats`` fresh repeats, for a quarter of the budget, or with ``all_repeats`` for up
    to half of it. ``images`` are the validation images of a repeat, drawn from a ``pool`` of that
    many (None: the same ones each time). Raises ``SettingsError`` or ``SpaceError`` for what cannot
    be raced.
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
        tolerance: float | None = None,
        confidence: float = CONFIDENCE,
        budget: Budget | None = None,
        out: Out = fits,
        all_repeats: bool = False,
    ) -> None:
        super().__init__(space, repeats, images, metric, pool=pool, out=out)
        self.seed = seed
        self.epochs = epochs or space.epochs
        if tolerance is None and self.metric.is_accuracy:
            tolerance = TOLERANCE
        self.tolerance = None if tolerance is None else tolerance / self.metric.scale
        self.confidence = confidence
        self.budget = budget or Budget(sweep_epochs(space, self.repeats, self.epochs))
        self.rungs = rungs(self.epochs)
        self.candidates = CandidateSet(space, seed, out)
        self.choosing = CHOOSING
        self._share = _MEASURING // 2 if all_repeats else _MEASURING
        given = configuration(self.space.start)
        full = self.space.is_whole(dict(given)) and not out(given)
        self._given = given if full else None
        self._check()
        candidates = self.candidates.draw([given] if full else [], [], 0)
        number = math.ceil(_START * degrees_of_freedom(self.space))
        places = initial_design(candidates, self._given, number, self.seed)
        self._design = tuple(candidates.configurations[place] for place in places)

    def _check(self) -> None:
        most = 1 if self.metric.is_accuracy else math.inf
        if self.tolerance is not None and not 0 < self.tolerance < most:
            unit = "points, above 0 and below 100" if most == 1 else "a number above 0"
            raise SettingsError(f"--tolerance {self.tolerance * self.metric.scale:g}: give {unit}")
        if not 0.5 <= self.confidence < 1:
            raise SettingsError(f"--confidence {self.confidence:g}: give 0.5 or more, and below 1")
        least = (2 + (self._given is not None)) * self.epochs
        if not self.budget.seconds and self.budget.amount < least:
            start = " and one of the start" if self._given else ""
            raise SettingsError(
                f"--budget {self.budget.amount:.0f}: does not pay for a run and a fresh one that "
                f"measures the answer{start}; give at least {least}"
            )
        if self.repeats < 2:
            raise SettingsError("--repeats 1: a race compares repeats; give at least 2")
        if self.candidates.size == 1:
            raise SpaceError(
                "hyperparameters: a single configuration has nothing to race; add options"
            )

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        """What the trials say of the leader, and the run that is worth the most."""
        runs, failed = _runs(trials), _failed(trials)
        costs = Costs(self.budget, [*runs.values(), *failed])
        spent = math.fsum(
            costs.spent(trial, self._until(trial)) for trial in (*runs.values(), *failed)
        )
        posterior = self._posterior(runs, failed)
        leader = posterior.configuration if posterior else self._design[0]
        wanted, reason = self._next(runs, failed, posterior, leader, costs, spent)
        confirmation = self._confirmed(runs, failed, leader) if reason else None
        if posterior and confirmation and confirmation.found:
            assert self._given is not None
            posterior = posterior.led_by(posterior.candidates.index[self._given])
            leader = self._given
            tolerance = self._errors(runs).tolerance(self.tolerance)
            if reason == "sure" and (posterior.probability(tolerance) or 0.0) < self.confidence:
                reason = "exhausted"
        result = self._result(runs, posterior, spent, reason) if posterior else None
        evaluated = self._options([*runs.values(), *failed], leader)
        best = next((one for one in evaluated if one.configuration == leader), None)
        failure = all_failed(evaluated) if reason else None
        selected = best if reason and not failure else None
        stage = Stage(
            RACE, "configurations", leader, evaluated, best, selected, self.metric, failure
        )
        step = costs.run(leader, 0, self.rungs[0]) or math.inf
        ahead = 0 if reason else 1 + int(max(0.0, self.budget.amount - spent) / step)
        return PlanState(
            stages=(stage,),
            incumbent=None if failure or not (posterior or reason) else leader,
            score=best.score if best else None,
            next=tuple(RunIndex(trials).ready(_numbered(wanted, runs, failed))),
            complete=reason is not None,
            runs=sum(trial.state != "running" for trial in runs.values()) + len(failed),
            runs_expected=len(runs) + len(failed) + ahead,
            failure=failure,
            race=result,
            confirmation=confirmation,
        )

    def _confirmed(
        self, runs: Runs, failed: Sequence[StoredTrial], leader: Configuration
    ) -> Confirmation | None:
        """The leader beside the start on fresh repeats, and whether the start stays the answer."""
        fresh = {
            one: {
                repeat: trial
                for (other, repeat), trial in sorted(runs.items(), key=lambda run: run[0][1])
                if other == one and repeat >= self.choosing and trial.value is not None
            }
            for one in (leader, self._given)
            if one is not None
        }
        shared = set.intersection(*map(set, fresh.values()))
        if len(fresh) < 2 or not shared:
            return None
        spread = spread_of(runs, self.images, self.pool)
        options = []
        for place, (one, held) in enumerate(fresh.items()):
            rows = tuple(trial for repeat, trial in held.items() if repeat in shared)
            option = Option(place, one, None, rows, "complete")
            options.append(replace(option, score=spread.score(option.values)))
        found, start = options
        better, other = (found.values, start.values)[:: self.metric.sign]
        start = replace(start, gap=spread.difference(better, other))
        posterior = self._posterior(runs, failed, fresh=True)
        assert posterior is not None
        places = posterior.candidates.index
        sure = posterior.better(places[leader], places[start.configuration])
        return confirmation_of(found, start, stays=sure < CONFIDENCE)

    def _until(self, trial: StoredTrial) -> int | None:
        """The epoch that a running run will be trained to."""
        return (trial.until or self.epochs) if trial.state == "running" else None

    def _spec(self, one: Configuration, repeat: int, epochs: int) -> RunSpec:
        stage = RACE if repeat < self.choosing else MEASURED
        return RunSpec(stage, 0, one, repeat, None, None if epochs == self.epochs else epochs)

    def _errors(self, runs: Runs) -> Errors:
        return Errors.of(self.metric, self.images, runs.values())

    def posterior(self, trials: Sequence[StoredTrial]) -> Posterior | None:
        """The posterior of all candidates; None before a run has reached a rung."""
        return self._posterior(_runs(trials), _failed(trials))

    def _posterior(
        self, runs: Runs, failed: Sequence[StoredTrial], *, fresh: bool = False
    ) -> Posterior | None:
        """By the runs that choose, or with ``fresh`` by all runs."""
        errors = self._errors(runs)
        curves = {
            key: errors.curve(trial, self.rungs)
            for key, trial in runs.items()
            if len(trial.continued(self.epochs)) >= self.rungs[0]
            and (fresh or key[1] < self.choosing)
        }
        if not curves:
            return None
        ahead = sorted(curves, key=lambda key: (-len(curves[key]), curves[key][-1]))
        evaluated = dict.fromkeys(trial.configuration for trial in (*runs.values(), *failed))
        best = dict.fromkeys(one for one, _ in ahead[: len(ahead) // 2 + 1])
        first = [] if self._given is None else [self._given]
        candidates = self.candidates.draw([*evaluated, *first], [*best][:_NEAR], len(curves))
        places = candidates.index
        pending = [
            (places[one], repeat, self.rungs.index(trial.until or self.epochs))
            for (one, repeat), trial in runs.items()
            if (self._until(trial) or 0) > len(trial.reported) and repeat < self.choosing
        ]
        error = math.exp(float(np.mean([curve[-1] for curve in curves.values()])))
        noise = 0.5 / (error * self.images) if self.images else 0.0
        return Posterior(
            candidates,
            curves,
            np.array(pending, dtype=np.intp).reshape(-1, 3).T,
            len(self.rungs) - 1,
            noise,
            failed=frozenset(places[trial.configuration] for trial in failed),
            pooled=self.images / self.pool if self.images and self.pool else 1.0,
        )

    def _result(
        self, runs: Runs, posterior: Posterior, spent: float, reason: Reason | None
    ) -> RaceResult:
        tolerance = self._errors(runs).tolerance(self.tolerance)
        leader = posterior.configuration
        spread = spread_of(runs, self.images, self.pool)
        order = [posterior.candidates.configurations[p] for p in np.argsort(posterior.levels.mean)]
        trained = {one for one, _ in runs}
        fresh = self._fresh(runs.values(), leader, spread)
        return RaceResult(
            leader,
            posterior.probability(tolerance),
            tuple(posterior.candidates.configurations[p] for p in sorted(posterior.compared)),
            fresh,
            fresh.interval if fresh else None,
            posterior.distance(),
            contenders(
                leader, runs, [one for one in order if one in trained], spread, self.metric.sign
            ),
            tolerance,
            self.confidence,
            spent,
            self.budget.amount,
            "seconds" if self.budget.seconds else "epochs",
            posterior.curves_fit,
            reason,
        )

    def _fresh(
        self, trials: Iterable[StoredTrial], leader: Configuration, spread: Spread
    ) -> Score | None:
        """The leader's score on fresh repeats."""
        values = [
            trial.value
            for trial in trials
            if trial.configuration == leader
            and trial.repeat >= self.choosing
            and trial.value is not None
        ]
        return spread.score(values) if values else None

    def _next(
        self,
        runs: Runs,
        failed: Sequence[StoredTrial],
        posterior: Posterior | None,
        leader: Configuration,
        costs: Costs,
        spent: float,
    ) -> tuple[list[RunSpec], Reason | None]:
        """The runs that can start now, or why there is no more to train."""
        remaining = self.budget.amount - spent
        running = any(trial.state == "running" for trial in runs.values())
        gone = {trial.configuration for trial in failed}
        whole = costs.run(leader, 0, self.epochs)
        pays = self.repeats if not whole else int(self.budget.amount / (self._share * whole))
        repeats = range(self.choosing, self.choosing + min(self.repeats, max(1, pays)))
        measured = dict.fromkeys([leader, self._given or leader])
        if leader in gone:  # every run so far has failed
            measured = {}
        missing = [
            self._spec(one, repeat, self.epochs)
            for repeat in repeats
            for one in measured
            if (one, repeat) not in runs and one not in gone
        ]
        reserve = costs.runs([spec.configuration or () for spec in missing], self.epochs)
        if start := self._initial(runs, gone, costs, remaining - reserve):
            return start, None
        sure = posterior is not None and self._sure(posterior, runs)
        if posterior and not sure:
            step = self._proof(posterior, runs, costs, remaining - reserve)
            step = step or self._best(runs, posterior, costs, remaining - reserve)
            if step:
                return [self._spec(step.configuration, step.repeat, step.rung)], None
        if running and not sure:
            return [], None
        if missing and remaining >= costs.run(missing[0].configuration or (), 0, self.epochs):
            return missing, None
        if running:
            return [], None
        return [], "sure" if sure else "budget" if remaining < reserve + whole else "exhausted"

    def _initial(
        self, runs: Runs, gone: set[Configuration], costs: Costs, remaining: float
    ) -> list[RunSpec]:
        """A few epochs of configurations that together show effects and pairs."""
        rung = self.rungs[0]
        number, cost = 0, 0.0
        for one in self._design:
            cost += costs.run(one, 0, rung)
            if number and cost > _STARTED * self.budget.amount:
                break
            number += 1
        start = [one for one in self._design[:number] if (one, 0) not in runs and one not in gone]
        affordable = [one for one in start if costs.run(one, 0, rung) <= remaining]
        return [self._spec(one, 0, rung) for one in affordable]

    def _sure(self, posterior: Posterior, runs: Runs) -> bool:
        """Whether the leader is good enough; its rivals have to be complete, in pairs with it."""
        tolerance = self._errors(runs).tolerance(self.tolerance)
        likely = posterior.expected(tolerance) >= self.confidence
        return likely and not posterior.unproven(tolerance)

    def _proof(
        self, posterior: Posterior, runs: Runs, costs: Costs, remaining: float
    ) -> Step | None:
        """Once the leader is probably good enough: a run to the end, of it or of a rival."""
        tolerance = self._errors(runs).tolerance(self.tolerance)
        if posterior.expected(tolerance) < self.confidence:
            return None
        own = sorted(posterior.ended.get(posterior.leader, ()))
        for place in posterior.unproven(tolerance):
            one = posterior.candidates.configurations[place]
            for repeat in own if place != posterior.leader else range(self.choosing):
                trial = runs.get((one, repeat))
                done = 0 if trial is None else len(trial.reported)
                pays = costs.run(one, done, self.epochs) <= remaining
                if (trial is None or trial.state == "paused") and pays:
                    return Step(one, repeat, done, self.epochs)
        return None

    def _best(
        self, runs: Runs, posterior: Posterior, costs: Costs, remaining: float
    ) -> Step | None:
        """The run that reduces the expected regret the most for its cost; None if none is left."""
        places = posterior.contenders(posterior.levels)
        steps: list[Step] = []
        for first in range(0, len(places), _RIVALS):
            # Where all rivals are trained, any other candidate may still be better.
            among = [int(p) for p in places[first : first + _RIVALS]]
            steps = self._steps(runs, posterior, among, costs, remaining)
            if steps:
                break
        if not steps:
            return None
        rivals = np.array([posterior.leader, *(p for p in among if p != posterior.leader)])
        index = posterior.candidates.index
        cells = [(index[s.configuration], s.repeat, self.rungs.index(s.rung)) for s in steps]
        worth = usefulness(posterior.levels, rivals, np.array(cells, dtype=np.intp).T)
        each = np.array([costs.run(s.configuration, s.done, s.rung) or 1.0 for s in steps])
        return steps[int(np.argmax(worth / each))]

    def _steps(
        self,
        runs: Runs,
        posterior: Posterior,
        places: Sequence[int],
        costs: Costs,
        remaining: float,
    ) -> list[Step]:
        """The next steps of the runs of candidates, to the rung that had the least of its share.

        Information an epoch overvalues early rungs; rungs therefore have fixed shares of the
        epochs. Of the repeats that were not started the first two are enough: more of them would
        say the same.
        """
        found: list[Step] = []
        for place in places:
            one = posterior.candidates.configurations[place]
            fresh = 0
            for repeat in range(self.choosing):
                trial = runs.get((one, repeat))
                fresh += trial is None
                if (trial is None and fresh > 2) or (trial and trial.state != "paused"):
                    continue
                done = 0 if trial is None else len(trial.reported)
                rung = next(epochs for epochs in self.rungs if epochs > done)
                rung = rung if posterior.curves_fit else self.epochs
                if costs.run(one, done, rung) <= remaining:
                    found.append(Step(one, repeat, done, rung))
        reached = [
            self._until(t) or len(t.continued(self.epochs))
            for (_, r), t in runs.items()
            if r < CHOOSING
        ]
        sizes = dict(zip(self.rungs, np.diff([0, *self.rungs]), strict=True))
        spent = {
            rung: sum(epochs >= rung for epochs in reached)
            * int(size)
            / (_LAST if rung == self.epochs else 1)
            for rung, size in sizes.items()
        }
        least = min((step.rung for step in found), key=lambda rung: spent[rung], default=0)
        return [step for step in found if step.rung == least]

    def _options(self, trials: Iterable[StoredTrial], leader: Configuration) -> tuple[Option, ...]:
        """Every configuration evaluated so far; its score is that of its complete runs.

        The leader's is that of its fresh repeats, once it has any.
        """
        evaluated: dict[Configuration, list[StoredTrial]] = {}
        for trial in trials:
            evaluated.setdefault(trial.configuration, []).append(trial)
        spread = Spread(self.images, self.pool)
        options = []
        for one, held in evaluated.items():
            complete = sorted([t for t in held if t.state == "complete"], key=lambda t: t.repeat)
            failed = [trial for trial in held if trial.state == "failed"]
            fresh = [t for t in complete if one == leader and t.repeat >= self.choosing]
            shown = fresh or complete
            values = [trial.value for trial in shown if trial.value is not None]
            state: OptionState = "eliminated" if failed else "complete" if shown else "open"
            score = spread.score(values) if values else None
            number = held[0].option
            assert number is not None
            options.append(Option(number, one, None, (*shown, *failed), state, score))
        return tuple(options)


def expected_improvement(mean: Array, spread: Array) -> Array:
    """The expected improvement of each configuration over the first one.

    ``mean`` and ``spread`` (covariance) are of the logarithm of the error: less is better.
    """
    from scipy.special import ndtr

    gap = mean - mean[0]
    width = np.sqrt(np.maximum(np.diag(spread) + spread[0, 0] - 2 * spread[0], 1e-12))
    ratio = gap / width
    density = np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)
    improvement: Array = width * density - gap * ndtr(-ratio)
    improvement[0] = 0.0
    return np.maximum(improvement, 0.0)


def usefulness(levels: FinalLevels, rivals: Places, steps: Cells) -> Array:
    """By how much each step reduces the expected regret; the leader is rival 0."""
    spread = levels.spread[np.ix_(rivals, rivals)]
    improvement = expected_improvement(levels.mean[rivals], spread)
    worth: Array = improvement @ levels.variance_reduction(rivals, int(rivals[0]), steps)
    return worth


def _runs(trials: Iterable[StoredTrial]) -> Runs:
    """The trials that count, by number; those of a configuration that failed do not."""
    gone = {trial.configuration for trial in _failed(trials)}
    return {run: trial for run, trial in latest(trials).items() if trial.configuration not in gone}


def _failed(trials: Iterable[StoredTrial]) -> list[StoredTrial]:
    """The first failed trial of each configuration that has one, by number."""
    failed: dict[Configuration, StoredTrial] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.cancelled is None and trial.state == "failed":
            failed.setdefault(trial.configuration, trial)
    return list(failed.values())


def _numbered(
    specs: Iterable[RunSpec], runs: Runs, failed: Iterable[StoredTrial]
) -> Iterator[RunSpec]:
    """The specs with the numbers of their configurations, in the order of their first trials."""
    numbers = {trial.configuration: trial.option for trial in (*runs.values(), *failed)}
    for spec in specs:
        assert spec.configuration is not None
        option = numbers.setdefault(spec.configuration, len(numbers))
        assert option is not None
        yield replace(spec, option=option)
