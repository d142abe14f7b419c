"""What a final model says of images: from its `.keras` file alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.errors import ModelError, StudyError
from study.final import archive, pictures, records
from study.final.archive import Card
from study.space.model_source import ModelSource

_SMALL = 0.4  # of a side; MNIST's digits fill five sevenths


@dataclass(frozen=True)
class Prediction:
    """A label for one image, with the probability of each; ``notes`` say what was converted.

    Where labels are numbers it is one, without probabilities.
    """

    image: str
    label: int | str | float
    confidence: float | None
    probabilities: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Classifier:
    """A loaded model and its card."""

    model: Any
    card: Card

    @classmethod
    def load(cls, path: Path, source: ModelSource | None = None) -> Classifier:
        """Load a file that finalize has written; ``source``, which is run, is what it needs.

        Raises ``ModelError``.
        """
        from study.training.startup import start_tensorflow

        start_tensorflow(1)
        return cls(*archive.load(path, source))

    def predict(self, batches: Sequence[pictures.Batch]) -> Iterator[Prediction]:
        """A prediction for each image of some batches, in their order."""
        from study.final.export import probabilities

        each = iter(probabilities(self.model, np.concatenate([batch.pixels for batch in batches])))
        for batch in batches:
            notes = (*batch.notes, *self._doubts(batch))
            for name in batch.names:
                yield self._prediction(name, next(each), notes)

    def _prediction(self, name: str, of: NDArray[np.float32], notes: tuple[str, ...]) -> Prediction:
        labels, best = self.card.labels, int(of.argmax())
        if not labels:
            return Prediction(name, float(of[0]), None, {}, notes)
        each = {str(label): float(p) for label, p in zip(labels, of, strict=True)}
        return Prediction(name, labels[best], float(of[best]), each, notes)

    def _doubts(self, batch: pictures.Batch) -> list[str]:
        """The commonest mistakes, ink on paper and a small digit on a sheet: said, not guessed."""
        doubts = []
        if batch.notes and all(extent(pixels) < _SMALL for pixels in batch.pixels):
            doubts.append("what is on it fills little of the picture: does it need --center?")
        bright, known = float(batch.pixels.mean()) / 255, self.card.brightness
        if (bright > 0.5) != (known > 0.5) and abs(bright - known) >= 0.3:
            than = "brighter" if bright > known else "darker"
            doubts.append(f"much {than} than what the model was trained on: does it need --invert?")
        return doubts


def extent(pixels: NDArray[np.float32]) -> float:
    """The longer side of what differs from the border of a picture, as a part of the picture's.

    ``pixels`` (height, width, channels) are 0..255. Of a blank picture it is 1.
    """
    grey = pixels.mean(axis=2)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    distance = np.abs(grey - np.median(border))
    rows, columns = np.nonzero(distance > distance.max() / 3)
    if not len(rows):
        return 1.0
    return float(max(np.ptp(rows) / grey.shape[0], np.ptp(columns) / grey.shape[1]))


@dataclass(frozen=True)
class Predictions:
    """What a model says of files; ``left_out`` could not be read, ``skipped`` were no pictures."""

    predictions: Sequence[Prediction]
    left_out: Sequence[str]
    skipped: Sequence[str]


def of_files(
    paths: Sequence[Path],
    card: Card,
    load: Callable[[], Classifier],
    *,
    invert: bool = False,
    center: bool = False,
    strict: bool = False,
) -> Predictions:
    """Predict what is on the images of files and folders with the classifier that ``load`` gives.

    It is loaded once there are images. A file that cannot be read is left out, unless ``strict``.
    Raises ``ModelError`` or ``DataError`` for a missing path, and where no file can be read.
    """
    found = pictures.find(paths)
    batches, left_out = [], []
    for file in found.files:
        try:
            batches.append(
                pictures.read(file, card.input_shape, card.fit, invert=invert, center=center)
            )
        except StudyError as error:
            if strict or len(found.files) == 1:
                raise
            left_out.append(str(error))
    if not batches:
        raise ModelError(f"{left_out[0]} (of {len(left_out)} files none can)")
    return Predictions(list(load().predict(batches)), left_out, found.skipped)


def line(prediction: Prediction) -> str:
    """A prediction as a line: the label, and what else it may be."""
    notes = f"  [{'; '.join(prediction.notes)}]" if prediction.notes else ""
    if prediction.confidence is None:
        return f"{prediction.image}: {prediction.label:.4g}{notes}"
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[1:3]
    others = ", ".join(f"{label}: {100 * p:.2f} %" for label, p in ranked)
    answer = f"{prediction.label} ({100 * prediction.confidence:.2f} %; {others})"
    return f"{prediction.image}: {answer}{notes}"


def submission(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a Kaggle submission: ImageId from 1, Label; raises ``ModelError``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ImageId", "Label"])
    writer.writerows((number, p.label) for number, p in enumerate(predictions, start=1))
    records.write(path, text.getvalue().encode())
