"""The stages of a study as tables of the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from study.plan.plan import PlanState, Stage
from study.text.view import COLUMNS, views


def stage_table(stage: Stage, repeats: int) -> Table:
    """The options of a stage, a line each."""
    state = "" if stage.decided else " (open)"
    table = Table(title=f"{stage.name}{state}", title_justify="left", title_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[-1] else "right")
    for view in views(stage):
        selected = stage.decided and view.option == stage.selected
        table.add_row(*view.cells(repeats), style="bold" if selected else "")
    return table


def stages(standing: PlanState, repeats: int) -> RenderableType:
    """Every stage so far, one table below the other."""
    return Group(*(stage_table(stage, repeats) for stage in standing.stages))
