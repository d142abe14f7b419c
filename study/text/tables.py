"""Tables that terminal, dashboard and report show, each in its own form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table as RichTable
from rich.text import Text

from study.plan.plan import PlanState, Stage
from study.space.metric import Metric
from study.text import sentences, units
from study.text.view import COLUMNS, leading

if TYPE_CHECKING:
    from study.plan.race.result import RaceResult

MOST_OPTIONS = 25
"""Options of a stage that a table shows."""


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, the names of columns, and lines of cells as text.

    ``total`` counts the lines that were left out too; ``bold`` is
    the place of the line to emphasise. A terminal prints a table as it is.
    """

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    total: int
    bold: int | None = None

    def __rich__(self) -> RichTable:
        made = RichTable(title=Text(self.caption), title_justify="left", title_style="bold")
        if hidden := self.total - len(self.lines):
            made.caption = f"and {hidden:,} more (status --json prints all)"
            made.caption_justify = "left"
        for column in self.columns:
            plain = column in {self.columns[-1], "configuration"}
            made.add_column(Text(column), justify="left" if plain else "right")
        for place, line in enumerate(self.lines):
            made.add_row(*map(Text, line), style="bold" if place == self.bold else "")
        return made


def table(
    caption: str, columns: Sequence[str], lines: Iterable[Sequence[str]], total: int | None = None
) -> Table:
    """A table of these lines, of ``total`` ones where more were left out."""
    cells = tuple(tuple(line) for line in lines)
    return Table(caption, tuple(columns), cells, len(cells) if total is None else total)


def stage_table(
    stage: Stage, repeats: int, most: int = MOST_OPTIONS, columns: Sequence[str] = COLUMNS
) -> Table:
    """The options of a stage, a line each: at most ``most``, of more than that the best."""
    shown = leading(stage, most)
    cells = [view.cells(repeats) for view in shown]
    lines = tuple(tuple(line[column] for column in columns) for line in cells)
    selected = (place for place, view in enumerate(shown) if view.kind == "selected")
    caption = stage.name if stage.decided else f"{stage.name} (open)"
    return Table(caption, tuple(columns), lines, len(stage.options), next(selected, None))


def contenders(result: RaceResult, metric: Metric) -> Table:
    """The leader of a race, and the others that were trained the longest beside it."""
    leader = units.score(result.score, metric) if result.score else "leads"
    lines = [(units.params(result.leader), leader)]
    lines += [
        (units.params(one.configuration), sentences.lag(one, metric)) for one in result.contenders
    ]
    return table("leading configurations", ("configuration", metric.words), lines)


def stage_tables(plan_state: PlanState, repeats: int) -> list[Table]:
    """A table for every stage so far; of a race one of the configurations that lead."""
    if plan_state.race is not None:
        return [contenders(plan_state.race, plan_state.metric)]
    return [stage_table(stage, repeats) for stage in plan_state.stages]
