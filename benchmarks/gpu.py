"""How fast a GPU trains the runs of a sweep: in groups with JAX, and one by one with TensorFlow.

Trains every option of the space's hyperparameters, three repeats each, to the end, and prints the
epochs a second of each engine, start and compilation included.

    python benchmarks/gpu.py [--data mnist] [--epochs 30] [--small] [--record FILE]

``--small`` is a short run on the processor, to try the program itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from recorded import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from study.data import dataset as datasets  # noqa: E402
from study.space import file  # noqa: E402
from study.space.search_space import Validation  # noqa: E402
from study.training.run import Run  # noqa: E402
from study.workers.devices import devices  # noqa: E402
from study.workers.engine import Engine, EpochReported, RunFailed, RunFinished  # noqa: E402
from study.workers.jax.engine import jax_engine  # noqa: E402
from study.workers.pool import local_pool  # noqa: E402


def runs_of(space_name: str, fingerprint: str, epochs: int, repeats: int, device: str) -> list[Run]:
    """The runs of the start of a space and of each option beside it."""
    space = file.load(space_name)
    return [
        Run(
            params=tuple({**params, **space.fixed}.items()),
            repeat=repeat,
            seed=1,
            epochs=epochs,
            batch_size=space.batch_size,
            validation=Validation("holdout"),
            threads=1,
            data_fingerprint=fingerprint,
            training="grouped",
            device=device,
        )
        for params in space.each_alone()
        for repeat in range(repeats)
    ]


def measured(engine: Callable[[], Engine], runs: list[Run]) -> dict[str, Any]:
    """Train all runs on an engine; seconds, epochs a second, and the mean accuracy in the end."""
    began, epochs, last = time.perf_counter(), 0, {}
    waiting = dict(enumerate(runs))
    active: set[int] = set()
    with closing(engine()) as trains:
        while waiting or active:
            while waiting and len(active) < trains.workers:
                key, run = waiting.popitem()
                active.add(key)
                trains.submit(key, run)
            match trains.next_event():
                case EpochReported(key=key, epoch=epoch):
                    epochs += 1
                    last[key] = epoch.val_accuracy
                case RunFinished(key=key):
                    active.remove(key)
                case RunFailed(reason=reason):
                    raise SystemExit(reason)
    seconds = time.perf_counter() - began
    accuracy = sum(last.values()) / len(last)
    return {"s": seconds, "epochs a second": epochs / seconds, "validation accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist", help="a name, or a path")
    parser.add_argument("--space", default="mnist", help="a shipped space, or its file")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="a small part, on the processor")
    parser.add_argument("--record", type=Path, help="a file for the numbers, as JSON")
    given = parser.parse_args()
    here = devices(os.environ)
    if "jax" not in here.libraries and not given.small:
        parser.exit(2, f"gpu.py: {here.problem or 'JAX does not see the GPU'}\n")
    device = "cpu" if given.small else "gpu"
    data = datasets.load("digits" if given.small else given.data)
    gpus = [] if given.small else [card.uuid for card in here.cards]
    epochs, repeats = (2, 1) if given.small else (given.epochs, 3)
    name = "smoke" if given.small else given.space
    runs = runs_of(name, data.fingerprint, epochs, repeats, device)
    alone = [replace(run, training="stock") for run in runs]
    jobs = max(1, len(gpus))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # what is compiled counts
        found = {
            "runs": len(runs),
            "in groups": measured(lambda: jax_engine(data, 16, None, device, gpus), runs),
            "one by one": measured(lambda: local_pool(data, jobs, gpus=gpus), alone),
            "cards": [str(card) for card in here.cards],
            "machine": machine("jax", "jaxlib", "tensorflow", "keras"),
        }
    text = json.dumps(found, indent=1)
    print(text)
    if given.record:
        given.record.write_text(text + "\n")


if __name__ == "__main__":
    main()
