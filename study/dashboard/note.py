"""The study's note in the dashboard: one text of several parts, each replaced by whoever wrote it.

A part is known by how its first and its last line begin, so a person can read it, and what a
person adds to the note stays. Two writers can meet: whoever wrote last may have overwritten what
the other one just added, so each writes its part again at the next occasion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study

LINK = "mlflow"
"""The study attribute that says where MLflow shows the study: experiment, run and address."""


@dataclass(frozen=True)
class Part:
    """A part of a note, by the beginnings of its first and of its last line."""

    first: str
    last: str


STANDING = Part("## The study so far", "*Written by the study ")
MLFLOW = Part("MLflow shows every run:", "MLflow shows every run:")


def with_part(note: str, part: Part, text: str) -> str:
    """The note with ``text`` in the place of this part, or after everything else."""
    lines = note.splitlines()
    found = _place(lines, part)
    if found is None:
        return "\n\n".join(filter(None, [note.strip(), text]))
    begin, end = found
    return "\n".join([*lines[:begin], text, *lines[end:]]).strip()


def _place(lines: Sequence[str], part: Part) -> tuple[int, int] | None:
    """The first line of a part and the one after its last; None where it is not there, or torn."""
    begins = [place for place, line in enumerate(lines) if line.startswith(part.first)]
    for begin in begins[:1]:
        for end in range(begin, len(lines)):
            if lines[end].startswith(part.last):
                return begin, end + 1
    return None


def link(address: str) -> str:
    """The part of the note that leads to MLflow."""
    return f"{MLFLOW.first} [{address}]({address})"


def save(study: Study, parts: Sequence[tuple[Part, str]]) -> None:
    """Put these parts into the study's note; nothing is written where nothing changes."""
    from optuna_dashboard import get_note, save_note

    before = after = get_note(study)
    for part, text in parts:
        after = with_part(after, part, text)
    if after != before:
        save_note(study, after)
