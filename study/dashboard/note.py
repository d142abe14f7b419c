"""The study's note in the dashboard: written at the start, when a stage is decided, at the end.

It is known by how its first and its last line begin, so a person can read it, and what a person
adds around it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from study.dashboard.markdown import FIRST, LAST, standing_note
from study.plan.plan import PlanState

if TYPE_CHECKING:
    from optuna import Study


class Note:
    """An observer that keeps the note of ``study``; ``say`` is told if that cannot be done.

    ``scoring`` says what of a run enters means, where that needs saying; ``address`` where MLflow
    shows the study.
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
        self._standing: PlanState | None = None

    def see(self, plan_state: PlanState, active: Mapping[int, Any], event: object) -> None:
        """What the driver calls after every event; only a decision or another leader is news."""
        del active, event
        decided = sum(stage.decided for stage in plan_state.stages)
        leader = plan_state.incumbent if plan_state.race else None
        news = (decided, plan_state.complete, plan_state.failure, leader)
        if news == self._written:
            return
        self._written, self._standing = news, plan_state
        self.again()

    def again(self) -> None:
        """Write what was seen last, with the address in MLflow that may have come since."""
        if self._standing is None:
            return
        try:
            self._write(self._standing)
        except (SQLAlchemyError, StorageInternalError):
            raise  # a database that takes no note takes no epoch either: that is the one line
        except Exception as error:  # noqa: BLE001 - nothing else of a note may end a study
            reason = " ".join(str(error).split()) or type(error).__name__
            self._say(f"Dashboard: its note cannot be written ({reason}); the study goes on")

    def _write(self, plan_state: PlanState) -> None:
        from optuna_dashboard import get_note, save_note

        before = get_note(self._study)
        text = standing_note(plan_state, self._repeats, self._address(), self._scoring)
        after = replaced(before, text)
        if after != before:
            save_note(self._study, after)


def replaced(note: str, text: str) -> str:
    """A note with ``text`` in the place of what stood there, or after everything else."""
    lines = note.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith(FIRST)), None)
    if begin is not None:
        for end in range(begin, len(lines)):
            if lines[end].startswith(LAST):
                return "\n".join([*lines[:begin], text, *lines[end + 1 :]]).strip()
    return "\n\n".join(filter(None, [note.strip(), text]))
