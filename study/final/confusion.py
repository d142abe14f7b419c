"""Which classes a final model tells apart, from the predictions that `finalize` stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data import arrays
from study.errors import DataError
from study.files import csv_text
from study.final import calibration, records
from study.final.calibration import Says
from study.final.records import FinalModel

Label = int | str


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``images``: the fraction and its 95 % interval (Wilson's)."""

    hits: int
    images: int

    @property
    def value(self) -> float:
        return self.hits / self.images

    @cached_property
    def interval(self) -> tuple[float, float]:
        return records.interval(self.hits, self.images)


@dataclass(frozen=True)
class ClassScore:
    """How a model does on a class.

    ``recall``: of its test images, those found; None if it has none. ``precision``: of the
    images that were given its label, those of the class; None where it was never predicted.
    """

    label: Label
    recall: Rate | None
    precision: Rate | None


@dataclass(frozen=True)
class Confused:
    """Two classes and how many test images of each were taken for the other."""

    first: Label
    second: Label
    first_as_second: int
    second_as_first: int

    @property
    def images(self) -> int:
        return self.first_as_second + self.second_as_first


@dataclass(frozen=True)
class Confusion:
    """``matrix`` (classes, classes) counts test images: rows are labels, columns predictions."""

    labels: tuple[Label, ...]
    matrix: NDArray[np.int64]

    @cached_property
    def scores(self) -> list[ClassScore]:
        """Recall and precision of every class, in the order of the labels."""
        found = zip(
            self.labels,
            np.diag(self.matrix).tolist(),
            self.matrix.sum(axis=1).tolist(),
            self.matrix.sum(axis=0).tolist(),
            strict=True,
        )
        return [
            ClassScore(
                label,
                Rate(hits, images) if images else None,
                Rate(hits, predicted) if predicted else None,
            )
            for label, hits, images, predicted in found
        ]

    def pairs(self, most: int | None = None) -> list[Confused]:
        """The pairs of classes that were confused, those of most images first."""
        both = self.matrix + self.matrix.T
        rows, columns = np.nonzero(np.triu(both, 1))
        order = np.argsort(-both[rows, columns], kind="stable")[:most]
        return [
            Confused(self.labels[a], self.labels[b], int(self.matrix[a, b]), int(self.matrix[b, a]))
            for a, b in zip(rows[order], columns[order], strict=True)
        ]

    def matrix_csv(self) -> bytes:
        """A line for each label, a column for each prediction."""
        lines = (
            (label, *row) for label, row in zip(self.labels, self.matrix.tolist(), strict=True)
        )
        return csv_text(("label", *map(str, self.labels)), lines).encode()

    def classes_csv(self) -> bytes:
        """A line for each class: recall and precision (fractions) with their intervals."""
        columns = ["label", "images", "predicted", "right"]
        columns += [f"{name}{end}" for name in RATES for end in ("", "_low", "_high")]
        images, predicted = self.matrix.sum(axis=1).tolist(), self.matrix.sum(axis=0).tolist()
        lines = [
            (
                score.label,
                images[place],
                predicted[place],
                int(self.matrix[place, place]),
                *_fractions(score.recall),
                *_fractions(score.precision),
            )
            for place, score in enumerate(self.scores)
        ]
        return csv_text(columns, lines).encode()

    @property
    def tables(self) -> dict[str, bytes]:
        """Both tables by the names of their files."""
        return {"confusion.csv": self.matrix_csv(), "classes.csv": self.classes_csv()}


RATES = ("recall", "precision")


@dataclass(frozen=True)
class Knowledge:
    """What the stored predictions of the test images say of a model of classes.

    ``says`` are of calibrated probabilities, where the model has a temperature.
    """

    model: FinalModel
    confusion: Confusion
    says: Sequence[Says]


def read(folder: Path, final: FinalModel, labels: Sequence[Label]) -> Knowledge | None:
    """What is stored of ``final``, the last model of its opening; the test set is not opened.

    None for numbers, and where the file of the predictions is missing, damaged or of other data.
    """
    names = ["probabilities", "labels"]
    try:
        found = arrays.read_npz(records.probabilities_file(folder, final.opening), lambda _: names)
    except DataError:
        return None
    members, truth = found["probabilities"], found["labels"]
    if members.ndim != 3 or members.shape[1:] != (final.images, len(labels)) or not len(labels):
        return None
    if truth.shape != (final.images,) or not np.isin(truth, np.arange(len(labels))).all():
        return None
    outputs = members.mean(axis=0)
    temperature = final.calibration.temperature if final.calibration else None
    says = calibration.reliability(calibration.calibrated(outputs, temperature), truth)
    return Knowledge(final, counted(outputs.argmax(axis=1), truth, labels), says)


def counted(predicted: NDArray[Any], truth: NDArray[Any], labels: Sequence[Label]) -> Confusion:
    """The confusion matrix of predicted and true classes (images,), as places in ``labels``."""
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, (truth.astype(np.int64), predicted.astype(np.int64)), 1)
    return Confusion(tuple(labels), matrix)


def _fractions(rate: Rate | None) -> tuple[float | None, ...]:
    if rate is None:
        return None, None, None
    return tuple(round(number, 6) for number in (rate.value, *rate.interval))
