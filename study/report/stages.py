"""The figure of a stage: every option with its runs and mean, and its gap to the best option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from study.plan.plan import Stage
from study.report.canvas import (
    KINDS,
    MUTED,
    Figure,
    Picture,
    blank,
    end_at_100,
    file_part,
    least,
    rendered,
    short,
)
from study.space.architecture import OUT
from study.space.metric import Metric
from study.text import sentences as words
from study.text.tables import MOST_OPTIONS, stage_table
from study.text.view import OptionView, leading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    *("option", "runs", "values", "stopped at"),
    *("mean ± error", "95 % interval", "gap to best", "verdict"),
)
"""The columns of a stage's table: all of `OptionView.cells`."""


def stage_figure(stage: Stage, repeats: int, place: int) -> Figure:
    """The figure of the stage at this place, counted from 1; at most `MOST_OPTIONS` are drawn."""
    shown = leading(stage, MOST_OPTIONS)
    total = len(stage.options)
    caption = f"{stage.metric.words.capitalize()} of {len(shown)} options."
    if len(shown) < total:
        caption += f" {len(shown)} of {total} are drawn: those with the best means."
    return Figure(
        stage.name,
        draw(stage, shown, f"stage-{place}-{file_part(stage.name)}"),
        caption,
        "stages.csv",
        stage_table(stage, repeats, MOST_OPTIONS, COLUMNS),
        (words.outcome(stage), *words.eliminated(stage)[:MOST_OPTIONS]),
    )


def draw(stage: Stage, shown: Sequence[OptionView], name: str) -> Picture:
    """On the left runs, means and intervals; on the right the paired gaps that decide."""
    metric, count = stage.metric, len(shown)
    gaps = any(view.gap for view in shown)
    widths = (5, 3) if gaps else None
    with blank(0.75 + 0.34 * count, columns=2 if gaps else 1, widths=widths) as (canvas, axes):
        low, high = _limits(shown, metric)
        for place, view in enumerate(shown):
            _option(axes, view, place, low if metric.sign > 0 else high)
        axes.set_xlim(low, high)
        axes.set_ylim(count - 0.4, -0.6)
        axes.set_yticks(range(count), [short(view.label) for view in shown])
        for tick, view in zip(axes.get_yticklabels(), shown, strict=True):
            tick.set_fontweight("bold" if view.kind == "selected" else "normal")
        end_at_100(axes.xaxis, metric)
        axes.set_xlabel(metric.axis)
        if gaps:
            _gaps(canvas.axes[1], shown, metric, high - low)
        for each in canvas.axes:
            each.grid(visible=False, axis="y")
        alt = f"Plot of the options of {stage.name}. {words.outcome(stage)}"
        return rendered(canvas, name, alt)


def _limits(shown: Sequence[OptionView], metric: Metric) -> tuple[float, float]:
    """The ends of the axis, in its unit: it shows the options that are close to the best one."""
    sign = metric.sign * metric.scale
    points = sorted(sign * value for view in shown for value in (*view.values, *view.stopped))
    if not points:
        return 0.0, float(metric.scale)
    best, middle = points[-1], points[len(points) // 2]
    small = least(metric, best)
    low = max(points[0], best - max(10 * small, 5 * (best - middle)))
    ends = [sign * end for view in shown for end in view.interval or ()]
    room = max(best - low, small)
    low = max(min([low, *ends]), low - room)
    high = min(max([best, *ends]), best + room)
    margin = 0.06 * max(high - low, small)
    low, high = low - margin, high + margin
    return (low, high) if sign > 0 else (-high, -low)


def _option(axes: Axes, view: OptionView, place: int, worst: float) -> None:
    """One option: circles are runs, crosses stopped runs, the diamond is the mean."""
    colour, metric = KINDS[view.kind], view.metric

    def outside(value: float) -> bool:
        return metric.sign * (metric.scale * value - worst) < 0

    if view.option.failure is not None:
        out = view.option.failure.startswith(OUT)
        said = "out" if out else "failed"
        axes.annotate(said, (0.02, place), xycoords=("axes fraction", "data"), color=MUTED)
    if view.interval is not None:
        ends = [metric.scale * end for end in view.interval]
        axes.plot(ends, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    for values, marker in ((view.values, "o"), (view.stopped, "x")):
        inside = [metric.scale * value for value in values if not outside(value)]
        axes.plot(
            inside,
            [place + 0.22] * len(inside),
            linestyle="none",
            marker=marker,
            markersize=5,
            markerfacecolor="none",
            markeredgecolor=MUTED,
            markeredgewidth=1.1,
        )
    if any(map(outside, (*view.values, *view.stopped))):
        mark = "<" if metric.sign > 0 else ">"
        axes.plot([worst], [place + 0.22], marker=mark, color=MUTED, markersize=5, clip_on=False)
    if view.mean is not None and not outside(view.mean):
        axes.plot([metric.scale * view.mean], [place], marker="D", color=colour, markersize=6)


def _gaps(axes: Axes, shown: Sequence[OptionView], metric: Metric, span: float) -> None:
    """How far each mean is behind the best one, in pairs, with one standard error."""
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, view in enumerate(shown):
        if view.gap is None:
            continue
        gap, error = metric.scale * view.gap.mean, view.gap.standard_error
        if gap > span:
            axes.plot([span], [place], marker=">", color=MUTED, markersize=5, clip_on=False)
            continue
        axes.errorbar(
            [gap],
            [place],
            xerr=None if error is None else [metric.scale * error],
            fmt="D",
            color=KINDS[view.kind],
            markersize=5,
            elinewidth=1.6,
        )
    axes.set_xlim(right=min(axes.get_xlim()[1], span))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"behind the best mean,{metric.points}".rstrip(","))
