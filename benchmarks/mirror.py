"""Measures the mirror: seconds of the driver, of a run, and of a thousand stored runs.

All on one `mlflow server` over HTTP (SQLite behind it, artifacts through it). Nothing is trained:
an epoch is a sleep, a model the saved start configuration. What the tutorial's calls and
`MLflowCallback` take: see docs/log/2026-11-23.md.

    python benchmarks/mirror.py [--runs 6] [--trials 1000] [--json benchmarks/records/mirror.json]
"""

# ruff: noqa: E402 - the servers lie in tests/, which is no package

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ("tests", ".")]

import mirror_fakes
import optuna
import recorded
from mirror_fakes import Made
from mlflow_server import mlflow_server

from study.files import write_whole
from study.mirror.follow import Follower, Mirror, shown_at
from study.mirror.tracker import Target, resolve
from study.running.driver import Driver, Hooks, Observers
from study.space.metric import ACCURACY
from study.storage import models
from study.storage.ledger import Ledger
from study.storage.location import Database, Location
from study.storage.lock import driver_lock
from study.training.network import build_cnn
from study.training.run import Epoch
from study.workers.engine import EpochReported, RunFinished

EPOCHS = 30
SLEEP = 0.05  # seconds of an epoch that does nothing
Seconds = list[float]


@dataclass
class Sleeping:
    """An engine whose epochs are sleeps; ``waited`` is the time the driver spends in it."""

    model: bytes
    workers: int = 1
    waited: float = 0.0
    runs: dict[int, int] = field(default_factory=dict)

    def submit(self, key: int, run: Any) -> None:
        self.runs[key] = 0

    def stop(self, key: int) -> None:
        self.runs.pop(key, None)

    def next_event(self) -> EpochReported | RunFinished:
        began = time.perf_counter()
        key, epoch = next(iter(self.runs.items()))
        if epoch == EPOCHS:
            del self.runs[key]
            return RunFinished(key, self.model)
        time.sleep(SLEEP)
        self.runs[key] = epoch + 1
        value = 0.9 + epoch / 1000
        event = EpochReported(key, Epoch(epoch, value, 0.1, value, 0.2, SLEEP, time.time()))
        self.waited += time.perf_counter() - began
        return event

    def close(self) -> None:
        """There is nothing to release."""


def location(made: Made) -> Location:
    return Database.at(made.url).study(made.study.study_name)


def kept(made: Made) -> Path:
    """The folder of a study's kept models."""
    return location(made).models(models.identity(made.study))


def driven(
    made: Made, model: bytes, target: Target | None, policy: models.Policy
) -> dict[str, float]:
    """Seconds of a run that the driver works: on the clock and on the processor.

    What the mirror's process needs to start is not in it: its first pass is made before.
    """
    keeper = models.Keeper(
        kept(made),
        models.record(made.study, policy),
        print,
        ACCURACY,
    )
    engine = Sleeping(model)
    hooks = Hooks(
        run_of=lambda slot: slot,  # type: ignore[arg-type,return-value]
        attributes_of=lambda _: {"parameters": 1000},
        score=lambda _, curve: curve["val_accuracy"][-1],
        keep_model=keeper.keep,
        forget_checkpoint=lambda _: None,
    )
    ledger = Ledger(made.study, made.plan.space, made.plan.metric)
    driver = Driver(ledger, made.plan, optuna.pruners.NopPruner(), engine, hooks, Observers())
    made.add(made.option(filters=99), 0, stage="search")
    follower = Follower(location(made), target, print)
    with driver_lock(location(made)):
        follower.start()
        while target is not None and shown_at(location(made), models.identity(made.study)) is None:
            time.sleep(0.1)
        began, worked = time.perf_counter(), time.thread_time()
        runs = driver.drive().runs
        worked = time.thread_time() - worked
        elapsed = time.perf_counter() - began
    follower.close(300)
    return {"clock": (elapsed - engine.waited) / runs, "processor": worked / runs}


def our_runs(folder: Path, target: Target, model: bytes, runs: int, policy: str) -> Seconds:
    """Seconds of the whole mirror of a run: one pass for each new trial, its model if models."""
    made = mirror_fakes.make(folder, epochs=EPOCHS, repeats=1, name=f"ours {policy} models")
    models.record(made.study, policy)
    folder = kept(made)
    here = Mirror(location(made), target)
    taken: Seconds = []
    for run in range(runs + 1):
        number = made.add(made.option(filters=8 + run), 0, _curve())
        if policy == "all":
            write_whole(models.file(folder, number), model)
        began = time.perf_counter()
        report = here.run(live=True)
        taken.append(time.perf_counter() - began)
        assert not report.problems, report.problems
        assert report.artifacts == (policy == "all")
    return taken[1:]  # the first imports MLflow and makes the experiment


def stored_runs(folder: Path, target: Target, trials: int) -> dict[str, Any]:
    """Seconds to mirror many stored trials, and to find that they are all there."""
    made = mirror_fakes.make(folder, epochs=EPOCHS, repeats=3, name=f"{trials} trials")
    models.record(made.study, "none")
    for number in range(trials):
        made.add(made.option(filters=8 + number // 3), number % 3, _curve())
    here = Mirror(location(made), target)
    began = time.perf_counter()
    report = here.run(live=False, afresh=True)
    first = time.perf_counter() - began
    again = time.perf_counter()
    assert here.run(live=False, afresh=True).made == 0
    return {
        "trials": trials,
        "points": report.points,
        "seconds": round(first, 1),
        "seconds again": round(time.perf_counter() - again, 1),
    }


def summary(seconds: Seconds) -> dict[str, Any]:
    spread = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    return {
        "n": len(seconds),
        "median ms": round(1000 * statistics.median(seconds), 3),
        "mean ms": round(1000 * statistics.fmean(seconds), 3),
        "sd ms": round(1000 * spread, 3),
    }


def _curve() -> list[float]:
    return [0.9 + epoch / 1000 for epoch in range(EPOCHS)]


def driver_times(folder: Path, target: Target, model: bytes, rounds: int) -> dict[str, Any]:
    """The driver's work a run: without a mirror and with it."""

    def beside(made: Made) -> Target:
        local = resolve(None, {}, Database.at(made.url))
        assert local is not None
        return local

    ways: dict[str, tuple[Callable[[Made], Target | None], models.Policy]] = {
        "no mirror": (lambda _: None, "none"),
        "server": (lambda _: target, "none"),
        "server, models kept": (lambda _: target, "all"),
        "local store": (beside, "none"),
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, (where, policy) in ways.items():
            place = folder / f"{turn} {name}"
            place.mkdir()
            made = mirror_fakes.make(place, epochs=EPOCHS, repeats=3, name=f"{name} {turn}")
            taken[name].append(driven(made, model, where(made), policy))
    found: dict[str, Any] = {}
    for name, times in taken.items():
        found[name] = {what: summary([time[what] for time in times]) for what in times[0]}
        pairs = zip(times, taken["no mirror"], strict=True)
        added = [one["clock"] - other["clock"] for one, other in pairs]
        found[name]["added on the clock"] = summary(added)
    return found


def measure(runs: int, trials: int) -> dict[str, Any]:
    network = build_cnn(dict(mirror_fakes.settings().space.start), (28, 28, 1), 10)
    network.optimizer.build(network.trainable_variables)
    with tempfile.TemporaryDirectory() as name, mlflow_server(Path(name)) as uri:
        folder = Path(name)
        network.save(folder / "model.keras")
        model = (folder / "model.keras").read_bytes()
        target = resolve(uri, {}, Database.at("sqlite:///study.db"))
        assert target is not None
        for part in ("all", "none", "stored", "driver"):
            (folder / part).mkdir()
        if not trials:
            return {"driver time a run": driver_times(folder / "driver", target, model, runs)}
        ours = {
            "ours, no model": summary(our_runs(folder / "none", target, model, runs, "none")),
            "ours, model": summary(our_runs(folder / "all", target, model, runs, "all")),
        }
        return {
            "the whole logging of a run": ours,
            "stored runs": stored_runs(folder / "stored", target, trials),
            "driver time a run": driver_times(folder / "driver", target, model, runs),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--driver-only", action="store_true", help="leave the other parts out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = recorded.machine("mlflow", "optuna", "keras", "tensorflow")
    results = measure(options.runs, 0 if options.driver_only else options.trials)
    record = about | {"results": results}
    record["load average after"] = [round(load, 1) for load in os.getloadavg()]
    print(json.dumps(record, indent=1))
    if options.json:
        recorded.write_whole(options.json, record)


if __name__ == "__main__":
    main()
