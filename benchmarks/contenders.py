"""The contenders of `peers.py`, each as its own documentation shows it; one a process.

    python benchmarks/contenders.py JOB      (peers.py starts it)

All build the network of `study.model` and train it with stock `fit`, but for the study itself.
"""

from __future__ import annotations

import time

BEGAN = time.time()

import multiprocessing  # noqa: E402 - a contender's time begins before its first import
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import recorded  # noqa: E402
from job import Job, Params, Tally  # noqa: E402

OWN_THREADS = "one run at a time, TensorFlow's own threads"
ONE_EACH = "a run a core, one thread each"


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

    from study import storage
    from study.results import Rows
    from study.standing import standing_of

    opened, settings = storage.load(storage.open_storage(url), "yardstick")
    rows = Rows()(opened)
    best = dict(standing_of(opened, settings).incumbent or ())
    images = len(job.arrays()[1])
    epochs = sum(len(row.val_acc) for row in rows)
    if told.get("logged runs", len(rows)) < len(rows):
        raise RuntimeError(f"{told['logged runs']} of {len(rows)} runs are on the server")
    return told | {
        "configuration": {name: best[name] for name in task.options},
        "passes": round(epochs * images * (1 - task.held_out)),
        "runs": len(rows),
        "threads": ONE_EACH,
    }


def _logged(uri: str) -> int:
    """How many runs the server has."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    everywhere = [one.experiment_id for one in client.search_experiments()]
    return len(client.search_runs(everywhere, max_results=5000))


def keras_tuner(kind: str) -> Callable[[Job, Tally], dict[str, Any]]:
    """KerasTuner with three executions a trial, on one validation part, as its guide shows it."""

    def search(job: Job, tally: Tally) -> dict[str, Any]:
        import keras_tuner as kt

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
            directory=job.folder,
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
        broken = [
            one for one in tuner.oracle.trials.values() if one.status in ("FAILED", "INVALID")
        ]
        if broken:  # KerasTuner counts them as tried, after a restart too
            shutil.rmtree(tuner.project_dir)
            raise RuntimeError(f"{len(broken)} trials failed: {broken[0].message}")
        best = tuner.get_best_hyperparameters(1)[0].values
        found = {name: best[name] for name in task.options}
        return {"configuration": found, "threads": OWN_THREADS}

    return search


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


def plain_optuna(job: Job, tally: Tally) -> dict[str, Any]:
    """Optuna's Keras example: TPE, median pruner, a run a trial; as many runs as the sweep has.

    A process a core works on the same study, as its page on parallel optimization shows it.
    """
    study = _optuna_study(job)
    cores = _cores()
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_optuna_worker, args=(job, one)) for one in range(cores)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a worker ended with exit code {worker.exitcode}")
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    return tally.told() | {
        "configuration": study.best_params,
        "passes": epochs * len(job.split(len(job.arrays()[0]))[0]),
        "runs": len(study.trials),
        "threads": ONE_EACH,
    }


def _optuna_study(job: Job, worker: int = 0) -> Any:
    """The study that all workers share; a search that was killed goes on."""
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(Path(job.folder) / "journal.log"))
    return optuna.create_study(
        study_name="plain",
        storage=optuna.storages.JournalStorage(backend),
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=1000 * job.seed + worker),
        pruner=optuna.pruners.MedianPruner(),
    )


def _optuna_worker(job: Job, number: int) -> None:
    """Take trials until all workers together have as many as the sweep has runs."""
    import keras
    import optuna
    import tensorflow as tf
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState
    from optuna_integration import KerasPruningCallback, MLflowCallback

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    task = job.task
    images, labels = job.arrays()
    train_on, judge_on = job.split(len(images))
    judged = images[judge_on], labels[judge_on]

    def objective(trial: optuna.Trial) -> float:
        keras.backend.clear_session()
        params: Params = {
            name: trial.suggest_categorical(name, options) for name, options in task.options.items()
        }
        model = job.network(params, images)
        model.fit(
            images[train_on],
            labels[train_on],
            batch_size=task.batch_size,
            epochs=task.epochs,
            validation_data=judged,
            verbose=0,
            callbacks=[KerasPruningCallback(trial, "val_accuracy")],
        )
        return float(model.evaluate(*judged, verbose=0)[1])

    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    budget = task.configurations * task.repeats
    callbacks: list[Any] = [MaxTrialsCallback(budget, states=ended)]
    if job.uri is not None:
        callbacks.append(MLflowCallback(tracking_uri=job.uri, metric_name="val_accuracy"))
    study = _optuna_study(job, number)
    if len(study.get_trials(deepcopy=False, states=ended)) < budget:
        study.optimize(objective, callbacks=callbacks)


def _cores() -> int:
    """As many as this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ray_asha(job: Job, tally: Tally) -> dict[str, Any]:
    """Ray Tune with ASHA, a run a core; as many runs as the sweep has, most of them stopped."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.basic_variant import BasicVariantGenerator

    task = job.task
    data = job.arrays()
    train_on, _ = job.split(len(data[0]))
    ray.init(num_cpus=_cores(), include_dashboard=False, log_to_driver=False, logging_level="error")
    part = tune.with_resources(tune.with_parameters(_ray_run, job=job, data=data), {"cpu": 1})
    logger = MLflowLoggerCallback(tracking_uri=job.uri, experiment_name="ray")
    place = Path(job.folder) / "ray"
    if tune.Tuner.can_restore(str(place / "asha")):
        tuner = tune.Tuner.restore(str(place / "asha"), part, resume_unfinished=True)
    else:
        tuner = tune.Tuner(
            part,
            param_space={name: tune.choice(options) for name, options in task.options.items()},
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                num_samples=task.configurations * task.repeats,
                search_alg=BasicVariantGenerator(random_state=job.seed),
                reuse_actors=True,  # else every trial imports TensorFlow again
                scheduler=tune.schedulers.ASHAScheduler(
                    max_t=task.epochs,
                    grace_period=max(1, task.epochs // 10),  # the ratios of its guide
                    reduction_factor=3,
                ),
            ),
            run_config=tune.RunConfig(
                name="asha",
                storage_path=str(place),
                verbose=0,
                callbacks=[] if job.uri is None else [logger],
            ),
        )
    results = tuner.fit()
    best = results.get_best_result().config
    told = tally.told()
    epochs = sum(int(result.metrics["training_iteration"]) for result in results)
    ray.shutdown()
    return told | {
        "configuration": {name: best[name] for name in task.options},
        "passes": epochs * len(train_on),
        "runs": len(results),
        "threads": ONE_EACH,
    }


def _ray_run(config: Params, job: Job, data: Any) -> None:
    """One trial, in a process of Ray's."""
    import keras
    import tensorflow as tf
    from ray import tune

    if not tf.config.threading.get_intra_op_parallelism_threads():  # Ray uses a process again
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    images, labels = data
    train_on, judge_on = job.split(len(images))
    job.network(config, images).fit(
        images[train_on],
        labels[train_on],
        batch_size=job.task.batch_size,
        epochs=job.task.epochs,
        validation_data=(images[judge_on], labels[judge_on]),
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: tune.report(dict(logs)))
        ],
    )


CONTENDERS: dict[str, Callable[[Job, Tally], dict[str, Any]]] = {
    "tutorial": tutorial,
    "study": study,
    "KerasTuner RandomSearch": keras_tuner("RandomSearch"),
    "KerasTuner Hyperband": keras_tuner("Hyperband"),
    "KerasTuner BayesianOptimization": keras_tuner("BayesianOptimization"),
    "Optuna TPE": plain_optuna,
    "Ray Tune ASHA": ray_asha,
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
