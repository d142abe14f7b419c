"""A report as a folder: the page, its figures as PNG, its tables as CSV; written whole or not.

Every file is made before any is written, and the page is written last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from study.errors import ReportError
from study.files import csv_text, require_no_link, write_together
from study.plan.plan import PlanState
from study.plan.results import StoredTrial
from study.plan.strategies import rated
from study.report.canvas import Figure
from study.report.classes import known_figures
from study.report.contents import Contents, read
from study.report.cost import cost_figure
from study.report.curves import curve_figures, end
from study.report.page import Figures, page
from study.report.racing import race_figures
from study.report.stages import stage_figure
from study.space.metric import Metric
from study.storage.location import Database
from study.text import units
from study.text.view import records

PAGE = "report.html"


def report(database: Database, name: str | None, output: str | Path | None = None) -> Path:
    """Write the report of the study ``name`` (default: the newest one) and return its page.

    ``output`` is a folder, by default the study's `Location.report`. Raises ``StorageError`` if
    there is no such study, ``ReportError`` if the folder cannot be written.
    """
    contents = read(database, name)
    folder = Path(output) if output is not None else database.study(contents.name).report
    with _explained(folder):
        if output is None:
            require_no_link(folder)
            folder.parent.mkdir(exist_ok=True)
        _check(folder)
        write_together(folder, files(contents))
    return folder / PAGE


def files(contents: Contents) -> dict[str, bytes]:
    """Every file of a report by its name, the page last."""
    figures = figures_of(contents)
    texts = {
        "stages.csv": stages_csv(contents.plan_state),
        "runs.csv": runs_csv(contents.rows, contents.settings.metric),
        PAGE: page(contents, figures),
    }
    if contents.knowledge is not None:
        tables = contents.knowledge.confusion.tables
        texts = {name: table.decode() for name, table in tables.items()} | texts
    made = {f"{one.picture.name}.png": one.picture.png for group in figures for one in group}
    return made | {name: text.encode("utf-8", "replace") for name, text in texts.items()}


def figures_of(contents: Contents) -> Figures:
    """Every figure of a report, drawn; of a race those of its model in place of stages."""
    state, repeats = contents.plan_state, int(contents.settings.repeats)
    race: tuple[Figure, ...] = ()
    stages: tuple[Figure, ...] = ()
    if state.race is None:
        numbered = enumerate(state.stages, start=1)
        stages = tuple(stage_figure(stage, repeats, place) for place, stage in numbered)
    elif state.incumbent is not None:
        race = race_figures(state.race, state.incumbent, contents.effects, state.metric)
    cost = cost_figure(state, rated(contents.settings, state))
    curves = curve_figures(state, contents.rows)
    known = known_figures(contents.knowledge) if contents.knowledge is not None else ()
    return Figures(stages, race, curves, (cost,) if cost else (), known)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into one line about the folder."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise ReportError(
            f"{folder}: the report cannot be written ({why}); name another folder with --output"
        ) from None


def _check(folder: Path) -> None:
    """Raise, before anything is drawn, if the folder cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise ReportError(f"{folder}: is not a folder; name another one with --output")
    if not folder.parent.is_dir():
        raise ReportError(
            f"{folder.parent}: no such folder; create it or name another one with --output"
        )
    if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK | os.X_OK):
        raise PermissionError(None, "no permission to write")


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
    return csv_text(found[0], (record.values() for record in found))


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
    return csv_text((*columns, *attributes, "started", "reason", metric.name), lines)
