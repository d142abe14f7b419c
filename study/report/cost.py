"""The figure of cost: means against seconds of a run, parameters, and time for a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.plan.plan import Option, PlanState
from study.plan.results import Configuration
from study.plan.tradeoff import Rated, smallest
from study.report.canvas import KINDS, Figure, Picture, blank, end_at_100, rendered
from study.space.architecture import size_text
from study.space.metric import Metric
from study.text import sentences as words
from study.text import units
from study.text.tables import Table, table
from study.text.view import Kind

MOST_PLACES = 400
"""Configurations that are drawn; of more, those with the best means."""

_KINDS = {"selected": "the answer", "best": "best mean", "other": ""}
_AXES = {
    "seconds": "seconds a run",
    "parameters": "parameters",
    "milliseconds": "ms of the processor a picture",
}
_MANY = 60  # points beyond which only the selected and the best one have a bar


@dataclass(frozen=True, slots=True)
class Place:
    """The cost of a configuration and its mean; a cost that was not recorded is None.

    ``verdict`` is how it compares with the best mean: empty if it is clearly worse, or unknown.
    """

    label: str
    kind: Kind
    seconds: float | None
    parameters: float | None
    mean: float
    error: float | None
    size: float | None = None
    milliseconds: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """The configurations to draw, the best mean first; ``total`` counts all with a mean."""

    places: tuple[Place, ...]
    total: int
    metric: Metric


def cost_figure(plan_state: PlanState, rated: Sequence[Rated] = ()) -> Figure | None:
    """The figure of cost; None if no configuration has a mean. ``rated`` says which ones tie."""
    cost = cost_of(plan_state, rated)
    if not cost.places:
        return None
    metric, drawn = cost.metric, len(cost.places)
    caption = (
        "Means with one standard error against the seconds of a run, which depend on other load "
        "of the machine, and against the number of parameters. Blue is the answer, vermilion the "
        "best mean if that is another one; of many configurations only these two have a bar. "
        "Filled marks are not clearly worse than the best mean."
    )
    if sentence := words.smallest(rated, metric):
        caption += f" {sentence}."
    if drawn < cost.total:
        caption += f" {drawn} of {cost.total} are drawn: those with the best means."
    heading = "Accuracy" if metric.is_accuracy else metric.words.capitalize()
    picture = draw(cost, "cost")
    return Figure(f"{heading} against cost", picture, caption, "stages.csv", _table(cost))


def cost_of(plan_state: PlanState, rated: Sequence[Rated] = ()) -> Cost:
    """Every configuration with a mean; of one in several stages the last mean."""
    found: dict[Configuration, tuple[float, Option]] = {}
    for stage in plan_state.stages:
        found |= {o.configuration: (o.score.mean, o) for o in stage.options if o.score is not None}
    sign = plan_state.metric.sign
    ranked = [o for _, o in sorted(found.values(), key=lambda entry: -sign * entry[0])]
    verdicts = {one.configuration: "not clearly worse" for one in rated if not one.worse}
    if (least := smallest(rated)) and len(rated) > 1:
        verdicts[least.configuration] = "smallest that is not clearly worse"
    places = [
        _place(option, "other" if number else "best", plan_state, verdicts)
        for number, option in enumerate(ranked[:MOST_PLACES])
    ]
    return Cost(tuple(places), len(ranked), plan_state.metric)


def _place(
    option: Option, rank: Kind, plan_state: PlanState, verdicts: Mapping[Configuration, str]
) -> Place:
    assert option.score is not None
    return Place(
        label=units.params(option.configuration),
        kind="selected" if option.configuration == plan_state.incumbent else rank,
        seconds=_average(trial.attributes.get("seconds") for trial in option.rows),
        parameters=_average(trial.attributes.get("parameters") for trial in option.rows),
        mean=option.score.mean,
        error=option.score.standard_error,
        size=_average(trial.attributes.get("size") for trial in option.rows),
        milliseconds=_average(trial.attributes.get("milliseconds") for trial in option.rows),
        verdict=verdicts.get(option.configuration, ""),
    )


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _table(cost: Cost) -> Table:
    lines = (
        (
            place.label,
            "" if place.seconds is None else f"{place.seconds:.1f}",
            "" if place.parameters is None else f"{place.parameters:,.0f}",
            "" if place.size is None else size_text(round(place.size)),
            "" if place.milliseconds is None else f"{place.milliseconds:.3g}",
            units.mean(place.mean, place.error, cost.metric),
            ", ".join(filter(None, [_KINDS[place.kind], place.verdict])),
        )
        for place in cost.places
    )
    costs = "seconds a run", "parameters", "size", "ms a picture"
    columns = ("configuration", *costs, "mean ± error", "verdict")
    return table("Cost of each configuration", columns, lines, cost.total)


def draw(cost: Cost, name: str) -> Picture:
    """Means against the two costs, side by side; the answer is drawn last, above the others."""
    metric, few = cost.metric, len(cost.places) <= _MANY
    order = ("other", "best", "selected")
    places = sorted(cost.places, key=lambda place: order.index(place.kind))
    measures = ["seconds", "parameters"]
    measures += ["milliseconds"] if any(place.milliseconds for place in places) else []
    with blank(3.0, columns=len(measures)) as (canvas, left):
        for axes, measure in zip(canvas.axes, measures, strict=True):
            known = [(x, place) for place in places if (x := getattr(place, measure))]
            for x, place in known:
                marked = place.kind != "other"
                error = place.error if marked or few else None
                axes.errorbar(
                    [x],
                    [metric.scale * place.mean],
                    yerr=None if error is None else [metric.scale * error],
                    fmt="D" if marked else "o",
                    color=KINDS[place.kind],
                    markerfacecolor=KINDS[place.kind] if place.verdict else "none",
                    markersize=6 if marked else 4,
                    elinewidth=1,
                )
            costs = [x for x, _ in known]
            if costs and max(costs) > 20 * min(costs):
                axes.set_xscale("log")
            else:
                axes.locator_params(axis="x", nbins=6)
            axes.set_xlabel(_AXES[measure])
        end_at_100(left.yaxis, metric)
        left.set_ylabel(f"mean {metric.axis}")
        against = units.listed(measures)
        alt = f"Mean {metric.words} of {len(places)} configurations against {against}"
        return rendered(canvas, name, alt)
