"""Finalize a study: members trained, files written, the test set opened once and recorded.

It may be killed at any moment. Members that were trained are not trained again, an unfinished one
goes on from its checkpoint, and what was recorded of the test set is told again without opening it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.data import dataset as data
from study.errors import ModelError
from study.final import archive, records
from study.final.measure import measure, write_files
from study.final.members import Member, MemberTrainer, chosen, plan
from study.running.launch import (
    ExecutionOptions,
    alone_on_cards,
    checkpoints_for,
    engine_for,
    jobs_of,
)
from study.storage import database as storage
from study.storage.connection import explained
from study.storage.lock import driving
from study.storage.progress import standing_of
from study.training.train import train

if TYPE_CHECKING:
    from optuna import Study

    from study.running.prepare import Prepared
    from study.space.settings import Settings
    from study.training.checkpoint import Checkpoints
    from study.training.run import Epoch
    from study.workers.engine import Engine, Trainer

HOLDOUT = 0.1
"""The part left out to choose by, unless something else is asked for.

Without one there is no honest way to say which member or which epoch is the best; a tenth of the
images costs less than choosing by the test set would.
"""


@dataclass(frozen=True)
class FinalOptions:
    """Which final models to make.

    ``seeds`` trainings (None: 3, or 1 of each with ``top``) of the chosen configuration, or of each
    of the ``top`` best ones; ``holdout`` is a fraction, 0 trains on every image.
    """

    seeds: int | None = None
    top: int | None = None
    holdout: float = HOLDOUT


@dataclass(frozen=True)
class Observer:
    """Callbacks: for a line of text, after an epoch of a member, and after a member's training."""

    on_message: Callable[[str], None]
    on_epoch: Callable[[Member, Epoch], None]
    on_member: Callable[[Member, Mapping[str, Any]], None]


@dataclass(frozen=True)
class FinalModels:
    """The models of one opening of the test set, as `records.finals` describes them.

    ``folder`` has their files, ``openings`` counts those of the study; ``new``: this was one.
    """

    folder: Path
    models: Sequence[Mapping[str, Any]]
    openings: int
    new: bool


def finalize(
    prepared: Prepared,
    options: FinalOptions,
    execution: ExecutionOptions,
    observer: Observer,
    trainer: Trainer = train,
) -> FinalModels:
    """Make the final models of a study and measure them.

    Raises ``ModelError`` where that cannot be, ``StudyLocked`` where another process drives the
    study or finalizes it.
    """
    location, say = prepared.location, observer.on_message
    with explained(location.database.shown), driving(location) as lock:
        study = storage.load(location.database.open(), location.name)[0]
        _say_what_is_needed(prepared.settings, say)
        members = _members(study, prepared, options, say)
        folder = records.folder(location, study)
        records.claim(folder, study)
        checkpoints = checkpoints_for(location, execution)
        known = _recorded(study, members, folder)
        if known and all(_is_there(folder, final) for final in known):
            return _final_models(study, folder, known, new=False)
        training = MemberTrainer(
            study,
            folder,
            on_saved=lambda run: checkpoints.delete(run.key),
            on_epoch=observer.on_epoch,
            on_member=observer.on_member,
        )
        if missing := training.missing(members):
            with _engine(prepared, checkpoints, execution, trainer, say, len(missing)) as engine:
                training.train(missing, engine, lock.check)
        lock.check()
        if known:  # other members have taken the names of these models' files
            say("Putting the models together again")
            write_files(study, prepared, members, training, folder)
            return _final_models(study, folder, known, new=False)
        say("Putting the models together and opening the test set")
        models = measure(study, prepared, members, training, folder)
        return _final_models(study, folder, models, new=True)


@contextmanager
def _engine(
    prepared: Prepared,
    checkpoints: Checkpoints,
    execution: ExecutionOptions,
    trainer: Trainer,
    say: Callable[[str], None],
    runs: int,
) -> Iterator[Engine]:
    """What trains, with no more places on this machine than there are ``runs``."""
    with alone_on_cards(prepared.settings, execution, say) as free:
        jobs = free.jobs
        if free.scheduler is None:
            jobs = min(jobs_of(prepared.settings, free), runs)
        own = replace(free, jobs=jobs)
        with closing(engine_for(prepared, checkpoints, own, trainer, say)) as engine:
            yield engine


def _final_models(
    study: Study, folder: Path, models: Sequence[Mapping[str, Any]], *, new: bool
) -> FinalModels:
    """These models are the ones that gallery and report speak of from now on."""
    records.set_current(study, models[0]["opening"])
    return FinalModels(folder, models, records.openings(records.finals(study)), new)


def _say_what_is_needed(settings: Settings, say: Callable[[str], None]) -> None:
    """Say what the files of a custom model need to be loaded."""
    source, network = settings.model, settings.network
    if source is None or network is None:
        return
    if needed := archive.Needed.of(source, network.classes):
        say(
            f"The models need {needed.names} of {needed.file} to be loaded: keep that file, and "
            "give it to predict with --network"
        )


def _members(
    study: Study, prepared: Prepared, options: FinalOptions, say: Callable[[str], None]
) -> list[Member]:
    settings = prepared.settings
    plan_state = standing_of(study, settings)
    if plan_state.incumbent is None or plan_state.score is None:
        raise ModelError(
            f"study {study.study_name!r} has no finished configuration yet: continue it with: "
            f"{prepared.location.command('resume')}"
        )
    configurations = chosen(plan_state, settings.repeats, options.top)
    if not plan_state.complete:
        say("The study is not complete: its choice may still change")
    if not len(prepared.dataset.test_labels):
        raise ModelError(f"{prepared.dataset.source}: has no test images to measure a model on")
    seeds = options.seeds or (3 if options.top is None else 1)
    members = plan(settings, configurations, seeds, options.holdout, prepared.dataset.fingerprint)
    run = members[0].run
    data.split(prepared.dataset.labels, run.validation, run.seed, run.repeat, settings["data"])
    return members


def _recorded(study: Study, members: Sequence[Member], folder: Path) -> list[dict[str, Any]]:
    """The records of an earlier opening for these members, if their probabilities are kept."""
    name = records.opening([member.key for member in members])
    there = records.load_probabilities(folder, name) is not None
    return records.of_opening(study, name) if there else []


def _is_there(folder: Path, final: Mapping[str, Any]) -> bool:
    """Whether a recorded model's file is there, and is not that of other members."""
    try:
        return list(archive.read_card(folder / final["file"]).members) == list(final["members"])
    except ModelError:
        return False
