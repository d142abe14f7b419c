"""Studies with trials written by hand, for tests and benchmarks: nothing is trained."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from study.plan.plan import Plan
from study.plan.results import Configuration, configuration
from study.plan.strategies import plan_of
from study.space import file as space_file
from study.space.settings import DataFacts, Setting, Settings, resolve
from study.storage import database as storage
from study.storage.location import Database
from study.storage.models import IDENTITY
from study.storage.trials import RUN_SPEC

BORN = 1_700_000_000
"""When the first trial of a made-up study started (seconds since 1970)."""

VERSIONS = {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.0.0"}

STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def settings(epochs: int = 3, repeats: int = 2, **options: Any) -> Settings:
    """The settings of the smoke space on made-up data, its runs scored as others' are."""
    options |= {"epochs": epochs, "repeats": repeats}
    given = {name: Setting(value, "command line") for name, value in options.items()}
    facts = DataFacts("f" * 64, (28, 28, 1), 10, 1437, 360, 479)
    space = replace(space_file.load("smoke"), score="mean of last 3")
    return resolve(space, "smoke", given).with_data(facts, VERSIONS)


@dataclass
class Made:
    """A study in its database."""

    url: str
    study: optuna.Study
    settings: Settings
    plan: Plan

    def start(self) -> Configuration:
        return configuration(self.settings.space.start)

    def option(self, **changed: Any) -> Configuration:
        """The start configuration with some parameters changed."""
        return configuration(dict(self.start()) | changed)

    def add(
        self,
        params: Configuration,
        repeat: int,
        values: Sequence[float] = (0.5, 0.8, 0.9),
        state: str = "complete",
        stage: str = "filters",
        attributes: Mapping[str, Any] | None = None,
        until: int | None = None,
    ) -> int:
        """Add a trial whose validation accuracies are ``values``; returns its number."""
        number = len(self.study.get_trials(deepcopy=False))
        extra = attributes or {}
        trial = _trial(number, params, repeat, values, state, stage, extra, until)
        self.study.add_trial(trial)
        return number

    def running(self, number: int) -> optuna.Trial:
        """A trial that is running, to report and tell."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        return optuna.Trial(self.study, frozen._trial_id)

    def report(self, number: int, value: float) -> None:
        """Store one more epoch of a running trial."""
        trial = self.running(number)
        curve = trial.user_attrs["curve"]
        epoch = len(curve["accuracy"])
        for name, more in _curve(number, [*curve["val_accuracy"], value]).items():
            curve[name] = more
        trial.set_user_attr("curve", curve)
        trial.report(value, step=epoch + 1)

    def tell(self, number: int, state: str, value: float | None = None) -> None:
        self.study.tell(self.running(number), value, state=STATES[state])


def make(folder: Path, name: str = "digits", **options: Any) -> Made:
    """A new study in a database in ``folder``, with the options of ``settings``."""
    url = URL.create("sqlite", database=str(folder / "study.db")).render_as_string()
    chosen = settings(**options)
    study = storage.create(Database.at(url).open(create=True), name, chosen)
    return Made(url, study, chosen, plan_of(chosen))


def copy(made: Made, folder: Path, name: str) -> Made:
    """The same study under another name and with another UUID, in a database of its own."""
    folder.mkdir()
    database = folder / "study.db"
    original = made.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)
        target.execute("UPDATE studies SET study_name = ?", (name,))
        target.commit()
    url = f"sqlite:///{database}"
    study, chosen = storage.load(Database.at(url).open(), name)
    study.set_user_attr(IDENTITY, uuid.uuid4().hex)
    return Made(url, study, chosen, made.plan)


def again(made: Made) -> Made:
    """The same study, opened anew."""
    study, chosen = storage.load(Database.at(made.url).open(), made.study.study_name)
    return Made(made.url, study, chosen, plan_of(chosen))


def complete(made: Made) -> None:
    """Add every trial that the plan of the study wants, in order."""
    while True:
        rows = [row for trial in made.study.get_trials() if (row := _row(trial)) is not None]
        slots = made.plan.state(rows).next
        if not slots:
            return
        for slot in slots:
            assert slot.configuration is not None
            level = (
                0.9 + 0.001 * (sum(map(ord, str(slot.configuration))) % 7) + 0.0005 * slot.repeat
            )
            made.add(slot.configuration, slot.repeat, (0.5, 0.8, level), stage=slot.stage)


def _row(trial: FrozenTrial) -> Any:
    from study.storage.trials import stored_trial as row

    return row(trial)


def _trial(
    number: int,
    params: Configuration,
    repeat: int,
    values: Sequence[float],
    state: str,
    stage: str,
    attributes: Mapping[str, Any],
    until: int | None = None,
) -> FrozenTrial:
    option = dict(params).get(stage)
    ticket = {
        "stage": stage,
        "option": option,
        "params": dict(params),
        "repeat": repeat,
        "reference": None,
        "epochs": until,
    }
    trial = optuna.trial.create_trial(
        state=STATES[state],
        value=fmean(values[-3:]) if state == "complete" else None,  # what a driver stores
        user_attrs={"curve": _curve(number, values), "parameters": 1000, **attributes},
        system_attrs={RUN_SPEC: ticket},
        intermediate_values={epoch + 1: value for epoch, value in enumerate(values)},
    )
    trial.datetime_start = datetime.fromtimestamp(BORN + 100 * number)  # noqa: DTZ006 - Optuna's
    if state != "running":
        trial.datetime_complete = datetime.fromtimestamp(BORN + 100 * number + 99)  # noqa: DTZ006
    return trial


def _curve(number: int, values: Sequence[float]) -> dict[str, list[float]]:
    epochs = range(len(values))
    return {
        "accuracy": [value - 0.01 for value in values],
        "val_accuracy": list(values),
        "loss": [1 - value for value in values],
        "val_loss": [1.1 - value for value in values],
        "seconds": [1.0 + 0.25 * epoch for epoch in epochs],
        "ended": [BORN + 100.0 * number + 2.5 * (epoch + 1) for epoch in epochs],
    }
