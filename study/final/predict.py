"""Predictions of a final model for images, from its `.keras` file alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.errors import ModelError, StudyError
from study.files import csv_text, printable
from study.final import archive, pictures, records
from study.final.archive import Card
from study.final.calibration import calibrated
from study.space.model_source import ModelSource

_SMALL = 0.4  # of a side; MNIST's digits fill five sevenths
_AT_ONCE, _BYTES = 500, 2**25  # images, and bytes of them, that the model is given at once


@dataclass(frozen=True)
class Prediction:
    """A label for one image, with the probability of each; ``notes`` say what was converted.

    Probabilities are calibrated if the model has a temperature. For regression ``label`` is a
    number, without probabilities. ``id`` names the image in a
    submission.
    """

    image: str
    label: int | str | float
    confidence: float | None
    probabilities: dict[str, float]
    notes: tuple[str, ...] = ()
    id: int | str = ""


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
        from study.training.train import start_tensorflow

        start_tensorflow(1)
        return cls(*archive.load(path, source))

    def predict(self, batches: Iterable[pictures.Batch]) -> Iterator[Prediction]:
        """A prediction for each image of the batches, in their order; holds a few at a time."""
        from study.final.classifier import probabilities

        for group in _grouped(batches):
            raw = probabilities(self.model, np.concatenate([batch.pixels for batch in group]))
            outputs = calibrated(raw, self.card.temperature)
            each = iter(outputs)
            for batch in group:
                notes = (*batch.notes, *self._doubts(batch))
                for name, id_ in zip(batch.names, batch.ids, strict=True):
                    yield self._prediction(name, id_, next(each), notes)

    def _prediction(
        self, name: str, id_: int | str, output: NDArray[np.float32], notes: tuple[str, ...]
    ) -> Prediction:
        labels, best = self.card.labels, int(output.argmax())
        if not labels:
            return Prediction(name, float(output[0]), None, {}, notes, id_)
        each = {str(label): float(p) for label, p in zip(labels, output, strict=True)}
        return Prediction(name, labels[best], float(output[best]), each, notes, id_)

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


def _grouped(batches: Iterable[pictures.Batch]) -> Iterator[list[pictures.Batch]]:
    """Batches together, as many as the model is given at once."""
    group: list[pictures.Batch] = []
    for batch in batches:
        group.append(batch)
        images, size = sum(len(one.names) for one in group), sum(one.pixels.nbytes for one in group)
        if images >= _AT_ONCE or size >= _BYTES:
            yield group
            group = []
    if group:
        yield group


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
    """Predictions for files; ``left_out`` could not be read, ``skipped`` were no pictures."""

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
    """Predict the images of files and folders with the classifier that ``load`` returns.

    It is loaded once there is an image; files are read as they are needed. A file that cannot be
    read is left out, unless ``strict``. Raises ``ModelError`` or ``DataError`` for a missing path,
    and where no file can be read.
    """
    found = pictures.find(paths)
    left_out: list[str] = []

    def batches() -> Iterator[pictures.Batch]:
        how = (card.input_shape, card.fit, card.scales)
        for file, name in found.files:
            try:
                yield from pictures.read(file, *how, name=name, invert=invert, center=center)
            except StudyError as error:
                if strict or len(found.files) == 1:
                    raise
                left_out.append(str(error))

    rest = batches()
    first = next(rest, None)
    if first is None:
        raise ModelError(f"{left_out[0]} (none of {len(left_out)} files can be read)")
    return Predictions(list(load().predict(chain([first], rest))), left_out, found.skipped)


def line(prediction: Prediction) -> str:
    """A prediction as a line: the label, and what else it may be."""
    notes = f"  [{'; '.join(prediction.notes)}]" if prediction.notes else ""
    if prediction.confidence is None:
        return f"{printable(prediction.image)}: {prediction.label:.4g}{notes}"
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[1:3]
    others = ", ".join(f"{printable(label)}: {100 * p:.2f} %" for label, p in ranked)
    answer = f"{printable(prediction.label)} ({100 * prediction.confidence:.2f} %; {others})"
    return f"{printable(prediction.image)}: {answer}{notes}"


def submission(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a Kaggle submission: ImageId (the number of a row, or the name of a file), Label.

    Raises ``ModelError`` where two images have one id, or the file cannot be written.
    """
    counts = Counter(prediction.id for prediction in predictions)
    if twice := [printable(id_) for id_, count in counts.items() if count > 1]:
        raise ModelError(
            f"{printable(path)}: two images would have the ImageId {twice[0]}; predict the files "
            "or folders that they are from one at a time"
        )
    text = csv_text(("ImageId", "Label"), ((one.id, one.label) for one in predictions))
    records.write(path, text.encode())
