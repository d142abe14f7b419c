"""The stages of a study as tables of the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from study.plan.plan import PlanState, Stage
from study.space.metric import Metric
from study.text import units
from study.text.view import COLUMNS, foremost, views

if TYPE_CHECKING:
    from study.plan.race.result import RaceResult

MOST_OPTIONS = 25
"""Options of a stage that a table shows."""


def stage_table(stage: Stage, repeats: int, most: int = MOST_OPTIONS) -> Table:
    """The options of a stage, a line each: at most ``most``, of more than that the best."""
    state = "" if stage.decided else " (open)"
    hidden = len(stage.options) - most
    table = Table(title=f"{stage.name}{state}", title_justify="left", title_style="bold")
    if hidden > 0:
        table.caption = f"and {hidden:,} more (status --json prints all)"
        table.caption_justify = "left"
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[-1] else "right")
    for view in foremost(stage, most) if hidden > 0 else views(stage):
        selected = stage.decided and view.option == stage.selected
        table.add_row(*view.cells(repeats), style="bold" if selected else "")
    return table


def contenders(verdict: RaceResult, metric: Metric) -> Table:
    """The leading configurations of a race, with their probability to be the best."""
    table = Table(title="leading configurations", title_justify="left", title_style="bold")
    table.add_column("configuration")
    table.add_column("best with", justify="right")
    table.add_column(metric.words, justify="right")
    for one in verdict.top:
        mean = units.mean(one.value, one.standard_error, metric)
        table.add_row(units.params(one.configuration), f"{100 * one.probability:.0f} %", mean)
    return table


def stages(plan_state: PlanState, repeats: int) -> RenderableType:
    """Every stage so far, one table below the other; of a race those that lead."""
    if plan_state.race is not None:
        return contenders(plan_state.race, plan_state.metric)
    return Group(*(stage_table(stage, repeats) for stage in plan_state.stages))
