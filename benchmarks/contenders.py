"""The contenders of `peers.py`, each as its own documentation shows it; one a process.

    python benchmarks/contenders.py JOB      (peers.py starts it)

All build the network of `study.training.network` and train it with stock `fit`, but for the study
itself.
"""

from __future__ import annotations

import time

BEGAN = time.time()

import os  # noqa: E402 - a contender's time begins before its first import
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import recorded  # noqa: E402
import with_keras_tuner  # noqa: E402
import with_optuna  # noqa: E402
import with_ray  # noqa: E402
from job import ONE_EACH, Job, Tally  # noqa: E402


def tutorial(job: Job, _: Tally) -> dict[str, Any]:
    """Its record tells its own seconds: it counts runs, not sessions."""
    from tutorial import search

    return search(job, BEGAN)


def study(job: Job, tally: Tally) -> dict[str, Any]:
    """`python -m study run`, with `--jobs` as it is; a study that was killed is continued."""
    folder, task = Path(job.folder), job.task
    url = f"sqlite:///{folder / 'study.db'}"
    command = [sys.executable, "-m", "study", "run", task.space, "--data", job.data]
    command += ["--storage", url, "--name", "yardstick", "--mlflow", job.uri or "none"]
    command += ["--epochs", str(task.epochs), "--seed", str(job.seed), "--quiet"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    tally.save()
    told = tally.told()  # what follows only counts
    if job.uri is not None:
        told["logged runs"] = _logged(job.uri)

    from study.storage import database as storage
    from study.storage.database import plan_state_of
    from study.storage.location import Database
    from study.storage.trials import StoredTrials

    opened, settings = storage.load(Database.at(url).open(), "yardstick")
    rows = StoredTrials()(opened)
    best = dict(plan_state_of(opened, settings).incumbent or ())
    images = len(job.arrays()[1])
    epochs = sum(len(row.reported) for row in rows)
    begun = sum(bool(row.reported) for row in rows)  # the mirror leaves the others out
    if told.get("logged runs", begun) < begun:
        raise RuntimeError(f"{told['logged runs']} of {begun} runs are on the server")
    return told | {
        "configuration": {name: best[name] for name in task.options},
        "passes": round(epochs * images * (1 - task.held_out)),
        "runs": len(rows),
        "threads": ONE_EACH,
    }


def _logged(uri: str) -> int:
    """How many of the study's trials the server has."""
    from mlflow import MlflowClient

    from study.mirror.mlflow import KEY

    client = MlflowClient(uri)
    everywhere = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(everywhere, max_results=5000)
    return sum(run.data.tags.get(KEY, "").startswith("trial ") for run in found)


CONTENDERS: dict[str, Callable[[Job, Tally], dict[str, Any]]] = {
    "tutorial": tutorial,
    "study": study,
    "KerasTuner RandomSearch": with_keras_tuner.search("RandomSearch"),
    "KerasTuner Hyperband": with_keras_tuner.search("Hyperband"),
    "KerasTuner BayesianOptimization": with_keras_tuner.search("BayesianOptimization"),
    "Optuna TPE": with_optuna.search,
    "Ray Tune ASHA": with_ray.search,
}


def main() -> None:
    """Work on the job of the command line; the record lies in its folder at the end."""
    job = Job.from_json(sys.argv[1])
    folder = Path(job.folder)
    tally = Tally.open(folder / "tally.json", BEGAN)
    found = CONTENDERS[job.contender](job, tally)
    recorded.write_whole(folder / "record.json", tally.told() | found)


if __name__ == "__main__":
    main()
