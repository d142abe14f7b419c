"""What a report is about: everything that the database says of one study, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.dashboard.note import LINK
from study.final.records import FINALS, configurations
from study.plan.plan import PlanState
from study.plan.results import Row, Rows
from study.plan.strategies import plan_of
from study.space.settings import Settings
from study.storage import database as storage
from study.storage.progress import state_of

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class Contents:
    """A study as it is reported: settings, standing, every run, and what became of the test set.

    ``finals`` are the models that it was opened for, as `final.records.finals` describes them, each
    with the ``configurations`` of its members.
    """

    name: str
    settings: Settings
    standing: PlanState
    state: str
    rows: tuple[Row, ...]
    finals: tuple[Mapping[str, Any], ...] = ()
    mlflow: str | None = None

    @property
    def opened(self) -> int:
        """How often the test set was opened."""
        return len({final.get("opened") for final in self.finals})


def read(url: str, name: str | None) -> Contents:
    """Read the study ``name``, or the one made last, from the database at ``url``.

    Raises ``StorageError`` where there is none.
    """
    study, settings = storage.load(storage.open_storage(url), name)
    return contents_of(study, settings, url)


def contents_of(study: Study, settings: Settings, url: str) -> Contents:
    """The same of a study that is open."""
    rows = Rows()(study)
    standing = plan_of(settings).standing(rows)
    attributes = study.user_attrs
    finals = attributes.get(FINALS)
    link = attributes.get(LINK)
    return Contents(
        name=study.study_name,
        settings=settings,
        standing=standing,
        state=state_of(standing, url, study.study_name),
        rows=tuple(rows),
        finals=tuple(
            {**final, "configurations": configurations(attributes, final.get("members", ()))}
            for final in (finals if isinstance(finals, list) else ())
            if isinstance(final, dict)
        ),
        mlflow=link.get("address") if isinstance(link, dict) else None,
    )
