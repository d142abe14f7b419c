"""A report as a folder: the page, its figures as PNG, its tables as CSV; whole or not at all.

Everything is made before anything is written, everything is written beside its place before
anything is put there, and the page comes last.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from study.errors import ReportError
from study.report import drawing, figures, numbers
from study.report.contents import Contents, read
from study.report.figures import Panel, StageFigure
from study.report.page import Drawn, Figures, captions, page
from study.storage import models
from study.storage.database import beside

PAGE = "report.html"


def report(url: str, name: str | None, output: str | Path | None = None) -> Path:
    """Write the report of the study ``name``, or of the one made last; returns its page.

    ``output`` is a folder, by default ``NAME-report`` beside the database (in the current folder
    where that is a server). Raises ``StorageError`` where there is no such study, ``ReportError``
    where the folder cannot be written.
    """
    contents = read(url, name)
    folder = Path(output) if output is not None else default_folder(url, contents.name)
    with _explained(folder):
        _check(folder)
        _put(folder, files(contents))
    return folder / PAGE


def default_folder(url: str, name: str) -> Path:
    """``NAME-report`` beside the database."""
    return beside(url) / f"{models.file_name(name)}-report"


def files(contents: Contents) -> dict[str, bytes]:
    """Every file of a report by its name, the page last."""
    drawn = _drawn(contents)
    texts = {
        "stages.csv": numbers.stages_csv(contents.standing),
        "runs.csv": numbers.runs_csv(contents.rows),
        PAGE: page(contents, drawn),
    }
    made = {f"{picture.name}.png": picture.png for picture in drawn.pictures}
    return made | {name: text.encode("utf-8", "replace") for name, text in texts.items()}


def _drawn(contents: Contents) -> Figures:
    stages = [figures.stage_figure(stage) for stage in contents.standing.stages]
    panels = figures.panels(contents.standing, contents.rows)
    cost = figures.cost(contents.standing)
    return Figures(
        stages=tuple(_stage(figure, place) for place, figure in enumerate(stages, start=1)),
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


def _put(folder: Path, made: Mapping[str, bytes]) -> None:
    """Write the files; a folder that is there keeps what else it holds."""
    place = folder if folder.is_dir() else folder.parent
    with tempfile.TemporaryDirectory(prefix=".report-", dir=place) as aside:
        whole = Path(aside, "report")
        whole.mkdir()
        for name, content in made.items():
            (whole / name).write_bytes(content)
        if not folder.exists():
            whole.rename(folder)
            return
        for name in made:
            if (folder / name).is_dir():
                raise IsADirectoryError(None, f"{name} is a folder in it")
        for name in made:
            (whole / name).replace(folder / name)
