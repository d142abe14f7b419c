"""From command to answer: a study of the smoke space beside its training and TensorFlow's import.

    python benchmarks/start_up.py [--rounds 5] [--json FILE]

A round is a study as a user starts it, report included, then a process that only imports TensorFlow
and Keras. The training is what the study's epochs took, all of them one after the other, although
two runs are trained at once: seconds of the worker's clock.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import recorded

from study.plan.results import StoredTrials
from study.storage import database as storage
from study.storage.location import Database

ROOT = Path(__file__).resolve().parent.parent
IMPORT = "import tensorflow, keras"


def seconds(command: list[str], folder: Path) -> float:
    """What a command takes in this folder."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, *command], check=True, cwd=folder, env=environment)
    return time.perf_counter() - began


def measured() -> dict[str, float]:
    """One round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = seconds(["-m", "study", "run", "smoke", "--quiet", "--mlflow", "none"], folder)
        imported = seconds(["-c", IMPORT], folder)
        study, _ = storage.load(Database.at(f"sqlite:///{folder / 'study.db'}").open(), None)
        training = sum(sum(row.curve["seconds"]) for row in StoredTrials()(study))
    return {
        "command to answer": round(whole, 2),
        "training": round(training, 2),
        "import": round(imported, 2),
        "of 1.5 times the training and an import": round(whole / (1.5 * training + imported), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    about = recorded.machine("tensorflow", "keras", "optuna", "distributed")
    rounds = []
    for _ in range(options.rounds):
        rounds.append(measured())
        print(", ".join(f"{name} {value:g}" for name, value in rounds[-1].items()), flush=True)
    median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    print("medians: " + ", ".join(f"{name} {value:g}" for name, value in median.items()))
    if options.json:
        recorded.write_whole(options.json, {"rounds": rounds, "medians": median, "machine": about})


if __name__ == "__main__":
    main()
