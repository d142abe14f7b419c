"""How many images a second two cores train: the study's compiled epoch against stock `fit`.

    python benchmarks/training_step.py --data mnist.npz

All contenders stay alive and take turns, round by round, so that a busy machine is unjust to all.
`fit` is timed from the begin to the end of its epoch: what it does once a call is left out. The
study trains as it does with `--jobs 2`, in two processes of one thread. TensorFlow decides by the
processor whether it uses oneDNN; the study switches it on, so `fit` is shown with and without.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    Contender("study, 2 x 1 thread", "study", 2, 1, onednn=True),
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

    def turn(self) -> float:
        """All processes at once; what they did a second, together."""
        for worker in self._workers:
            print("go", file=worker.stdin, flush=True)
        done = [json.loads(worker.stdout.readline()) for worker in self._workers]
        return sum(amount for amount, _ in done) / max(seconds for _, seconds in done)

    def leave(self) -> None:
        for worker in self._workers:
            worker.stdin.close()
            worker.wait()


def work(kind: str, threads: int, config: list[float], source: str, images: int) -> None:
    """A worker: one measurement for every line that comes in, as [amount, seconds]."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from study.training import start_tensorflow

    start_tensorflow(threads)
    measure = {"fit": fit, "study": study_epoch, "matmul": matmul}[kind](config, source, images)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def fit(config: list[float], source: str, images: int) -> Any:
    import keras

    from study import data, model

    dataset = data.load(source)
    x, y = dataset.images[:images], dataset.labels[:images]
    network = model.build_cnn(named(config), dataset.input_shape, dataset.num_classes)

    class Clock(keras.callbacks.Callback):
        began = ended = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.ended = time.perf_counter()

    def measure() -> tuple[int, float]:
        clock = Clock()
        network.fit(x, y, batch_size=100, epochs=1, verbose=0, callbacks=[clock])
        return images, clock.ended - clock.began

    return measure


def study_epoch(config: list[float], source: str, images: int) -> Any:
    import numpy as np

    from study import data, model
    from study.step import Program, resident

    dataset = data.load(source)
    network = model.build_cnn(named(config), dataset.input_shape, dataset.num_classes)
    program = Program(network, 100)
    program.reset(lambda layer, variable: 100 * layer + variable)
    tensors = resident(dataset.images[:images], dataset.labels[:images])
    rng = np.random.default_rng(0)

    def measure() -> tuple[int, float]:
        began = time.perf_counter()
        program.epoch(tensors, rng.permutation(images), int(rng.integers(2**63)))
        return images, time.perf_counter() - began

    return measure


def matmul(config: list[float], source: str, images: int) -> Any:
    """The machine's own rate: floating-point operations in products of 1024 x 1024 matrices."""
    import tensorflow as tf

    matrix, count = tf.random.normal([1024, 1024]), 50

    def measure() -> tuple[int, float]:
        began = time.perf_counter()
        for _ in range(count):
            product = tf.matmul(matrix, matrix)
        product.numpy()
        return count * 2 * 1024**3, time.perf_counter() - began

    return measure


def named(config: list[float]) -> dict[str, float]:
    return dict(zip(NAMES, config, strict=True))


def operations(config: tuple[float, ...], side: int = 28) -> float:
    """Floating-point operations an image costs in training: forward, and both gradients.

    The first convolution needs no gradient of its input. Convolutions and dense layers alone.
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
    rates: dict[str, list[float]] = {name: [] for name in teams}
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
    rates = result["rates"]
    machine = statistics.median(rates["matmul, 2 x 1 thread"])
    print(f"\n{result['configuration']}: {result['operations'] / 1e6:.1f} MFLOP an image;")
    print(f"  the machine multiplies matrices at {machine / 1e9:.0f} GFLOP/s on two cores")
    print(f"  {'':28}{'images/s':>9}{'of matmul':>10}   the study is faster by (lowest-highest)")
    ours = rates["study, 2 x 1 thread"]
    for name in list(rates)[:-1]:
        ratios = sorted(a / b for a, b in zip(ours, rates[name], strict=True))
        share = statistics.median(rates[name]) * result["operations"] / machine
        print(
            f"  {name:28}{statistics.median(rates[name]):9.0f}{share:10.0%}"
            f"   {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


def machine() -> dict[str, Any]:
    """What a number needs beside it to be compared."""
    info = Path("/proc/cpuinfo")
    model = (
        info.read_text().partition("model name\t: ")[2].partition("\n")[0] if info.exists() else ""
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": os.getloadavg(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist", help="a source of 28x28 images with 10 classes")
    parser.add_argument("--images", type=int, default=10_000, help="images an epoch (10000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the JSON record goes")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*json.loads(options.worker))
    record: dict[str, Any] = {"command": sys.argv, "machine": machine(), "results": []}
    for config in CONFIGURATIONS:
        result = compare(config, options.data, options.images, options.rounds)
        show(result)
        record["results"].append(result)
    options.record.parent.mkdir(exist_ok=True)
    options.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
