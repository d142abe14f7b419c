"""Ray Tune with ASHA as a contender."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job import ONE_EACH, Job, Params, Tally

from study.workers.machine import cores


def search(job: Job, tally: Tally) -> dict[str, Any]:
    """Ray Tune with ASHA, a run a core; as many runs as the sweep has, most of them stopped."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.basic_variant import BasicVariantGenerator

    task = job.task
    data = job.arrays()
    train_on, _ = job.split(len(data[0]))
    ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False, logging_level="error")
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
