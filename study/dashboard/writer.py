"""Writes what the dashboard shows of a standing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.dashboard import markdown, note, pairs
from study.plan.plan import PlanState
from study.storage.location import Location

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

MOST_NOTES = 1000
"""Trials that get a note, in the order of the stages: each note is two rows that the dashboard
reads and sends whenever it shows the study (docs/log.md)."""


class Writer:
    """Writes the notes and the figure of the study at ``location``.

    ``images`` is the number of validation images of a repeat. To be used by one thread.
    """

    def __init__(self, location: Location, repeats: int, images: int | None) -> None:
        self._location = location
        self._repeats = repeats
        self._images = images
        self._study: Study | None = None
        self._noted: dict[int, str] = {}

    def write(self, standing: PlanState, enough: threading.Event) -> None:
        """Bring note, figure and trials' notes up to date; leaves off early once ``enough``."""
        study = self._opened()
        parts = [(note.STANDING, markdown.standing(standing, self._repeats))]
        link = study.user_attrs.get(note.LINK)
        if link:
            parts.append((note.MLFLOW, note.link(link["address"])))
        note.save(study, parts)
        pairs.save(study, standing, self._images)
        self._write_places(study, standing, enough)

    def _write_places(self, study: Study, standing: PlanState, enough: threading.Event) -> None:
        """A note for each run of a decided stage; what a person has written there stays."""
        from optuna_dashboard import save_note

        remembering: Remembering | None = None
        for row, text in itertools.islice(markdown.places(standing, self._repeats), MOST_NOTES):
            if self._noted.get(row.number) == text:
                continue
            if enough.is_set():
                return
            remembering = remembering or Remembering(study._storage, study._study_id)
            before = remembering.note(row.trial_id)
            if before != text and (not before or markdown.is_place(before)):
                save_note(_Trial(remembering, study, row.trial_id), text)
            self._noted[row.number] = text

    def _opened(self) -> Study:
        if self._study is None:
            import optuna

            storage = self._location.database.open()
            self._study = optuna.load_study(study_name=self._location.name, storage=storage)
        return self._study

    def close(self) -> None:
        """Forget the study."""
        self._study = None


class Remembering:
    """A study's attributes, read once: `save_note` would read all of them twice a note.

    It stands in for a storage in the two calls that `save_note` makes.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._attributes: dict[str, Any] = dict(storage.get_study_system_attrs(study_id))

    def note(self, trial_id: int) -> str:
        """A trial's note, by an earlier driver or by a person; the dashboard keeps it in pieces."""
        names = (f"dashboard:{trial_id}:note_str:{number}" for number in itertools.count())
        pieces = (str(self._attributes.get(name, "")) for name in names)
        return "".join(itertools.takewhile(bool, pieces))

    def get_study_system_attrs(self, study_id: int) -> Mapping[str, Any]:
        return self._attributes

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(study_id, key, value)
        self._attributes[key] = value


@dataclass(frozen=True)
class _Trial:
    """The part of a trial that `save_note` looks at; a real one would be read from the database."""

    storage: Remembering
    study: Study
    _trial_id: int
