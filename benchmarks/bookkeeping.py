"""What a run costs besides its training steps, as a share of the run: four runs on MNIST, mirrored.

    python benchmarks/bookkeeping.py --data mnist.npz --json records/bookkeeping.json

The smallest of the tutorial's networks, for which the rest weighs most, two runs at once, with a
local MLflow server and models kept. Outside the steps is what lies between the trial's start and
its end and is no epoch, what the first epoch takes longer than the others (its graph is traced),
and the time from the end of a run to the start of the next. Driver and mirror share the cores with
the workers and slow their steps, so their processor time is given beside it.
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
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import recorded
from mlflow_server import mlflow_server

from study import storage
from study.results import Row, Rows

ROOT = Path(__file__).resolve().parent.parent
SPACE = """
name = "bookkeeping"
epochs = {epochs}
batch_size = 100
repeats = 2
validation = {{ holdout = 0.1 }}
[hyperparameters.dense]
options = [32, 64]
[fixed]
filters = 8
k1 = 4
k2 = 5
dropout = 0.2
"""


def run_study(folder: Path, data: str, epochs: int) -> tuple[list[Row], dict[str, float]]:
    """Its rows; processor seconds of driver and mirror, and their share of all cores."""
    space = folder / "bookkeeping.toml"
    space.write_text(SPACE.format(epochs=epochs))
    url = f"sqlite:///{folder / 'study.db'}"
    with mlflow_server(folder) as uri:
        command = [sys.executable, "-m", "study", "run", str(space), "--data", data]
        command += ["--storage", url, "--mlflow", uri, "--pruner", "none", "--quiet"]
        began, busy = time.monotonic(), {"driver": 0.0, "mirror": 0.0}
        driver = psutil.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        while driver.poll() is None:
            busy["driver"] = processor_seconds(driver) or busy["driver"]
            for child in driver.children():
                with suppress(psutil.NoSuchProcess):
                    if any("study.mirror" in word for word in child.cmdline()):
                        busy["mirror"] = processor_seconds(child) or busy["mirror"]
            time.sleep(0.2)
        seconds = time.monotonic() - began
        if driver.returncode:
            raise subprocess.CalledProcessError(driver.returncode, command)
    opened, _ = storage.load(storage.open_storage(url), "bookkeeping")
    cores = psutil.cpu_count() or 1
    return Rows()(opened), busy | {"share of all cores": sum(busy.values()) / seconds / cores}


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def outside(row: Row) -> dict[str, float]:
    """Seconds of a run outside its training steps, once a run and once an epoch; and an epoch's."""
    seconds, ended = row.curve["seconds"], row.curve["ended"]
    assert row.started is not None
    assert row.ended is not None
    epoch = statistics.median(seconds[1:])
    between = [
        end - length - before
        for before, end, length in zip(ended, ended[1:], seconds[1:], strict=False)
    ]
    before = ended[0] - seconds[0] - row.started.timestamp()
    after = row.ended.timestamp() - ended[-1]
    return {
        "until the first epoch": before,
        "tracing": seconds[0] - epoch,
        "after the last epoch": after,
        "between two epochs": statistics.fmean(between),
        "an epoch": epoch,
        "the run": row.ended.timestamp() - row.started.timestamp(),
    }


def turnovers(rows: Sequence[Row]) -> list[float]:
    """Seconds from the end of a run to the start of the next one."""
    starts = sorted(row.started.timestamp() for row in rows if row.started)
    ends = sorted(row.ended.timestamp() for row in rows if row.ended)
    return [min(later) - end for end in ends if (later := [s for s in starts if s >= end])]


def share(parts: dict[str, float], turnover: float, epochs: int) -> float:
    """The share of a run's time that is outside its steps."""
    rest = sum(parts[name] for name in ("until the first epoch", "tracing", "after the last epoch"))
    rest += turnover + (epochs - 1) * parts["between two epochs"]
    return rest / (parts["the run"] + turnover)


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
        rows, beside = run_study(Path(folder), options.data, options.epochs)
    whole = [row for row in rows if row.state == "complete"]
    turnover = statistics.fmean(turnovers(whole))
    runs = []
    for row in whole:
        parts = outside(row)
        shared = share(parts, turnover, options.epochs)
        runs.append(rounded({**parts, "share outside": shared}.items()))
        print(f"{dict(row.configuration)}, repeat {row.repeat}:")
        print("  " + ", ".join(f"{name} {value:.3f}" for name, value in runs[-1].items()))
    print(
        f"from run to run {turnover:.3f} s; processor time: driver {beside['driver']:.1f} s, "
        f"mirror {beside['mirror']:.1f} s, {beside['share of all cores']:.1%} of all cores"
    )
    record: dict[str, Any] = {
        "epochs": options.epochs,
        "runs": runs,
        "from a run to the next": round(turnover, 4),
        "processor seconds": rounded(beside.items()),
        "machine": about,
    }
    if options.json:
        recorded.write_whole(options.json, record)


if __name__ == "__main__":
    main()
