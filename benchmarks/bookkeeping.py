"""What a run costs besides its training steps, as a share of the run: four runs on MNIST, mirrored.

    python benchmarks/bookkeeping.py --data mnist.npz --json records/bookkeeping.json

The smallest of the tutorial's networks, for which the rest weighs most, two runs at once, with a
local MLflow server and models models. Outside the steps is what lies between the trial's start and
its end and is no epoch, what the first epoch takes longer than the others (its graph is traced),
and the time from the end of a run to the start of the next. Driver and mirror share the cores with
the workers and slow their steps, so the share of the cores that they take is added to that. The
server's is not: it is another machine's as a rule.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import recorded
from mlflow_server import mlflow_server

from study.plan.results import StoredTrial, StoredTrials
from study.storage import database as storage
from study.storage.location import Database

WORKERS = 2
ROOT = Path(__file__).resolve().parent.parent
SPACE = """
name = "bookkeeping"
epochs = {epochs}
batch_size = 100
repeats = 2
validation = {{ holdout = 0.1 }}
[hyperparameters.dense]
options = [32, 64]
start = 32
[fixed]
filters = 8
k1 = 4
k2 = 5
dropout = 0.2
"""


@dataclass(frozen=True)
class Busy:
    """Processor seconds that driver and mirror had used at a moment (Unix time)."""

    at: float
    driver: float
    mirror: float


def run_study(folder: Path, data: str, epochs: int) -> tuple[list[StoredTrial], list[Busy]]:
    """Its rows, and how busy driver and mirror were, looked at several times a second."""
    space = folder / "bookkeeping.toml"
    space.write_text(SPACE.format(epochs=epochs))
    url = f"sqlite:///{folder / 'study.db'}"
    with mlflow_server(folder) as uri:
        command = [sys.executable, "-m", "study", "run", str(space), "--data", data]
        command += ["--storage", url, "--mlflow", uri, "--pruner", "none", "--quiet"]
        command += ["--jobs", str(WORKERS)]
        driver = psutil.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        busy = [Busy(time.time(), 0.0, 0.0)]
        while driver.poll() is None:
            busy.append(looked_at(driver, busy[-1]))
            time.sleep(0.2)
        if driver.returncode:
            raise subprocess.CalledProcessError(driver.returncode, command)
    opened, _ = storage.load(Database.at(url).open(), "bookkeeping")
    return StoredTrials()(opened), busy


def looked_at(driver: psutil.Popen, before: Busy) -> Busy:
    """How busy they are now; what is gone stays as it was."""
    mirror = before.mirror
    for child in driver.children():
        with suppress(psutil.NoSuchProcess):
            if any("study.mirror" in word for word in child.cmdline()):
                mirror = processor_seconds(child) or mirror
    return Busy(time.time(), processor_seconds(driver) or before.driver, mirror)


def between(busy: Sequence[Busy], began: float, ended: float) -> dict[str, float]:
    """Processor seconds of driver and mirror from one moment to another, and their share."""
    first = next(one for one in busy if one.at >= began)
    last = [one for one in busy if one.at <= ended][-1]
    used = {"driver": last.driver - first.driver, "mirror": last.mirror - first.mirror}
    cores = psutil.cpu_count() or 1
    return used | {"share of all cores": sum(used.values()) / (last.at - first.at) / cores}


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def outside(row: StoredTrial) -> dict[str, float]:
    """Seconds of a run outside its training steps, once a run and once an epoch; and an epoch's."""
    seconds, ended = row.curve["seconds"], row.curve["ended"]
    assert row.ended is not None
    epoch = statistics.median(seconds[1:])
    between = [
        end - length - before
        for before, end, length in zip(ended, ended[1:], seconds[1:], strict=False)
    ]
    before = ended[0] - seconds[0] - _started(row)
    after = row.ended.timestamp() - ended[-1]
    return {
        "until the first epoch": before,
        "tracing": seconds[0] - epoch,
        "after the last epoch": after,
        "between two epochs": statistics.fmean(between),
        "an epoch": epoch,
        "the run": row.ended.timestamp() - _started(row),
    }


def turnovers(rows: Sequence[StoredTrial]) -> list[float]:
    """Seconds from the end of a run to the start of the next one."""
    starts = sorted(map(_started, rows))
    ends = sorted(row.ended.timestamp() for row in rows if row.ended)
    return [start - end for end, start in zip(ends, starts[WORKERS:], strict=False)]


def share(parts: dict[str, float], turnover: float, epochs: int) -> float:
    """The share of a run's time that is outside its steps."""
    rest = sum(parts[name] for name in ("until the first epoch", "tracing", "after the last epoch"))
    rest += turnover + (epochs - 1) * parts["between two epochs"]
    return rest / (parts["the run"] + turnover)


def _started(row: StoredTrial) -> float:
    assert row.started is not None
    return row.started.timestamp()


def rounded(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    about = recorded.machine("tensorflow", "optuna", "mlflow")
    with tempfile.TemporaryDirectory() as folder:
        rows, busy = run_study(Path(folder), options.data, options.epochs)
    whole = sorted((row for row in rows if row.state == "complete"), key=_started)
    turnover = statistics.fmean(turnovers(whole))
    later = whole[WORKERS:]  # the first run of a worker waits for its import, once a study
    beside = between(busy, _started(later[0]), max(row.curve["ended"][-1] for row in later))
    runs = []
    for row in whole:
        parts = outside(row)
        shared = share(parts, turnover, options.epochs)
        runs.append(rounded({**parts, "share outside": shared}.items()))
        print(f"{dict(row.configuration)}, repeat {row.repeat}:")
        print("  " + ", ".join(f"{name} {value:.3f}" for name, value in runs[-1].items()))
    own = statistics.fmean(run["share outside"] for run in runs[WORKERS:])
    print(
        f"of the runs after each worker's first: outside {own:.2%}, driver and mirror "
        f"{beside['share of all cores']:.2%}, together {own + beside['share of all cores']:.2%}"
    )
    print(
        f"from run to run {turnover:.3f} s; processor time: driver {beside['driver']:.1f} s, "
        f"mirror {beside['mirror']:.1f} s while they were trained"
    )
    record: dict[str, Any] = {
        "epochs": options.epochs,
        "runs": runs,
        "from a run to the next": round(turnover, 4),
        "processor seconds": rounded(beside.items()),
        "share outside, with driver and mirror": round(own + beside["share of all cores"], 4),
        "machine": about,
    }
    if options.json:
        recorded.write_whole(options.json, record)


if __name__ == "__main__":
    main()
