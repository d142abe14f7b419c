"""Trained members become files, and the test set is opened for all of them at once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study import data, kept
from study.errors import ModelError
from study.final import records
from study.final.archive import Card, with_card
from study.final.members import Bench, Member
from study.training import start_tensorflow

if TYPE_CHECKING:
    from optuna import Study

    from study.prepare import Prepared

Numbers = NDArray[np.float32]
Labels = NDArray[np.int32]

BEST = "best by validation"


@dataclass(frozen=True)
class _Model:
    """A model that is measured: its file, and what it says of the test and the held-out images."""

    name: str
    file: str
    members: Sequence[Member]
    said: Numbers
    held_out: Numbers | None


def measure(
    study: Study, prepared: Prepared, members: Sequence[Member], bench: Bench, folder: Path
) -> list[dict[str, Any]]:
    """Write every model's file, open the test set, record what it says; returns the records.

    The models are the members, the best of them by validation where images were held out, and
    their average. Nothing is chosen by what the test set says.
    """
    dataset = prepared.dataset
    part = _held_out(prepared, members)
    models = _models(study, prepared, members, bench, folder)
    name = records.opening([member.key for member in members])
    opened = datetime.now(UTC).isoformat(timespec="milliseconds")
    said = np.stack([model.said for model in models[: len(members)]])
    _write(records.probabilities(folder, name), _packed(said, members, dataset.test_labels))
    common = {"opened": opened, "opening": name, "trained_on": len(dataset.labels) - len(part)}
    found = [
        _accuracy(model, dataset.test_labels, dataset.labels[part]) | common for model in models
    ]
    if len(part):
        best = max(found[: len(members)], key=lambda single: float(single["validation"]))
        found.insert(len(members), {**best, "model": BEST})
    study.set_user_attr(records.FINALS, [*records.finals(study), *found])
    return found


def _accuracy(model: _Model, test: Labels, held_out: Labels) -> dict[str, Any]:
    """What is recorded of a model's accuracy; fractions."""
    images = len(test)
    hits = int((model.said.argmax(1) == test).sum())
    low, high = records.wilson(hits, images)
    validation = None
    if model.held_out is not None:
        validation = float((model.held_out.argmax(1) == held_out).mean())
    return {
        "model": model.name,
        "accuracy": hits / images,
        "low": low,
        "high": high,
        "images": images,
        "errors": images - hits,
        "validation": validation,
        "file": model.file,
        "members": [member.key for member in model.members],
    }


def _packed(said: Numbers, members: Sequence[Member], labels: Labels) -> bytes:
    """What each member says of each test image, so that the test set need not be opened again."""
    buffer = io.BytesIO()
    names = np.array([member.name for member in members])
    np.savez_compressed(buffer, probabilities=said, members=names, labels=labels)
    return buffer.getvalue()


def _models(
    study: Study, prepared: Prepared, members: Sequence[Member], bench: Bench, folder: Path
) -> list[_Model]:
    """The members and, of several, their average; each file is written."""
    start_tensorflow(prepared.settings["threads"])
    from study.final import export

    dataset = prepared.dataset
    test = export.as_pixels(dataset.test_images)
    held_out = export.as_pixels(dataset.images[_held_out(prepared, members)])
    trained = [export.raw(bench.file(member)) for member in members]

    def made(name: str, place: slice) -> _Model:
        model, own = export.exported(trained[place]), members[place]
        card = _card(name, study, prepared, own)
        file = f"{name.replace(', ', '-').replace(' ', '-')}.keras"
        _write(folder / file, with_card(export.file_of(model), card))
        judged = export.probabilities(model, held_out) if len(held_out) else None
        return _Model(name, file, own, export.probabilities(model, test), judged)

    models = [made(m.name, slice(place, place + 1)) for place, m in enumerate(members)]
    if len(members) > 1:
        models.append(made(f"average of {len(members)}", slice(None)))
    return models


def _held_out(prepared: Prepared, members: Sequence[Member]) -> NDArray[np.int64]:
    """The images that no member was trained on; the same for all of them."""
    run = members[0].run
    return data.split(prepared.dataset.labels, run.validation, run.seed, run.repeat).validation


def _card(name: str, study: Study, prepared: Prepared, members: Sequence[Member]) -> Card:
    dataset = prepared.dataset
    return Card(
        model=name,
        study=study.study_name,
        labels=dataset.label_names,
        input_shape=dataset.input_shape,
        brightness=float(dataset.images.mean()),
        data_fingerprint=dataset.fingerprint,
        members=tuple(member.key for member in members),
    )


def _write(path: Path, content: bytes) -> None:
    try:
        kept.write_whole(path, content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from None
