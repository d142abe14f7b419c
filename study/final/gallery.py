"""The test images that the final model gets wrong, and which of their labels may be wrong instead.

The test set is not opened for it: the probabilities of each member were kept when it was.

Which labels may be wrong is found by confident learning (Northcutt, Jiang and Chuang, JAIR 70
(2021), arXiv:1911.00068), with thresholds and a vote of each member. How many of the candidates are
real: `benchmarks/label_errors.py`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from study.data.pixels import to_float01
from study.errors import ModelError
from study.files import csv_text, printable
from study.final import records
from study.running.prepare import read_data

if TYPE_CHECKING:
    from optuna import Study

    from study.data.dataset import Dataset
    from study.data.reading import ProgressCallbacks
    from study.space.settings import Settings
    from study.storage.location import Database

Heat = NDArray[np.float32]
"""Maps (images, height, width) of 0..1 for the images of the picture, in their order."""

SHOWN = 100
"""Images in the picture at most; the table has all of them."""

_COLUMNS = 10


@dataclass(frozen=True)
class Mistake:
    """A test image that the final model gets wrong; probabilities are the model's.

    ``file`` is the name of its picture file, as seen from the folder of the data, if it has one.
    ``votes`` of its ``members`` find another class so likely that the label is in doubt; with one
    vote it is a ``candidate`` for a wrong label.
    """

    image: int
    file: str
    label: int | str
    predicted: int | str
    confidence: float
    label_probability: float
    candidate: bool
    votes: int
    members: int


@dataclass(frozen=True)
class Gallery:
    """The mistakes of a model, the likeliest wrong labels first; how many images it was shown."""

    model: str
    mistakes: Sequence[Mistake]
    images: int

    @property
    def candidates(self) -> int:
        """How many of the mistakes are candidates for a wrong label."""
        return sum(mistake.candidate for mistake in self.mistakes)


def collect(study: Study, folder: Path, dataset: Dataset) -> Gallery:
    """The mistakes of the average of the members last asked for, or of the only one.

    Raises ``ModelError`` where there is no final model, or its members' probabilities are gone.
    """
    final = records.latest(study)[-1]
    if dataset.regression:
        raise ModelError("gallery shows classes that are mistaken; here labels are numbers")
    path = records.probabilities_file(folder, final.opening)
    members = records.load_probabilities(folder, final.opening)
    if members is None:
        raise ModelError(
            f"{path}: is missing or damaged; write it again with: study finalize "
            "(which opens the test set again, and records that)"
        )
    if members.shape[1:] != (len(dataset.test_labels), dataset.num_classes):
        raise ModelError(f"{path}: belongs to other data; finalize the study again")
    return Gallery(final.model, mistakes(members, dataset), len(dataset.test_labels))


def mistakes(members: NDArray[np.float32], dataset: Dataset) -> list[Mistake]:
    """Where the average of the members' probabilities (members, images, classes) is wrong."""
    names, truth = dataset.label_names, dataset.test_labels.astype(np.int32)
    average = members.mean(axis=0)
    predicted = average.argmax(axis=1)
    ranking = rank(members, truth)
    return [
        Mistake(
            image=int(image),
            file=dataset.test_files[image] if dataset.test_files else "",
            label=names[truth[image]],
            predicted=names[predicted[image]],
            confidence=float(average[image, predicted[image]]),
            label_probability=float(average[image, truth[image]]),
            candidate=bool(ranking.candidate[image]),
            votes=int(ranking.votes[image]),
            members=len(members),
        )
        for image in ranking.order
        if predicted[image] != truth[image]
    ]


def write(
    gallery: Gallery, dataset: Dataset, folder: Path, heat: Heat | None = None
) -> tuple[Path, Path]:
    """Write ``gallery.png``, with ``heat`` over its images, and ``gallery.csv``.

    Raises ``ModelError`` where that cannot be.
    """
    picture, table = folder / "gallery.png", folder / "gallery.csv"
    drawn = _drawn(gallery, dataset, heat)
    records.write(table, _csv(gallery))
    records.write(picture, drawn)
    return picture, table


def heat_of(
    study: Study, settings: Settings, folder: Path, gallery: Gallery, data: Dataset
) -> Heat:
    """Where the final model looked for the wrong class, of each image in the picture.

    Raises ``ModelError`` where its file is missing or its network has no convolution.
    """
    from study.training.train import start_tensorflow

    start_tensorflow(1)
    from study.final import archive, gradcam
    from study.final.classifier import as_pixels

    network, _ = archive.load(folder / records.latest(study)[-1].file, settings.model)
    shown = gallery.mistakes[:SHOWN]
    if not shown:
        return np.empty((0, *data.input_shape[:2]), np.float32)
    pixels = as_pixels(data.test_images[[one.image for one in shown]])
    places = {name: place for place, name in enumerate(data.label_names)}
    return gradcam.heat_maps(network, pixels, np.array([places[one.predicted] for one in shown]))


def dataset_of(settings: Settings, database: Database, callbacks: ProgressCallbacks) -> Dataset:
    """The data of a study; ``ModelError`` where it is not the recorded one any more."""
    dataset = read_data(settings, database, callbacks)
    if settings.data is not None and dataset.fingerprint != settings.data.fingerprint:
        raise ModelError(f"{settings['data']}: has changed since the study was made; restore it")
    return dataset


def _csv(gallery: Gallery) -> bytes:
    rows = (
        [round(v, 6) if isinstance(v, float) else v for v in astuple(mistake)]
        for mistake in gallery.mistakes
    )
    return csv_text([one.name for one in fields(Mistake)], rows).encode()


def _drawn(gallery: Gallery, dataset: Dataset, heat: Heat | None = None) -> bytes:
    """The picture: the images as they are stored, above each its label and the predicted one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = gallery.mistakes[:SHOWN]
    rows = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = Figure(figsize=(1.3 * _COLUMNS, 1.75 * rows + 1), layout="constrained")
    FigureCanvasAgg(figure)
    more = f", the first {SHOWN} of them" if len(gallery.mistakes) > SHOWN else ""
    figure.suptitle(
        f"{gallery.model}: {len(gallery.mistakes)} of {gallery.images} test images wrong{more}\n"
        "label → predicted (probability of each), the likeliest wrong labels first; framed: "
        f"candidates for a wrong label, {gallery.candidates}",
        fontsize=9,
        parse_math=False,
    )
    for place, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
        axes.set(xticks=[], yticks=[])
        if place >= len(shown):
            axes.set_axis_off()
            continue
        mistake = shown[place]
        image = np.squeeze(to_float01(dataset.test_images[mistake.image]))
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        if heat is not None:
            axes.imshow(heat[place], cmap="inferno", vmin=0, vmax=1, alpha=0.5)
        names = f"{printable(mistake.label)} → {printable(mistake.predicted)}"
        axes.set_title(names, fontsize=8, parse_math=False)
        sure = f"{100 * mistake.label_probability:.0f} → {100 * mistake.confidence:.0f} %"
        axes.set_xlabel(f"#{mistake.image}: {sure}", fontsize=7)
        for spine in axes.spines.values():
            spine.set(edgecolor="#D55E00", linewidth=3, visible=mistake.candidate)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """What speaks against each label.

    ``votes`` (images,) counts the members that find another class at least as likely as they find
    it where it is the label. ``margin`` (images,) is the mean probability of the label less that
    of the likeliest other class, in -1..1. ``candidate`` (images,) are the images with a vote whose
    margin is below 0. ``order`` has every image, the most suspicious first: by votes, then margin.
    """

    votes: NDArray[np.int64]
    margin: NDArray[np.float64]
    candidate: NDArray[np.bool_]
    order: NDArray[np.int64]


def rank(members: Probabilities, labels: NDArray[np.int32]) -> Ranking:
    """Rank labels (images,) by the ``members``' probabilities (members, images, classes).

    No member may have been trained on these images. A class without an image has no threshold.
    """
    images = np.arange(len(labels))
    votes = np.array([_votes(member, labels) for member in members]).sum(axis=0)
    others = members.mean(axis=0, dtype=np.float64)
    own = others[images, labels]
    others[images, labels] = -np.inf
    margin = own - others.max(axis=1)
    candidate = (votes > 0) & (margin < 0)
    return Ranking(votes, margin, candidate, np.lexsort((margin, -(votes * candidate))))


def _votes(member: Probabilities, labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Of which images a member is at least as sure as its threshold that they are of another class.

    A class's threshold is the mean probability the member gives to the images labelled with it.
    """
    classes = range(member.shape[1])
    thresholds = [
        member[labels == one, one].mean(dtype=np.float64) if (labels == one).any() else np.inf
        for one in classes
    ]
    sure = member >= np.array(thresholds)
    sure[np.arange(len(labels)), labels] = False
    return np.asarray(sure.any(axis=1))
