"""The final models of a study as its database records them, and where their files are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from study.data import arrays
from study.errors import DataError, ModelError
from study.files import require_no_link, write_whole
from study.final.calibration import Calibration
from study.space.metric import Direction, Metric
from study.storage import models
from study.storage.location import Location
from study.storage.trials import readable

if TYPE_CHECKING:
    from optuna import Study

FINALS = "finals"
"""The study attribute with a `FinalModel` for every model that the test set was opened for."""

CURRENT = "final_opening"
"""The study attribute that names the opening whose models the files are: the one asked for last."""

VERSION = 1

_OWNER = "study.txt"


@dataclass(frozen=True)
class OwnMetric:
    """The study's metric, where it is neither accuracy nor mean absolute error.

    ``value`` is measured on the test images, ``validation`` on the held-out images; either is
    None if it was not measured.
    """

    name: str
    direction: Direction
    value: float | None
    validation: float | None


@dataclass(frozen=True)
class FinalModel:
    """A model that the test set was opened for.

    ``measure`` is accuracy (a fraction), or mae for numbers; ``value`` that of the ``images`` test
    images, with its 95 % interval ``low`` to ``high``; ``validation`` that of the held-out images.
    ``errors`` counts wrong images, ``rmse`` is of numbers; ``calibration`` is of probabilities,
    where images were held out. ``members`` are run keys and
    ``configurations`` what they were trained with, each once. ``opening`` is the same for all
    models of one opening of the test set, at the ISO time ``opened``.
    """

    model: str
    file: str
    members: tuple[str, ...]
    configurations: tuple[dict[str, Any], ...]
    opening: str
    opened: str
    images: int
    trained_on: int
    measure: Literal["accuracy", "mae"]
    value: float
    low: float
    high: float
    validation: float | None = None
    errors: int | None = None
    rmse: float | None = None
    own: OwnMetric | None = None
    calibration: Calibration | None = None

    @property
    def metric(self) -> Metric:
        """The metric of ``value``, ``low``, ``high`` and ``validation``."""
        return Metric(self.measure, "minimize" if self.measure == "mae" else "maximize")

    @property
    def own_metric(self) -> Metric | None:
        """The study's metric, where it is neither accuracy nor mean absolute error."""
        return None if self.own is None else Metric(self.own.name, self.own.direction)

    def own_words(self, which: Literal["value", "validation"] = "value") -> str:
        """``, top5 0.98``: the study's own metric of the test or held-out images, if any."""
        metric = self.own_metric
        if metric is None or (which == "validation" and self.validation is None):
            return ""
        value = getattr(self.own, which)
        shown = "not measured" if value is None else metric.text(value)
        return f", {metric.name.replace('_', ' ')} {shown}"

    def to_json(self) -> dict[str, Any]:
        """The model for the database and for programs; `from_json` reads it."""
        table = _MODEL.dump_python(self, mode="json")
        known = {name: value for name, value in table.items() if value is not None}
        known[known.pop("measure")] = known.pop("value")
        known["metric"] = known.pop("own", None)
        return {"version": VERSION, **known, "validation": self.validation}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> FinalModel:
        """Raises ``ValueError`` where the table is no `to_json`."""
        known = dict(table)
        if known.pop("version", None) != VERSION:
            raise ValueError("a final model is recorded in another version")
        measure = "accuracy" if "accuracy" in known else "mae"
        known |= {"measure": measure, "value": known.pop(measure, None)}
        return _MODEL.validate_python({**known, "own": known.pop("metric", None)})


_MODEL = TypeAdapter(FinalModel)


def interval(hits: int, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy of ``hits`` of ``images``, as fractions (Wilson's)."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, images).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def finals(study: Study) -> list[FinalModel]:
    """Every model the test set was opened for, in order; raises ``StorageError``."""
    with readable(lambda: study.study_name):
        return [FinalModel.from_json(one) for one in study.user_attrs.get(FINALS, [])]


def latest(study: Study) -> list[FinalModel]:
    """The models that were asked for last; ``ModelError`` where there are none."""
    recorded = finals(study)
    if not recorded:
        raise ModelError(f"study {study.study_name!r} has no final model yet")
    return of_opening(study, study.user_attrs.get(CURRENT, recorded[-1].opening))


def of_opening(study: Study, opening: str) -> list[FinalModel]:
    """The models of an opening as it was recorded, the last time if more often; [] if never."""
    found = [final for final in finals(study) if final.opening == opening]
    return [final for final in found if final.opened == found[-1].opened]


def add(study: Study, made: Sequence[FinalModel]) -> None:
    """Record the models of an opening of the test set."""
    every = [*finals(study), *made]
    study.set_user_attr(FINALS, [final.to_json() for final in every])


def set_current(study: Study, opening: str) -> None:
    """Record that the models of this opening are the ones asked for last."""
    if study.user_attrs.get(CURRENT) != opening:
        study.set_user_attr(CURRENT, opening)


def openings(recorded: Sequence[FinalModel]) -> int:
    """How often the test set was opened."""
    return len({final.opened for final in recorded})


def opening(keys: Sequence[str]) -> str:
    """The name of an opening of the test set for these runs, in their order."""
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]


def probabilities_file(folder: Path, opening: str) -> Path:
    """The file with the predictions of each member for each test image."""
    return folder / f"test-{opening}.npz"


def load_probabilities(folder: Path, opening: str) -> NDArray[np.float32] | None:
    """The predictions (members, images, classes); None where the file is missing or damaged."""
    name = "probabilities"
    try:
        return arrays.read_npz(probabilities_file(folder, opening), lambda _: [name])[name]
    except DataError:
        return None


def folder(location: Location, study: Study) -> Path:
    """Where the final models of a study are.

    If an earlier study of that name owns the folder, this one's has its UUID in the name.
    """
    identity = models.identity(study)
    path = location.final_models
    if _owner(path) not in (None, identity):
        path = path.with_name(f"{path.name}-{identity[:8]}")
    return path


def _owner(folder: Path) -> str | None:
    """The UUID of the study that owns the folder; None if it has no owner."""
    try:
        return (folder / _OWNER).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError:  # not readable: owned by another user
        return ""


def claim(folder: Path, study: Study) -> None:
    """Make the folder and record its owner; raises ``ModelError``, as for a link."""
    try:
        require_no_link(folder)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written ({error.strerror})") from None
    write(folder / _OWNER, f"{models.identity(study)}\n".encode())


def write(path: Path, content: bytes) -> None:
    """Write a file of final models, whole or not at all; raises ``ModelError``."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from None
