"""The models worth keeping: files in a folder beside the database until they are superseded.

A file is the saved ``.keras`` model of one trial, named by the trial's number and written whole or
not at all. Which trials are worth it follows from the rows and the policy alone.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from study.errors import SettingsError, StorageError
from study.files import require_no_link, write_whole
from study.plan.results import StoredTrial, by_configuration
from study.space.metric import Metric

if TYPE_CHECKING:
    from optuna import Study

Policy = Literal["best", "all", "none"]
"""``best``: of each configuration its best complete run; ``all``: every complete run."""

DEFAULT: Policy = "best"

IDENTITY = "uuid"
"""The study attribute that holds its UUID, which outlasts its name."""

KEEP = "keep_models"
"""The study attribute that holds the policy."""


def new_identity() -> str:
    """A new UUID: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def identity(study: Study) -> str:
    """The study's UUID, which names files; ``StorageError`` if it is not a UUID."""
    return valid_identity(study.user_attrs.get(IDENTITY), study.study_name)


def valid_identity(stored: object, name: str) -> str:
    """The UUID as it is stored of the study ``name``; raises ``StorageError``."""
    if not isinstance(stored, str) or not re.fullmatch("[0-9a-f]{32}", stored):
        raise StorageError(
            f"study {name!r}: its UUID in the database is malformed; restore a copy of the "
            "database, or use another --name"
        )
    return stored


def record(study: Study, option: str | None) -> Policy:
    """Settle and record the policy: ``option`` (``--keep-models``), else what was recorded.

    Raises ``SettingsError`` for another word than all, best and none.
    """
    recorded: Policy | None = study.user_attrs.get(KEEP)
    policy = parse(option) if option is not None else recorded or DEFAULT
    if policy != recorded:
        study.set_user_attr(KEEP, policy)
    return policy


def parse(option: str) -> Policy:
    """The policy that ``option`` names; ``SettingsError`` where it names none."""
    if option not in get_args(Policy):
        raise SettingsError(f"--keep-models {option}: choose one of all, best and none")
    return cast(Policy, option)


def policy_of(study: Study) -> Policy:
    """The recorded policy."""
    policy: Policy = study.user_attrs.get(KEEP, DEFAULT)
    return policy


def file(folder: Path, number: int) -> Path:
    """The file of the model of trial ``number``."""
    return folder / f"{number}.keras"


def wanted(policy: Policy, rows: Sequence[StoredTrial], metric: Metric) -> set[int]:
    """The numbers of the trials whose models are worth keeping; of equal runs the first repeat."""
    complete = [row for row in rows if row.state == "complete"]
    if policy == "none":
        return set()
    if policy == "all":
        return {row.number for row in complete}
    return {_best(group, metric).number for group in by_configuration(complete).values()}


def _best(rows: Sequence[StoredTrial], metric: Metric) -> StoredTrial:
    return max(rows, key=lambda row: (metric.sign * (row.value or 0.0), -row.repeat, -row.number))


class Keeper:
    """Keeps models in ``folder`` by ``policy``; ``say`` prints one line if that cannot be done."""

    def __init__(
        self, folder: Path, policy: Policy, say: Callable[[str], None], metric: Metric
    ) -> None:
        self._folder = folder
        self._policy, self._metric = policy, metric
        self._say = say
        self._failed = False

    def keep(self, row: StoredTrial, model: bytes, rows: Sequence[StoredTrial]) -> None:
        """Keep the saved model of the complete run ``row`` if it is worth it; never raises OSError.

        ``rows`` are all rows of the study, ``row`` among them. What it supersedes is deleted after
        it is written.
        """
        numbers = wanted(self._policy, rows, self._metric)
        if row.number not in numbers:
            return
        try:
            require_no_link(self._folder)
            write_whole(file(self._folder, row.number), model)
            self._tidy(numbers)
        except OSError as error:
            if not self._failed:
                self._say(
                    f"models: {self._folder} cannot be written ({error.strerror}); the study "
                    "continues without keeping them"
                )
            self._failed = True

    def _tidy(self, numbers: set[int]) -> None:
        """Delete the models of other trials, and what killed processes left of models."""
        for path in self._folder.iterdir():
            model = re.fullmatch(r"(?:[.](\d+)[.]keras[.]\w+[.]tmp)|(?:(\d+)[.]keras)", path.name)
            if model and (model[1] or int(model[2]) not in numbers):
                path.unlink(missing_ok=True)
