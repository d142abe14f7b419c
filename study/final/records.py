"""What a study records of its final models, and where their files are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import arrays
from study.errors import DataError, ModelError
from study.files import write_whole
from study.space.metric import Metric
from study.storage import models
from study.storage.location import Location

if TYPE_CHECKING:
    from optuna import Study

FINALS = "finals"
"""The study attribute with an object for every model that the test set was opened for."""

CURRENT = "final_opening"
"""The study attribute that names the opening whose models the files are: the one asked for last."""

MEMBERS = "final_members"
"""The study attribute that holds, by run key, what became of each member's training."""

_OWNER = "study.txt"


def interval(hits: int, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy of ``hits`` of ``images``, as fractions (Wilson's)."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, images).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def finals(study: Study) -> list[dict[str, Any]]:
    """Every model the test set was opened for, in order.

    The objects have ``model``, ``accuracy`` and ``errors`` (of numbers ``mae`` and ``rmse``),
    ``low``, ``high``, ``images``, ``opened`` (ISO time), ``file``, ``validation`` (the same of the
    images held out, or None), ``members`` (run keys) and ``opening`` (the same for all models of
    one opening). Where the study compares by something else ``metric`` is that: an object of
    ``name``, ``direction``, ``value`` and ``validation``, None where it cannot be measured.
    """
    return list(study.user_attrs.get(FINALS, []))


def measured(final: Mapping[str, Any]) -> tuple[Metric, float]:
    """What was measured of a model: its accuracy, or of numbers the mean absolute error."""
    metric = Metric("accuracy") if "accuracy" in final else Metric("mae", "minimize")
    return metric, float(final[metric.name])


def own_metric(final: Mapping[str, Any]) -> Metric | None:
    """What the study compares by, where that is not what was `measured` anyway."""
    kept = final.get("metric")
    return Metric(kept["name"], kept["direction"]) if kept else None


def own_words(final: Mapping[str, Any], which: str = "value") -> str:
    """``, top5 0.98``: the study's own metric of the test images, or of ``validation``, if any."""
    metric = own_metric(final)
    if metric is None or (which == "validation" and final["validation"] is None):
        return ""
    value = final["metric"][which]
    shown = "not measured" if value is None else metric.text(value)
    return f", {metric.name.replace('_', ' ')} {shown}"


def latest(study: Study) -> list[dict[str, Any]]:
    """The models that were asked for last; ``ModelError`` where there are none."""
    recorded = finals(study)
    if not recorded:
        raise ModelError(f"study {study.study_name!r} has no final model yet")
    return of_opening(study, study.user_attrs.get(CURRENT, recorded[-1]["opening"]))


def of_opening(study: Study, opening: str) -> list[dict[str, Any]]:
    """The models of an opening as it was recorded, the last time if more often; [] if never."""
    found = [final for final in finals(study) if final["opening"] == opening]
    return [final for final in found if final["opened"] == found[-1]["opened"]]


def set_current(study: Study, opening: str) -> None:
    """Record that the models of this opening are the ones asked for last."""
    if study.user_attrs.get(CURRENT) != opening:
        study.set_user_attr(CURRENT, opening)


def configurations(attributes: Mapping[str, Any], keys: Sequence[str]) -> list[dict[str, Any]]:
    """What members were trained with, by their run keys: every configuration once, in order.

    ``attributes`` are the study's.
    """
    known = attributes.get(MEMBERS, {})
    found = [known[key]["params"] for key in keys if key in known]
    return [params for place, params in enumerate(found) if params not in found[:place]]


def openings(recorded: Sequence[Mapping[str, Any]]) -> int:
    """How often the test set was opened."""
    return len({final["opened"] for final in recorded})


def opening(keys: Sequence[str]) -> str:
    """The name of an opening of the test set for these runs, in their order."""
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]


def probabilities_file(folder: Path, opening: str) -> Path:
    """The file with what each member says of each test image."""
    return folder / f"test-{opening}.npz"


def load_probabilities(folder: Path, opening: str) -> NDArray[np.float32] | None:
    """What each member says of each test image; None where the file is missing or damaged."""
    name = "probabilities"
    try:
        return arrays.read_npz(probabilities_file(folder, opening), lambda _: [name])[name]
    except DataError:
        return None


def folder(location: Location, study: Study) -> Path:
    """Where the final models of a study are.

    Where an earlier study of that name has the folder, this one's has its UUID in the name.
    """
    identity = models.identity(study)
    path = location.final_models
    if _owner(path) not in (None, identity):
        path = path.with_name(f"{path.name}-{identity[:8]}")
    return path


def _owner(folder: Path) -> str | None:
    """Whose folder it is; None if nobody's."""
    try:
        return (folder / _OWNER).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError:  # of somebody whose files cannot be read
        return ""


def claim(folder: Path, study: Study) -> None:
    """Make the folder and write down whose it is."""
    write(folder / _OWNER, f"{models.identity(study)}\n".encode())


def write(path: Path, content: bytes) -> None:
    """Write a file of final models, whole or not at all; raises ``ModelError``."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from None
