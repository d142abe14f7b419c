"""What the figures of a report show, computed from rows and plan_state; nothing is drawn here.

Values are those of the study's metric, accuracies fractions. What would be too much to draw is
thinned by a rule that the figure states; the tables in the CSV files are never thinned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from study.plan.plan import Option, PlanState, Stage
from study.plan.results import Configuration, StoredTrial
from study.space.metric import Metric
from study.text import sentences as words
from study.text import units
from study.text.view import Kind, OptionView, foremost, kind, labels

MOST_OPTIONS = 25
"""Options of a stage that are drawn; of more, those with the best means."""

MOST_LINES = 200
"""Learning curves that are drawn in a panel; of more, evenly spaced ones in the order of trials."""

MOST_PLACES = 400
"""Configurations in the plot of cost; of more, those with the best means."""

End = Literal["complete", "pruned", "failed", "running", "paused", "cancelled"]

Item = TypeVar("Item")


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most ``most`` of the items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


@dataclass(frozen=True, slots=True)
class StageFigure:
    """The options of one stage, in their own order; of a search the best first."""

    name: str
    outcome: str
    eliminated: tuple[str, ...]
    choices: tuple[OptionView, ...]
    options: int
    metric: Metric


@dataclass(frozen=True, slots=True)
class Line:
    """A run's metric after each epoch, and how the run ended."""

    number: int
    label: str
    repeat: int
    place: int
    kind: Kind
    reused: bool
    end: End
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """The learning curves of one stage; ``options`` are the labels that a line's place names."""

    name: str
    options: tuple[str, ...]
    lines: tuple[Line, ...]
    runs: int
    metric: Metric


@dataclass(frozen=True, slots=True)
class Place:
    """A configuration between its cost and its mean."""

    label: str
    kind: Kind
    seconds: float | None
    parameters: float | None
    mean: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Configurations with their costs; ``configurations`` counts those that are not drawn too."""

    places: tuple[Place, ...]
    configurations: int
    metric: Metric


def stage_figure(stage: Stage) -> StageFigure:
    """One stage as it is drawn."""
    shown = tuple(foremost(stage, MOST_OPTIONS))
    gone = tuple(words.eliminated(stage)[:MOST_OPTIONS])
    outcome, options = words.outcome(stage), len(stage.options)
    return StageFigure(stage.name, outcome, gone, shown, options, stage.metric)


def panels(plan_state: PlanState, rows: Sequence[StoredTrial]) -> tuple[Panel, ...]:
    """The learning curves, a panel a stage; runs of a stage not reached yet have one too."""
    own: dict[str, list[StoredTrial]] = {stage.name: [] for stage in plan_state.stages}
    for row in rows:
        name = plan_state.stages[0].name if plan_state.race else row.stage  # a race is one panel
        own.setdefault(name, []).append(row)
    stages = {stage.name: stage for stage in plan_state.stages}
    made = [_panel(name, runs, stages.get(name), plan_state.metric) for name, runs in own.items()]
    return tuple(panel for panel in made if panel.runs)


def _panel(name: str, rows: Sequence[StoredTrial], stage: Stage | None, metric: Metric) -> Panel:
    options = stage.options if stage else ()
    listed = {row.number for row in rows}
    reused = [row for option in options for row in option.rows if row.number not in listed]
    kinds = {o.configuration: kind(o, stage) for o in options} if stage else {}
    places: dict[Configuration, int] = {o.configuration: n for n, o in enumerate(options)}
    called = labels(stage) if stage else {}
    for row in rows:
        places.setdefault(row.configuration, len(places))
        called.setdefault(row.configuration, str(row.option))
    drawn = [row for row in (*reused, *rows) if row.reported]
    kept = [row for row in drawn if kinds.get(row.configuration) == "selected"]
    others = [row for row in drawn if kinds.get(row.configuration) != "selected"]
    lines = [
        Line(
            number=row.number,
            label=called[row.configuration],
            repeat=row.repeat,
            place=places[row.configuration],
            kind=kinds.get(row.configuration, "other"),
            reused=row.number not in listed,
            end=end(row),
            values=row.reported,
        )
        for row in [*thinned(others, MOST_LINES), *kept]
    ]
    return Panel(name, tuple(called[c] for c in places), tuple(lines), len(drawn), metric)


def end(row: StoredTrial) -> End:
    """How a run ended; one that was paused until the study ended was not stopped."""
    if row.cancelled is not None:
        return "cancelled"
    return "paused" if row.left_paused else row.state


def cost(plan_state: PlanState) -> Cost:
    """Every configuration with a mean, between its cost and its mean; the answer last."""
    found: dict[Configuration, tuple[float, Option]] = {}
    for stage in plan_state.stages:
        found |= {o.configuration: (o.score.mean, o) for o in stage.options if o.score is not None}
    sign = plan_state.metric.sign
    ranked = [o for _, o in sorted(found.values(), key=lambda entry: -sign * entry[0])]
    places = [
        _place(option, "best" if number == 0 else "other", plan_state)
        for number, option in enumerate(ranked[:MOST_PLACES])
    ]
    places.sort(key=lambda place: ("other", "best", "selected").index(place.kind))
    return Cost(tuple(places), len(ranked), plan_state.metric)


def _place(option: Option, rank: Kind, plan_state: PlanState) -> Place:
    assert option.score is not None
    return Place(
        label=units.params(option.configuration),
        kind="selected" if option.configuration == plan_state.incumbent else rank,
        seconds=_average(row.attributes.get("seconds") for row in option.rows),
        parameters=_average(row.attributes.get("parameters") for row in option.rows),
        mean=option.score.mean,
        error=option.score.standard_error,
    )


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class Saving:
    """Training that the answer did not need: why, and how much of it."""

    why: str
    runs: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What a study took: runs by state, epochs trained, their seconds, and what was saved.

    ``span`` is the time from the first start to the last end in seconds, pauses included.
    """

    runs: Mapping[str, int]
    epochs: int
    seconds: float
    span: float | None
    savings: tuple[Saving, ...]

    @property
    def saved(self) -> int:
        """Epochs that were not trained."""
        return sum(saving.epochs for saving in self.savings)

    @property
    def saved_seconds(self) -> float:
        """What the saved epochs would have taken, at the mean seconds of a trained one."""
        return self.saved * self.seconds / self.epochs if self.epochs else 0.0


def spent(plan_state: PlanState, rows: Sequence[StoredTrial], epochs: int, repeats: int) -> Spent:
    """Count what was trained, and what a grid of all repeats over all epochs would add."""
    counts: dict[str, int] = {}
    for row in rows:
        state = end(row)
        counts[state] = counts.get(state, 0) + 1
    starts = [row.started for row in rows if row.started]
    ends = [row.ended for row in rows if row.ended]
    return Spent(
        runs=counts,
        epochs=sum(len(row.reported) for row in rows),
        seconds=math.fsum(math.fsum(row.curve.get("seconds", ())) for row in rows),
        span=(max(ends) - min(starts)).total_seconds() if starts and ends else None,
        savings=tuple(_savings(plan_state, epochs, repeats)),
    )


def _savings(plan_state: PlanState, epochs: int, repeats: int) -> Iterable[Saving]:
    if plan_state.race is not None:
        left = plan_state.race.budget - plan_state.race.epochs
        yield Saving("epochs of the budget that the race did not need", 0, max(0, left))
        return
    gone = [o for stage in plan_state.stages for o in stage.options if o.state == "eliminated"]
    reused = sum(
        row.stage != stage.name
        for stage in plan_state.stages
        for option in stage.options
        for row in option.rows
    )
    skipped = sum(repeats - len(option.rows) for option in gone)
    tails = [epochs - len(row.reported) for option in gone for row in option.rows[-1:]]
    yield Saving("runs of an earlier stage that counted again", reused, reused * epochs)
    yield Saving("further repeats of options that were stopped", skipped, skipped * epochs)
    yield Saving("the remaining epochs of stopped runs", len(tails), sum(tails))
