"""A standing as Markdown for the dashboard: the study's note, and a trial's place in the sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from study.dashboard.note import STANDING
from study.plan.plan import Option, PlanState, Stage
from study.plan.results import Row
from study.text import sentences as words
from study.text import units
from study.text.view import labels, verdict

MOST_OPTIONS = 20
"""Options of a stage in the study's note; of more, those with the best means."""

_HEAD = ("option", "runs", "mean ± standard error", "behind the best", "verdict")


def standing(standing: PlanState, repeats: int) -> str:
    """The part of the study's note that says how it stands."""
    runs = f"{standing.runs} of at most {standing.runs_expected} runs"
    parts = [STANDING.first, f"{_plain(words.answer(standing))} {runs} are done."]
    if dict(standing.incumbent or ()).get("restore_best_weights"):
        parts.append(f"{words.KEEPS_BEST}.")
    if standing.failure:
        parts.append(f"It stopped: {_plain(standing.failure)}")
    for stage in standing.stages:
        parts += [f"### {_plain(stage.name)}", _plain(words.outcome(stage)), _table(stage, repeats)]
    parts.append(f"{STANDING.last}after {standing.runs} runs.*")
    return "\n\n".join(parts)


def _table(stage: Stage, repeats: int) -> str:
    options = list(stage.options)
    if stage.kind == "configurations" or len(options) > MOST_OPTIONS:
        options = ranked(stage)
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


def ranked(stage: Stage) -> list[Option]:
    """The options of a stage, the best mean first, those without a mean last."""
    return sorted(
        stage.options, key=lambda option: option.score.mean if option.score else -1.0, reverse=True
    )


def places(standing: PlanState, repeats: int) -> Iterator[tuple[Row, str]]:
    """The runs of every decided stage, each with its place in the sweep as a note."""
    for number, stage in enumerate(standing.stages, start=1):
        called, outcome = labels(stage), _plain(words.outcome(stage))
        for place, option in enumerate(ranked(stage) if stage.decided else (), start=1):
            text = f"{_place(option, stage, place)}\n\n{outcome}"
            name = f"**{_plain(stage.name)}: {_plain(called[option.configuration])}**"
            for row in option.rows:
                if row.stage == stage.name:
                    which = f"repeat {row.repeat + 1} of {repeats}"
                    yield row, f"{name}, {which}, in stage {number}.\n\n{text}"


def is_place(text: str) -> bool:
    """Whether a note is one of `places` and nobody has added to it."""
    return _PLACE.fullmatch(text) is not None


_PLACE = re.compile(r"\*\*.+\*\*, repeat \d+ of \d+, in stage \d+\.\n\n.+\n\n.+")


def _place(option: Option, stage: Stage, place: int) -> str:
    if option.score is None:
        return f"{_plain(verdict(option, stage)).capitalize()}."
    behind = f", {units.gap(option.gap)} behind the best" if option.gap else ""
    became = verdict(option, stage)
    said = f" ({_plain(became)})" if became else ""
    mean = units.score(option.score)
    return f"Place {place} of {len(stage.options)}{said}: mean {mean}{behind}."


def _plain(text: str) -> str:
    """Text that means nothing in Markdown or HTML."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", line)
