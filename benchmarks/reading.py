"""How long 2,000 JPEGs of 100x100 take to read, and what images as bytes cost a training step.

    python benchmarks/reading.py                 both; a table is printed and recorded
    python benchmarks/reading.py --pictures 500  with fewer pictures

The pictures are drawn here, from nothing but a seed, into ten class folders. The step is measured
on bytes and on the same images as float32 in turns, in one process, so that their ratio does not
depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import recorded

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RECORDS = Path(__file__).with_name("records") / "reading.jsonl"
SIDE, CLASSES, ROUNDS = 100, 10, 5
CONFIGS = tuple({"filters": count, "k1": 4, "k2": 5, "dense": 32} for count in (8, 16))
IMAGES, BATCH = 6_000, 100


def draw(folder: Path, pictures: int) -> None:
    """JPEGs of coloured blots with noise, as hard to decode as photographs of that size."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(pictures):
        home = folder / f"class {number % CLASSES}"
        home.mkdir(exist_ok=True)
        blots = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        pixels = np.asarray(blots.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        pixels = pixels + rng.normal(0, 6, pixels.shape)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(home / f"{number:05d}.jpg", quality=90)


def read(folder: Path) -> dict[str, float]:
    """Seconds, of the clock and of processors, of one reading without a cache, files just read."""
    from study.data.dataset import load
    from study.data.parts import Reading

    began = time.perf_counter(), time.process_time()
    dataset = load(str(folder), Reading(size=(64, 64)))
    took = time.perf_counter() - began[0], time.process_time() - began[1]
    return {
        "pictures": len(dataset.images) + len(dataset.test_images),
        "seconds": took[0],
        "processor seconds": took[1],
    }


def step_ratio(config: dict[str, int]) -> float:
    """Processor time of an epoch on bytes by that on float32: the median of the rounds."""
    from study.training.startup import start_tensorflow

    start_tensorflow(1)
    from study.data.pixels import unit
    from study.training.fast.step import FastProgram
    from study.training.model import build_cnn
    from study.training.program import resident

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8)
    labels = rng.integers(0, 10, IMAGES).astype(np.int32)
    order = np.arange(IMAGES)
    turns: list[tuple[Any, Any]] = []
    for kind in (images, unit(images)):
        network = build_cnn({**config, "dropout": 0.2}, (28, 28, 1), 10)
        program = FastProgram(network, BATCH, bytes_given=kind.dtype == np.uint8)
        program.reset(lambda layer, variable: 100 * layer + variable)
        turns.append((program, resident(kind, labels)))
    ratios = []
    for _ in range(ROUNDS + 1):
        took = []
        for program, data in turns:
            began = time.process_time()
            program.epoch(data, order, 1)
            took.append(time.process_time() - began)
        ratios.append(took[0] / took[1])
    return statistics.median(ratios[1:])  # in the first one steps are traced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        print(step_ratio(CONFIGS[options.step]))
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), options.pictures)
        rounds = [read(Path(folder)) for _ in range(ROUNDS + 1)][1:]
    seconds = [round_["seconds"] for round_ in rounds]
    busy = statistics.median(round_["processor seconds"] for round_ in rounds)
    print(f"{options.pictures} pictures: {min(seconds):.2f} to {max(seconds):.2f} s", end=", ")
    print(f"{busy:.2f} s of processors")
    ratios = {}
    for number, config in enumerate(CONFIGS):
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, "--step", str(number)]
        said = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        ratios[str(config)] = float(said.stdout)
        print(f"a step on bytes by one on floats, {config}: {ratios[str(config)]:.3f}")
    about = recorded.machine("tensorflow", "pillow")
    recorded.append(RECORDS, {"rounds": rounds, "ratios": ratios, "machine": about})


if __name__ == "__main__":
    main()
