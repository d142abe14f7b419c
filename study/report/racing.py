"""The figures of a race: leading configurations, effects of hyperparameters, interactions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.plan.contenders import Contender
from study.plan.race.result import RaceResult
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
from study.report.effects import Effect, Effects, Pair
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
    result: RaceResult, answer: Configuration, effects: Effects | None, metric: Metric
) -> tuple[Figure, ...]:
    """The figures of a race, in the order of the page."""
    made = (contenders_figure(result, metric),)
    return made if effects is None else made + effects_figures(effects, answer, metric)


def effects_figures(effects: Effects, answer: Configuration, metric: Metric) -> tuple[Figure, ...]:
    """Effects and interactions, as the model of a race estimates them from all runs."""
    caption = (
        f"Mean {metric.words} at the end of a run over all configurations with that value, with "
        "95 % intervals; the hyperparameter with the largest effect first. Blue is the value of "
        "the answer."
    )
    main = effects_figure(effects.main, dict(answer), metric, caption)
    return (main, _pairs(effects.pairs, metric)) if effects.pairs else (main,)


def contenders_figure(result: RaceResult, metric: Metric) -> Figure:
    """The paired differences that a race decides by."""
    caption = (
        f"Mean of the paired differences of {metric.words} to the leader, which is blue. A diamond "
        "is of complete runs, with a 95 % interval where there are two pairs or more; a circle is "
        "of runs that were paused, after as many epochs as the table says."
    )
    picture = _drawn(result, metric)
    numbers = tables.contenders(result, metric)
    return Figure("The leading configurations", picture, caption, "stages.csv", numbers)


def _drawn(result: RaceResult, metric: Metric) -> Picture:
    shown = [Contender(result.leader, 0, 0, 0.0), *result.contenders]
    called = differing([one.configuration for one in shown])
    with blank(0.9 + 0.3 * len(shown)) as (canvas, axes):
        for place, one in enumerate(shown):
            whole = place == 0 or one.complete
            colour = SELECTED if place == 0 else OTHER if whole else MUTED
            value = -metric.scale * one.behind
            axes.plot([value], [place], marker="D" if whole else "o", color=colour, markersize=6)
            if one.standard_error is not None:
                half = 1.96 * metric.scale * one.standard_error
                axes.plot([value - half, value + half], [place, place], color=colour, linewidth=2.2)
        axes.axvline(0.0, color=SELECTED, linewidth=0.8)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks(range(len(shown)), [short(called[one.configuration]) for one in shown])
        axes.set_xlabel(f"ahead of the leader{' (points)' if metric.is_accuracy else ''}")
        axes.grid(visible=False, axis="y")
        alt = f"{len(shown)} leading configurations: distances to the leader"
        return rendered(canvas, "contenders", alt)


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
