"""A small table of curves whose best configuration is known, and ways to spoil it."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

IMAGES = 500


def lines(repeats: int = 4, epochs: int = 5, noise: int = 4) -> list[dict[str, Any]]:
    """3 x 2 x 2 configurations; those with more units and no dropout are better, in whole images.

    Names and options are of every kind: numbers, texts, truths, and a name with a dash.
    """
    chance = random.Random(0)
    runs = []
    for units, rate, noisy in itertools.product([32, 8, 16], ["high", "low"], [True, False]):
        level = 400 + units + 20 * (rate == "low") - 8 * noisy
        for repeat in range(repeats):
            curve = [
                (level + repeat - 60 // 2**epoch + chance.randint(0, noise)) / IMAGES
                for epoch in range(epochs)
            ]
            runs.append(
                {
                    "params": {"units": units, "learning-rate": rate, "noisy": noisy},
                    "repeat": repeat,
                    "val_acc": curve,
                    "val_loss": [1 - accuracy for accuracy in curve],
                    "test_acc": (level + chance.randint(0, noise)) / IMAGES,
                    "seconds": [units / 100] * epochs,
                }
            )
    return runs


def written(path: Path, runs: list[dict[str, Any]]) -> Path:
    """A table's file."""
    path.write_text("".join(json.dumps(run) + "\n" for run in runs))
    return path
