"""A race beside the sweep with real training: seconds, epochs, and what their answers are worth.

    python benchmarks/race_vs_sweep.py                        the digits, seeds 1 to 5
    python benchmarks/race_vs_sweep.py --space mnist --images 5000

Every study runs as a user runs it, in a process of its own, the strategies of a seed one after the
other. Each declared configuration is then trained anew with ten seeds that no search has used
(`retrain`), and judged on the test part. Records are lines of JSON; what has one is not run again,
and a study that was killed goes on, its seconds marked as incomplete.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import recorded
import retrain
from job import Task
from task import add_options, place, settled

from study.data import dataset as datasets
from study.storage import database as storage
from study.storage.location import Database
from study.storage.trials import StoredTrials

ROOT = Path(__file__).resolve().parent.parent
RECORDS = Path(__file__).parent / "records" / "race_vs_sweep.jsonl"


def data_of(task: Task, folder: Path) -> str:
    """The data as a study is told it: of fewer images a file with these alone."""
    if task.images is None:
        return task.data
    import numpy as np

    file = folder / "data.npz"
    if not file.exists():
        held = datasets.load(task.data)
        chosen = np.random.default_rng(0).permutation(len(held.images))[: task.images]
        arrays = {"x_train": held.images[chosen], "y_train": held.labels[chosen]}
        np.savez(file, **arrays, x_test=held.test_images, y_test=held.test_labels)
    return str(file)


def searched(task: Task, data: str, sampler: str, seed: int, folder: Path) -> dict[str, Any]:
    """Run, or go on with, one study; its seconds, its epochs and its answer."""
    file = folder / f"{sampler}-{seed}.db"
    url, went_on = f"sqlite:///{file}", file.exists()
    words = [sys.executable, "-m", "study"]
    run = [*words, "run", task.space, "--data", data, "--sampler", sampler, "--seed", str(seed)]
    run += ["--epochs", str(task.epochs), "--name", sampler, "--mlflow", "none", "--quiet"]
    began = time.monotonic()
    subprocess.run([*run, "--storage", url], cwd=ROOT, check=True)
    seconds = time.monotonic() - began
    best = [*words, "best", sampler, "--json", "--storage", url]
    said = subprocess.run(best, cwd=ROOT, check=True, capture_output=True, text=True)
    answer = json.loads(said.stdout)
    study, settings = storage.load(Database.at(url).open(), sampler)
    rows = StoredTrials().all(study)
    return {
        "sampler": sampler,
        "seed": seed,
        "seconds": None if went_on else round(seconds, 1),
        "epochs": sum(len(row.reported) for row in rows),
        "runs": len(rows),
        "params": answer["params"],
        "validation": answer["mean"],
        "score": settings.space.score,
        "race": answer.get("race"),
    }


def record(task: Task, seeds: Sequence[int], samplers: Sequence[str], work: Path) -> None:
    """Whatever has no record yet."""
    folder = place(task, work)
    folder.mkdir(parents=True, exist_ok=True)
    data = data_of(task, folder)
    known = {(one["sampler"], one["seed"]): one for one in studies(task)}
    for seed in seeds:
        for sampler in samplers:
            if (sampler, seed) not in known:
                found = searched(task, data, sampler, seed, folder)
                about = {"task": asdict(task), "machine": recorded.machine("tensorflow", "keras")}
                recorded.append(RECORDS, found | about)
                known[sampler, seed] = found
            retrain.worth(task, known[sampler, seed]["params"], data, RECORDS)


def studies(task: Task) -> list[dict[str, Any]]:
    """The recorded studies of a task."""
    found = recorded.read(RECORDS)
    return [one for one in found if "sampler" in one and one["task"] == asdict(task)]


def table(task: Task, samplers: Sequence[str]) -> Iterator[str]:
    """A line a strategy: means over seeds with their standard deviations."""
    yield f"{'':8}{'seeds':>6}{'seconds':>16}{'epochs':>16}{'test accuracy, %':>20}"
    for sampler in samplers:
        held = [one for one in studies(task) if one["sampler"] == sampler]
        worth = [retrain.accuracies(task, one["params"], RECORDS) for one in held]
        columns = (
            [one["seconds"] for one in held if one["seconds"] is not None],
            [one["epochs"] for one in held],
            [100 * statistics.fmean(one.values()) for one in worth if one],
        )
        shown = (_shown(column, digits) for column, digits in zip(columns, (0, 0, 2), strict=True))
        yield f"{sampler:8}{len(held):>6}" + "".join(
            f"{text:>{width}}" for text, width in zip(shown, (16, 16, 20), strict=True)
        )


def _shown(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--samplers", nargs="+", default=["sweep", "race"])
    options = parser.parse_args()
    task = settled(options)
    record(task, options.seeds, options.samplers, options.work)
    print("\n".join(table(task, options.samplers)))


if __name__ == "__main__":
    main()
