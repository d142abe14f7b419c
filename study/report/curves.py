"""The figures of learning curves: a panel for each stage, a line for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from study.plan.plan import PlanState, Stage
from study.plan.results import Configuration, StoredTrial
from study.report.canvas import (
    KINDS,
    MUTED,
    OPTIONS,
    OTHER,
    Figure,
    Picture,
    blank,
    end_at_100,
    file_part,
    least,
    rendered,
    short,
    spaced,
)
from study.space.metric import Metric
from study.text.view import Kind, kind, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

MOST_LINES = 200
"""Learning curves in a panel; of more, evenly spaced ones in the order of trials."""

End = Literal["complete", "pruned", "failed", "running", "paused", "cancelled"]

_SIGNS: Mapping[str, tuple[str, str]] = {
    "pruned": ("X", "stopped"),
    "failed": ("v", "failed"),
    "cancelled": ("|", "cancelled"),
    "paused": ("o", "paused"),
}
"""How a run ended: the mark at the end of its line, and the word of the legend."""

_WORDS = {"selected": ", selected", "best": ", best mean", "other": ""}
_MANY = 60  # lines beyond which single ones are drawn finer


@dataclass(frozen=True, slots=True)
class Line:
    """A run's metric after each epoch, and how the run ended; ``option`` is its place."""

    number: int
    option: int
    repeat: int
    kind: Kind
    reused: bool
    end: End
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """The learning curves of one stage, with the labels of its options; ``runs`` counts all."""

    name: str
    options: tuple[str, ...]
    lines: tuple[Line, ...]
    runs: int
    metric: Metric


def curve_figures(plan_state: PlanState, trials: Sequence[StoredTrial]) -> tuple[Figure, ...]:
    """The figure of every panel."""
    return tuple(
        Figure(
            panel.name,
            draw(panel, f"curves-{place}-{file_part(panel.name)}"),
            caption(panel),
            "runs.csv",
        )
        for place, panel in enumerate(panels(plan_state, trials), start=1)
    )


def caption(panel: Panel) -> str:
    """The number of runs, and which of them are drawn."""
    drawn = len(panel.lines)
    if drawn == panel.runs:
        return f"{drawn} runs."
    return (
        f"{drawn} of {panel.runs} runs are drawn: evenly spaced ones in the order of trials, and "
        "those of the selected option."
    )


def panels(plan_state: PlanState, trials: Sequence[StoredTrial]) -> tuple[Panel, ...]:
    """A panel for each stage that has runs, also for one that is not reached yet."""
    own: dict[str, list[StoredTrial]] = {stage.name: [] for stage in plan_state.stages}
    for trial in trials:
        name = plan_state.stages[0].name if plan_state.race else trial.stage  # a race has one panel
        own.setdefault(name, []).append(trial)
    stages = {stage.name: stage for stage in plan_state.stages}
    made = [_panel(name, runs, stages.get(name), plan_state.metric) for name, runs in own.items()]
    return tuple(panel for panel in made if panel.runs)


def _panel(name: str, trials: Sequence[StoredTrial], stage: Stage | None, metric: Metric) -> Panel:
    options = stage.options if stage else ()
    listed = {trial.number for trial in trials}
    reused = [trial for one in options for trial in one.rows if trial.number not in listed]
    kinds = {one.configuration: kind(one, stage) for one in options} if stage else {}
    places: dict[Configuration, int] = {one.configuration: n for n, one in enumerate(options)}
    names = labels(stage) if stage else {}
    for trial in trials:
        places.setdefault(trial.configuration, len(places))
        names.setdefault(trial.configuration, str(trial.option))
    drawn = [trial for trial in (*reused, *trials) if trial.reported]
    selected = [trial for trial in drawn if kinds.get(trial.configuration) == "selected"]
    others = [trial for trial in drawn if kinds.get(trial.configuration) != "selected"]
    lines = tuple(
        Line(
            number=trial.number,
            option=places[trial.configuration],
            repeat=trial.repeat,
            kind=kinds.get(trial.configuration, "other"),
            reused=trial.number not in listed,
            end=end(trial),
            values=trial.reported,
        )
        for trial in [*spaced(others, MOST_LINES), *selected]
    )
    return Panel(name, tuple(names[one] for one in places), lines, len(drawn), metric)


def end(trial: StoredTrial) -> End:
    """How a run ended; one that was paused until the study ended is "paused", not "pruned"."""
    if trial.cancelled is not None:
        return "cancelled"
    return "paused" if trial.left_paused else trial.state


def draw(panel: Panel, name: str) -> Picture:
    """The learning curves of a stage; the mark at the end of a line says why it ended early."""
    from matplotlib.ticker import MaxNLocator

    with blank(2.9) as (canvas, axes):
        colours = colours_of(panel)
        for line in panel.lines:
            values = [panel.metric.scale * value for value in line.values]
            _line(axes, line, values, colours[line.option], many=len(panel.lines) > _MANY)
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
    """The colour of each option by its place; of many, only the selected and the best have one."""
    kinds = {line.option: line.kind for line in panel.lines}
    others = [place for place in range(len(panel.options)) if kinds.get(place, "other") == "other"]
    free = OPTIONS if len(others) <= len(OPTIONS) else [OTHER] * len(others)
    named = {place: KINDS[kind] for place, kind in kinds.items()}
    return named | dict(zip(others, free, strict=False))


def _line(axes: Axes, line: Line, values: Sequence[float], colour: str, *, many: bool) -> None:
    selected = line.kind == "selected"
    fine = many and not selected
    axes.plot(
        range(1, len(values) + 1),
        values,
        color=colour,
        linewidth=2.0 if selected else 0.5 if fine else 1.2,
        alpha=0.5 if fine else 1.0,
        zorder=3 if selected else 2,
    )
    if line.end != "complete":
        mark, _ = _SIGNS.get(line.end, ("o", "running"))
        axes.plot(
            [len(values)],
            values[-1:],
            marker=mark,
            markersize=4 if fine else 7,
            color=MUTED if fine else colour,
            markeredgewidth=0.5,
            fillstyle="none" if mark == "o" else "full",
        )


def _worst(lines: Sequence[Line], metric: Metric) -> float | None:
    """The end of the axis: nearly all values after the first quarter of a run lie inside."""
    sign = metric.sign * metric.scale
    late = sorted(sign * value for line in lines for value in line.values[len(line.values) // 4 :])
    if not late:
        return None
    low, high = late[len(late) // 20], late[-1]
    return metric.sign * (low - 0.25 * max(high - low, 2 * least(metric, high)))


def _legend(axes: Axes, panel: Panel, colours: Mapping[int, str]) -> None:
    from matplotlib.lines import Line2D

    kinds = {line.option: line.kind for line in panel.lines}
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
    ends = {line.end for line in panel.lines}
    handles += [_sign(*sign) for end, sign in _SIGNS.items() if end in ends]
    if handles:
        up = panel.metric.sign > 0
        columns = min(4, len(handles))
        axes.legend(handles=handles, loc="lower right" if up else "upper right", ncols=columns)


def _sign(mark: str, word: str) -> Line2D:
    from matplotlib.lines import Line2D

    fill: Any = "none" if mark == "o" else "full"
    return Line2D([], [], color=MUTED, marker=mark, linestyle="none", fillstyle=fill, label=word)
