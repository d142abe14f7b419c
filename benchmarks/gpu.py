"""What one GPU does with the runs of a study, trained in groups as `--training grouped` does.

    python benchmarks/gpu.py --data ../shared/data/mnist.npz --record gpu.json
    python benchmarks/gpu.py --small          # that it works, on the processor

It needs JAX, Keras and NumPy beside the program's own files, and measures, with nothing compiled
before:

- the sweep of search_spaces/mnist.toml, 33 runs of 30 epochs on all of MNIST, until its answer;
- the start of search_spaces/modern.toml, four members of 18 epochs on 60,000 images, until the
  accuracy of their average;
- what share of the time of these members' epochs their bare products of matrices take, each as one
  large batched product of the same shapes: 100 % is what the card can do with them;
- what share of an epoch the card waits for the host, from a trace of JAX's profiler.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu_limits import BATCH, multiplied, waited
from recorded import machine

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from study.data import dataset as datasets  # noqa: E402
from study.data.splitting import Split  # noqa: E402
from study.workers.devices import devices  # noqa: E402

if TYPE_CHECKING:
    from study.training.run import Run
    from study.workers.jax.groups import Member, Turn, Turns

TARGETS = {"sweep, s": 60, "members, s": 60, "share of products": 0.40, "waiting": 0.05}
"""At most so many seconds, at least so large a share of products, at most so much waiting."""


@dataclass(frozen=True)
class Validation:
    """As `study.space.search_space.Validation`, which is made with Pydantic."""

    kind: str
    fraction: float = 0.1
    folds: int = 3
    seed: int | None = None


@dataclass(frozen=True)
class Size:
    """How much is measured: of the sweep, and of the members."""

    stages: Sequence[str]
    repeats: int
    epochs: int
    members: int
    member_epochs: int
    changed: dict[str, Any]
    precision: str = "float32"


WHOLE = Size(("filters", "k1", "k2", "dense", "dropout"), 3, 30, 4, 18, {})
SMALL = Size(("dropout",), 1, 2, 2, 2, {"filters": 2, "dense": 8})


def held_out(labels: Any, validation: Validation, seed: int, repeat: int) -> Split:
    """As the study splits, but a tenth that is not stratified, which needs scikit-learn."""
    order = np.random.default_rng((seed, repeat)).permutation(len(labels))
    count = round(validation.fraction * len(labels)) if validation.kind == "holdout" else 0
    return Split(np.sort(order[count:]), np.sort(order[:count]))


def invented() -> datasets.Dataset:
    """Images of ten classes, each with bright pixels of its own: for `--small`."""
    draw = np.random.default_rng(1)
    labels = (np.arange(500) % 10).astype(np.int32)
    bright = draw.random((10, 28, 28, 1)) < 0.2
    images = (bright[labels] * draw.integers(64, 256, (500, 28, 28, 1))).astype(np.uint8)
    parts = images[:400], labels[:400], images[400:], labels[400:]
    return datasets.Dataset("invented", *parts, tuple(range(10)), "0" * 64)


def run_of(
    params: dict[str, Any], seed: int, repeat: int, epochs: int, validation: str, precision: str
) -> Run:
    from study.training.run import Run

    return Run(
        params=tuple(params.items()),
        repeat=repeat,
        seed=seed,
        epochs=epochs,
        batch_size=BATCH,
        validation=Validation(validation),  # type: ignore[arg-type]
        threads=1,
        data_fingerprint="",
        training="grouped",
        precision=precision,
    )


def space(name: str) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The options of each hyperparameter of a shipped space, and its start with what is fixed."""
    table = tomllib.loads((ROOT / "search_spaces" / f"{name}.toml").read_text())
    searched = table["hyperparameters"]
    start = {key: one["start"] for key, one in searched.items()} | table.get("fixed", {})
    return {key: one["options"] for key, one in searched.items()}, start


def trained(turns: Turns, runs: Sequence[Run]) -> dict[Member, Turn]:
    """Train runs to their end, in groups that take turns; what each has come to."""
    for run in runs:
        turns.add(run)
    ended = {}
    while turns:
        for turn in turns.next():
            if turn.failure is not None:
                raise turn.failure
            ended[turn.member] = turn
    return ended


def swept(turns: Turns, size: Size) -> dict[str, Any]:
    """One hyperparameter after the other, its best mean carried on; until the answer is known."""
    began = time.perf_counter()
    options, incumbent = space("mnist")
    incumbent |= size.changed
    scores: dict[tuple[Any, ...], float] = {}
    runs = 0
    for name in size.stages:
        tried = [incumbent | {name: value} for value in options[name]]
        new = [one for one in tried if tuple(one.items()) not in scores]
        wanted = [
            run_of(params, 1, repeat, size.epochs, "holdout", size.precision)
            for params in new
            for repeat in range(size.repeats)
        ]
        found: dict[tuple[Any, ...], list[float]] = {}
        for member, turn in trained(turns, wanted).items():
            found.setdefault(member.run.params, []).append(turn.history.epochs[-1].val_accuracy)
        scores |= {params: statistics.fmean(values) for params, values in found.items()}
        runs += len(wanted)
        incumbent = max(tried, key=lambda params: scores[tuple(params.items())])
    return {
        "seconds": time.perf_counter() - began,
        "runs": runs,
        "answer": incumbent,
        "validation accuracy": scores[tuple(incumbent.items())],
    }


def members_of(params: dict[str, Any], size: Size, epochs: int) -> list[Run]:
    """Runs that differ in their seed, and train on every image."""
    return [
        run_of(params, 1 + number, 0, epochs, "none", size.precision)
        for number in range(size.members)
    ]


def averaged(turns: Turns, data: datasets.Dataset, size: Size) -> dict[str, Any]:
    """Members of the start of `modern`, on every image, and the test accuracy of their average."""
    from study.training.custom_model import network_of

    began = time.perf_counter()
    params = space("modern")[1] | {"restore_best_weights": False} | size.changed
    runs = members_of(params, size, size.member_epochs)
    model = network_of(runs[0], data)[0]
    images, said = data.test_images.astype(np.float32) / 255, []
    for turn in trained(turns, runs).values():
        for variable, array in zip(model.variables, turn.state, strict=False):
            variable.assign(array)
        said.append(model.predict(images, batch_size=1000, verbose=0))
    right = [(one.argmax(1) == data.test_labels).mean() for one in (*said, sum(said))]
    return {
        "seconds": time.perf_counter() - began,
        "members": [float(one) for one in right[:-1]],
        "average": float(right[-1]),
    }


def compared(turns: Turns, data: datasets.Dataset, size: Size) -> dict[str, Any]:
    """An epoch of the members, compiled already, beside its products alone; and the waiting."""
    import jax

    params = space("modern")[1] | {"restore_best_weights": False} | size.changed
    runs = members_of(params, size, epochs=4)
    for run in runs:
        turns.add(run)
    turns.next()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        turns.next()
        seconds.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            turns.next()
        waiting = waited(next(Path(folder).rglob("*.xplane.pb")))
    alone, flop = multiplied(params, data, len(runs), size.precision)
    step = min(seconds) / -(-len(data.labels) // BATCH)
    return {
        "epoch, s": seconds,
        "step, s": step,
        "products of a step, s": alone,
        "share of products": alone / step,
        "TFLOP/s": flop / step / 1e12,
        "waiting": waiting,
    }


def measured(data: datasets.Dataset, size: Size, device: str) -> dict[str, Any]:
    from study.workers.jax.startup import start_jax

    began = time.perf_counter()
    start_jax(device)
    from study.workers.jax.groups import Turns

    def turns() -> Turns:
        return Turns(data, None, lambda said: print(said, file=sys.stderr), split=held_out)

    started = time.perf_counter() - began
    sweep, members = swept(turns(), size), averaged(both := turns(), data, size)
    found = {"start, s": started, "sweep": sweep, "members": members}
    found["comparison"] = compared(both, data, size)
    reached = {
        "sweep, s": started + sweep["seconds"],
        "members, s": started + members["seconds"],
        **{name: found["comparison"][name] for name in ("share of products", "waiting")},
    }
    return {"reached": reached, "to reach": TARGETS, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist", help="mnist, or its .npz file")
    parser.add_argument("--small", action="store_true", help="a small part, on the processor")
    parser.add_argument("--precision", choices=("float32", "fast"), default="float32")
    parser.add_argument("--record", type=Path, help="a file for the numbers, as JSON")
    given = parser.parse_args()
    here = devices(os.environ)
    device = "cpu" if given.small else "gpu"
    if "jax" not in here.libraries and not given.small:
        parser.exit(2, f"gpu.py: {here.problem or 'JAX is here without CUDA'}\n")
    data = invented() if given.small else datasets.load(given.data)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # what is compiled counts
        size = replace(SMALL if given.small else WHOLE, precision=given.precision)
        found = measured(data, size, device)
    found["precision"] = given.precision
    found["cards"] = [str(card) for card in here.cards]
    found["machine"] = machine("jax", "jaxlib", "keras", "numpy")
    text = json.dumps(found, indent=1)
    print(text)
    if given.record:
        given.record.write_text(text + "\n")


if __name__ == "__main__":
    main()
