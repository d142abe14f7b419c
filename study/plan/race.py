"""A search that races: it spends epochs where they decide the most, and stops when it is sure.

A few epochs of configurations that together show every effect and pair come first. From then on
every rung has its share of the epochs, and within a rung those runs go on, or begin, that take away
the most of the expected regret (`study.plan.posterior` says what each would tell). Once there is a
run that was trained to its end, such configurations alone lead. Once the leader is within the
tolerance of the best with the confidence asked for, or once the rest of the budget is needed for
it, the leader is trained on repeats that had no part in choosing it; what is said of its accuracy
in the end is not the luck that made it the leader.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from study.errors import SettingsError, SpaceError
from study.plan.allocation import Progress, best
from study.plan.as_errors import AsErrors
from study.plan.begun import options, stated
from study.plan.candidates import Pool, freedom, start
from study.plan.effects import Effects, effects
from study.plan.epochs import rungs, sweep_epochs
from study.plan.plan import Plan, PlanState, RunIndex, RunSpec, Stage, all_failed
from study.plan.posterior import Cells, Posterior
from study.plan.results import Configuration, StoredTrial, configuration
from study.plan.verdict import Belief, Reason, Scale
from study.space.metric import Metric
from study.space.search_space import SearchSpace

RACE = "race"
MEASURED = "measured"
"""The names of the stages: choosing, and the winner's fresh repeats."""

CHOOSING = 5
"""Repeats that configurations are chosen by; those after them only measure the winner."""

TOLERANCE, CONFIDENCE = 0.2, 0.95

_START = 2.5
"""Configurations that a race starts with, for each number that the effects are. With 1.5 the regret
was the same (docs/log.md, "A search that races")."""

_RIVALS = 32  # configurations that epochs may go to
_NEAR = 8  # configurations whose neighbours are candidates, in a large space

Runs = dict[tuple[Configuration, int], StoredTrial]


class Race(Plan):
    """The plan of a race.

    ``tolerance`` is in percentage points or, of a metric that is no accuracy, in its own unit
    (None: 0.2 points, or a twentieth of the least error); ``budget`` in epochs (None: what the
    sweep would need at most). The answer is measured on up to ``repeats`` fresh repeats. ``images``
    are the validation images of a repeat, drawn from a ``pool`` of so many (None: the same ones
    each time). Raises ``SettingsError`` or ``SpaceError`` for what cannot be raced.
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
    ) -> None:
        super().__init__(space, repeats, images, metric)
        self.seed = seed
        self.epochs = epochs or space.epochs
        if tolerance is None and self.metric.is_accuracy:
            tolerance = TOLERANCE
        self.tolerance = None if tolerance is None else tolerance / self.metric.scale
        self.confidence = confidence
        self.budget = sweep_epochs(space, self.repeats, self.epochs) if budget is None else budget
        self.rungs = rungs(self.epochs)
        self.scale = Scale(self.rungs, images, images and (pool or images))
        self.candidates = Pool(space, seed)
        self.choosing = CHOOSING
        self._first: Configuration = ()
        self._check()
        self.measuring = min(self.repeats, max(1, self.budget // (12 * self.epochs)))
        self._start = self._first_slots()

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

    def _first_slots(self) -> tuple[RunSpec, ...]:
        """A few epochs of configurations that together show effects and pairs."""
        given = configuration(self.space.start)
        full = len(given) == len(self.space.fixed) + len(self.space.hyperparameters)
        candidates = self.candidates.draw([given] if full else [], [], 0)
        rung, spare = self.rungs[0], self.budget - self.measuring * self.epochs
        number = min(math.ceil(_START * freedom(self.space)), int(0.4 * self.budget) // rung)
        places = start(
            candidates, given if full else None, min(number, spare // rung) or 1, self.seed
        )
        found = [candidates.configurations[place] for place in places]
        self._first = found[0]
        return tuple([self._slot(one, 0, rung) for one in found])

    def _slot(self, one: Configuration, repeat: int, epochs: int) -> RunSpec:
        stage = RACE if repeat < self.choosing else MEASURED
        return RunSpec(stage, 0, one, repeat, None, None if epochs == self.epochs else epochs)

    def state(self, rows: Sequence[StoredTrial]) -> PlanState:
        """What the rows say of the leader, and the slot that is worth the most."""
        index, runs = RunIndex(rows), _runs(rows)
        failed = _failed(rows)
        spent = sum(map(self._promised, runs.values()))
        spent += sum(max(1, len(row.reported)) for row in failed)
        belief = self._belief(runs, failed)
        leader = belief.candidates.configurations[belief.leader] if belief else self._first
        wanted, reason = self._next(runs, failed, belief, leader, self.budget - spent)
        verdict = None
        if belief:
            scale = self._errors(runs)
            tolerance = scale.tolerance(self.tolerance)
            verdict = belief.verdict(tolerance, self.confidence, spent, self.budget)
            verdict = replace(scale.verdict(verdict), reason=reason)
        begun = options([*runs.values(), *failed], self.images)
        best = next((one for one in begun if one.configuration == leader), None)
        won = best if reason else None
        none = all_failed(begun) if reason else None
        stage = Stage(RACE, "configurations", leader, begun, best, won, self.metric, none)
        ahead = 0 if reason else 1 + max(0, self.budget - spent) // self.rungs[0]
        return PlanState(
            stages=(stage,),
            incumbent=None if none or not (belief or reason) else leader,
            score=stated(verdict, best),
            next=tuple(index.ready(_numbered(wanted, runs))),
            complete=reason is not None,
            runs=sum(row.state != "running" for row in runs.values()) + len(failed),
            runs_expected=len(runs) + len(failed) + ahead,
            failure=none,
            verdict=verdict,
        )

    def _promised(self, row: StoredTrial) -> int:
        """The epochs that a run has had, or that a running one will have."""
        return (row.until or self.epochs) if row.state == "running" else len(row.reported)

    def effects(self, rows: Sequence[StoredTrial]) -> Effects | None:
        """What the rows say of each hyperparameter; None before a run has reached a rung."""
        runs = _runs(rows)
        belief = self._belief(runs, _failed(rows))
        return self._errors(runs).effects(effects(belief, self.space)) if belief else None

    def _errors(self, runs: Runs) -> AsErrors:
        return AsErrors.of(self.metric, runs.values())

    def _belief(self, runs: Runs, failed: Sequence[StoredTrial]) -> Belief | None:
        """What the runs say; None before the first of them has reached a rung."""
        scale = self._errors(runs)
        known = [scale.row(row) for row in runs.values() if len(row.reported) >= self.rungs[0]]
        choosing = [row for row in known if row.repeat < self.choosing]
        if not choosing:
            return None
        measured = [row for row in known if row.repeat >= self.choosing]
        ahead = sorted(choosing, key=lambda r: (-len(r.reported), -r.reported[-1], r.number))
        begun = dict.fromkeys(row.configuration for row in (*runs.values(), *failed))
        best = dict.fromkeys(row.configuration for row in ahead[: len(ahead) // 2 + 1])
        candidates = self.candidates.draw([*begun], [*best][:_NEAR], len(choosing))
        values = replace(self.scale, whole=scale.whole)
        out = frozenset(candidates.index[row.configuration] for row in failed)
        return Belief(candidates, values, choosing, measured, self.seed, out)

    def _next(
        self,
        runs: Runs,
        failed: Sequence[StoredTrial],
        belief: Belief | None,
        leader: Configuration,
        spare: int,
    ) -> tuple[list[RunSpec], Reason | None]:
        """The slots that can be trained now, or why there is no more to train."""
        states = {key: row.state for key, row in runs.items()}
        running = "running" in states.values()
        repeats = range(self.choosing, self.choosing + self.measuring)
        missing = [self._slot(leader, r, self.epochs) for r in repeats if (leader, r) not in runs]
        reserve = len(missing) * self.epochs
        gone = {row.configuration for row in failed}
        if leader in gone:
            missing = []  # no run has ended well so far
        start = [
            s
            for s in self._start
            if (s.configuration, s.repeat) not in runs and s.configuration not in gone
        ]
        if start and spare - reserve >= self.rungs[0]:
            return start, None
        sure = belief is not None and self._sure(belief, runs, measured=not missing)
        if belief and not sure:
            slot = self._best(runs, belief, spare - reserve)
            if slot:
                return [slot], None
        if running and not sure:
            return [], None
        if missing and spare >= self.epochs:
            return missing, None
        if running:
            return [], None
        return [], "sure" if sure else "budget" if spare < reserve + self.epochs else "exhausted"

    def _sure(self, belief: Belief, runs: Runs, *, measured: bool) -> bool:
        """Whether the leader is good enough, by the runs that choose and by the fresh ones."""
        looks = (False, True) if measured else (False,)
        tolerance = self._errors(runs).tolerance(self.tolerance)
        return all(
            belief.probability(tolerance, measured=look) >= self.confidence for look in looks
        )

    def _best(self, runs: Runs, belief: Belief, spare: int) -> RunSpec | None:
        """The slot that takes away the most of the expected regret an epoch; None: none is left."""
        progress = Progress(len(belief.candidates), self.choosing)
        pending = []
        for (one, repeat), row in runs.items():
            if repeat >= self.choosing:
                continue
            at = belief.candidates.index[one], repeat
            progress.epochs[at] = len(row.reported)
            progress.promised[at] = self._promised(row)
            progress.run[at] = row.number
            progress.busy[at] = row.state not in {"paused", "complete"}
            if row.state == "running" and self._promised(row) > len(row.reported):
                pending.append((*at, self.rungs.index(self._promised(row)), row.number))
        posterior = belief.chosen
        if pending:
            cells = Cells(*np.array(pending, dtype=np.intp).T)
            posterior = Posterior(
                belief.kernel, belief.theta, belief.cells, belief.z, pending=cells
            )
        progress.busy[list(belief.failed)] = True
        places = belief.contenders(posterior)
        actions = progress.actions(places[:_RIVALS], self.rungs, spare)
        if actions is None:
            return None
        chosen = best(posterior, places[:_RIVALS], actions)
        one = belief.candidates.configurations[actions.configuration[chosen]]
        return self._slot(one, int(actions.repeat[chosen]), self.rungs[actions.rung[chosen]])


def _runs(rows: Iterable[StoredTrial]) -> Runs:
    """The runs that count, in the order of their numbers; what was paused is pruned at the end."""
    runs: Runs = {}
    gone = {row.configuration for row in _failed(rows)}
    for row in sorted(rows, key=lambda row: row.number):
        if row.cancelled is None and row.configuration not in gone:
            runs[row.configuration, row.repeat] = row
    return runs


def _failed(rows: Iterable[StoredTrial]) -> list[StoredTrial]:
    """The failed run of each configuration that has one, by number; none of its runs counts."""
    failed: dict[Configuration, StoredTrial] = {}
    for row in sorted(rows, key=lambda row: row.number):
        if row.cancelled is None and row.state == "failed":
            failed.setdefault(row.configuration, row)
    return list(failed.values())


def _numbered(slots: Iterable[RunSpec], runs: Runs) -> Iterator[RunSpec]:
    """The slots with the numbers of their configurations: in the order in which they were begun."""
    numbers = {row.configuration: row.option for row in runs.values()}
    for slot in slots:
        assert slot.configuration is not None
        option = numbers.setdefault(slot.configuration, len(numbers))
        assert option is not None
        yield replace(slot, option=option)
