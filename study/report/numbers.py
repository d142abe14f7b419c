"""The test set's table, and everything as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from study.files import csv_cell
from study.final.records import FinalModel
from study.plan.plan import PlanState
from study.plan.results import StoredTrial
from study.report.curves import end
from study.space.metric import Metric
from study.text import units
from study.text.tables import Table, table
from study.text.view import records


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
    """A line for every option of every stage; accuracies are fractions."""
    found = [
        record
        | {
            "values": " ".join(map(str, record["values"])),
            "configuration": units.params(record["configuration"]),
        }
        for record in records(plan_state.stages)
    ]
    return _csv(found[0], (record.values() for record in found))


def runs_csv(trials: Sequence[StoredTrial], metric: Metric) -> str:
    """A line for every run; accuracies are fractions, the metric of all epochs is one field."""
    costs = ("seconds", "parameters", "size", "milliseconds", "milliseconds_error")
    attributes = ("best_epoch", f"best_{metric.name}", *costs)
    columns = ("trial", "stage", "option", "configuration", "repeat", "state", "value", "epochs")
    lines = (
        (
            trial.number,
            trial.stage,
            trial.option,
            units.params(trial.configuration),
            trial.repeat + 1,
            end(trial),
            trial.value,
            len(trial.reported),
            *map(trial.attributes.get, attributes),
            trial.started and trial.started.isoformat(timespec="seconds"),
            trial.failure or trial.cancelled,
            " ".join(map(str, trial.reported)),
        )
        for trial in trials
    )
    return _csv((*columns, *attributes, "started", "reason", metric.name), lines)


def _csv(columns: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows(map(csv_cell, line) for line in lines)
    return text.getvalue()
