"""The tutorial's procedure, written plainly: what the study is measured against.

    python benchmarks/tutorial.py --space digits
    python benchmarks/tutorial.py --space mnist --logging --stages 1

Guess a start, change one hyperparameter at a time, train every option three times, keep the best
mean and go on; then train the final configuration three times: 48 runs. Stock `fit`, one run after
the other, with TensorFlow's own choice of threads; a fresh random split for each; with `--logging`
a call per metric and `mlflow.keras.log_model` as is, to a local MLflow server.

Every run is a line in a file: killed and started again, it goes on after the last whole run. With
`--stages N` it ends after N stages and extrapolates: each missing run is taken to last as long
as a run of the configuration kept so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import recorded
from job import Job, Params

METRICS = ("accuracy", "loss", "val_accuracy", "val_loss")


@dataclass
class Tutorial:
    """The procedure on one job; ``runs`` are the finished runs, the stored ones first."""

    job: Job
    began: float

    def __post_init__(self) -> None:
        self.path = Path(self.job.folder) / "runs.jsonl"
        self.runs = list(recorded.read(self.path))
        self._stored = len(self.runs)
        self._at = 0
        self._loaded: Any = None
        self.start_up = next((run["start_up"] for run in self.runs if "start_up" in run), None)

    def search(self) -> dict[str, Any]:
        """Go through the stages; returns the record."""
        task = self.job.task
        best = dict(task.start)
        whole = True
        for stage, (name, options) in enumerate(task.options.items()):
            if stage == self.job.stages:
                whole = False
                break
            means = {
                option: statistics.fmean(self._repeats(best | {name: option})) for option in options
            }
            best[name] = max(means, key=means.__getitem__)
        if whole:
            self._repeats(best)
        return self._record(best, whole=whole)

    def _repeats(self, params: Params) -> list[float]:
        """The validation accuracies of three runs of a configuration."""
        return [self._run(params)["val_acc"] for _ in range(self.job.task.repeats)]

    def _run(self, params: Params) -> dict[str, Any]:
        """The next run: the stored one, or trained now."""
        number, self._at = self._at, self._at + 1
        if number < len(self.runs):
            assert self.runs[number]["params"] == params, f"{self.path} is of another search"
            return self.runs[number]
        if self._loaded is None:
            self._loaded = self.job.arrays()
            import keras  # noqa: F401 - the start-up is counted once, however often it is killed

            self.start_up = self.start_up or round(time.time() - self.began, 2)
        began = time.time()
        run = train(self.job, params, number, *self._loaded)
        run |= {"start_up": self.start_up, "seconds": round(time.time() - began, 2)}
        recorded.append(self.path, run)
        self.runs.append(run)
        print(f"run {number + 1}: {params}: {run['val_acc']:.2%} in {run['seconds']} s", flush=True)
        return run

    def _record(self, best: Params, *, whole: bool) -> dict[str, Any]:
        task = self.job.task
        done = self.runs[: self._at]
        seconds, passes = (sum(run[key] for run in done) for key in ("seconds", "passes"))
        missing = task.repeats * (sum(map(len, task.options.values())) + 1) - len(done)
        if not whole:
            kept = [run["seconds"] for run in done if run["params"] == best]
            seconds += missing * statistics.fmean(kept)
            passes += missing * done[-1]["passes"]
        return {
            "configuration": best if whole else None,
            "seconds": round(seconds + (self.start_up or 0), 2),
            "passes": passes,
            "runs": len(done) + (0 if whole else missing),
            "extrapolated from runs": None if whole else len(done),
            "threads": "one run at a time, TensorFlow's own threads",
        }


def train(job: Job, params: Params, number: int, images: Any, labels: Any) -> dict[str, Any]:
    """One run on a fresh random split, logged as the tutorial logs it."""
    train_on, judge_on = job.split(len(images), number)
    network = job.network(params, images)

    def fit() -> dict[str, list[float]]:
        return network.fit(
            images[train_on],
            labels[train_on],
            batch_size=job.task.batch_size,
            epochs=job.task.epochs,
            validation_data=(images[judge_on], labels[judge_on]),
            verbose=0,
        ).history

    history = fit() if job.uri is None else logged(job, params, network, fit)
    passes = job.task.epochs * len(train_on)
    return {"params": params, "val_acc": history["val_accuracy"][-1], "passes": passes}


def logged(job: Job, params: Params, network: Any, fit: Any) -> dict[str, list[float]]:
    """Train inside an MLflow run: a call per parameter and metric, the model as is."""
    import mlflow
    import mlflow.keras

    mlflow.set_tracking_uri(job.uri)
    mlflow.set_experiment("tutorial")
    with mlflow.start_run():
        for name, value in {**params, "epochs": job.task.epochs}.items():
            mlflow.log_param(name, value)
        history: dict[str, list[float]] = fit()
        for epoch in range(job.task.epochs):
            for name in METRICS:
                mlflow.log_metric(name, history[name][epoch], step=epoch)
        mlflow.keras.log_model(network, name="model")
    return history


def search(job: Job, began: float) -> dict[str, Any]:
    """The whole procedure as one contender's record."""
    return Tutorial(job, began).search()


def main() -> None:
    from mlflow_server import mlflow_server
    from task import add_options, job_of, settled

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--logging", action="store_true", help="log to a local MLflow server")
    parser.add_argument("--stages", type=int, help="end after N stages, and extrapolate")
    options = parser.parse_args()
    task = settled(options)
    job = job_of(task, "tutorial", options.work, round_=0, logging=options.logging)
    with tempfile.TemporaryDirectory() as folder:
        server = mlflow_server(Path(folder)) if options.logging else nullcontext()
        with server as uri:
            record = search(replace(job, uri=uri, stages=options.stages), time.time())
    print(json.dumps(record | {"machine": recorded.machine("tensorflow", "keras", "mlflow")}))


if __name__ == "__main__":
    main()
