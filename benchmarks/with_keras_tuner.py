"""KerasTuner as a contender: RandomSearch, Hyperband and BayesianOptimization."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import recorded
from job import ONE_EACH, Job, Tally

from study.workers.machine import cores

CONTENDERS = Path(__file__).with_name("contenders.py")


def search(kind: str) -> Callable[[Job, Tally], dict[str, Any]]:
    """KerasTuner with three executions a trial, on one validation part, as its guides show it.

    A process a core, and one that hands out the trials, as its guide to distributed tuning has it.
    """

    def searched(job: Job, tally: Tally) -> dict[str, Any]:
        if "KERASTUNER_TUNER_ID" in os.environ:
            _tune(kind, job, tally)
            return {}
        told = [_told(Path(job.folder, name)) for name in _chief_and_workers(job)]
        trials = [
            recorded.read_whole(path) or {}
            for path in Path(job.folder, "tuner").glob("trial_*/trial.json")
        ]
        broken = [one for one in trials if one["status"] in ("FAILED", "INVALID")]
        if broken:  # KerasTuner counts them as tried, after a restart too
            shutil.rmtree(job.folder)
            raise RuntimeError(f"{len(broken)} trials failed: {broken[0]['message']}")
        best = max(trials, key=lambda one: one["score"])["hyperparameters"]["values"]
        return {
            "configuration": {name: best[name] for name in job.task.options},
            "passes": sum(one["passes"] for one in told),
            "runs": sum(one["runs"] for one in told),
            "threads": ONE_EACH,
        }

    return searched


def _chief_and_workers(job: Job) -> list[str]:
    """Run the search in processes of the same program; the names of the workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}

    def start(name: str) -> subprocess.Popen[bytes]:
        Path(job.folder, name).mkdir(exist_ok=True)
        own = replace(job, folder=str(Path(job.folder, name)))
        command = [sys.executable, str(CONTENDERS), own.to_json()]
        return subprocess.Popen(command, env=os.environ | place | {"KERASTUNER_TUNER_ID": name})

    chief = start("chief")
    workers = {name: start(name) for name in (f"tuner{one}" for one in range(cores()))}
    codes = [worker.wait() for worker in workers.values()]
    chief.kill()  # it would look every 20 seconds whether somebody is left
    chief.wait()
    if any(codes):
        raise RuntimeError(f"workers ended with exit codes {codes}")
    return list(workers)


def _told(folder: Path) -> dict[str, Any]:
    found = recorded.read_whole(folder / "record.json")
    assert found is not None
    return found


def _tune(kind: str, job: Job, tally: Tally) -> None:
    """What the chief and each worker do: the same, but that the chief trains nothing."""
    import keras_tuner as kt
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    task = job.task
    images, labels = job.arrays()
    train_on, judge_on = job.split(len(images))
    given: dict[str, Any] = {"max_trials": task.configurations}
    if kind == "Hyperband":  # its budget follows from the longest run
        given = {"max_epochs": task.epochs, "factor": 3}
    tuner = getattr(kt, kind)(
        _hypermodel(job, images),
        objective="val_accuracy",
        executions_per_trial=task.repeats,
        seed=job.seed,
        directory=str(Path(job.folder).parent),
        project_name="tuner",
        overwrite=False,  # a search that was killed goes on
        **given,
    )
    tuner.search(
        images[train_on],
        labels[train_on],
        batch_size=task.batch_size,
        epochs=task.epochs,
        validation_data=(images[judge_on], labels[judge_on]),
        verbose=0,
        callbacks=[tally.callback(len(train_on))],
    )


def _hypermodel(job: Job, images: Any) -> Any:
    """The space and the network; with a server, the training inside an MLflow run."""
    import keras_tuner as kt

    class Network(kt.HyperModel):
        def build(self, hp: Any) -> Any:
            params = {
                name: hp.Choice(name, list(options), default=job.task.start[name])
                for name, options in job.task.options.items()
            }
            return job.network(params, images)

        def fit(self, hp: Any, model: Any, *given: Any, **named: Any) -> Any:
            if job.uri is None:
                return model.fit(*given, **named)
            import mlflow
            from mlflow.keras import MlflowCallback

            mlflow.set_tracking_uri(job.uri)
            mlflow.set_experiment("KerasTuner")
            with mlflow.start_run():
                mlflow.log_params(hp.values)
                named["callbacks"] = [*named["callbacks"], MlflowCallback()]
                return model.fit(*given, **named)

    return Network()
