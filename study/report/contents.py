"""The contents of a report: everything that the database holds of one study, read once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import tomlkit

from study.final import confusion
from study.final.confusion import Knowledge
from study.final.records import FinalModel, finals, folder, latest, openings
from study.mirror.follow import shown_at
from study.plan.plan import PlanState
from study.plan.race import Race
from study.plan.results import StoredTrial
from study.plan.strategies import plan_of
from study.report.effects import Effects, effects
from study.space.settings import Settings
from study.storage import database as storage
from study.storage import models
from study.storage.location import Database


@dataclass(frozen=True)
class Contents:
    """A study for its report: settings, plan state, every run, and what the test set showed.

    ``finals`` are the models that the test set was opened for, and ``knowledge`` the stored
    predictions of the last one (None if there are none). ``resume`` is
    the command that continues the study; ``effects`` are what a race has learnt of each
    hyperparameter.
    """

    name: str
    settings: Settings
    plan_state: PlanState
    state: str
    rows: tuple[StoredTrial, ...]
    finals: tuple[FinalModel, ...] = ()
    mlflow: str | None = None
    resume: str = ""
    effects: Effects | None = None
    knowledge: Knowledge | None = None

    @property
    def opened(self) -> int:
        """How often the test set was opened."""
        return openings(self.finals)

    @property
    def command(self) -> str:
        """The command that makes the same study in another database, on any machine.

        The device that the study recorded is always given, and with a GPU the kind of training:
        both default to what the machine has.
        """
        settings = self.settings
        words = ["study", "run", settings.origin, "--name", self.name]
        for option, chosen in settings.chosen.items():
            given = chosen.source in {"command line", "environment"}
            recorded = option == "device" or (option == "training" and settings.device == "gpu")
            if (given or recorded) and chosen.value is not None:
                words += [f"--{option}", str(chosen.value)]
        return shlex.join(words)

    @property
    def space(self) -> str:
        """The search space as a file that `study run` takes."""
        table = self.settings.space.to_dict()
        return tomlkit.dumps({key: value for key, value in table.items() if value != {}})


def read(database: Database, name: str | None) -> Contents:
    """Read the study ``name``, or the one made last; ``StorageError`` where there is none."""
    found = storage.read(database, name)
    study, location, settings = found.study, found.location, found.settings
    plan = plan_of(settings)
    made = tuple(finals(study))
    knowledge = None
    if made and settings.data is not None:
        place, labels = folder(location, study), settings.data.label_names
        knowledge = confusion.read(place, latest(study)[-1], labels)
    return Contents(
        name=found.name,
        settings=settings,
        plan_state=found.plan_state,
        state=found.state,
        rows=found.trials,
        finals=made,
        mlflow=shown_at(location, models.identity(study)),
        resume=location.command("resume"),
        effects=effects(plan, found.trials) if isinstance(plan, Race) else None,
        knowledge=knowledge,
    )
