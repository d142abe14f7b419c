"""The figures of a race: leading configurations, effects of hyperparameters, interactions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.plan.race.effects import Effect, Effects, Pair
from study.plan.race.result import Contender, RaceResult
from study.plan.results import Configuration
from study.report.canvas import (
    MUTED,
    OTHER,
    SELECTED,
    Figure,
    Picture,
    blank,
    end_at_100,
    rendered,
    short,
)
from study.space.metric import Metric
from study.space.search_space import Value
from study.text import tables, units
from study.text.tables import table
from study.text.view import differing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EFFECTS, MOST_PAIRS = 8, 10
"""Hyperparameters and pairs that are drawn; of more, those with the largest effects."""

_COLUMNS = 4
_FEW = 6  # values that are drawn and labelled one by one


def race_figures(
    verdict: RaceResult, answer: Configuration, effects: Effects | None, metric: Metric
) -> tuple[Figure, ...]:
    """The figures of a race, in the order of the page."""
    made = [_contenders(verdict, answer, metric)]
    made += effects_figures(effects, answer, metric) if effects is not None else []
    return tuple(made)


def effects_figures(effects: Effects, answer: Configuration, metric: Metric) -> tuple[Figure, ...]:
    """Effects and interactions, as the model of a race estimates them from all runs."""
    caption = (
        f"Mean {metric.words} at the end of a run over all configurations with that value, with "
        "95 % intervals; the hyperparameter with the largest effect first. Blue is the value of "
        "the answer."
    )
    main = effects_figure(effects.main, dict(answer), metric, caption)
    return (main, _pairs(effects.pairs, metric)) if effects.pairs else (main,)


def _contenders(verdict: RaceResult, answer: Configuration, metric: Metric) -> Figure:
    caption = (
        f"Probability to be the best of all configurations, and {metric.words} at the end of a run "
        "with 95 % intervals, estimated from all runs, also those of similar configurations. Blue "
        "is the answer: the configuration with the best expected value."
    )
    picture = _draw_contenders(verdict, answer, metric)
    numbers = tables.contenders(verdict, metric)
    return Figure("The leading configurations", picture, caption, "stages.csv", numbers)


def _draw_contenders(verdict: RaceResult, answer: Configuration, metric: Metric) -> Picture:
    """The probability to be the best as a bar, and beside it the interval of the metric."""
    called = differing([one.configuration for one in verdict.top])
    with blank(0.9 + 0.3 * len(verdict.top), columns=2) as (canvas, left):
        right = canvas.axes[1]
        for place, one in enumerate(verdict.top):
            colour = SELECTED if one.configuration == answer else OTHER
            left.barh([place], [100 * one.probability], height=0.6, color=colour)
            low, high = _interval(one, metric)
            right.plot(
                [metric.scale * low, metric.scale * high],
                [place, place],
                color=colour,
                linewidth=2.2,
            )
            right.plot([metric.scale * one.value], [place], marker="D", color=colour, markersize=6)
        left.set_ylim(len(verdict.top) - 0.4, -0.6)
        names = [short(called[one.configuration]) for one in verdict.top]
        left.set_yticks(range(len(names)), names)
        left.set_xlim(0, 100)
        left.set_xlabel("probability to be the best, %")
        right.set_xlabel(metric.axis)
        right.locator_params(axis="x", nbins=5)
        end_at_100(right.xaxis, metric)
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        alt = f"The {len(names)} leading configurations: probability to be the best, {metric.words}"
        return rendered(canvas, "contenders", alt)


def _interval(one: Contender, metric: Metric) -> tuple[float, float]:
    half = 1.96 * one.standard_error
    return metric.bounded(one.value - half, one.value + half)


def effects_figure(
    main: Sequence[Effect], answer: Mapping[str, Value], metric: Metric, caption: str
) -> Figure:
    """The effect of each hyperparameter, one panel each; blue is the value of the answer."""
    drawn = main[:MOST_EFFECTS]
    rows = math.ceil(len(drawn) / _COLUMNS)
    columns = math.ceil(len(drawn) / rows)
    with blank(0.4 + 2.0 * rows, columns=columns, rows=rows) as (canvas, first):
        for axes, effect in zip(canvas.axes, drawn, strict=False):
            _effect(axes, effect, answer[effect.name], metric.scale)
        for axes in canvas.axes[len(drawn) :]:
            axes.set_axis_off()
        for row in range(rows):
            canvas.axes[row * columns].set_ylabel(metric.axis)
        end_at_100(first.yaxis, metric)
        alt = f"Effects of {units.listed([effect.name for effect in drawn])} on {metric.words}"
        picture = rendered(canvas, "effects", alt)
    lines = (
        (
            effect.name,
            units.value(level.value),
            metric.number(level.accuracy),
            f"{metric.number(level.low)} to {metric.number(level.high)}",
            "of the answer" if level.value == answer[effect.name] else "",
        )
        for effect in main
        for level in effect.levels
    )
    names = ("hyperparameter", "value", f"mean{metric.column}", "95 % interval", "")
    if len(drawn) < len(main):
        caption += f" {len(drawn)} of {len(main)} are drawn: those with the largest effects."
    numbers = table("Effects", names, lines)
    return Figure("The effect of each hyperparameter", picture, caption, "stages.csv", numbers)


def _effect(axes: Axes, effect: Effect, own: Value, scale: int) -> None:
    """One hyperparameter: a mark for each value, or a line with a band if there are many."""
    levels = effect.levels
    places = range(len(levels))
    middle = [scale * level.accuracy for level in levels]
    ends = [scale * level.low for level in levels], [scale * level.high for level in levels]
    here = _nearest([level.value for level in levels], own)
    if len(levels) <= _FEW:
        for place in places:
            colour = SELECTED if place == here else OTHER
            axes.plot([place, place], [end[place] for end in ends], color=colour, linewidth=2.2)
            axes.plot([place], [middle[place]], marker="D", color=colour, markersize=5)
        marked = list(places)
    else:
        axes.fill_between(places, *ends, color=OTHER, alpha=0.35, linewidth=0)
        axes.plot(places, middle, color=MUTED, linewidth=1.2)
        axes.plot([here], [middle[here]], marker="D", color=SELECTED, markersize=5)
        marked = [0, (len(levels) - 1) // 2, len(levels) - 1]
    axes.set_xticks(marked, [short(units.value(levels[place].value))[:9] for place in marked])
    axes.margins(x=0.15 if len(levels) <= _FEW else 0.02)
    axes.grid(visible=False, axis="x")
    axes.set_title(short(effect.name)[:22])


def _nearest(values: list[Value], own: Value) -> int:
    """The place of the answer's value, or of the value closest to it in a thinned range."""
    if own in values:
        return values.index(own)
    numbers = [float(value) for value in values]
    return min(range(len(numbers)), key=lambda place: abs(numbers[place] - float(own)))


def _pairs(pairs: tuple[Pair, ...], metric: Metric) -> Figure:
    drawn = pairs[:MOST_PAIRS]
    names = [" and ".join(pair.names) for pair in drawn]
    points = " (points)" if metric.is_accuracy else ""
    with blank(0.8 + 0.28 * len(drawn)) as (canvas, axes):
        for place, pair in enumerate(drawn):
            axes.barh([place], [metric.scale * pair.shown], height=0.6, color=MUTED)
            ends = [metric.scale * pair.shown, metric.scale * pair.possible]
            axes.plot(ends, [place, place], color=OTHER, linewidth=1.6, zorder=1)
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(drawn)), [short(name) for name in names])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"interaction in {metric.words}{points}")
        picture = rendered(canvas, "pairs", f"The {len(drawn)} strongest pairs of hyperparameters")
    lines = (
        (" and ".join(pair.names), metric.number(pair.shown), metric.number(pair.possible))
        for pair in pairs
    )
    columns = ("pair", f"estimate{points}", f"at most{points}")
    caption = (
        "How much the best value of one hyperparameter depends on the other: the standard "
        "deviation over their values of the effect of both beyond the sum of their single "
        "effects. The bar is the estimate from the runs; the line ends at the most that the runs "
        "leave possible."
    )
    if len(drawn) < len(pairs):
        caption += f" {len(drawn)} of {len(pairs)} are drawn: the strongest."
    numbers = table("Pairs", columns, lines)
    return Figure("Interactions of pairs", picture, caption, "stages.csv", numbers)
