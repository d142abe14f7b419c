"""What a declared configuration is worth: test accuracy, trained anew with fresh seeds and splits.

For everybody alike: the study's own training, all epochs, ten seeds that no search has used, each
with a validation part of its own left out as in the search; the model of the last epoch, judged
once on the test part. A configuration that several contenders declared is trained once.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import recorded
from job import Params, Task

from study.data import dataset as datasets
from study.data.dataset import Dataset
from study.data.pixels import to_float01
from study.space.search_space import Validation
from study.training.run import Run
from study.workers.engine import RunFailed, RunFinished
from study.workers.machine import cores

SEEDS = 10
FRESH = 1_000_000  # seeds of searches are small


@dataclass(frozen=True)
class Worth:
    """Mean test accuracy over the seeds and half the width of its 95 % interval (Student's t)."""

    mean: float
    half_width: float
    seeds: int

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> Self:
        from scipy.stats import t

        count = len(accuracies)
        spread = statistics.stdev(accuracies) if count > 1 else math.nan
        quantile = float(t.ppf(0.975, count - 1)) if count > 1 else math.nan
        return cls(statistics.fmean(accuracies), quantile * spread / math.sqrt(count), count)


def worth(
    task: Task, params: Params, data: str, records: Path, seeds: int = SEEDS
) -> tuple[float, ...]:
    """The test accuracy of a configuration for every seed; trains those that have no record."""
    known = accuracies(task, params, records)
    missing = [seed for seed in range(seeds) if seed not in known]
    if missing:
        dataset = datasets.load(data)
        about = recorded.machine("tensorflow", "keras")
        for seed, accuracy in _trained(task, params, dataset, missing):
            known[seed] = accuracy
            record = {"retrained": params, "seed": seed, "test accuracy": accuracy}
            recorded.append(records, record | {"task": asdict(task), "machine": about})
            print(f"retrained {params}, seed {seed}: {accuracy:.2%}", flush=True)
    return tuple(known[seed] for seed in range(seeds))


def accuracies(task: Task, params: Params, records: Path) -> dict[int, float]:
    """The recorded test accuracies of a configuration, by seed."""
    return {
        record["seed"]: record["test accuracy"]
        for record in recorded.read(records)
        if record.get("retrained") == params and record["task"] == asdict(task)
    }


def _trained(task: Task, params: Params, dataset: Dataset, seeds: Sequence[int]) -> Any:
    """Train the seeds, a run a core, and judge each model as it is finished."""
    from study.workers.pool import local_pool

    validation = Validation("holdout", fraction=task.held_out)
    with closing(local_pool(dataset, min(cores(), len(seeds)))) as engine:
        for seed in seeds:
            run = Run(
                params=tuple({**task.fixed, **params}.items()),
                repeat=seed,
                seed=FRESH + seed,
                epochs=task.epochs,
                batch_size=task.batch_size,
                validation=validation,
                threads=1,
                data_fingerprint=dataset.fingerprint,
            )
            engine.submit(seed, run)
        left = set(seeds)
        while left:
            match engine.next_event():
                case RunFailed(key=seed, reason=reason):
                    raise RuntimeError(f"{params}, seed {seed}: {reason}")
                case RunFinished(key=seed, model=model):
                    left.remove(seed)
                    yield seed, _judged(model, dataset)


def _judged(model: bytes, dataset: Dataset) -> float:
    """Test accuracy of a saved model."""
    from study.training.train import start_tensorflow

    start_tensorflow(1)
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(model)
        said = keras.models.load_model(path).predict(
            to_float01(dataset.test_images), 500, verbose=0
        )
    return float((said.argmax(-1) == dataset.test_labels).mean())
