"""The tutorial's sweep as a plan: one hyperparameter at a time, every option with all its repeats.

Stage by stage, every option of one hyperparameter is trained with all its repeats while the others
stay at the incumbent's values; the incumbent's own runs are reused. A hyperparameter that does not
apply to the incumbent (``only_if``) has no stage. The option with the best mean is the *best*; the
option *selected* is the incumbent if it ties with the best, else the cheapest option that does. If
no standard error is known (one repeat, and a metric that is not a share of images), all options
tie, and the best mean is selected. At the end the configuration of all best values, if it differs
from the selected one, is trained too and replaces it only if it is better by more than a tie.

If the incumbent's own runs fail, the first option of the stage that has not failed takes its place.
If all options of a stage fail, the next stage keeps the incumbent's value. A sweep whose every
option fails is complete without an answer.

With ``passes`` of a space above 1 the sweep is repeated, until a whole pass changes nothing or that
many passes are done. A run's score is the space's ``score``: the mean of its last three epochs, or
its own value (``last``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from study.plan.comparison import compared
from study.plan.plan import (
    Option,
    Plan,
    PlanState,
    RunIndex,
    RunSpec,
    Stage,
    all_failed,
)
from study.plan.points import Out, count, fits
from study.plan.results import Configuration, StoredTrial, configuration
from study.plan.statistics import Group, Score, Spread
from study.space.metric import Metric
from study.space.search_space import Hyperparameter, SearchSpace, Value

SELECTED, BEST = "selected", "best means"
"""The two options of the last stage: the values selected so far, and the best of every stage."""


class OneAtATime(Plan):
    """The plan of the tutorial's sweep; ``SpaceError`` where a hyperparameter is a range."""

    def __init__(
        self,
        space: SearchSpace,
        repeats: int | None = None,
        images: int | None = None,
        metric: Metric | None = None,
        *,
        compares: bool = True,
        pool: int | None = None,
        out: Out = fits,
    ) -> None:
        super().__init__(space, repeats, images, metric, compares=compares, pool=pool, out=out)
        space.require_options("the one-at-a-time sweep")
        self._rounds = {
            one.name if number == 0 else f"{one.name} (pass {number + 1})": one
            for number in range(space.passes)
            for one in space.hyperparameters
        }

    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        """Fold the stages over the stored trials."""
        index = RunIndex(trials, self.out)
        spread = Spread(self.images, self.pool, self.looks)
        stages = self._swept(index, spread)
        last = stages[-1].selected
        if all(stage.decided for stage in stages) and last is not None:
            best = {self._rounds[s.name].name: s.best.value for s in stages if s.best}
            together = configuration(self.space.completed(best))
            if last.configuration != together:
                stages.append(self._last_stage(together, last, index, spread))
        return self._closed(stages) if stages[-1].decided else self._open(stages, index)

    def _swept(self, index: RunIndex, spread: Spread) -> list[Stage]:
        """The stage of each hyperparameter, pass after pass, up to one that has work left."""
        incumbent = configuration(self.space.start)
        stages: list[Stage] = []
        changed = 0  # the place of the last stage that changed something
        for place, (name, parameter) in enumerate(self._rounds.items()):
            if place >= changed + len(self.space.hyperparameters):
                break  # the stage would be the same again: a whole round has changed nothing
            if not parameter.applies(dict(incumbent)):
                continue
            stage = self._stage(name, incumbent, index)
            if failure := all_failed(stage.options):
                stage = replace(stage, failure=failure)
            elif all(option.state != "open" for option in stage.options):
                spread.learn(_groups(stage, first=not any(one.selected for one in stages)))
                stage = self._decide(stage, spread)
            stages.append(stage)
            if not stage.decided:
                break
            if stage.selected is None or stage.selected.configuration != stage.incumbent:
                changed = place
            if stage.selected is not None:
                incumbent = stage.selected.configuration
        return stages

    def _stage(self, name: str, incumbent: Configuration, index: RunIndex) -> Stage:
        """The stage of this name; from the second pass on it says which pass."""
        variants = list(self._variants(incumbent, self._rounds[name]))
        able = [incumbent, *(candidate for _, candidate in variants)]
        incumbent = next((c for c in able if not index.failed(c, self.repeats)), incumbent)
        options = []
        for value, candidate in variants:
            reference = None if candidate == incumbent else incumbent
            options.append(index.option(value, candidate, reference, self.repeats))
        return Stage(name, "hyperparameter", incumbent, tuple(options), metric=self.metric)

    def _variants(
        self, base: Configuration, parameter: Hyperparameter
    ) -> Iterator[tuple[Value, Configuration]]:
        """Each option of ``parameter``, and ``base`` with it; what then applies has its start."""
        for value in parameter.options:
            yield value, configuration(self.space.completed(dict(base) | {parameter.name: value}))

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
        self, together: Configuration, last: Option, index: RunIndex, spread: Spread
    ) -> Stage:
        """Train the best values together; they replace the selected ones if clearly better."""
        selected = replace(last, value=SELECTED, gap=None)
        challenger = index.option(BEST, together, None, self.repeats)
        both = selected, challenger
        stage = Stage("combined", "combined", selected.configuration, both, metric=self.metric)
        if challenger.state == "open":
            return stage
        if challenger.state == "complete":
            spread.learn([(challenger.values, selected.values)])
        options = compared(stage.options, spread, prefer=selected.configuration, metric=self.metric)
        best = next(option for option in options if option.gap is None)
        other = next((option for option in options if option.gap is not None), None)
        wins = best.configuration == together and other is not None and not other.tied
        return replace(stage, options=options, best=best, selected=best if wins else options[0])

    def _open(self, stages: list[Stage], index: RunIndex) -> PlanState:
        """The state of a sweep whose last stage still has work."""
        stage = stages[-1]
        previous = stages[-2].selected if len(stages) > 1 else None
        selected = previous or _incumbent(stage)
        runs = _runs(stages)
        return PlanState(
            stages=tuple(stages),
            incumbent=selected.configuration if selected.score or selected.rows else None,
            score=selected.score or _score(selected, self.images),
            next=tuple(index.ready(_missing(stage, self.repeats), compares=self.compares)),
            complete=False,
            runs=runs,
            runs_expected=runs + self._ahead(stages),
        )

    def _ahead(self, stages: Sequence[Stage]) -> int:
        """How many runs are left at most: of the open stage, of those after it, of the last one."""
        options = [option for option in stages[-1].options if option.state == "open"]
        ahead = sum(self.repeats - len(option.rows) for option in options)
        if stages[-1].kind == "combined":
            return ahead
        rounds, place = [*self._rounds.values()], [*self._rounds].index(stages[-1].name)
        undecided = {parameter.name for parameter in rounds[place:]}
        for parameter in rounds[place + 1 :]:
            if undecided & {*parameter.only_if} or parameter.applies(dict(stages[-1].incumbent)):
                ahead += (len(parameter.options) - 1) * self.repeats
        return ahead + (self.repeats if self.space.tie != "best" else 0)

    def _closed(self, stages: list[Stage]) -> PlanState:
        answer, runs = stages[-1].selected, _runs(stages)
        if answer is None:
            options = {o.configuration: o for stage in stages for o in stage.options}
            failure = all_failed(options.values())
            return PlanState(tuple(stages), None, None, (), True, runs, runs, failure)
        return PlanState(tuple(stages), answer.configuration, answer.score, (), True, runs, runs)


def sweep_epochs(space: SearchSpace, repeats: int, epochs: int) -> int:
    """The most epochs that the sweep of a space needs; a range counts as five options."""
    counts = [
        min(count(parameter) or 5, max(5, len(parameter.options)))
        for parameter in space.hyperparameters
    ]
    runs = 1 + sum(number - 1 for number in counts) + (space.tie != "best")
    return runs * repeats * epochs


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


def _missing(stage: Stage, repeats: int) -> Iterator[RunSpec]:
    """The runs that a stage still needs: the incumbent's first, then repeat by repeat."""
    missing = [
        (option.configuration != stage.incumbent, repeat, place, option)
        for place, option in enumerate(stage.options)
        for repeat in option.missing(repeats)
    ]
    for _, repeat, _, option in sorted(missing, key=lambda entry: entry[:3]):
        yield RunSpec(stage.name, option.value, option.configuration, repeat, option.reference)
