"""A final model as a file for other runtimes, with the measured cost of the conversion.

The file is read back by its own runtime and compared with the ``.keras`` model image by image, on
the images that were held out: the test set is not opened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import dataset as data
from study.errors import ModelError
from study.final import archive, calibration, records, runtimes
from study.final.archive import Card
from study.final.measure import BEST
from study.final.members import seed_of
from study.final.records import FinalModel
from study.space.search_space import Validation
from study.text import units

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.space.settings import Settings

FORMATS = {"tflite": ".tflite", "onnx": ".onnx", "keras": ".keras"}

_REPRESENTATIVE = 300  # training images that show how large the numbers of a network become
_TIMED = 200  # images that are timed, one at a time


@dataclass(frozen=True)
class Cost:
    """The cost of a conversion on ``images`` held-out images, paired with the ``.keras`` model.

    ``difference`` is the accuracy gained (a fraction), of numbers the mean absolute error gained,
    with its standard ``error``; ``changed`` counts the images with another prediction.
    """

    images: int
    difference: float
    error: float
    changed: int


@dataclass(frozen=True)
class Exported:
    """A written file: its size in ``bytes``, the time of an image in ``milliseconds`` (median).

    ``cost`` and ``milliseconds`` are None where no image was held out, or the data is gone.
    """

    model: str
    file: Path
    bytes: int
    milliseconds: float | None
    cost: Cost | None
    measure: str

    @property
    def words(self) -> str:
        """``-0.10 ± 0.10 points on 144 held-out images, 16,672 bytes, 0.40 ms an image``."""
        size = f"{self.bytes:,} bytes"
        if self.cost is None or self.milliseconds is None:
            return f"{size}; not measured: there are no held-out images"
        scale, unit = (100, "points") if self.measure == "accuracy" else (1, "mean absolute error")
        return (
            f"{scale * self.cost.difference:+.2f} ± {scale * self.cost.error:.2f} {unit} on "
            f"{self.cost.images:,} held-out images "
            f"({units.counted(self.cost.changed, 'prediction')} changed), "
            f"{size}, {self.milliseconds:.2f} ms an image"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "file": str(self.file)}


@dataclass(frozen=True)
class ExportOptions:
    """``kind`` is one of `FORMATS`; ``int8`` makes all numbers of a LiteRT model small."""

    kind: str
    model: str | None = None
    int8: bool = False
    output: Path | None = None


def check(options: ExportOptions) -> None:
    """Raise ``ModelError`` for options that cannot be met, before anything is read."""
    if options.kind not in FORMATS:
        raise ModelError(f"--to {options.kind}: unknown format; give {', '.join(FORMATS)}")
    if options.int8 and options.kind != "tflite":
        raise ModelError(f"--int8: is for --to tflite, not for {options.kind}")
    if options.kind == "onnx":
        runtimes.require_onnx()
    if options.output is not None and options.output.suffix != FORMATS[options.kind]:
        raise ModelError(f"--output {options.output}: must end with {FORMATS[options.kind]}")


def picked(models: list[FinalModel], name: str | None) -> FinalModel:
    """The model of this name; ``best`` and ``average`` are short for theirs, None is the last."""
    if name is None:
        return models[-1]
    short = {BEST: "best"} | {one.model: "average" for one in models if len(one.members) > 1}
    for model in models:
        if name in (model.model, short.get(model.model)):
            return model
    known = ", ".join(short.get(model.model, model.model) for model in models)
    raise ModelError(f"--model {name}: no such final model; there are {known}")


def target(folder: Path, final: FinalModel, options: ExportOptions) -> Path:
    """The file to write; raises ``ModelError`` where it exists or cannot be written."""
    stem = Path(final.file).stem + ("-int8" if options.int8 else "")
    path = options.output or folder / f"{stem}{FORMATS[options.kind]}"
    if os.path.lexists(path):
        is_folder = path.is_dir()
        raise ModelError(
            f"{path}: {'is a folder' if is_folder else 'exists already'}; name another file with "
            "--output" + ("" if is_folder else ", or delete it")
        )
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ModelError(f"{path}: cannot be written there; name another file with --output")
    return path


def export(
    settings: Settings,
    folder: Path,
    final: FinalModel,
    options: ExportOptions,
    path: Path,
    read_data: Callable[[], Dataset],
) -> Exported:
    """Convert a final model, measure the loss of accuracy, and write its file whole.

    ``read_data`` may raise: the file is then not measured, and not made of int8. Raises
    ``ModelError``.
    """
    from study.training.train import start_tensorflow

    dataset = _data(read_data, options)
    start_tensorflow(1)
    from study.final.classifier import as_pixels, probabilities

    network, card = archive.load(folder / final.file, settings.model)
    part, rest = _parts(settings, dataset, final)
    images = None
    if options.int8 and dataset is not None:
        some = np.random.default_rng(0).permutation(rest)[:_REPRESENTATIVE]
        images = as_pixels(dataset.images[np.sort(some)])
    suffix = FORMATS[options.kind]
    if suffix == ".keras":
        model, function = (folder / final.file).read_bytes(), network
    else:
        model = _converted(network, card, suffix, images)
        function = runtimes.load(path, model, card.input_shape, len(card.labels) or 1)
        card = replace(card, model=final.model, needed=None)
    cost = milliseconds = None
    if dataset is not None and len(part):
        pixels, labels = as_pixels(dataset.images[part]), dataset.labels[part]
        said = probabilities(function, pixels)
        cost = compared(probabilities(network, pixels), said, labels)
        milliseconds = _milliseconds(function, pixels)
        if card.temperature is not None and suffix != ".keras":
            card = replace(card, temperature=calibration.fit(said, labels))
    whole = model if suffix == ".keras" else runtimes.with_card(model, suffix, asdict(card))
    records.write(path, whole)
    return Exported(final.model, path, len(whole), milliseconds, cost, final.measure)


def compared(before: Any, after: Any, labels: NDArray[Any]) -> Cost:
    """The gain of outputs (n, classes), or numbers (n, 1), over others for the same images."""
    if before.shape[1] == 1:
        gained = np.abs(before[:, 0] - labels) - np.abs(after[:, 0] - labels)
        gained, differ = -gained.astype(np.float64), before[:, 0] != after[:, 0]
    else:
        first, second = before.argmax(axis=1), after.argmax(axis=1)
        gained = (second == labels).astype(np.float64) - (first == labels)
        differ = first != second
    error = float(gained.std(ddof=1) / np.sqrt(len(labels))) if len(labels) > 1 else 0.0
    return Cost(len(labels), float(gained.mean()), error, int(differ.sum()))


def _data(read_data: Callable[[], Dataset], options: ExportOptions) -> Dataset | None:
    from study.errors import StudyError

    try:
        return read_data()
    except StudyError as error:
        if options.int8:
            raise ModelError(f"--int8 needs the training images: {error}") from None
        return None


def _parts(
    settings: Settings, dataset: Dataset | None, final: FinalModel
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images that were held out from the final models, and those they were trained on."""
    if dataset is None:
        return np.arange(0), np.arange(0)
    total = len(dataset.labels)
    held_out = total - final.trained_on
    if held_out <= 0:
        return np.arange(0), np.arange(total)
    seed = seed_of(settings, 0)
    validation = Validation("holdout", (held_out - 0.5) / total, seed=seed)  # it is rounded up
    found = data.split(dataset.labels, validation, seed, 0)
    return found.validation, found.train


def _converted(network: Any, card: Card, suffix: str, images: Any) -> bytes:
    from study.final import classifier

    if suffix == ".onnx":
        return classifier.to_onnx(network)
    return classifier.to_tflite(network, card.input_shape, images)


def _milliseconds(function: Any, pixels: NDArray[Any]) -> float:
    """The median time of one image."""
    times = []
    for place in range(min(_TIMED, len(pixels)) + 1):
        one = pixels[place % len(pixels)][np.newaxis].astype(np.float32)
        start = time.perf_counter()
        np.asarray(function(one, training=False))
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[1:]))  # the first one is slower
