"""Training without a network: curves that follow from the run alone, and ends that come at will."""

import hashlib
import random
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, InMemoryStorage
from plan_fakes import new_study

from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.results import StoredTrial
from study.plan.sweep import OneAtATime
from study.running.driver import Driver, Hooks, Observer, Observers
from study.space.search_space import SearchSpace, Validation
from study.storage.ledger import Ledger
from study.storage.trials import StoredTrials
from study.training.run import Epoch, Run
from study.workers.engine import Engine, Event, InProcess, Train

EPOCHS = 4
IMAGES = 400

SPACE = """
name = "fake"
epochs = 4
batch_size = 10
repeats = 2
validation = { folds = 2 }

[hyperparameters.filters]
options = [1, 2]
start = 1

[hyperparameters.dropout]
options = [0.1, 0.2]
start = 0.2

[fixed]
k1 = 2
k2 = 2
"""
"""The file of a space of the program's own network: at most 6 runs on images of 12x12."""


def space(**changes: Any) -> SearchSpace:
    """Two hyperparameters of two and three options, two repeats: at most 2 * (1 + 1 + 2 + 1)."""
    table = {
        "name": "fake",
        "epochs": EPOCHS,
        "batch_size": 10,
        "repeats": 2,
        "tie": "cheapest",
        "hyperparameters": {
            "width": {"options": [1, 2], "start": 1},
            "depth": {"options": [1, 2, 3], "start": 2},
        },
    }
    return SearchSpace.from_dict(table | changes)


def run_of(slot: RunSpec) -> Run:
    """How a slot becomes a run here."""
    assert slot.configuration is not None
    validation = Validation("holdout")
    return Run(
        slot.configuration, slot.repeat, 1, EPOCHS, 10, validation, 1, "fake", until=slot.epochs
    )


def accuracy(run: Run, number: int) -> float:
    """Of epoch ``number`` (from 0): wider is better, repeats differ, the same in every process."""
    params = dict(run.params)
    what = f"{params}{run.repeat}{number}".encode()
    noise = int(hashlib.sha256(what).hexdigest()[:4], 16) / 0xFFFF
    width = params.get("width", params.get("filters", 1))
    return round(0.5 + 0.1 * width + 0.02 * number + 0.02 * noise, 6)


def train(run: Run) -> Generator[Epoch, None, bytes | None]:
    """Every epoch of ``accuracy`` that is asked for; the model is the name of the run."""
    end = run.epochs if run.until is None else min(run.until, run.epochs)
    for number in range(end):
        accurate = accuracy(run, number)
        yield Epoch(number, accurate, 1 - accurate, accurate, 1 - accurate, 0.5, 1e9 + number)
    return run.key.encode() if end == run.epochs else None


class Mixed(InProcess):
    """Several runs at once, whose epochs arrive in the order that a seed draws."""

    def __init__(self, train: Train, workers: int, seed: int) -> None:
        super().__init__(train)
        self.workers = workers
        self._random = random.Random(seed)

    def next_event(self) -> Event:
        first = self._random.choice(list(self._runs))
        self._runs = {first: self._runs[first], **self._runs}
        return super().next_event()


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


class MortalStorage(InMemoryStorage):
    """Dies at one of its writes, before or after it is done; ``None`` lets it live."""

    left: int | None = None

    def die_at(self, write: int | None) -> None:
        self.left = write

    def _beat(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


def _mortal(name: str) -> Callable[..., Any]:
    def write(self: MortalStorage, *args: Any, **kwargs: Any) -> Any:
        self._beat()
        return getattr(InMemoryStorage, name)(self, *args, **kwargs)

    return write


for _name in (
    "create_new_trial",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
):
    setattr(MortalStorage, _name, _mortal(_name))


class Kept:
    """The hooks of a driver, and what they were called with."""

    def __init__(self) -> None:
        self.models: dict[int, bytes] = {}
        self.forgotten: list[Run] = []

    @property
    def hooks(self) -> Hooks:
        return Hooks(
            run_of=run_of,
            attributes_of=lambda spec: {"parameters": 7.0},
            score=lambda spec, curve: curve["val_accuracy"][-1],
            keep_model=lambda row, model, rows: self.models.update({row.number: model}),
            forget_checkpoint=self.forgotten.append,
        )


def driver(
    storage: BaseStorage,
    *,
    train: Train = train,
    engine: Engine | None = None,
    plan: Plan | None = None,
    pruner: BasePruner | None = None,
    kept: Kept | None = None,
    watch: Observer | None = None,
    driver_died: bool = False,
    say: Callable[[str], None] = print,
) -> Driver:
    """A new driver of the study in ``storage``, as a new process would make it."""
    plan = plan or OneAtATime(space(), images=IMAGES)
    return Driver(
        Ledger(new_study(storage), plan.space, plan.metric, driver_died=driver_died),
        plan,
        pruner or optuna.pruners.NopPruner(),
        engine or InProcess(train),
        (kept or Kept()).hooks,
        watch or Observers(),
        say=say,
    )


def drive(storage: BaseStorage, **given: Any) -> PlanState:
    """Drive the study in ``storage`` to its end."""
    return driver(storage, **given).drive()


def rows(storage: BaseStorage) -> list[StoredTrial]:
    """Every stored run."""
    return StoredTrials()(new_study(storage))


def counted(storage: BaseStorage) -> dict[Any, Any]:
    """What the study says in the end, whatever happened on the way: results by slot."""
    found = {
        (row.configuration, row.repeat): (row.state, row.value, row.reported, dict(row.curve))
        for row in rows(storage)
        if row.cancelled is None and row.state != "failed"
    }
    return dict(sorted(found.items()))


def drive_killed(
    storage: MortalStorage,
    deaths: list[int],
    engine: Callable[[], Engine] = lambda: InProcess(train),
    **given: Any,
) -> PlanState:
    """Drive, die at these writes one life after the other, and live on in the end."""
    for write in deaths:
        storage.die_at(write)
        with suppress(Killed):
            drive(storage, engine=engine(), driver_died=True, **given)
    storage.die_at(None)
    return drive(storage, engine=engine(), driver_died=True, **given)
