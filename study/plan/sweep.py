"""The tutorial's sweep as a plan: one hyperparameter at a time, every option with all its repeats.

Stage by stage, every option of one hyperparameter is trained with all its repeats while the others
stay at the incumbent's values; the incumbent's own runs are reused. The option with the best mean
is the *best*; the option *selected* is the incumbent if it ties with the best, else the cheapest
option that does. Where no error is known (one repeat of what is no share of images) all of them
tie, and the best is selected, by its mean alone. At the end the configuration of all best values,
where it differs from the selected one, is trained too and replaces it only if it is better by more
than a tie.

With ``passes`` of a space above 1 the sweep goes round again, at most so often, until a whole round
has changed nothing. What a run is scored by is the space's ``score``: the mean of its last three
epochs, or its own value (``last``).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from study.plan.comparison import compared
from study.plan.plan import Option, Plan, PlanState, RunIndex, RunSpec, Stage
from study.plan.results import Configuration, StoredTrial, configuration
from study.plan.statistics import Group, Score, Spread
from study.space.search_space import Hyperparameter, SearchSpace, Value

SELECTED, BEST = "selected", "best means"
"""The two options of the last stage: the values selected so far, and the best of every stage."""

SCORED = 3
"""Epochs that a run is scored by where that is a mean."""


@dataclass(frozen=True)
class _Fold:
    """What a sweep made of its rows."""

    rows: tuple[StoredTrial, ...]
    index: RunIndex
    stages: tuple[Stage, ...]

    def changes(
        self, rows: Sequence[StoredTrial]
    ) -> tuple[Sequence[StoredTrial], Sequence[StoredTrial]]:
        """The rows of this fold that ``rows`` has no more, and those that it has in their place."""
        alike = [*map(operator.is_, self.rows, rows), False].index(False)
        return self.rows[alike:], rows[alike:]

    def kept(self, touched: Container[Configuration]) -> Iterator[Stage]:
        """The stages, up to the first that is open or has one of these configurations."""
        return itertools.takewhile(
            lambda stage: (
                stage.decided and all(one.configuration not in touched for one in stage.options)
            ),
            self.stages,
        )


class OneAtATime(Plan):
    """The plan of the tutorial's sweep; ``SpaceError`` where a hyperparameter is a range."""

    def __init__(
        self, space: SearchSpace, repeats: int | None = None, images: int | None = None
    ) -> None:
        super().__init__(space, repeats, images)
        space.require_options("the one-at-a-time sweep")
        self._rounds = space.hyperparameters * space.passes
        self._last = _Fold((), RunIndex(()), ())

    def state(self, rows: Sequence[StoredTrial]) -> PlanState:
        """Fold the stages over the stored rows.

        What no row has touched since the last time is kept. This saves time and nothing else: the
        whole fold would come to the same stages again.
        """
        last = self._last
        gone, come = last.changes(rows)
        index = last.index.changed(gone, map(self.scored, come))
        spread = Spread(self.images)
        touched = {row.configuration for row in (*gone, *come)}
        stages = self._swept(index, spread, last.kept(touched))
        if all(stage.best for stage in stages):
            pairs = zip(self._rounds, stages, strict=False)
            best = {parameter.name: stage.best.value for parameter, stage in pairs if stage.best}
            together = configuration(self.space.start | best)
            if stages[-1].selected and stages[-1].selected.configuration != together:
                stages.append(self._last_stage(together, stages[-1], index, spread))
        self._last = _Fold(tuple(rows), index, tuple(stages))
        return self._closed(stages) if stages[-1].decided else self._open(stages, index)

    def scored(self, row: StoredTrial) -> StoredTrial:
        """The row with the value that the space wants runs to be scored by.

        A run keeps its own where that is no last epoch's: with ``restore_best_weights`` it is that
        of the weights that are kept, and an objective of one's own, which stores no curve, has
        reasons of its own.
        """
        curve = row.curve.get(self.space.metric.name)
        if row.value is None or not curve or self.space.score == "last":
            return row
        if row.params.get("restore_best_weights"):
            return row
        return replace(row, value=fmean(curve[-SCORED:]))

    def _swept(self, index: RunIndex, spread: Spread, kept: Iterator[Stage]) -> list[Stage]:
        """The stage of each hyperparameter, round after round, up to one that has work left."""
        incumbent = configuration(self.space.start)
        stages: list[Stage] = []
        while len(stages) < len(self._rounds) and not self._settled(stages):
            stage = next(kept, None) or self._stage(len(stages), incumbent, index)
            if all(option.state != "open" for option in stage.options):
                spread.learn(_groups(stage, first=not stages))
                stage = stage if stage.decided else self._decide(stage, spread)
            stages.append(stage)
            if stage.selected is None:
                break
            incumbent = stage.selected.configuration
        return stages

    def _settled(self, stages: Sequence[Stage]) -> bool:
        """Whether the next stage would be the same again: a whole round has changed nothing."""
        count = len(self.space.hyperparameters)
        return len(stages) >= count and all(
            stage.selected and stage.selected.configuration == stage.incumbent
            for stage in stages[len(stages) - count + 1 :]
        )

    def _stage(self, place: int, incumbent: Configuration, index: RunIndex) -> Stage:
        """The stage at this place of the rounds; from the second on its name says which it is."""
        parameter = self._rounds[place]
        number = 1 + place // len(self.space.hyperparameters)
        name = parameter.name if number == 1 else f"{parameter.name} (pass {number})"
        options = []
        for value, candidate in _variants(incumbent, parameter):
            reference = None if candidate == incumbent else incumbent
            options.append(index.option(value, candidate, reference, self.repeats))
        return Stage(name, "hyperparameter", incumbent, tuple(options), metric=self.metric)

    def _decide(self, stage: Stage, spread: Spread) -> Stage:
        """Name the best and the selected option of a stage whose options are all known."""
        options = compared(stage.options, spread, prefer=stage.incumbent, metric=self.metric)
        stage = replace(stage, options=options)
        best = next(option for option in options if option.score and option.gap is None)
        incumbent = _incumbent(stage)
        gaps = [option.gap for option in options if option.gap]
        if self.space.tie == "best" or any(gap.standard_error is None for gap in gaps):
            selected = best
        elif incumbent.tied:
            selected = incumbent
        else:
            selected = next(option for option in options if option.tied)
        return replace(stage, best=best, selected=selected)

    def _last_stage(
        self, together: Configuration, last: Stage, index: RunIndex, spread: Spread
    ) -> Stage:
        """Train the best values together; they replace the selected ones if clearly better."""
        assert last.selected is not None
        selected = replace(last.selected, value=SELECTED, gap=None)
        challenger = index.option(BEST, together, None, self.repeats)
        both = selected, challenger
        stage = Stage("combined", "combined", selected.configuration, both, metric=self.metric)
        if challenger.state == "open":
            return stage
        spread.learn([(challenger.values, selected.values)])
        options = compared(stage.options, spread, prefer=selected.configuration, metric=self.metric)
        best = next(option for option in options if option.gap is None)
        other = next(option for option in options if option.gap is not None)
        wins = best.configuration == together and not other.tied
        return replace(stage, options=options, best=best, selected=best if wins else options[0])

    def _open(self, stages: list[Stage], index: RunIndex) -> PlanState:
        """The plan_state of a sweep whose last named stage still has work."""
        stage = stages[-1]
        slots, failed = index.slots(_missing(stage, self.repeats), compares=self.compares)
        previous = stages[-2].selected if len(stages) > 1 else None
        selected = previous or _incumbent(stage)
        runs = _runs(stages)
        return PlanState(
            stages=tuple(stages),
            incumbent=selected.configuration if selected.score or selected.rows else None,
            score=selected.score or _score(selected, self.images),
            slots=tuple(slots),
            complete=False,
            runs=runs,
            runs_expected=runs + self._ahead(stages),
            failed=failed,
            failure=index.reason(failed) if failed else None,
            speculative=() if slots or failed else tuple(self._speculative(stages, index)),
        )

    def _speculative(self, stages: Sequence[Stage], index: RunIndex) -> list[RunSpec]:
        """Slots of the next stage, should the open one select the option that leads so far."""
        if len(stages) >= len(self._rounds):
            return []
        leader = _leader(stages[-1])
        likely = self._stage(len(stages), leader, index)
        missing = _missing(likely, self.repeats)
        others = (slot for slot in missing if slot.configuration != leader)
        return index.slots(others, compares=self.compares)[0]

    def _ahead(self, stages: Sequence[Stage]) -> int:
        """How many runs are left at most: of the open stage, of those after it, of the last one."""
        options = [option for option in stages[-1].options if option.state == "open"]
        ahead = sum(self.repeats - len(option.rows) for option in options)
        if stages[-1].kind == "combined":
            return ahead
        later = self._rounds[len(stages) :]
        ahead += sum((len(parameter.options) - 1) * self.repeats for parameter in later)
        return ahead + (self.repeats if self.space.tie != "best" else 0)

    def _closed(self, stages: list[Stage]) -> PlanState:
        answer = stages[-1].selected
        assert answer is not None
        runs = _runs(stages)
        return PlanState(tuple(stages), answer.configuration, answer.score, (), True, runs, runs)


def _incumbent(stage: Stage) -> Option:
    """The option that the sweep has already when a stage begins."""
    return next(option for option in stage.options if option.configuration == stage.incumbent)


def _score(option: Option, images: int | None) -> Score | None:
    return Spread(images).score(option.values) if option.values else None


def _runs(stages: Sequence[Stage]) -> int:
    """How many runs count; those of a selected option stand in more than one stage."""
    return len({row.number for s in stages for option in s.options for row in option.rows})


def _groups(stage: Stage, *, first: bool) -> Iterator[Group]:
    """The repeats of a stage in pairs with the incumbent's, whose own are new in the first one."""
    incumbent = _incumbent(stage)
    for option in stage.options:
        if option.state == "complete" and (first or option is not incumbent):
            yield option.values, None if option is incumbent else incumbent.values


def _leader(stage: Stage) -> Configuration:
    """The option that is ahead of the incumbent over the repeats both have, if any is."""
    known = {row.repeat: row.value for row in _incumbent(stage).rows if row.value is not None}
    best, ahead = stage.incumbent, 0.0
    for option in stage.options:
        pairs = [
            stage.metric.sign * (row.value - known[row.repeat])
            for row in option.rows
            if row.value is not None and row.repeat in known
        ]
        mean = sum(pairs) / len(pairs) if pairs else 0.0
        if option.pruned is None and mean > ahead:
            best, ahead = option.configuration, mean
    return best


def _missing(stage: Stage, repeats: int) -> Iterator[RunSpec]:
    """The open slots of a stage in their order: the incumbent's first, then repeat by repeat."""
    missing = [
        (option.configuration != stage.incumbent, repeat, place, option)
        for place, option in enumerate(stage.options)
        for repeat in option.missing(repeats)
    ]
    for _, repeat, _, option in sorted(missing, key=lambda entry: entry[:3]):
        yield RunSpec(stage.name, option.value, option.configuration, repeat, option.reference)


def _variants(
    base: Configuration, parameter: Hyperparameter
) -> Iterator[tuple[Value, Configuration]]:
    """Each option of ``parameter``, and ``base`` with it."""
    place = [name for name, _ in base].index(parameter.name)
    for value in parameter.options:
        yield value, (*base[:place], (parameter.name, value), *base[place + 1 :])
