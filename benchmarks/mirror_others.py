"""How others log a run to MLflow: as the tutorial does, and by Optuna's callback.

Beside what `benchmarks/mirror.py` measures of this program. Nothing is trained.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import optuna

EPOCHS = 30
SERIES = ("acc", "val_acc", "loss", "val_loss")
Seconds = list[float]


def summary(seconds: Seconds) -> dict[str, Any]:
    spread = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    return {
        "n": len(seconds),
        "median ms": round(1000 * statistics.median(seconds), 3),
        "mean ms": round(1000 * statistics.fmean(seconds), 3),
        "sd ms": round(1000 * spread, 3),
    }


def others(uri: str, network: Any, runs: int) -> dict[str, Any]:
    """A summary of each, in milliseconds; to be asked before MLflow is bounded for ours."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("tutorial")
    tutorial_run(network, with_model=False)
    curves = [tutorial_run(network, with_model=False)[0] for _ in range(runs)]
    whole = [sum(tutorial_run(network, with_model=True)) for _ in range(max(1, runs // 3))]
    found = {"tutorial, no model": summary(curves), "tutorial, model": summary(whole)}
    callback = callback_runs(uri, runs)
    if callback is not None:
        found["MLflowCallback"] = summary(callback)
    return found


def tutorial_run(model: Any, *, with_model: bool) -> tuple[float, float]:
    """One run logged the tutorial's way: seconds of curves and params, seconds of the model."""
    import mlflow
    import mlflow.keras

    began = time.perf_counter()
    with mlflow.start_run():
        for name in ("filters", "k1", "k2", "dense", "dropout", "epochs", "batch_size"):
            mlflow.log_param(name, 1)
            mlflow.set_tag(name, 1)
        for epoch in range(EPOCHS):
            for name in SERIES:
                mlflow.log_metric(name, 0.9 + epoch / 1000, step=epoch)
        curves = time.perf_counter() - began
        if with_model:
            mlflow.keras.log_model(model, name="model")
    return curves, time.perf_counter() - began - curves


def callback_runs(uri: str, runs: int) -> Seconds | None:
    """Seconds a trial that `MLflowCallback` keeps `study.optimize` waiting."""
    try:
        from optuna_integration import MLflowCallback
    except ImportError:
        return None
    callback = MLflowCallback(tracking_uri=uri, metric_name="val_acc")
    taken: Seconds = []

    def timed(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        began = time.perf_counter()
        callback(study, trial)
        taken.append(time.perf_counter() - began)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("filters", [8, 16, 32])
        for epoch in range(EPOCHS):
            trial.report(0.9 + epoch / 1000, epoch)
        return 0.93

    study = optuna.create_study(study_name="callback", direction="maximize")
    study.optimize(objective, n_trials=runs + 1, callbacks=[timed])
    return taken[1:]  # the first makes the experiment
