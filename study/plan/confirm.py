"""Fresh repeats of the answer and of the start: what a study's answer is worth.

The mean that an option was selected by flatters it. Once a plan is complete, its answer and its
start are trained on repeats that had no part in choosing; what is stated in the end is their mean,
and their paired difference. An answer that is not better than the start by more than one standard
error of this difference is given up, and the start stays: on new images it might well be worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from study.plan.comparison import paired
from study.plan.plan import Confirmation, Option, Plan, PlanState, RunIndex, RunSpec, Stage
from study.plan.results import Configuration, StoredTrial, configuration
from study.plan.statistics import Difference, Spread
from study.space.architecture import OUT
from study.space.metric import Metric

CONFIRMED = "confirmed"
"""The name of the last stage."""

ANSWER, START = "answer", "start"
"""Its two options; without the start if that is the answer or not a whole configuration."""


def start_stays(gap: Difference) -> bool:
    """Whether the start stays the answer, by how much what was found is better than it."""
    return gap.tie or gap.mean < 0


def confirmation_of(found: Option, start: Option | None, *, stays: bool) -> Confirmation | None:
    """What fresh repeats say of what was found and of the start, whose ``gap`` lies between them.

    None if what was found has no score.
    """
    if found.score is None:
        return None
    if start is None or start.score is None:
        return Confirmation(found.score)
    if stays:
        return Confirmation(start.score, None, start.gap, found.configuration)
    return Confirmation(found.score, start.score, start.gap)


def settled(state: PlanState, start: Configuration | None) -> PlanState:
    """A complete state of one stage, whose best and start have fresh repeats, by the same rule."""
    stage = state.stages[0]
    own = next((one for one in stage.options if one.configuration == start), None)
    if not state.complete or stage.selected is None or own is None or own.gap is None:
        return state
    stays = start_stays(own.gap)
    state = replace(state, confirmation=confirmation_of(stage.selected, own, stays=stays))
    if not stays:
        return state
    stages = (replace(stage, selected=own),)
    return replace(state, stages=stages, incumbent=own.configuration, score=own.score)


class Confirmed(Plan):
    """A plan whose answer and start are trained on ``fresh`` more repeats at the end."""

    def __init__(self, plan: Plan, fresh: int) -> None:
        super().__init__(
            plan.space,
            plan.repeats,
            plan.images,
            plan.metric,
            compares=plan.compares,
            pool=plan.pool,
            out=plan.out,
        )
        self.plan, self.fresh, self.looks = plan, fresh, plan.looks

    def adapted(self, *, metric: Metric, compares: bool) -> Confirmed:
        return Confirmed(self.plan.adapted(metric=metric, compares=compares), self.fresh)

    def suggest(self, spec: RunSpec, trials: Sequence[StoredTrial]) -> Configuration:
        return self.plan.suggest(spec, trials)

    @property
    def _first(self) -> int:
        """The first repeat that was not used to choose the answer."""
        return self.plan.repeats + getattr(self.plan, "choosing", 0)

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        # By repeat, not by stage: what was fresh once may take part in choosing once repeats grow.
        chosen = self.plan.state([one for one in trials if one.repeat < self._first])
        if not chosen.complete or chosen.incumbent is None:
            more = 0 if chosen.complete else 2 * self.fresh
            return replace(chosen, runs_expected=chosen.runs_expected + more)
        held = [one for one in trials if one.repeat >= self._first]
        index = RunIndex(held)
        fresh = (replace(one, repeat=one.repeat - self._first) for one in held)
        known = _known_out(chosen.stages)
        numbered = RunIndex(fresh, lambda one: self.out(one) or known.get(one))
        configurations = {ANSWER: chosen.incumbent}
        start = configuration(self.space.start)
        if self.space.is_whole(dict(start)) and start != chosen.incumbent:
            configurations[START] = start
        options = [
            numbered.option(name, one, None, self.fresh) for name, one in configurations.items()
        ]
        missing = [
            RunSpec(CONFIRMED, option.value, option.configuration, self._first + repeat, None)
            for repeat in range(self.fresh)
            for option in options
            if repeat in option.missing(self.fresh)
        ]
        complete = not missing
        confirmation = None
        if complete:
            options, confirmation = self._measured(options, chosen.stages)
        found = options[0] if complete else None
        answer = options[1] if confirmation and confirmation.found else found
        stage = Stage(
            CONFIRMED,
            "confirmed",
            chosen.incumbent,
            tuple(options),
            best=found,
            selected=answer,
            metric=self.metric,
        )
        runs = chosen.runs + sum(len(option.rows) for option in options)
        return replace(
            chosen,
            stages=(*chosen.stages, stage),
            incumbent=answer.configuration if answer else chosen.incumbent,
            score=confirmation.answer if confirmation else chosen.score,
            next=tuple(index.ready(missing)),
            complete=complete,
            runs=runs,
            runs_expected=runs + len(missing),
            confirmation=confirmation,
        )

    def _measured(
        self, options: Sequence[Option], stages: Sequence[Stage]
    ) -> tuple[list[Option], Confirmation | None]:
        """The options with their scores; no confirmation if a run of the answer failed."""
        spread = Spread(self.images, self.pool, self.looks)
        for stage in stages:
            spread.learn(paired(stage.options))
        spread.learn(paired(options))
        found = [
            replace(one, score=spread.score(one.values)) if one.state == "complete" else one
            for one in options
        ]
        answer, start = found[0], found[1] if len(found) > 1 else None
        if answer.score is None:
            return found, None
        if start is None or start.score is None:
            return found, confirmation_of(answer, None, stays=False)
        better, other = (answer.values, start.values)[:: self.metric.sign]
        gap = spread.difference(better, other, self.looks.looks)
        found[1] = replace(start, gap=gap)
        return found, confirmation_of(answer, found[1], stays=start_stays(gap))


def _known_out(stages: Sequence[Stage]) -> dict[Configuration, str]:
    """The configurations that exceed a limit, by what their first run has measured, and why."""
    options = [option for stage in stages for option in stage.options]
    return {
        one.configuration: one.failure
        for one in options
        if one.failure is not None and one.failure.startswith(OUT)
    }
