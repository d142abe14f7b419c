"""The figures of stages, learning curves and costs, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study.report.canvas import (
    KINDS,
    MUTED,
    OPTIONS,
    OTHER,
    Picture,
    blank,
    end_at_100,
    rendered,
    short,
)
from study.report.figures import Cost, Line, Panel, StageFigure
from study.space.metric import Metric
from study.text.view import OptionView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_WORDS = {"selected": ", selected", "best": ", best mean", "other": ""}
_MANY = 60  # lines or points beyond which single ones are drawn finer


def draw_stage(figure: StageFigure, name: str) -> Picture:
    """Options of a stage against the metric: repeats, mean, interval."""
    count = len(figure.choices)
    with blank(0.75 + 0.34 * count) as (canvas, axes):
        metric = figure.metric
        low, high = _limits(figure.choices, metric)
        for place, choice in enumerate(figure.choices):
            _choice(axes, choice, place, low if metric.sign > 0 else high)
        axes.set_xlim(low, high)
        axes.set_ylim(count - 0.4, -0.6)
        axes.set_yticks(range(count), [short(choice.label) for choice in figure.choices])
        for tick, choice in zip(axes.get_yticklabels(), figure.choices, strict=True):
            tick.set_fontweight("bold" if choice.kind == "selected" else "normal")
        axes.grid(visible=False, axis="y")
        end_at_100(axes.xaxis, metric)
        axes.set_xlabel(metric.axis)
        alt = f"Plot of the options of {figure.name}. {figure.outcome}"
        return rendered(canvas, name, alt)


def _limits(choices: Sequence[OptionView], metric: Metric) -> tuple[float, float]:
    """The values, as they are drawn, between which an axis shows what is close to the best."""
    sign = metric.sign * metric.scale
    points = sorted(sign * v for c in choices for v in (*c.values, *c.stopped))
    if not points:
        return 0.0, float(metric.scale)
    best, middle = points[-1], points[len(points) // 2]
    least = _least(metric, best)
    low = max(points[0], best - max(10 * least, 5 * (best - middle)))
    ends = [sign * end for c in choices for end in c.interval or ()]
    room = max(best - low, least)
    low = max(min([low, *ends]), low - room)
    high = min(max([best, *ends]), best + room)
    margin = 0.06 * max(high - low, least)
    low, high = low - margin, high + margin
    return (low, high) if sign > 0 else (-high, -low)


def _least(metric: Metric, value: float) -> float:
    """What is little on the axis of a metric: 0.1 points, or as much of another's value."""
    return 0.1 if metric.is_accuracy else 1e-3 * abs(value) or 1e-3


def _choice(axes: Axes, choice: OptionView, place: int, worst: float) -> None:
    """One option: hollow points are runs, crosses stopped runs, the diamond is the mean."""
    colour, metric = KINDS[choice.kind], choice.metric

    def outside(value: float) -> bool:
        return metric.sign * (metric.scale * value - worst) < 0

    if choice.interval is not None:
        ends = [metric.scale * end for end in choice.interval]
        axes.plot(ends, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    for values, marker in ((choice.values, "o"), (choice.stopped, "x")):
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
    if any(map(outside, (*choice.values, *choice.stopped))):
        mark = "<" if metric.sign > 0 else ">"
        axes.plot([worst], [place + 0.22], marker=mark, color=MUTED, markersize=5, clip_on=False)
    if choice.mean is not None and not outside(choice.mean):
        axes.plot([metric.scale * choice.mean], [place], marker="D", color=colour, markersize=6)


def draw_curves(panel: Panel, name: str) -> Picture:
    """The learning curves of a stage; where a run was stopped it ends in a cross."""
    from matplotlib.ticker import MaxNLocator

    with blank(2.9) as (canvas, axes):
        colours = colours_of(panel)
        for line in panel.lines:
            values = [panel.metric.scale * value for value in line.values]
            _line(axes, line, values, colours[line.place], many=len(panel.lines) > _MANY)
        worst = _worst(panel.lines, panel.metric)
        if worst is not None:
            axes.set_ylim(*((worst, None) if panel.metric.sign > 0 else (None, worst)))
        end_at_100(axes.yaxis, panel.metric)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(panel.metric.axis)
        _legend(axes, panel, colours)
        stopped = sum(line.end == "pruned" for line in panel.lines)
        paused = sum(line.end == "paused" for line in panel.lines)
        alt = f"Learning curves of {len(panel.lines)} runs of {panel.name}, {stopped} stopped early"
        alt += f", {paused} paused" if paused else ""
        return rendered(canvas, name, alt)


def colours_of(panel: Panel) -> dict[int, str]:
    """The colour of each option of a panel by its place; of many, the selected and the best one."""
    kinds = {line.place: line.kind for line in panel.lines}
    others = [place for place in range(len(panel.options)) if kinds.get(place, "other") == "other"]
    free = OPTIONS if len(others) <= len(OPTIONS) else [OTHER] * len(others)
    named = {place: KINDS[kind] for place, kind in kinds.items()}
    return named | dict(zip(others, free, strict=False))


def _line(axes: Axes, line: Line, values: Sequence[float], colour: str, *, many: bool) -> None:
    epochs = range(1, len(values) + 1)
    many = many and line.kind != "selected"
    width = 2.0 if line.kind == "selected" else 0.5 if many else 1.2
    front = 3 if line.kind == "selected" else 2
    alpha = 0.5 if many else 1.0
    axes.plot(epochs, values, color=colour, linewidth=width, alpha=alpha, zorder=front)
    mark = {"pruned": "X", "failed": "v", "cancelled": "|", "running": "o", "paused": "o"}.get(
        line.end
    )
    if mark:
        axes.plot(
            epochs[-1:],
            values[-1:],
            marker=mark,
            markersize=4 if many else 7,
            color=MUTED if many else colour,
            markeredgewidth=0.5,
            fillstyle="none" if mark == "o" else "full",
        )


def _worst(lines: Sequence[Line], metric: Metric) -> float | None:
    """Where the axis ends: beyond nine tenths of what is seen after the first quarter."""
    sign = metric.sign * metric.scale
    late = sorted(sign * value for line in lines for value in line.values[len(line.values) // 4 :])
    if not late:
        return None
    low, high = late[len(late) // 20], late[-1]
    return metric.sign * (low - 0.25 * max(high - low, 2 * _least(metric, high)))


def _legend(axes: Axes, panel: Panel, colours: dict[int, str]) -> None:
    from matplotlib.lines import Line2D

    kinds = {line.place: line.kind for line in panel.lines}
    handles = [
        Line2D(
            [],
            [],
            color=colours[place],
            linewidth=2 if kind == "selected" else 1.2,
            label=short(panel.options[place]) + _WORDS[kind],
        )
        for place, kind in sorted(kinds.items())
        if colours[place] != OTHER
    ]
    signs = {"pruned": ("X", "stopped"), "failed": ("v", "failed"), "cancelled": ("|", "cancelled")}
    signs["paused"] = ("o", "paused")
    ends = {line.end for line in panel.lines}
    for end, (mark, word) in signs.items():
        if end in ends:
            handles.append(_sign(mark, word))
    if handles:
        up = panel.metric.sign > 0
        columns = min(4, len(handles))
        axes.legend(handles=handles, loc="lower right" if up else "upper right", ncols=columns)


def _sign(mark: str, word: str) -> Line2D:
    from matplotlib.lines import Line2D

    fill: Any = "none" if mark == "o" else "full"
    return Line2D([], [], color=MUTED, marker=mark, linestyle="none", fillstyle=fill, label=word)


def draw_cost(cost: Cost, name: str) -> Picture:
    """Means against the seconds of a run and against the number of parameters."""
    metric = cost.metric
    with blank(3.0, columns=2) as (canvas, left):
        right = canvas.axes[1]
        for axes, measure in ((left, "seconds"), (right, "parameters")):
            few = len(cost.places) <= _MANY
            xs = [getattr(place, measure) for place in cost.places]
            for place, x in zip(cost.places, xs, strict=True):
                if x is None:
                    continue
                error = place.error if place.kind != "other" or few else None
                axes.errorbar(
                    [x],
                    [metric.scale * place.mean],
                    yerr=None if error is None else [metric.scale * error],
                    fmt="D" if place.kind != "other" else "o",
                    color=KINDS[place.kind],
                    markersize=6 if place.kind != "other" else 4,
                    elinewidth=1,
                )
            known = [x for x in xs if x]
            if known and max(known) > 20 * min(known):
                axes.set_xscale("log")
            axes.set_xlabel("seconds a run" if measure == "seconds" else "parameters")
            axes.locator_params(axis="x", nbins=6) if axes.get_xscale() == "linear" else None
        end_at_100(left.yaxis, metric)
        left.set_ylabel(f"mean {metric.axis}")
        count = len(cost.places)
        alt = f"Mean {metric.words} of {count} configurations against seconds and parameters"
        return rendered(canvas, name, alt)
