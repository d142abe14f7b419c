"""The study's note in the dashboard: written at the start, when a stage is decided, at the end.

The program finds its text by the beginnings of its first and last line; what a person writes
around it stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from study.plan.plan import PlanState
from study.text import sentences as words
from study.text.tables import Table, contenders, stage_table

if TYPE_CHECKING:
    from optuna import Study

FIRST = "## The study so far"
LAST = "*Written by the study "
"""The beginnings of the first and of the last line."""

MOST_OPTIONS = 20
"""Options of a stage in the note; of more, those with the best means."""


class Note:
    """An observer that keeps the note of ``study`` up to date.

    ``say`` prints one line if the note cannot be written. ``scoring`` is the sentence on how runs
    are scored, if there is one; ``address`` returns where MLflow shows the study.
    """

    def __init__(
        self,
        study: Study,
        repeats: int,
        say: Callable[[str], None],
        scoring: str | None = None,
        address: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._study = study
        self._repeats = repeats
        self._say = say
        self._scoring = scoring
        self._address = address
        self._written: tuple[object, ...] = ()
        self._state: PlanState | None = None

    def see(self, plan_state: PlanState, active: Mapping[int, Any], event: object) -> None:
        """Write the note if a stage was decided, the study ended, or a race has another leader."""
        del active, event
        decided = sum(stage.decided for stage in plan_state.stages)
        leader = plan_state.incumbent if plan_state.race else None
        news = (decided, plan_state.complete, plan_state.failure, leader)
        if news == self._written:
            return
        self._written, self._state = news, plan_state
        self.rewrite()

    def rewrite(self) -> None:
        """Write the last state again: the address in MLflow may be known only now."""
        if self._state is None:
            return
        try:
            self._write(self._state)
        except (SQLAlchemyError, StorageInternalError):
            raise  # the study cannot continue without its database
        except Exception as error:  # noqa: BLE001 - no other failure of a note ends a study
            reason = " ".join(str(error).split()) or type(error).__name__
            self._say(f"Dashboard: its note cannot be written ({reason}); the study continues")

    def _write(self, plan_state: PlanState) -> None:
        from optuna_dashboard import get_note, save_note

        before = get_note(self._study)
        text = note_text(plan_state, self._repeats, self._address(), self._scoring)
        after = replaced(before, text)
        if after != before:
            save_note(self._study, after)


def replaced(note: str, text: str) -> str:
    """A note with ``text`` in place of the program's earlier text, or at its end."""
    lines = note.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith(FIRST)), None)
    if begin is not None:
        for end in range(begin, len(lines)):
            if lines[end].startswith(LAST):
                return "\n".join([*lines[:begin], text, *lines[end + 1 :]]).strip()
    return "\n\n".join(filter(None, [note.strip(), text]))


def note_text(
    plan_state: PlanState, repeats: int, mlflow: str | None = None, scoring: str | None = None
) -> str:
    """The note in Markdown: answer so far, scoring, address in MLflow, and a table for each stage.

    Of a race the table has the leading configurations.
    """
    runs = f"{plan_state.runs} of at most {plan_state.runs_expected} runs"
    parts = [FIRST, f"{_plain(words.answer(plan_state))} {runs} are done."]
    if scoring is not None:
        parts.append(f"{scoring}.")
    if mlflow is not None:
        parts.append(f"MLflow shows every run: [{mlflow}]({mlflow})")
    if plan_state.race is not None:
        parts += map(_plain, words.race(plan_state.race, plan_state.metric))
        parts += _markdown(contenders(plan_state.race, plan_state.metric))
    for stage in [] if plan_state.race else plan_state.stages:
        parts += [f"### {_plain(stage.name)}", _plain(words.outcome(stage))]
        parts += _markdown(stage_table(stage, repeats, MOST_OPTIONS))
    parts.append(f"{LAST}after {plan_state.runs} runs.*")
    return "\n\n".join(parts)


def _markdown(table: Table) -> Iterator[str]:
    """A table in Markdown, and a line on what it leaves out."""
    lines = [table.columns, ["---"] * len(table.columns), *(map(_plain, ln) for ln in table.lines)]
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    if len(table.lines) < table.total:
        yield f"The best {len(table.lines)} of {table.total}."


def _plain(text: str) -> str:
    """Text without meaning in Markdown or HTML, in one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", line)
