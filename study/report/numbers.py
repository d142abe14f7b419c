"""The numbers of a report: each figure's as a table to read, everything as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.final.records import FinalModel
from study.plan.plan import PlanState
from study.plan.results import StoredTrial
from study.report.figures import Cost, Panel, Spent, StageFigure, end
from study.space.metric import Metric
from study.text import units
from study.text.view import views


@dataclass(frozen=True, slots=True)
class Table:
    """A table in words: its caption, the names of its columns, its lines, how many there are.

    A figure's table has what the figure draws, which may be fewer than there are.
    """

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    total: int


def table(
    caption: str,
    columns: Sequence[str],
    lines: Iterable[Sequence[str]],
    total: int | None = None,
) -> Table:
    """A table of these lines, of ``total`` ones where more were left out."""
    cells = tuple(tuple(line) for line in lines)
    return Table(caption, tuple(columns), cells, len(cells) if total is None else total)


def stage_table(figure: StageFigure) -> Table:
    """The options of a stage with their repeats, means, intervals and verdicts."""
    metric = figure.metric
    columns = ("option", f"runs{metric.column}", f"stopped at{metric.column}")
    lines = (
        (
            choice.label,
            "; ".join(map(metric.number, choice.values)),
            "; ".join(map(metric.number, choice.stopped)),
            choice.score,
            " to ".join(map(metric.number, choice.interval or ())),
            units.gap(choice.gap, metric),
            choice.verdict,
        )
        for choice in figure.choices
    )
    gap = "gap to best (points)" if metric.is_accuracy else "gap to best"
    more = ("mean ± standard error", "95 % interval", gap, "verdict")
    return table(f"Options of {figure.name}", (*columns, *more), lines, figure.options)


def curves_table(panel: Panel) -> Table:
    """A line a run that is drawn, with its metric after every epoch."""
    epochs = max((len(line.values) for line in panel.lines), default=0)
    lines = (
        (
            str(line.number),
            line.label,
            str(line.repeat + 1),
            f"{line.end}, from an earlier stage" if line.reused else line.end,
            *map(panel.metric.number, line.values),
            *[""] * (epochs - len(line.values)),
        )
        for line in panel.lines
    )
    columns = ("trial", "option", "repeat", "end", *map(str, range(1, epochs + 1)))
    what = f"{panel.metric.words.capitalize()}{panel.metric.column}"
    caption = f"{what} after each epoch, runs of {panel.name}"
    return table(caption, columns, lines, panel.runs)


def cost_table(cost: Cost) -> Table:
    """Every configuration that is drawn, the best mean first."""
    places = sorted(cost.places, key=lambda place: -cost.metric.sign * place.mean)
    lines = (
        (
            place.label,
            "" if place.seconds is None else f"{place.seconds:.1f}",
            "" if place.parameters is None else f"{place.parameters:,.0f}",
            units.mean(place.mean, place.error, cost.metric),
            {"selected": "the answer", "best": "best mean", "other": ""}[place.kind],
        )
        for place in places
    )
    columns = ("configuration", "seconds a run", "parameters", "mean ± standard error", "")
    return table("Cost of each configuration", columns, lines, cost.configurations)


def savings_table(spent: Spent) -> Table:
    """What did not have to be trained."""
    lines = [(s.why, str(s.runs), str(s.epochs)) for s in spent.savings]
    return table("Not trained", ("what", "runs", "epochs"), lines)


def finals_table(finals: Sequence[FinalModel]) -> Table:
    """The final models with their values on the test set."""
    lines = [
        (
            final.model,
            "; ".join(map(units.params, final.configurations)),
            ("" if final.validation is None else final.metric.text(final.validation))
            + final.own_words("validation"),
            final.metric.text(final.value) + final.own_words(),
            f"{final.metric.text(final.low)} to {final.metric.text(final.high)}",
            str(final.images),
            final.opened,
        )
        for final in finals
    ]
    accuracy = all(final.measure == "accuracy" for final in finals)
    what = "accuracy" if accuracy else "mean absolute error"
    columns = ("model", "configuration", "held out", f"test {what}", "95 % interval")
    return table("Measured on the test set", (*columns, "test images", "opened"), lines)


def stages_csv(plan_state: PlanState) -> str:
    """A line an option of every stage; accuracies are fractions."""
    records = [
        {"stage": stage.name}
        | view.record()
        | {
            "values": " ".join(map(str, view.values)),
            "configuration": units.params(view.option.configuration),
        }
        for stage in plan_state.stages
        for view in views(stage)
    ]
    return _csv([list(records[0]), *(list(record.values()) for record in records)])


def runs_csv(rows: Sequence[StoredTrial], metric: Metric) -> str:
    """A line a run; accuracies are fractions, the metric after each epoch is in one field."""
    columns = ("trial", "stage", "option", "configuration", "repeat", "state", "value", "epochs")
    best = f"best_{metric.name}"
    more = ("best_epoch", best, "seconds", "parameters", "started", "why", metric.name)
    lines: list[Sequence[object]] = [(*columns, *more)]
    for row in rows:
        known = row.attributes
        lines.append(
            (
                row.number,
                row.stage,
                row.option,
                units.params(row.configuration),
                row.repeat + 1,
                end(row),
                row.value,
                len(row.reported),
                *(known.get(name) for name in more[:4]),
                row.started.isoformat(timespec="seconds") if row.started else None,
                row.failure or row.cancelled,
                " ".join(map(str, row.reported)),
            )
        )
    return _csv(lines)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
