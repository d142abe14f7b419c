"""What does the driver itself cost, with many workers and many stored trials?

A study in SQLite is filled along the plan of a sweep, then driven on with simulated workers whose
runs sleep. The processor time from an event to the next question to the engine is the driver's own:
to decide and to start a run, to store an epoch, to end a run. No TensorFlow, no processes.

    python benchmarks/driver_cost.py [--trials 100 1000 10000] [--workers 1 2 16 200] [--json FILE]
"""

from __future__ import annotations

import argparse
import heapq
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from study.plan.plan import PlanState, RunSpec
from study.plan.results import StoredTrial
from study.plan.sweep import OneAtATime
from study.running.driver import Driver, Hooks, Observers
from study.space.search_space import SearchSpace, Validation
from study.storage.ledger import Ledger, as_json
from study.storage.location import Database
from study.storage.trials import RUN_SPEC
from study.training.run import Epoch, Run
from study.tuning.pruning import SweepPruner
from study.workers.engine import EpochReported, Event, RunFinished

EPOCHS = 4
REPEATS = 3
HYPERPARAMETERS = 10
STEPS = 400  # events that are measured


def space(trials: int) -> SearchSpace:
    """A sweep of about this many runs."""
    options = max(2, round((trials + STEPS) / (HYPERPARAMETERS * REPEATS)))
    table = {
        "name": "cost",
        "epochs": EPOCHS,
        "batch_size": 10,
        "repeats": REPEATS,
        "hyperparameters": {
            f"h{place}": {"options": list(range(options)), "start": 0}
            for place in range(HYPERPARAMETERS)
        },
    }
    return SearchSpace.from_dict(table)


def accuracy(run_or_slot: Run | RunSpec, number: int) -> float:
    """Some accuracy of an epoch that follows from the run alone."""
    where = hash((run_or_slot.repeat, number)) % 97
    return 0.9 + 0.0001 * number + 0.000001 * where


def filled(folder: Path, trials: int) -> tuple[Path, SearchSpace]:
    """A database whose study has this many finished trials, as a driver would have left it."""
    wide = space(trials)
    plan = OneAtATime(wide, images=1000)
    path = folder / f"{trials}.db"
    opened = Database.at(f"sqlite:///{path}").open(create=True)
    study = optuna.create_study(study_name="cost", storage=opened, direction="maximize")
    rows: list[StoredTrial] = []
    while len(rows) < trials:
        for slot in plan.state(rows).next[: trials - len(rows)]:
            rows.append(_add(study, wide, slot, len(rows)))
            if len(rows) % 1000 == 0:
                print(f"  {len(rows)} of {trials} trials stored", flush=True)
    opened.remove_session()
    opened.engine.dispose()
    return path, wide


def _add(study: optuna.Study, wide: SearchSpace, slot: RunSpec, number: int) -> StoredTrial:
    assert slot.configuration is not None
    series = [accuracy(slot, epoch) for epoch in range(EPOCHS)]
    curve = dict.fromkeys(("accuracy", "loss", "val_loss", "seconds", "ended"), series)
    study.add_trial(
        optuna.trial.create_trial(
            params=dict(slot.configuration),
            distributions={p.name: p.distribution for p in wide.hyperparameters},
            value=series[-1],
            intermediate_values=dict(enumerate(series, 1)),
            user_attrs={"curve": curve},
            system_attrs={RUN_SPEC: as_json(slot, wide.metric)},
        )
    )
    return StoredTrial(
        number,
        number,
        "complete",
        slot.stage,
        slot.option,
        slot.configuration,
        slot.repeat,
        slot.reference,
        series[-1],
        tuple(series),
    )


@dataclass
class Simulated:
    """An engine whose runs only sleep; it times what the driver does between two waits."""

    workers: int
    pause: float
    left: int = STEPS
    runs: dict[int, Iterator[Event]] = field(default_factory=dict)
    due: list[tuple[float, int]] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    returned: tuple[str, float] = ("fill", 0.0)
    begun: float = 0.0
    submitted: float = 0.0

    def submit(self, key: int, run: Run) -> None:
        """A run starts; between two of them the driver decides and stores a slot."""
        now = time.process_time()
        if self.submitted:
            self.costs["decide and start a run"].append(now - self.submitted)
        self.runs[key] = events(key, run)
        heapq.heappush(self.due, (time.monotonic() + self.pause, key))
        self.submitted = time.process_time()

    def stop(self, key: int) -> None:
        self.runs.pop(key, None)

    def next_event(self) -> Event:
        name, since = self.returned
        self.costs[name].append(time.process_time() - since)
        if self.left <= 0:
            raise KeyboardInterrupt
        self.left -= 1
        when, key = heapq.heappop(self.due)
        while key not in self.runs:
            when, key = heapq.heappop(self.due)
        time.sleep(max(0.0, when - time.monotonic()))
        event = next(self.runs[key])
        if isinstance(event, EpochReported):
            heapq.heappush(self.due, (time.monotonic() + self.pause, key))
        else:
            del self.runs[key]
        ends = isinstance(event, RunFinished)
        self.submitted = 0.0
        self.returned = ("end a run, start the next" if ends else "store an epoch"), 0.0
        self.returned = self.returned[0], time.process_time()
        return event

    def close(self) -> None:
        self.runs.clear()


def events(key: int, run: Run) -> Iterator[Event]:
    for number in range(run.epochs):
        right = accuracy(run, number)
        yield EpochReported(
            key, Epoch(number, right, 1 - right, right, 1 - right, 0.1, time.time())
        )
    yield RunFinished(key, b"")


def run_of(slot: RunSpec) -> Run:
    assert slot.configuration is not None
    return Run(slot.configuration, slot.repeat, 1, EPOCHS, 10, Validation("holdout"), 1, "cost")


def _time_decisions(plan: OneAtATime, costs: list[float]) -> None:
    """Take the time from the stored trials to the next run, whenever it is asked for."""
    ask = plan.state

    def timed(trials: Sequence[StoredTrial]) -> PlanState:
        began = time.process_time()
        state = ask(trials)
        costs.append(time.process_time() - began)
        return state

    plan.state = timed


def measure(path: Path, wide: SearchSpace, workers: int, pause: float) -> dict[str, object]:
    """Drive the study on for ``STEPS`` events; milliseconds by what the driver did."""
    before = psutil.Process().memory_info().rss
    database = Database.at(f"sqlite:///{path}")
    opened = database.open()
    engine = Simulated(workers, pause)
    hooks = Hooks(
        run_of=run_of,
        attributes_of=lambda _spec: {},
        score=lambda _spec, curve: curve["val_accuracy"][-1],
        keep_model=lambda _trial, _model, _trials: None,
        forget_checkpoint=lambda _run: None,
    )
    plan = OneAtATime(wide, images=1000)
    _time_decisions(plan, engine.costs["decide the next run"])
    engine.returned = ("load, and fill all workers", time.process_time())
    ledger = Ledger(optuna.load_study(study_name="cost", storage=opened), wide, wide.metric)
    driver = Driver(ledger, plan, SweepPruner(1000), engine, hooks, Observers())
    with suppress(KeyboardInterrupt):
        driver.drive()
    opened.remove_session()
    opened.engine.dispose()
    epochs = engine.costs["store an epoch"]
    return {
        "workers": workers,
        "milliseconds": {
            name: {
                "n": len(costs),
                "median": round(1000 * statistics.median(costs), 2),
                "95 %": round(1000 * sorted(costs)[int(0.95 * (len(costs) - 1))], 2),
            }
            for name, costs in sorted(engine.costs.items())
        },
        "epochs stored a second": round(len(epochs) / sum(epochs), 1),
        "memory, MB": round((psutil.Process().memory_info().rss - before) / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 16, 200])
    parser.add_argument("--pause", type=float, default=0.01, help="seconds a simulated epoch takes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    for trials in arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            path, wide = filled(Path(folder), trials)
            for workers in arguments.workers:
                copy = Path(folder) / f"{workers}.db"
                shutil.copy(path, copy)
                seen = {"trials": trials, **measure(copy, wide, workers, arguments.pause)}
                print(json.dumps(seen), flush=True)
                found.append(seen)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
