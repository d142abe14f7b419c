"""How much faster heads train on features than through their frozen backbone, and how well.

    python benchmarks/features.py

2,000 pictures of 64x64 pixels in five classes; MobileNetV2 with random weights, its batch
normalization calibrated on some of them (its speed is that of pretrained weights, and so is the
comparison of accuracies: both ways see the same backbone). Rounds take turns, so that a busy
machine is unjust to all: a round computes the features, trains ten heads on them, and trains one of
these heads through the backbone, all on one thread. Reading, tracing and validation are included.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import recorded

from study.data.dataset import Dataset
from study.space.model_source import ModelSource
from study.space.search_space import Validation
from study.training.run import Run
from study.training.train import start_tensorflow, train

RECORD = Path(__file__).with_name("records") / "features.json"
EXAMPLE = Path(__file__).parents[1] / "examples" / "mobilenet.py"
THROUGH = """

def through(params, input_shape, num_classes):
    images = keras.Input(input_shape)
    x = backbone(input_shape)(images, training=False)
    head = build(params, x.shape[1:], num_classes)
    model = keras.Model(images, head(x))
    adam = keras.optimizers.Adam(params["learning_rate"])
    model.compile(adam, head.loss, metrics=["accuracy"])
    return model
"""
HEADS = 10  # of a round


def photographs(count: int, side: int) -> Dataset:
    """Five classes that differ in the frequency of a grating, in random colours and noise."""
    rng = np.random.default_rng(3)
    labels = (np.arange(count) % 5).astype(np.int32)
    rows = np.arange(side) / side
    images = np.empty((count, side, side, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        turn, start = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        along = np.cos(turn) * rows[:, None] + np.sin(turn) * rows
        wave = np.sin(2 * np.pi * (4 + 1.5 * label) * along + start)
        picture = 0.5 + 0.25 * wave[..., None] * rng.uniform(-1, 1, 3) + rng.normal(0, 0.2, 3)
        noisy = picture + rng.normal(0, 0.15, (side, side, 3))
        image[:] = np.clip(255 * noisy, 0, 255).astype(np.uint8)
    return Dataset("photographs", images, labels, images[:0], labels[:0], (*range(5),), "photos")


def calibrated(folder: Path, data: Dataset) -> ModelSource:
    """The example's file with weights that lie beside it."""
    import keras

    keras.utils.set_random_seed(0)
    shape = data.input_shape
    network = keras.applications.MobileNetV2(shape, include_top=False, pooling="avg", weights=None)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(data.images[:128].astype(np.float32) / 127.5 - 1, training=True)
    path = folder / "random.weights.h5"
    network.save_weights(path)
    text = EXAMPLE.read_text().replace('"imagenet"', repr(str(path)))
    return ModelSource(str(folder / "mobilenet.py"), "build", text + THROUGH, features="backbone")


def timed(do: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What a function returns, and its seconds of wall and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    found = do()
    return found, (time.perf_counter() - wall, time.process_time() - processor)


def last_accuracy(run: Run, data: Dataset) -> float:
    """The validation accuracy of a run's last epoch."""
    return [*train(run, data)][-1].val_accuracy


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=64)
    given = parser.parse_args()
    start_tensorflow(1)
    from study.training import backbone

    data = photographs(given.images, given.side)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        source = calibrated(Path(folder), data)
        model = backbone.built(source, data.input_shape)
        for number in range(given.rounds):
            rounds.append(one_round(number, given.epochs, data, source, model))
            print(json.dumps(rounds[-1]), flush=True)
    result = {"machine": recorded.machine("tensorflow", "keras"), **summary(rounds)}
    print(json.dumps(result, indent=1))
    RECORD.write_text(json.dumps(result, indent=1) + "\n")


def one_round(
    number: int, epochs: int, data: Dataset, source: ModelSource, model: Any
) -> dict[str, Any]:
    """Seconds (wall, processor) of features, heads and one training through the backbone."""
    from study.training import backbone

    def run(head: int) -> Run:
        params = {"width": (0, 64)[head % 2], "dropout": 0.05 * head, "learning_rate": 0.001}
        return Run(
            params=tuple(params.items()),
            repeat=number,
            seed=1,
            epochs=epochs,
            batch_size=32,
            validation=Validation("holdout", 0.2),
            threads=1,
            data_fingerprint=data.fingerprint,
            model=source,
        )

    parts, features = timed(lambda: [*backbone.features(source, model, data.images)])
    inputs = replace(data, images=np.concatenate(parts))
    on_features, heads = timed(lambda: [last_accuracy(run(n), inputs) for n in range(HEADS)])
    slow = replace(run(0), model=replace(source, function="through", features=None))
    whole, through = timed(lambda: last_accuracy(slow, data))
    return {
        "features": features,
        "heads": heads,
        "through": through,
        "accuracies": [on_features[0], whole],
    }


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Each round's ratios, in wall and in processor time; the accuracies of the pairs."""
    ratios: dict[str, list[float]] = {}
    for one in rounds:
        for place, kind in enumerate(("wall", "processor")):
            features, heads, through = (one[k][place] for k in ("features", "heads", "through"))
            thirty, study = features + 30 * heads / HEADS, features + 36 * heads / HEADS
            ratios.setdefault(f"30 runs, times faster, {kind}", []).append(30 * through / thirty)
            ratios.setdefault(f"36 runs, in trainings, {kind}", []).append(study / through)
    differences = [head - whole for head, whole in (one["accuracies"] for one in rounds)]
    return {
        "rounds": rounds,
        "ratios": ratios,
        "medians": {name: statistics.median(values) for name, values in ratios.items()},
        "mean difference of accuracies": statistics.fmean(differences),
        "largest": max(map(abs, differences)),
    }


if __name__ == "__main__":
    main()
