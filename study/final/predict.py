"""What a final model says of images: from its `.keras` file alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.errors import ModelError
from study.final import archive, pictures
from study.final.archive import Card
from study.storage import models


@dataclass(frozen=True)
class Prediction:
    """A label for one image, with the probability of each; ``notes`` say what was converted."""

    image: str
    label: int | str
    confidence: float
    probabilities: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Classifier:
    """A loaded model and its card."""

    model: Any
    card: Card

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Load a file that finalize has written; raises ``ModelError``."""
        from study.training.run import start_tensorflow

        start_tensorflow(1)
        return cls(*archive.load(path))

    def predict(self, batch: pictures.Batch) -> Iterator[Prediction]:
        """A prediction for each image of a batch."""
        from study.final.export import probabilities

        labels = self.card.labels
        notes = (*batch.notes, *self._doubts(batch))
        for name, said in zip(batch.names, probabilities(self.model, batch.pixels), strict=True):
            best = int(said.argmax())
            each = {str(label): float(p) for label, p in zip(labels, said, strict=True)}
            yield Prediction(name, labels[best], float(said[best]), each, notes)

    def _doubts(self, batch: pictures.Batch) -> list[str]:
        """A dark digit on white paper is the commonest mistake; it is said, not guessed at."""
        bright, known = float(batch.pixels.mean()) / 255, self.card.brightness
        if (bright > 0.5) == (known > 0.5) or abs(bright - known) < 0.3:
            return []
        than = "brighter" if bright > known else "darker"
        return [f"much {than} than what the model was trained on: does it need --invert?"]


def line(prediction: Prediction) -> str:
    """A prediction as a line: the label, and what else it may be."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[1:3]
    others = ", ".join(f"{label} {100 * p:.2f} %" for label, p in ranked)
    notes = f"  [{'; '.join(prediction.notes)}]" if prediction.notes else ""
    said = f"{prediction.label} ({100 * prediction.confidence:.2f} %; {others})"
    return f"{prediction.image}: {said}{notes}"


def submission(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a Kaggle submission: ImageId from 1, Label; raises ``ModelError``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ImageId", "Label"])
    writer.writerows((number, p.label) for number, p in enumerate(predictions, start=1))
    try:
        models.write_whole(path, text.getvalue().encode())
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from None
