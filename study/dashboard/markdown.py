"""How a study stands as Markdown, for the dashboard."""

from __future__ import annotations

import re

from study.plan.plan import PlanState, Stage
from study.plan.race.result import RaceResult
from study.space.metric import Metric
from study.text import sentences as words
from study.text import units
from study.text.view import COLUMNS, foremost

FIRST = "## The study so far"
LAST = "*Written by the study "
"""The beginnings of the first and of the last line."""

MOST_OPTIONS = 20
"""Options of a stage in the study's note; of more, those with the best means."""


def standing_note(
    plan_state: PlanState, repeats: int, mlflow: str | None = None, scoring: str | None = None
) -> str:
    """The answer so far, how runs are scored, where MLflow shows it, and a table for each stage."""
    runs = f"{plan_state.runs} of at most {plan_state.runs_expected} runs"
    parts = [FIRST, f"{_plain(words.answer(plan_state))} {runs} are done."]
    if scoring is not None:
        parts.append(f"{scoring}.")
    if mlflow is not None:
        parts.append(f"MLflow shows every run: [{mlflow}]({mlflow})")
    if plan_state.race is not None:
        parts += map(_plain, words.race(plan_state.race, plan_state.metric))
        parts.append(_contenders(plan_state.race, plan_state.metric))
    for stage in [] if plan_state.race else plan_state.stages:
        parts += [f"### {_plain(stage.name)}", _plain(words.outcome(stage)), _table(stage, repeats)]
    parts.append(f"{LAST}after {plan_state.runs} runs.*")
    return "\n\n".join(parts)


def _contenders(verdict: RaceResult, metric: Metric) -> str:
    lines = [("leading configuration", "best with", metric.words), ("---", "---", "---")]
    lines += [
        (
            _plain(units.params(one.configuration)),
            f"{100 * one.probability:.0f} %",
            units.mean(one.value, one.standard_error, metric),
        )
        for one in verdict.top
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _table(stage: Stage, repeats: int) -> str:
    views = foremost(stage, MOST_OPTIONS)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(map(_plain, v.cells(repeats)) for v in views)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    more = len(stage.options) > MOST_OPTIONS
    return f"{table}\n\nThe best {MOST_OPTIONS} of {len(stage.options)}." if more else table


def _plain(text: str) -> str:
    """Text that means nothing in Markdown or HTML."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", line)
