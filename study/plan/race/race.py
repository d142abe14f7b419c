"""A race: it spends epochs where they decide the most, and stops when it is sure.

It begins with a few epochs of configurations that together show every effect and pair. From then on
every rung has its share of the epochs, and within a rung those runs start or resume that reduce the
expected regret the most an epoch (`FinalLevels.variance_reduction`). Once a run is complete, only
configurations with complete runs lead. Once the leader is within the tolerance of the best with the
confidence asked for, or once the rest of the budget is needed for it, the leader is trained on
repeats that had no part in choosing it: the accuracy stated in the end is free of selection bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from study.errors import SettingsError, SpaceError
from study.plan.halving import rungs
from study.plan.plan import (
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
from study.plan.race.effects import Effects, effects
from study.plan.race.error_transform import ErrorTransform
from study.plan.race.model import Array, Cells, FinalLevels, Places
from study.plan.race.observations import ObservationModel
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
"""Repeats that configurations are chosen by; those after them only measure the winner."""

TOLERANCE, CONFIDENCE = 0.2, 0.95

_START = 2.5
"""Configurations that a race starts with, for each number that the effects are."""

_RIVALS = 32  # configurations that epochs may go to
_NEAR = 8  # configurations whose neighbours are candidates, in a large space
_LAST = 3  # how many times the epochs of each other rung the last one has


class Race(Plan):
    """The plan of a race.

    ``tolerance`` is in percentage points or, of a metric that is no accuracy, in its own unit
    (default: 0.2 points, or a twentieth of the least error); ``budget`` in epochs (default: the
    most that the sweep would need). The answer is measured on up to ``repeats`` fresh repeats, for
    a twelfth of the budget, or with ``all_repeats`` for up to half of it.
    ``images`` are the validation images of a repeat, drawn from a ``pool`` of that many (None: the
    same ones each time). Raises ``SettingsError`` or ``SpaceError`` for what cannot be raced.
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
        budget: int | None = None,
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
        self.budget = sweep_epochs(space, self.repeats, self.epochs) if budget is None else budget
        self.rungs = rungs(self.epochs)
        self.observations = ObservationModel(self.rungs, images, images and (pool or images))
        self.candidates = CandidateSet(space, seed, out)
        self.choosing = CHOOSING
        self._check()
        share = 2 if all_repeats else 12
        self.measuring = min(self.repeats, max(1, self.budget // (share * self.epochs)))
        self._start = self._initial_runs()

    def _check(self) -> None:
        most = 1 if self.metric.is_accuracy else math.inf
        if self.tolerance is not None and not 0 < self.tolerance < most:
            unit = "points, above 0 and below 100" if most == 1 else "a number above 0"
            raise SettingsError(f"--tolerance {self.tolerance * self.metric.scale:g}: give {unit}")
        if not 0.5 <= self.confidence < 1:
            raise SettingsError(f"--confidence {self.confidence:g}: give 0.5 or more, and below 1")
        if self.budget < self.epochs:
            raise SettingsError(
                f"--budget {self.budget}: does not pay for one run; give at least {self.epochs}"
            )
        if self.repeats < 2:
            raise SettingsError("--repeats 1: a race compares repeats; give at least 2")
        if self.candidates.size == 1:
            raise SpaceError(
                "hyperparameters: a single configuration has nothing to race; add options"
            )

    def _initial_runs(self) -> tuple[RunSpec, ...]:
        """A few epochs of configurations that together show effects and pairs."""
        given = configuration(self.space.start)
        full = self.space.is_whole(dict(given)) and not self.out(given)
        candidates = self.candidates.draw([given] if full else [], [], 0)
        rung, remaining = self.rungs[0], self.budget - self.measuring * self.epochs
        number = math.ceil(_START * degrees_of_freedom(self.space))
        number = min(number, int(0.4 * self.budget) // rung, remaining // rung) or 1
        places = initial_design(candidates, given if full else None, number, self.seed)
        return tuple([self._spec(candidates.configurations[place], 0, rung) for place in places])

    def _spec(self, one: Configuration, repeat: int, epochs: int) -> RunSpec:
        stage = RACE if repeat < self.choosing else MEASURED
        return RunSpec(stage, 0, one, repeat, None, None if epochs == self.epochs else epochs)

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        """What the trials say of the leader, and the run that is worth the most."""
        runs, failed = _runs(trials), _failed(trials)
        spent = sum(map(self._committed, runs.values()))
        spent += sum(max(1, len(trial.reported)) for trial in failed)
        posterior = self._posterior(runs, failed)
        leader = posterior.configuration if posterior else self._start[0].configuration
        assert leader is not None
        wanted, reason = self._next(runs, failed, posterior, leader, self.budget - spent)
        result = self._result(runs, posterior, spent, reason) if posterior else None
        evaluated = _options([*runs.values(), *failed], self.images)
        best = next((one for one in evaluated if one.configuration == leader), None)
        failure = all_failed(evaluated) if reason else None
        selected = best if reason and not failure else None
        stage = Stage(
            RACE, "configurations", leader, evaluated, best, selected, self.metric, failure
        )
        ahead = 0 if reason else 1 + max(0, self.budget - spent) // self.rungs[0]
        return PlanState(
            stages=(stage,),
            incumbent=None if failure or not (posterior or reason) else leader,
            score=_stated(result, best),
            next=tuple(RunIndex(trials).ready(_numbered(wanted, runs, failed))),
            complete=reason is not None,
            runs=sum(trial.state != "running" for trial in runs.values()) + len(failed),
            runs_expected=len(runs) + len(failed) + ahead,
            failure=failure,
            race=result,
        )

    def _result(
        self, runs: Runs, posterior: Posterior, spent: int, reason: Reason | None
    ) -> RaceResult:
        transform = self._transform(runs)
        tolerance = transform.tolerance(self.tolerance)
        result = posterior.result(tolerance, self.confidence, spent, self.budget)
        return replace(transform.result(result), reason=reason)

    def _committed(self, trial: StoredTrial) -> int:
        """The epochs that a run has had, or that a running one will have."""
        if trial.state != "running":
            return len(trial.reported)
        return trial.until or self.epochs

    def effects(self, trials: Sequence[StoredTrial]) -> Effects | None:
        """The effect of each hyperparameter; None before a run has reached a rung."""
        runs = _runs(trials)
        posterior = self._posterior(runs, _failed(trials))
        if posterior is None:
            return None
        return self._transform(runs).effects(effects(posterior, self.space))

    def _transform(self, runs: Runs) -> ErrorTransform:
        return ErrorTransform.of(self.metric, runs.values())

    def _posterior(self, runs: Runs, failed: Sequence[StoredTrial]) -> Posterior | None:
        """The posterior of all candidates; None before a run has reached a rung."""
        transform = self._transform(runs)
        ended = [replace(t, reported=t.continued(self.epochs)) for t in runs.values()]
        known = [transform.trial(t) for t in ended if len(t.reported) >= self.rungs[0]]
        choosing = [trial for trial in known if trial.repeat < self.choosing]
        if not choosing:
            return None
        measured = [trial for trial in known if trial.repeat >= self.choosing]
        ahead = sorted(choosing, key=lambda t: (-len(t.reported), -t.reported[-1], t.number))
        evaluated = dict.fromkeys(trial.configuration for trial in (*runs.values(), *failed))
        best = dict.fromkeys(trial.configuration for trial in ahead[: len(ahead) // 2 + 1])
        candidates = self.candidates.draw([*evaluated], [*best][:_NEAR], len(choosing))
        observations = replace(self.observations, unit_error=transform.unit_error)
        out = frozenset(candidates.index[trial.configuration] for trial in failed)
        return Posterior(candidates, observations, choosing, measured, self.seed, out)

    def _next(
        self,
        runs: Runs,
        failed: Sequence[StoredTrial],
        posterior: Posterior | None,
        leader: Configuration,
        remaining: int,
    ) -> tuple[list[RunSpec], Reason | None]:
        """The runs that can start now, or why there is no more to train."""
        running = any(trial.state == "running" for trial in runs.values())
        gone = {trial.configuration for trial in failed}
        repeats = range(self.choosing, self.choosing + self.measuring)
        missing = [self._spec(leader, r, self.epochs) for r in repeats if (leader, r) not in runs]
        if leader in gone:  # every run so far has failed
            missing = []
        reserve = len(missing) * self.epochs
        start = [
            spec
            for spec in self._start
            if (spec.configuration, spec.repeat) not in runs and spec.configuration not in gone
        ]
        if start and remaining - reserve >= self.rungs[0]:
            return start, None
        sure = posterior is not None and self._sure(posterior, runs, measured=not missing)
        if posterior and not sure:
            spec = self._proof(posterior, runs, remaining - reserve)
            spec = spec or self._best(runs, posterior, remaining - reserve)
            if spec:
                return [spec], None
        if running and not sure:
            return [], None
        if missing and remaining >= self.epochs:
            return missing, None
        if running:
            return [], None
        spent = remaining < reserve + self.epochs
        return [], "sure" if sure else "budget" if spent else "exhausted"

    def _sure(self, posterior: Posterior, runs: Runs, *, measured: bool) -> bool:
        """Whether the leader is good enough, by the choosing and by the fresh repeats.

        Its rivals have to be complete too, in pairs with it.
        """
        looks = (False, True) if measured else (False,)
        tolerance = self._transform(runs).tolerance(self.tolerance)
        likely = all(
            posterior.probability(tolerance, measured=look) >= self.confidence for look in looks
        )
        return likely and not posterior.unproven(tolerance)

    def _proof(self, posterior: Posterior, runs: Runs, remaining: int) -> RunSpec | None:
        """Once the leader is probably good enough: a run to the end, of it or of a rival."""
        tolerance = self._transform(runs).tolerance(self.tolerance)
        if posterior.probability(tolerance) < self.confidence:
            return None
        own = sorted(posterior.complete(posterior.leader))
        for place in posterior.unproven(tolerance):
            one = posterior.candidates.configurations[place]
            for repeat in own if place != posterior.leader else range(self.choosing):
                trial = runs.get((one, repeat))
                done = 0 if trial is None else len(trial.reported)
                if (trial is None or trial.state == "paused") and self.epochs - done <= remaining:
                    return self._spec(one, repeat, self.epochs)
        return None

    def _best(self, runs: Runs, posterior: Posterior, remaining: int) -> RunSpec | None:
        """The run that reduces the expected regret the most an epoch; None if none is left."""
        progress = Progress(len(posterior.candidates), self.choosing)
        pending = []
        for (one, repeat), trial in runs.items():
            if repeat >= self.choosing:
                continue
            at = posterior.candidates.index[one], repeat
            progress.epochs[at] = len(trial.continued(self.epochs))
            progress.committed[at] = self._committed(trial)
            progress.run[at] = trial.number
            progress.running[at] = trial.state not in {"paused", "complete"}
            if trial.state == "running" and self._committed(trial) > len(trial.reported):
                pending.append((*at, self.rungs.index(self._committed(trial)), trial.number))
        progress.running[list(posterior.failed)] = True
        levels = posterior.chosen
        if pending:
            cells = Cells(*np.array(pending, dtype=np.intp).T)
            levels = FinalLevels(
                posterior.kernel, posterior.theta, posterior.cells, posterior.z, pending=cells
            )
        places = posterior.contenders(levels)
        steps = progress.next_steps(places[:_RIVALS], self.rungs, remaining)
        if steps is None:  # all rivals are trained: any other candidate may still be better
            places = places[np.r_[True, ~progress.finished(places[1:], self.rungs)]]
            steps = progress.next_steps(places[:_RIVALS], self.rungs, remaining)
        if steps is None:
            return None
        places = places[:_RIVALS]
        chosen = most_useful(levels, places, steps)
        one = posterior.candidates.configurations[steps.configuration[chosen]]
        return self._spec(one, int(steps.repeat[chosen]), self.rungs[steps.rung[chosen]])


class Progress:
    """How far each run of a race is, in arrays of (configurations, repeats)."""

    def __init__(self, configurations: int, repeats: int) -> None:
        self.epochs = np.zeros((configurations, repeats), dtype=np.intp)
        self.committed = np.zeros_like(self.epochs)
        self.run: Places = -1 - np.arange(configurations * repeats).reshape(self.epochs.shape)
        self.running = np.zeros(self.epochs.shape, dtype=bool)

    def finished(self, places: Places, rungs: Sequence[int]) -> NDArray[np.bool_]:
        """Whether every repeat of a configuration is complete, or running."""
        done = np.asarray(self.running | (self.epochs >= rungs[-1]))
        return np.asarray(done[places].all(axis=1))

    def next_steps(self, places: Places, rungs: Sequence[int], remaining: int) -> Cells | None:
        """The next step of every run: to its next rung, or to the first one.

        Only steps to the rung whose share of the epochs is the least spent yet, of at most
        ``remaining`` epochs; None if there is none. Information an epoch overvalues early rungs;
        rungs therefore have fixed shares of the budget.
        """
        sizes = np.diff([0, *rungs])
        reached = np.searchsorted(rungs, self.epochs, side="right")
        here = reached[places]
        # Of the repeats not started the first two are enough: more of them would say the same.
        fresh = self.run[places] < 0
        allowed = ~self.running[places] & (~fresh | (fresh.cumsum(1) <= 2)) & (here < len(sizes))
        spent = [
            (self.committed >= epochs).sum() * size
            for epochs, size in zip(rungs, sizes, strict=True)
        ]
        spent[-1] = spent[-1] / _LAST
        for rung in np.argsort(spent, kind="stable"):
            if sizes[rung] <= remaining and (allowed & (here == rung)).any():
                which, repeat = np.nonzero(allowed & (here == rung))
                place = places[which]
                return Cells(place, repeat, np.full_like(place, rung), self.run[place, repeat])
        return None


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


def most_useful(levels: FinalLevels, rivals: Places, steps: Cells) -> int:
    """The step that reduces the expected regret the most; the leader is rival 0."""
    spread = levels.spread[np.ix_(rivals, rivals)]
    improvement = expected_improvement(levels.mean[rivals], spread)
    return int(np.argmax(improvement @ levels.variance_reduction(rivals, int(rivals[0]), steps)))


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


def _options(trials: Iterable[StoredTrial], images: int | None) -> tuple[Option, ...]:
    """Every configuration evaluated so far; its score is that of its complete trials."""
    evaluated: dict[Configuration, list[StoredTrial]] = {}
    for trial in trials:
        evaluated.setdefault(trial.configuration, []).append(trial)
    spread = Spread(images)
    options = []
    for one, held in evaluated.items():
        complete = sorted([t for t in held if t.state == "complete"], key=lambda t: t.repeat)
        failed = [trial for trial in held if trial.state == "failed"]
        values = [trial.value for trial in complete if trial.value is not None]
        state: OptionState = "eliminated" if failed else "complete" if complete else "open"
        score = spread.score(values) if values else None
        number = held[0].option
        assert number is not None
        options.append(Option(number, one, None, (*complete, *failed), state, score))
    return tuple(options)


def _stated(result: RaceResult | None, leader: Option | None) -> Score | None:
    """The leader's stated accuracy, with its number of complete trials."""
    if result is None:  # a budget of one run: nothing was compared
        return leader.score if leader else None
    return Score(
        len(leader.rows) if leader else 0, result.leader.value, result.leader.standard_error
    )
