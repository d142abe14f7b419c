"""Finalize a study: final runs trained, files written, the test set opened once and recorded.

It may be killed at any moment. Runs that ended are not trained again, an unfinished one continues
from its checkpoint, and recorded test results are returned without opening the test set again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import optuna

from study.data import dataset as data
from study.errors import ModelError
from study.final import archive, records
from study.final.measure import measure, write_files
from study.final.members import FinalPlan, FinalRuns, Member, chosen
from study.final.records import FinalModel
from study.plan.plan import RunSpec
from study.plan.results import StoredTrial
from study.running.driver import Driver, Hooks, Observer
from study.running.launch import (
    ExecutionOptions,
    Say,
    checkpoints_for,
    engine_of,
    forget_in,
)
from study.storage import database as storage
from study.storage import models as kept
from study.storage.connection import explained
from study.storage.database import plan_state_of
from study.storage.ledger import Ledger
from study.storage.lock import driver_lock
from study.storage.trials import StoredTrials
from study.training.checkpoint import require_writable
from study.training.run import FineTuning
from study.training.train import start_tensorflow, train

if TYPE_CHECKING:
    from optuna import Study

    from study.running.prepare import Prepared
    from study.space.metric import Metric
    from study.space.settings import Settings
    from study.training.run import Run
    from study.workers.engine import Trainer

HOLDOUT = 0.1
"""The part held out to choose the best epoch and the best model, by default.

Without one there is no honest way to choose them; a tenth of the images costs less than choosing by
the test set would.
"""


@dataclass(frozen=True)
class FinalOptions:
    """Which final models to make.

    ``seeds`` trainings (None: 3, or 1 of each with ``top``) of the chosen configuration, or of each
    of the ``top`` best ones; ``holdout`` is a fraction, 0 trains on every image. ``fine_tune`` is
    the number of a backbone's last layers that are trained too, ``rate`` their learning rate.
    """

    seeds: int | None = None
    top: int | None = None
    holdout: float = HOLDOUT
    fine_tune: int = 0
    rate: float | None = None


@dataclass(frozen=True)
class FinalModels:
    """The models of one opening of the test set.

    ``folder`` has their files, ``openings`` counts those of the study; ``new``: this was one.
    """

    folder: Path
    models: Sequence[FinalModel]
    openings: int
    new: bool


def finalize(
    prepared: Prepared,
    options: FinalOptions,
    execution: ExecutionOptions,
    observer: Observer,
    say: Say,
    trainer: Trainer = train,
) -> FinalModels:
    """Make the final models of a study and measure them.

    Raises ``ModelError`` if that is not possible, ``StudyLocked`` if another process drives the
    study or finalizes it.
    """
    location = prepared.location
    with explained(location.database.shown), driver_lock(location) as lock:
        study = storage.load(location.database.open(), location.name)[0]
        _say_needed_file(prepared.settings, say)
        runs = _final_runs(study, prepared, options, say)
        heads, on_features = runs, prepared
        if options.fine_tune or options.rate is not None:
            prepared = _on_images(prepared, options)
            tuning = FineTuning(options.fine_tune, options.rate)
            runs = heads.fine_tuned(tuning, prepared.inputs.fingerprint)
        folder = records.folder(location, study)
        records.claim(folder, study)
        known = _recorded(study, runs, folder)
        if known and all(_is_there(folder, final) for final in known):
            return _final_models(study, folder, known, new=False)

        def trained(runs: FinalRuns, prepared: Prepared) -> list[Member]:
            own = _study_of(study, runs)
            trials = StoredTrials()(own)
            plan = runs.plan(_ignored(trials, runs, folder))
            if not plan.state(trials).complete:
                ledger = Ledger(own, plan.space, plan.metric, driver_died=lock.out_of_memory)
                drive = _driver_of(prepared, runs, plan, ledger, folder, observer, lock.check, say)
                drive(replace(execution, own_process=lock.driver_died), trainer)
                trials = ledger.trials
            return _trained(runs, plan, trials, folder)

        members = trained(heads, on_features)
        if runs.heads is not None:
            before, members = members, trained(runs, prepared)
            _say_gain(before, members, prepared.settings.metric, say)
        lock.check()
        if known:  # other members have taken the names of these models' files
            say("Putting the models together again")
            write_files(study, prepared, members, folder)
            return _final_models(study, folder, known, new=False)
        say("Putting the models together and opening the test set")
        models = measure(study, prepared, members, folder)
        return _final_models(study, folder, models, new=True)


def _study_of(study: Study, runs: FinalRuns) -> Study:
    """The Optuna study of these final runs: one for each holdout and text of a custom model."""
    model = runs.settings.model
    facts = [kept.identity(study), f"{runs.holdout:g}", model.fingerprint if model else ""]
    if runs.tuning is not None:
        facts.append(f"{runs.tuning.layers} {runs.tuning.rate}")
    mark = f"({hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]})"
    names = optuna.get_all_study_names(study._storage)
    found = [name for name in names if name.endswith(mark)]  # the study may have been renamed
    return optuna.create_study(
        storage=study._storage,
        study_name=found[0] if found else f"{study.study_name[:400]}: final runs {mark}",
        direction=runs.space.metric.direction,
        load_if_exists=True,
    )


def _ignored(trials: Sequence[StoredTrial], runs: FinalRuns, folder: Path) -> frozenset[int]:
    """The trials to train again: failed ones, and those whose model's file is lost."""

    def lost(trial: StoredTrial) -> bool:
        run = runs.run(trial.configuration, trial.repeat)
        return trial.state == "complete" and not _file(folder, run).exists()

    return frozenset(trial.number for trial in trials if trial.state == "failed" or lost(trial))


def _file(folder: Path, run: Run) -> Path:
    """The file of the model of a final run."""
    return folder / "members" / f"{run.key}.keras"


def _driver_of(
    prepared: Prepared,
    runs: FinalRuns,
    plan: FinalPlan,
    ledger: Ledger,
    folder: Path,
    observer: Observer,
    check: Callable[[], None],
    say: Say,
) -> Callable[[ExecutionOptions, Trainer], None]:
    """A function that drives the plan to its end, with no more runs at once than it has."""
    location, settings = prepared.location, prepared.settings

    def run(spec: RunSpec) -> Run:
        which = spec.configuration or (), spec.repeat
        one = runs.run(*which)
        if runs.heads is None or one.tuning is None:
            return one
        head = _file(folder, runs.heads.run(*which)).read_bytes()
        return replace(one, tuning=replace(one.tuning, head=head))

    def describe(spec: RunSpec) -> dict[str, float | str]:
        return {"device": settings.device, "seed": run(spec).seed}

    def score(_: RunSpec, curve: Mapping[str, Sequence[float]]) -> float:
        values = curve[plan.metric.name]
        return values[plan.metric.best(values)] if runs.holdout else values[-1]

    def keep(trial: StoredTrial, model: bytes, _: Sequence[StoredTrial]) -> None:
        records.write(_file(folder, runs.run(trial.configuration, trial.repeat)), model)

    def drive(execution: ExecutionOptions, trainer: Trainer) -> None:
        checkpoints = checkpoints_for(location, execution)
        require_writable(checkpoints, execution.checkpoints or str(location.checkpoints))
        hooks = Hooks(run, describe, score, keep, forget_in(location, checkpoints))
        pruner = optuna.pruners.NopPruner()
        most = len(runs.all)
        with engine_of(prepared, checkpoints, execution, trainer, say, most) as engine:
            Driver(ledger, plan, pruner, engine, hooks, observer, check=check, say=say).drive()

    return drive


def _on_images(prepared: Prepared, options: FinalOptions) -> Prepared:
    """The study with its images and backbone to train on; ModelError where none can be tuned."""
    settings, layers, rate = prepared.settings, options.fine_tune, options.rate
    source, network = settings.model, settings.network
    if source is None or network is None or network.backbone is None:
        raise ModelError("--fine-tune: the study has no features: all of its network is trained")
    if layers < 1:
        raise ModelError("--fine-tune-rate: is that of --fine-tune; give the number of layers too")
    if rate is not None and not 0 < rate < math.inf:
        raise ModelError(f"--fine-tune-rate {rate:g}: give a number above 0")
    start_tensorflow(settings["threads"])
    from study.training import backbone
    from study.training.compiled import to_bytes

    model = backbone.recorded(source, prepared.dataset.input_shape, network.backbone)
    most = len(backbone.tunable(model))
    if layers > most:
        raise ModelError(
            f"--fine-tune {layers}: the layers of {source.backbone} with weights, not counting "
            f"batch normalization, are {most}; give at most that"
        )
    marked = hashlib.sha256(f"fine-tuning {prepared.inputs.fingerprint}".encode()).hexdigest()
    data = replace(prepared.dataset.without_test(), backbone=to_bytes(model), fingerprint=marked)
    return replace(prepared, inputs=data)


def _say_gain(before: Sequence[Member], after: Sequence[Member], metric: Metric, say: Say) -> None:
    """Compare the held-out values with those of the frozen backbone, where there are any."""
    values = [[one.best for one in some if one.best is not None] for some in (before, after)]
    if all(values):
        frozen, tuned = (metric.text(fmean(some)) for some in values)
        say(f"Held out: {frozen} with the frozen backbone, {tuned} fine-tuned")


def _trained(
    runs: FinalRuns, plan: FinalPlan, trials: Sequence[StoredTrial], folder: Path
) -> list[Member]:
    """The trained runs, in order; raises ``ModelError`` with the reason where one has failed."""
    members = []
    for place, option in enumerate(plan.state(trials).stages[0].options):
        if option.stopped is not None:
            name = runs.name(place, option.stopped.repeat)
            raise ModelError(f"{name} cannot be trained: {option.failure or 'it was stopped'}")
        for trial in option.rows:
            run = runs.run(option.configuration, trial.repeat)
            best = trial.value if runs.holdout else None
            members.append(Member(runs.name(place, trial.repeat), run, _file(folder, run), best))
    return members


def _final_models(
    study: Study, folder: Path, models: Sequence[FinalModel], *, new: bool
) -> FinalModels:
    """Record that gallery and report show these models from now on."""
    records.set_current(study, models[0].opening)
    return FinalModels(folder, models, records.openings(records.finals(study)), new)


def _say_needed_file(settings: Settings, say: Say) -> None:
    """Say which file is needed to load models with custom classes."""
    source, network = settings.model, settings.network
    if source is None or network is None:
        return
    if needed := archive.Needed.of(source, network.classes):
        say(
            f"The models need {needed.names} of {needed.file} to be loaded: keep that file, and "
            "give it to predict with --network"
        )


def _final_runs(study: Study, prepared: Prepared, options: FinalOptions, say: Say) -> FinalRuns:
    """The runs that the options ask for; raises ``ModelError`` where there can be none."""
    settings = prepared.settings
    plan_state = plan_state_of(study, settings)
    if plan_state.incumbent is None or plan_state.score is None:
        raise ModelError(
            f"study {study.study_name!r} has no finished configuration yet: continue it with: "
            f"{prepared.location.command('resume')}"
        )
    configurations = tuple(chosen(plan_state, settings.repeats, options.top))
    if not plan_state.complete:
        say("The study is not complete: its choice may still change")
    if not len(prepared.dataset.test_labels):
        raise ModelError(f"{prepared.dataset.source}: has no test images to measure a model on")
    seeds = options.seeds or (3 if options.top is None else 1)
    fingerprint = prepared.inputs.fingerprint
    runs = FinalRuns(settings, configurations, seeds, options.holdout, fingerprint)
    run = runs.run(configurations[0], 0)
    data.split(prepared.dataset.labels, run.validation, run.seed, run.repeat, settings["data"])
    return runs


def _recorded(study: Study, runs: FinalRuns, folder: Path) -> list[FinalModel]:
    """The records of an earlier opening for these runs, if their predictions are kept."""
    keys = [runs.run(configuration, repeat).key for _, configuration, repeat in runs.all]
    name = records.opening(keys)
    there = records.load_probabilities(folder, name) is not None
    return records.of_opening(study, name) if there else []


def _is_there(folder: Path, final: FinalModel) -> bool:
    """Whether a recorded model's file is there, and is not that of other members."""
    try:
        return archive.read_card(folder / final.file).members == final.members
    except ModelError:
        return False
