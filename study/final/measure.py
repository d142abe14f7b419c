"""Trained members become files, and the test set is opened for all of them at once."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import dataset as data
from study.data.pixels import brightness
from study.data.splitting import Labels
from study.final import calibration, records
from study.final.archive import Card, Needed, with_card
from study.final.members import Member
from study.final.records import FinalModel, OwnMetric
from study.space.metric import VAL_ACCURACY
from study.training.train import start_tensorflow

if TYPE_CHECKING:
    from optuna import Study

    from study.running.prepare import Prepared

Numbers = NDArray[np.float32]

BEST = "best by validation"

_MEASURED = {False: (VAL_ACCURACY, "val_acc"), True: ("val_mae",)}
"""The metrics that are always measured; for any other one the study's metric is measured too."""


@dataclass(frozen=True)
class _Model:
    """A model whose file is written: the members, and of several their average.

    ``trained`` are the members as they were trained, ``network`` the model in the file.
    ``held_out`` are its outputs (n, classes) for the held-out images, and ``temperature`` was
    fitted on them; None for numbers, and where no image was held out.
    """

    name: str
    file: str
    members: Sequence[Member]
    trained: Sequence[Any]
    network: Any
    held_out: Numbers
    temperature: float | None


def measure(
    study: Study,
    prepared: Prepared,
    members: Sequence[Member],
    folder: Path,
) -> list[FinalModel]:
    """Write every model's file, open the test set, record the accuracies; returns the records.

    The models are the members, the best of them by validation where images were held out, and
    their average. Nothing is chosen by what the test set says.
    """
    models = write_files(study, prepared, members, folder)
    from study.final import classifier

    dataset, metric = prepared.dataset, prepared.settings.metric
    part = _held_out(prepared, members)
    test = classifier.as_pixels(dataset.test_images)
    name = records.opening([member.key for member in members])
    opened = datetime.now(UTC).isoformat(timespec="milliseconds")
    predicted = [classifier.probabilities(model.network, test) for model in models]
    packed = _packed(np.stack(predicted[: len(members)]), members, dataset.test_labels)
    records.write(records.probabilities_file(folder, name), packed)
    own: Sequence[OwnMetric | None] = [None] * len(models)
    if metric.name not in _MEASURED[dataset.regression]:
        own = _own_metric(prepared, models, part)
    found = []
    for model, of_test, own_metric in zip(models, predicted, own, strict=True):
        validation = None
        if len(part):
            validation = _measured(model.held_out, dataset.labels[part])["value"]
        fitted = None
        if model.temperature is not None:
            labels = dataset.test_labels
            fitted = calibration.measure(model.temperature, len(part), of_test, labels)
        found.append(
            FinalModel(
                model=model.name,
                file=model.file,
                members=tuple(member.key for member in model.members),
                configurations=_configurations(model.members),
                opening=name,
                opened=opened,
                trained_on=len(dataset.labels) - len(part),
                validation=validation,
                own=own_metric,
                calibration=fitted,
                **_measured(of_test, dataset.test_labels),
            )
        )
    if len(part):
        values = [member.best or 0.0 for member in members]
        found.insert(len(members), replace(found[metric.best(values)], model=BEST))
    records.add(study, found)
    return found


def _configurations(members: Sequence[Member]) -> tuple[dict[str, Any], ...]:
    """What the members were trained with, every configuration once."""
    every = [dict(member.run.params) for member in members]
    return tuple(one for place, one in enumerate(every) if one not in every[:place])


def _measured(predicted: Numbers, labels: Labels) -> dict[str, Any]:
    """How good probabilities (n, classes) of n images are; or numbers (n, 1), by their errors.

    With 95 % intervals: of an accuracy (a fraction) Wilson's, of mean absolute errors the normal.
    """
    images = len(labels)
    if predicted.shape[1] == 1:
        off = np.abs(predicted[:, 0].astype(np.float64) - labels)
        half = 1.96 * float(off.std(ddof=1)) / math.sqrt(images) if images > 1 else math.inf
        mae, rmse = float(off.mean()), math.sqrt(float((off**2).mean()))
        interval = {"low": mae - half, "high": mae + half}
        return {"measure": "mae", "value": mae, **interval, "images": images, "rmse": rmse}
    hits = int((predicted.argmax(1) == labels).sum())
    low, high = records.interval(hits, images)
    accuracy = {"measure": "accuracy", "value": hits / images, "low": low, "high": high}
    return {**accuracy, "images": images, "errors": images - hits}


def _own_metric(
    prepared: Prepared, models: Sequence[_Model], part: NDArray[np.int64]
) -> list[OwnMetric]:
    """The study's metric of each model, on the test images and on ``part``, held out."""
    from study.final import classifier
    from study.final.judge import Judge, outputs

    dataset, metric = prepared.dataset, prepared.settings.metric
    judge = Judge(models[0].members[0].run, prepared.inputs)
    trained = [model.trained for model in models]
    layers = models[0].network.layers
    frozen = next((one for one in layers if one.name == classifier.BACKBONE), None)
    test = dataset.test_images if frozen is None else outputs(frozen, dataset.test_images)
    on_test = judge.values(trained, test, dataset.test_labels)
    on_held_out: Sequence[float | None] = [None] * len(models)
    if len(part):
        on_held_out = judge.values(trained, prepared.inputs.images[part], dataset.labels[part])
    name = metric.name.removeprefix("val_")
    return [
        OwnMetric(name, metric.direction, value, validation)
        for value, validation in zip(on_test, on_held_out, strict=True)
    ]


def _packed(predicted: Numbers, members: Sequence[Member], labels: Labels) -> bytes:
    """An npz of the members' probabilities (members, n, classes): it saves opening the test set."""
    buffer = io.BytesIO()
    names = np.array([member.name for member in members])
    np.savez_compressed(buffer, probabilities=predicted, members=names, labels=labels)
    return buffer.getvalue()


def write_files(
    study: Study,
    prepared: Prepared,
    members: Sequence[Member],
    folder: Path,
) -> list[_Model]:
    """Write the file of every member and, of several, of their average.

    Only the held-out images are used: they give each model its temperature.
    """
    start_tensorflow(prepared.settings["threads"])
    from study.final import classifier
    from study.training import user_code
    from study.training.compiled import to_bytes

    source = prepared.settings.model
    own = user_code.classes(source) if source else {}
    frozen = _backbone(prepared)
    trained = [
        classifier.load_member(member.file, f"member_{place}", own)
        for place, member in enumerate(members, start=1)
    ]

    dataset, part = prepared.dataset, _held_out(prepared, members)
    pixels, labels = classifier.as_pixels(dataset.images[part]), dataset.labels[part]

    def made(name: str, place: slice) -> _Model:
        model = classifier.with_preprocessing(trained[place], dataset.input_shape, frozen)
        said = (
            classifier.probabilities(model, pixels) if len(part) else np.empty((0, 0), np.float32)
        )
        fits = len(part) > 0 and not dataset.regression
        temperature = calibration.fit(said, labels) if fits else None
        card = _card(name, study, prepared, members[place], temperature)
        file = f"{name.replace(', ', '-').replace(' ', '-')}.keras"
        records.write(folder / file, with_card(to_bytes(model), card))
        return _Model(name, file, members[place], trained[place], model, said, temperature)

    models = [made(m.name, slice(place, place + 1)) for place, m in enumerate(members)]
    if len(members) > 1:
        tuned = ", fine-tuned" if members[0].run.tuning else ""
        models.append(made(f"average of {len(members)}{tuned}", slice(None)))
    return models


def _backbone(prepared: Prepared) -> Any:
    """The backbone whose outputs the members take; None where they take images."""
    source, network = prepared.settings.model, prepared.settings.network
    fine_tuned = prepared.inputs.backbone is not None
    if fine_tuned or source is None or network is None or network.backbone is None:
        return None
    from study.training import backbone

    return backbone.recorded(source, prepared.dataset.input_shape, network.backbone)


def _held_out(prepared: Prepared, members: Sequence[Member]) -> NDArray[np.int64]:
    """The images that no member was trained on; the same for all of them."""
    run = members[0].run
    return data.split(prepared.dataset.labels, run.validation, run.seed, run.repeat).validation


def _card(
    name: str,
    study: Study,
    prepared: Prepared,
    members: Sequence[Member],
    temperature: float | None,
) -> Card:
    dataset, settings = prepared.dataset, prepared.settings
    network = settings.network
    height, width, channels = dataset.input_shape
    return Card(
        model=name,
        study=study.study_name,
        labels=dataset.label_names,
        input_shape=(height, width, channels),
        brightness=brightness(dataset.images),
        data_fingerprint=dataset.fingerprint,
        members=tuple(member.key for member in members),
        fit=settings.space.fit or "pad",
        scales=dataset.scales,
        needed=Needed.of(settings.model, network.classes) if settings.model and network else None,
        temperature=temperature,
    )
