"""What the final model gets wrong: computed first, then drawn and written.

The test set is not opened for it: what the members said of each image was kept when it was.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import dataset as data
from study.data.pixels import unit
from study.errors import ModelError
from study.final import records
from study.final.measure import BEST
from study.storage import models

if TYPE_CHECKING:
    from optuna import Study

    from study.data.dataset import Dataset
    from study.space.settings import Settings

SHOWN = 100
"""Images in the picture at most; the table has them all."""

_COLUMNS = 10


@dataclass(frozen=True)
class Mistake:
    """A test image that the final model gets wrong; confidences are probabilities.

    ``against`` of ``members`` members give another label than the data does. It looks mislabelled
    where there are several and all of them give the same other one.
    """

    image: int
    label: int | str
    predicted: int | str
    confidence: float
    ensemble: int | str
    ensemble_confidence: float
    against: int
    members: int
    looks_mislabelled: bool


@dataclass(frozen=True)
class Gallery:
    """The mistakes of a model, the surest first, and how many images it was shown."""

    model: str
    mistakes: Sequence[Mistake]
    images: int


def collect(study: Study, folder: Path, dataset: Dataset) -> Gallery:
    """The mistakes of the model of the last opening: the best by validation, else the average.

    Raises ``ModelError`` where there is no final model, or what its members said is gone.
    """
    models = {final["model"]: final for final in records.latest(study)}
    final = models.get(BEST) or list(models.values())[-1]
    path = records.probabilities(folder, final["opening"])
    said = records.said(folder, final["opening"])
    if said is None:
        raise ModelError(
            f"{path}: is missing or damaged; write it again with the python -m study finalize of "
            "before (which opens the test set again, and records that)"
        )
    if said.shape[1:] != (len(dataset.test_labels), dataset.num_classes):
        raise ModelError(f"{path}: belongs to other data; finalize the study again")
    own = said.mean(axis=0)
    if final["model"] == BEST:
        everybody = list(models.values())[-1]["members"]
        own = said[everybody.index(final["members"][0])]
    return Gallery(final["model"], mistakes(own, said, dataset), len(dataset.test_labels))


def mistakes(own: NDArray[Any], members: NDArray[Any], dataset: Dataset) -> list[Mistake]:
    """Where ``own`` (images, classes) is wrong; ``members`` is (members, images, classes)."""
    names, truth = dataset.label_names, dataset.test_labels
    together = members.mean(axis=0)
    votes = members.argmax(axis=2)
    found = []
    for image in np.flatnonzero(own.argmax(axis=1) != truth):
        label, given = int(truth[image]), votes[:, image]
        first, second = int(own[image].argmax()), int(together[image].argmax())
        found.append(
            Mistake(
                image=int(image),
                label=names[label],
                predicted=names[first],
                confidence=float(own[image, first]),
                ensemble=names[second],
                ensemble_confidence=float(together[image, second]),
                against=int((given != label).sum()),
                members=len(members),
                looks_mislabelled=bool(
                    len(given) > 1 and (given != label).all() and (given == given[0]).all()
                ),
            )
        )
    return sorted(found, key=lambda mistake: (-mistake.confidence, mistake.image))


def write(gallery: Gallery, dataset: Dataset, folder: Path) -> tuple[Path, Path]:
    """Write ``gallery.png`` and ``gallery.csv``; raises ``ModelError`` where that cannot be."""
    picture, table = folder / "gallery.png", folder / "gallery.csv"
    try:
        models.write_whole(table, _csv(gallery))
        models.write_whole(picture, _drawn(gallery, dataset))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written ({error.strerror})") from None
    return picture, table


def dataset_of(settings: Settings) -> Dataset:
    """The data of a study; ``ModelError`` where it is not the recorded one any more."""
    dataset = data.load(settings["data"])
    if settings.data is not None and dataset.fingerprint != settings.data.fingerprint:
        raise ModelError(f"{settings['data']}: has changed since the study was made; restore it")
    return dataset


def _csv(gallery: Gallery) -> bytes:
    text = io.StringIO()
    names = [name for name in Mistake.__dataclass_fields__ if name != "members"]
    writer = csv.DictWriter(text, [*names, "members"], lineterminator="\n")
    writer.writeheader()
    for mistake in gallery.mistakes:
        row: Mapping[str, Any] = vars(mistake)
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode()


def _drawn(gallery: Gallery, dataset: Dataset) -> bytes:
    """The picture: an image a field, given and predicted label above it, the ensemble's below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = gallery.mistakes[:SHOWN]
    rows = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = Figure(figsize=(1.3 * _COLUMNS, 1.75 * rows + 1), layout="constrained")
    FigureCanvasAgg(figure)
    more = f", the {SHOWN} surest of them" if len(gallery.mistakes) > SHOWN else ""
    marked = sum(mistake.looks_mislabelled for mistake in gallery.mistakes)
    figure.suptitle(
        f"{gallery.model}: {len(gallery.mistakes)} of {gallery.images} test images wrong{more}\n"
        f"given → predicted (confidence); below: the average of the members. "
        f"Framed, as they look mislabelled (all members agree against the label): {marked}",
        fontsize=9,
    )
    for place, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
        axes.set(xticks=[], yticks=[])
        if place >= len(shown):
            axes.set_axis_off()
            continue
        mistake = shown[place]
        axes.imshow(
            np.squeeze(unit(dataset.test_images[mistake.image])), cmap="gray_r", vmin=0, vmax=1
        )
        title = f"{mistake.label} → {mistake.predicted} ({100 * mistake.confidence:.0f} %)"
        axes.set_title(title, fontsize=8, parse_math=False)
        below = f"{mistake.ensemble} ({100 * mistake.ensemble_confidence:.0f} %)"
        axes.set_xlabel(f"#{mistake.image}: {below}", fontsize=7, parse_math=False)
        for spine in axes.spines.values():
            spine.set(edgecolor="tab:red", linewidth=3, visible=mistake.looks_mislabelled)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
