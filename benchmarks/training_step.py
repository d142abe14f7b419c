"""How many images a second two cores train: the study's fast and stock paths against `fit`.

    python benchmarks/training_step.py --data mnist.npz

All contenders stay alive and take turns, round by round, so that a busy machine is unjust to all;
images for a second of processor time stand beside, where other work on the machine shows less.
`fit` is timed from the begin to the end of its epoch: what it does once a call is left out. The
study trains as it does with `--jobs 2`, in two processes of one thread. TensorFlow decides by the
processor whether it uses oneDNN; the study switches it on, so `fit` is shown with and without, and
at its best: with `steps_per_execution=50`, a process a core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import recorded

Turn = Callable[[], tuple[float, ...]]
NAMES = ("filters", "k1", "k2", "dense", "dropout")
CONFIGURATIONS = ((8, 4, 5, 32, 0.2), (16, 4, 5, 32, 0.2), (32, 7, 7, 32, 0.1))
RECORD = Path(__file__).with_name("records") / "training_step.json"


@dataclass(frozen=True)
class Contender:
    """Who trains: in how many processes of how many threads, with oneDNN or not."""

    name: str
    kind: str
    processes: int
    threads: int
    onednn: bool


CONTENDERS = (
    Contender("fit, 2 threads", "fit", 1, 2, onednn=False),
    Contender("fit, 2 x 1 thread", "fit", 2, 1, onednn=False),
    Contender("fit, 2 threads, oneDNN", "fit", 1, 2, onednn=True),
    Contender("fit, 2 x 1 thread, oneDNN", "fit", 2, 1, onednn=True),
    Contender("fit, 50 steps a call", "fit 50", 2, 1, onednn=True),
    Contender("study stock, 2 x 1 thread", "stock", 2, 1, onednn=True),
    Contender("study, 2 x 1 thread", "fast", 2, 1, onednn=True),
    Contender("matmul, 2 x 1 thread", "matmul", 2, 1, onednn=True),
)


class Team:
    """The processes of a contender, which wait for their turn."""

    def __init__(self, who: Contender, config: tuple[float, ...], data: str, images: int) -> None:
        job = json.dumps([who.kind, who.threads, config, data, images])
        env = os.environ | {"TF_ENABLE_ONEDNN_OPTS": str(int(who.onednn))}
        self._workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                text=True,
            )
            for _ in range(who.processes)
        ]

    def turn(self) -> tuple[float, float]:
        """All processes at once: what they did together, a second and a processor second."""
        for worker in self._workers:
            print("go", file=worker.stdin, flush=True)
        done = [json.loads(worker.stdout.readline()) for worker in self._workers]
        amounts, seconds, processor = zip(*done, strict=True)
        return sum(amounts) / max(seconds), sum(amounts) / sum(processor)

    def leave(self) -> None:
        for worker in self._workers:
            worker.stdin.close()
            worker.wait()


def work(kind: str, threads: int, config: list[float], source: str, images: int) -> None:
    """A worker: for every line that comes in, [amount, seconds, processor seconds]."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from study.training.train import start_tensorflow

    start_tensorflow(threads)
    turn = matmul() if kind == "matmul" else MAKERS[kind](config, source, images)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)


@dataclass
class Clock:
    """Seconds and processor seconds of this process, of one measurement."""

    began: tuple[float, float] = (0.0, 0.0)
    took: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.took = time.perf_counter() - self.began[0], time.process_time() - self.began[1]


def fit(config: list[float], source: str, images: int, steps: int = 1) -> Turn:
    import keras

    from study.data import dataset as data
    from study.data.pixels import to_float01
    from study.training import network as networks

    dataset = data.load(source)
    x, y = to_float01(dataset.images[:images]), dataset.labels[:images]
    network = networks.build_cnn(named(config), dataset.input_shape, dataset.num_classes)
    if steps > 1:
        network.compile("adam", network.loss, metrics=["accuracy"], steps_per_execution=steps)

    clock = Clock()
    hooks = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: clock.start(), on_epoch_end=lambda *_: clock.stop()
    )

    def turn() -> tuple[float, ...]:
        network.fit(x, y, batch_size=100, epochs=1, verbose=0, callbacks=[hooks])
        return images, *clock.took

    return turn


def study_epoch(config: list[float], source: str, images: int, *, fast: bool) -> Turn:
    import numpy as np

    from study.data import dataset as data
    from study.training import network as networks
    from study.training.trainer import Program, resident

    dataset = data.load(source)
    network = networks.build_cnn(named(config), dataset.input_shape, dataset.num_classes)
    program = Program(network, 100, quick=fast, bytes_given=dataset.images.dtype == np.uint8)
    program.reset(lambda layer, variable: 100 * layer + variable)
    tensors = resident(dataset.images[:images], dataset.labels[:images])
    rng = np.random.default_rng(0)

    clock = Clock()

    def turn() -> tuple[float, ...]:
        clock.start()
        program.epoch(tensors, rng.permutation(images), int(rng.integers(2**63)))
        clock.stop()
        return images, *clock.took

    return turn


MAKERS = {
    "fit": fit,
    "fit 50": partial(fit, steps=50),
    "stock": partial(study_epoch, fast=False),
    "fast": partial(study_epoch, fast=True),
}


def matmul() -> Turn:
    """The machine's own rate: floating-point operations in products of 1024 x 1024 matrices."""
    import tensorflow as tf

    matrix, count, clock = tf.random.normal([1024, 1024]), 50, Clock()

    def turn() -> tuple[float, ...]:
        clock.start()
        for _ in range(count):
            product = tf.matmul(matrix, matrix)
        product.numpy()
        clock.stop()
        return count * 2 * 1024**3, *clock.took

    return turn


def named(config: list[float]) -> dict[str, float]:
    return dict(zip(NAMES, config, strict=True))


def operations(config: tuple[float, ...], side: int = 28) -> float:
    """Floating-point operations an image costs in training: forward, and both gradients.

    The first convolution needs no gradient of its input. Convolutions and dense layers alone, as
    sums over every tap: the study does fewer where it goes by way of Fourier coefficients.
    """
    filters, k1, k2, dense, _ = config
    out = side // 2 - k2 + 1
    first = 2 * side**2 * k1**2 * filters
    second = 2 * out**2 * k2**2 * filters * 2 * filters
    last = 2 * (out // 2) ** 2 * 2 * filters * dense + 2 * dense * 10
    return 2 * first + 3 * (second + last)


def compare(config: tuple[float, ...], data: str, images: int, rounds: int) -> dict[str, Any]:
    """Rates of every contender, round by round, after one turn each that does not count."""
    teams = {who.name: Team(who, config, data, images) for who in CONTENDERS}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in teams}
    for turn in range(rounds + 1):
        for name, team in teams.items():
            rate = team.turn()
            if turn:
                rates[name].append(rate)
    for team in teams.values():
        team.leave()
    return {"configuration": config, "operations": operations(config), "rates": rates}


def show(result: dict[str, Any]) -> None:
    """One configuration's table: medians, and the ratios of the same rounds."""
    rates, each = result["rates"], result["operations"]
    (machine, per_core), *_ = medians = [middle(rates[name]) for name in reversed(rates)]
    print(f"\n{result['configuration']}: {each / 1e6:.1f} MFLOP an image; the machine multiplies")
    print(
        f"matrices at {machine / 1e9:.0f} GFLOP/s on two cores, {per_core / 1e9:.0f} on one alone"
    )
    print(f"{'':26}{'images/s':>10}{'of matmul':>10}{'study is faster by':>24}{'/CPU-s':>9}")
    ours = rates["study, 2 x 1 thread"]
    for name, (rate, per_processor) in zip(list(rates)[:-1], medians[:0:-1], strict=True):
        ratios = sorted(a / b for (a, _), (b, _) in zip(ours, rates[name], strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        share = f"{rate * each / machine:.0%}"
        print(f"{name:26}{rate:10.0f}{share:>10}{spread:>24}{per_processor:9.0f}")


def middle(rates: list[tuple[float, float]]) -> tuple[float, float]:
    """The medians of both rates."""
    wall, processor = zip(*rates, strict=True)
    return statistics.median(wall), statistics.median(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist", help="a source of 28x28 images with 10 classes")
    parser.add_argument("--images", type=int, default=10_000, help="images an epoch (10000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the JSON record goes")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*json.loads(options.worker))
        return
    record: dict[str, Any] = {"machine": recorded.machine("tensorflow", "keras"), "results": []}
    for config in CONFIGURATIONS:
        result = compare(config, options.data, options.images, options.rounds)
        show(result)
        record["results"].append(result)
        recorded.write_whole(options.record, record)


if __name__ == "__main__":
    main()
