"""A report as a folder: the page, its figures as PNG, its tables as CSV; whole or not at all.

Everything is made before anything is written, and the page comes last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.errors import ReportError
from study.files import write_together
from study.report import drawing, figures, numbers
from study.report.contents import Contents, read
from study.report.figures import Panel, StageFigure
from study.report.page import Drawn, Figures, captions, page
from study.report.racing import race_figures
from study.storage.location import Database

PAGE = "report.html"


def report(database: Database, name: str | None, output: str | Path | None = None) -> Path:
    """Write the report of the study ``name``, or of the one made last; returns its page.

    ``output`` is a folder, by default the study's `Location.report`. Raises ``StorageError`` where
    there is no such study, ``ReportError`` where the folder cannot be written.
    """
    contents = read(database, name)
    folder = Path(output) if output is not None else database.study(contents.name).report
    with _explained(folder):
        if output is None:
            folder.parent.mkdir(exist_ok=True)
        _check(folder)
        write_together(folder, files(contents))
    return folder / PAGE


def files(contents: Contents) -> dict[str, bytes]:
    """Every file of a report by its name, the page last."""
    drawn = _drawn(contents)
    texts = {
        "stages.csv": numbers.stages_csv(contents.plan_state),
        "runs.csv": numbers.runs_csv(contents.rows, contents.settings.metric),
        PAGE: page(contents, drawn),
    }
    made = {f"{picture.name}.png": picture.png for picture in drawn.pictures}
    return made | {name: text.encode("utf-8", "replace") for name, text in texts.items()}


def _drawn(contents: Contents) -> Figures:
    plan_state = contents.plan_state
    verdict, answer = plan_state.race, plan_state.incumbent
    stages = [] if verdict else [figures.stage_figure(stage) for stage in plan_state.stages]
    panels = figures.panels(plan_state, contents.rows)
    cost = figures.cost(contents.plan_state)
    return Figures(
        stages=tuple(_stage(figure, place) for place, figure in enumerate(stages, start=1)),
        race=race_figures(verdict, answer, contents.effects, plan_state.metric)
        if verdict and answer
        else (),
        curves=tuple(_curves(panel, place) for place, panel in enumerate(panels, start=1)),
        cost=Drawn(cost, drawing.draw_cost(cost, "cost"), numbers.cost_table(cost), captions(cost))
        if cost.places
        else None,
    )


def _stage(figure: StageFigure, place: int) -> Drawn:
    picture = drawing.draw_stage(figure, f"stage-{place}-{_plain(figure.name)}")
    return Drawn(figure, picture, numbers.stage_table(figure), captions(figure))


def _curves(panel: Panel, place: int) -> Drawn:
    picture = drawing.draw_curves(panel, f"curves-{place}-{_plain(panel.name)}")
    return Drawn(panel, picture, numbers.curves_table(panel), captions(panel))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the file system raises into one line about the folder."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise ReportError(
            f"{folder}: the report cannot be written ({why}); name another folder with --output"
        ) from None


def _check(folder: Path) -> None:
    """Refuse, before the work, a folder that cannot be there."""
    if folder.exists() and not folder.is_dir():
        raise ReportError(f"{folder}: is no folder; name another with --output")
    if not folder.parent.is_dir():
        raise ReportError(f"{folder.parent}: no such folder; make it or name another --output")
    if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK | os.X_OK):
        raise PermissionError(None, "no permission to write")
