"""Plain Optuna as a contender: TPE, median pruner, its callbacks for Keras and MLflow."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from job import ONE_EACH, Job, Params, Tally

from study.workers.machine import cores


def search(job: Job, tally: Tally) -> dict[str, Any]:
    """Optuna's Keras example: TPE, median pruner, a run a trial; as many runs as the sweep has.

    A process a core works on the same study, as its page on parallel optimization shows it.
    """
    study = _optuna_study(job)
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_optuna_worker, args=(job, one)) for one in range(cores())]
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
