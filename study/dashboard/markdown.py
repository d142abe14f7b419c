"""How a study stands as Markdown, for the dashboard."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from study.plan.plan import Option, PlanState, Stage
from study.text import sentences as words
from study.text import units
from study.text.view import labels, verdict

FIRST = "## The study so far"
LAST = "*Written by the study "
"""The beginnings of the first and of the last line."""

MOST_OPTIONS = 20
"""Options of a stage in the study's note; of more, those with the best means."""

_HEAD = ("option", "runs", "mean ± standard error", "behind the best", "verdict")


def standing_note(standing: PlanState, repeats: int, mlflow: str | None = None) -> str:
    """The answer so far, where MLflow shows the study, and a table for each stage."""
    runs = f"{standing.runs} of at most {standing.runs_expected} runs"
    parts = [FIRST, f"{_plain(words.answer(standing))} {runs} are done."]
    if dict(standing.incumbent or ()).get("restore_best_weights"):
        parts.append(f"{words.KEEPS_BEST}.")
    if standing.failure:
        parts.append(f"It stopped: {_plain(standing.failure)}")
    if mlflow is not None:
        parts.append(f"MLflow shows every run: [{mlflow}]({mlflow})")
    for stage in standing.stages:
        parts += [f"### {_plain(stage.name)}", _plain(words.outcome(stage)), _table(stage, repeats)]
    parts.append(f"{LAST}after {standing.runs} runs.*")
    return "\n\n".join(parts)


def _table(stage: Stage, repeats: int) -> str:
    options = list(stage.options)
    if stage.kind == "configurations" or len(options) > MOST_OPTIONS:
        options = _ranked(stage)
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    called = labels(stage)
    lines += [
        _line(_cells(option, stage, repeats, called[option.configuration]))
        for option in options[:MOST_OPTIONS]
    ]
    if len(options) > MOST_OPTIONS:
        lines.append(f"\nThe best {MOST_OPTIONS} of {len(options)}.")
    return "\n".join(lines)


def _cells(option: Option, stage: Stage, repeats: int, label: str) -> Iterator[str]:
    values = option.values
    yield _plain(label)
    yield f"{len(option.rows)}/{repeats}"
    if option.score is not None:
        yield units.score(option.score)
    else:
        yield f"{units.percent(math.fsum(values) / len(values))} so far" if values else ""
    yield units.gap(option.gap)
    yield _plain(verdict(option, stage)) if option.state != "open" else "open"


def _line(cells: Sequence[str] | Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ranked(stage: Stage) -> list[Option]:
    """The options of a stage, the best mean first, those without a mean last."""
    return sorted(
        stage.options, key=lambda option: option.score.mean if option.score else -1.0, reverse=True
    )


def _plain(text: str) -> str:
    """Text that means nothing in Markdown or HTML."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", line)
