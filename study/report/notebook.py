"""Tables and figures of a study for a notebook: HTML, each figure with a description in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, overload

import numpy as np

from study.plan.plan import Stage
from study.plan.race import Race
from study.plan.strategies import STRATEGIES
from study.report.canvas import Figure
from study.report.contents import Contents
from study.report.curves import curve_figures
from study.report.effects import Effect, Level, effects
from study.report.racing import effects_figure, effects_figures
from study.report.stages import stage_figure
from study.text.tables import Table
from study.text.view import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Plots(Sequence["Canvas"]):
    """Figures of matplotlib, in order; a notebook shows each as a picture with its description.

    ``plots[0].savefig("stage.svg")`` writes one to a file.
    """

    _figures: tuple[Figure, ...]

    @overload
    def __getitem__(self, place: int) -> Canvas: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Canvas]: ...
    def __getitem__(self, place: int | slice) -> Canvas | Sequence[Canvas]:
        return [_titled(figure) for figure in self._figures][place]

    def __len__(self) -> int:
        return len(self._figures)

    @property
    def descriptions(self) -> tuple[str, ...]:
        """Each figure in words."""
        return tuple(figure.picture.alt for figure in self._figures)

    def __repr__(self) -> str:
        return f"Plots({', '.join(figure.heading for figure in self._figures)})"

    def _repr_html_(self) -> str:
        return "\n".join(map(_html, self._figures)) or "<p>No run has been trained yet.</p>"


def plots(contents: Contents, what: str) -> Plots:
    """The figures of this kind, one of `KINDS`."""
    return Plots(KINDS[what](contents))


def table_html(table: Table) -> str:
    """A table with its caption; the cells are escaped."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    lines = [
        f"<tr{' style=font-weight:bold' if place == table.bold else ''}>"
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>"
        for place, line in enumerate(table.lines)
    ]
    hidden = table.total - len(table.lines)
    more = f"<p>and {hidden:,} more; stages() has all</p>" if hidden else ""
    return (
        f"<table><caption><b>{escape(table.caption)}</b></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"
    )


def _titled(figure: Figure) -> Canvas:
    """The figure of matplotlib, with its heading as title: it has no page around it."""
    canvas = figure.picture.canvas
    assert canvas is not None
    if not canvas.get_suptitle():
        canvas.set_layout_engine("constrained")  # it makes room for the title
        canvas.suptitle(figure.heading, parse_math=False, fontsize=11, fontweight="bold")
    return canvas


def _html(figure: Figure) -> str:
    image = io.BytesIO()
    _titled(figure).savefig(image, format="png", dpi=110, facecolor="white")
    source = base64.b64encode(image.getvalue()).decode()
    caption = escape(" ".join([figure.caption, *figure.sentences]))
    return (
        f'<figure><img alt="{escape(figure.picture.alt)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _stages(contents: Contents) -> tuple[Figure, ...]:
    stages = contents.plan_state.stages
    repeats = int(contents.settings.repeats)
    return tuple(stage_figure(stage, repeats, place) for place, stage in enumerate(stages, 1))


def _curves(contents: Contents) -> tuple[Figure, ...]:
    return curve_figures(contents.plan_state, contents.rows)


def _effects(contents: Contents) -> tuple[Figure, ...]:
    """What a sweep measured of each hyperparameter, or what a race's model estimates of it."""
    state, settings = contents.plan_state, contents.settings
    if state.incumbent is None:
        return ()
    if settings["sampler"] == "sweep":
        measured = [effect for stage in state.stages if (effect := _measured(stage))]
        caption = (
            f"Mean {state.metric.words} of each option with the other hyperparameters as its stage "
            "had them, with 95 % intervals; stopped options have none. Blue is the value of the "
            "answer."
        )
        answer = dict(state.incumbent)
        return (effects_figure(measured, answer, state.metric, caption),) if measured else ()
    found = contents.effects
    if state.race is None:
        model = STRATEGIES["race"].make(settings)
        assert isinstance(model, Race)
        found = effects(model, contents.rows)
    return () if found is None else effects_figures(found, state.incumbent, state.metric)


def _measured(stage: Stage) -> Effect | None:
    """The options of a decided stage of a sweep that have a mean."""
    if stage.kind != "hyperparameter" or stage.selected is None:
        return None
    levels = tuple(
        Level(option.value, mean, *(interval(score, stage.metric) or (mean, mean)))
        for option in stage.options
        if (score := option.score) is not None
        for mean in (score.mean,)
    )
    return Effect(stage.name, levels, float(np.std([level.accuracy for level in levels])))


KINDS: Mapping[str, Callable[[Contents], tuple[Figure, ...]]] = {
    "stages": _stages,
    "curves": _curves,
    "effects": _effects,
}
"""What can be plotted."""
