"""Wires lock, database, engine, driver and observers, and runs a study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from study.dashboard.note import Note
from study.mirror.follow import LAST_PASS, Follower, shown_at
from study.plan.plan import PlanState, RunSpec
from study.plan.strategies import plan_of, score_of
from study.running import growth
from study.running.driver import Driver, Hooks, Observer, Observers
from study.space.architecture import cost_of
from study.space.settings import Settings
from study.storage import database as storage
from study.storage import models
from study.storage.connection import explained
from study.storage.ledger import Ledger
from study.storage.location import Location
from study.storage.lock import driver_lock
from study.text.sentences import scoring
from study.training import recipe
from study.training.checkpoint import require_writable
from study.training.run import Run
from study.training.train import train
from study.tuning.pruning import make_pruner
from study.workers import processes
from study.workers.devices import CPU, Devices, held
from study.workers.engine import Engine, Trainer
from study.workers.engines import EngineOptions, make_engine
from study.workers.machine import cores

if TYPE_CHECKING:
    from study.mirror.tracker import Target
    from study.running.prepare import Prepared
    from study.training.checkpoint import Checkpoints

_BRIEF = 1.5  # seconds of the mirror's last pass after Ctrl-C


@dataclass(frozen=True)
class ExecutionOptions:
    """How a study is driven; none of it changes a result.

    ``jobs`` runs at once (None: one for each share of the cores, on GPUs one each), or a Dask
    ``scheduler`` with ``resources`` for each run; ``checkpoints`` a folder or an S3 address;
    ``timeout`` in seconds; ``mirror`` the MLflow server that follows (None: none); ``keep_models``
    all, best or none; ``devices`` to train on. With ``own_process`` even a single run at a time is
    trained in a process apart from the driver's.
    """

    jobs: int | None = None
    scheduler: str | None = None
    resources: Mapping[str, float] | None = None
    timeout: float | None = None
    checkpoints: str | None = None
    mirror: Target | None = None
    keep_models: str | None = None
    devices: Devices = CPU
    own_process: bool = False


Say = Callable[[str], None]


def launch(
    prepared: Prepared,
    watch: Observer,
    execution: ExecutionOptions,
    say: Say,
    trainer: Trainer = train,
) -> PlanState:
    """Drive a prepared study; a timeout ends it early, resumable.

    ``say`` prints a line about a problem that does not stop the study. Raises ``StudyLocked``
    where another process drives it or other studies hold all the GPUs, ``StorageError`` where the
    database cannot be written any more.
    """
    location, settings = prepared.location, prepared.settings
    checkpoints = checkpoints_for(location, execution)
    mirror = Follower(location, execution.mirror, say)
    patience = _BRIEF
    try:
        with explained(location.database.shown), driver_lock(location) as lock:
            ledger = None
            if prepared.new:
                plan = plan_of(settings)
            else:
                study = growth.record(location, settings, prepared.before)
                plan = plan_of(storage.read_settings(study))  # with what has changed just now
                ledger = Ledger(study, plan.space, plan.metric, driver_died=lock.out_of_memory)
            # If the run itself kills its process, that is then another one than the driver's.
            execution = replace(execution, own_process=lock.driver_died)
            if ledger is not None and plan.state(ledger.trials).complete:
                execution = replace(execution, jobs=1, scheduler=None, devices=CPU)  # all trained
            else:
                require_writable(checkpoints, execution.checkpoints or str(location.checkpoints))
            with engine_of(prepared, checkpoints, execution, trainer, say) as engine:
                if ledger is None:
                    opened = location.database.open(create=True)
                    study = storage.create(opened, location.name, settings, lock.attributes)
                    ledger = Ledger(study, plan.space, plan.metric)
                study = ledger.study
                lock.check()
                mirror.start()
                folder = location.models(models.identity(study))
                keeper = models.Keeper(
                    folder, models.record(study, execution.keep_models), say, settings.metric
                )
                note = Note(
                    study,
                    settings.repeats,
                    say,
                    scoring(settings),
                    partial(shown_at, location, models.identity(study)),
                )
                driver = Driver(
                    ledger,
                    plan,
                    make_pruner(settings["pruner"], settings["epochs"], settings.images),
                    engine,
                    _hooks(prepared, checkpoints, keeper),
                    Observers(watch, note),
                    check=lock.check,
                    say=say,
                )
                limit = execution.timeout
                deadline = None if limit is None else time.monotonic() + limit
                plan_state = driver.drive(deadline)
                lock.check()
                patience = LAST_PASS
    finally:
        mirror.close(patience)  # after the lock is given back: nothing is running any more
    with explained(location.database.shown):
        note.rewrite()
    return plan_state


def worker_warm_up(execution: ExecutionOptions) -> Callable[[Settings], None]:
    """A function that starts the process from which this machine's workers are forked.

    `prepare` calls it before the data is read: both take seconds.
    """

    def start(settings: Settings) -> None:
        alone = execution.scheduler is not None or jobs_of(settings, execution) == 1
        if not alone and settings.device == "cpu" and not settings.training.engine:
            processes.prepare()

    return start


@contextmanager
def _free_cards(
    settings: Settings, execution: ExecutionOptions, say: Say
) -> Iterator[ExecutionOptions]:
    """Hold the GPUs that a study needs and no other study holds; the options name these alone.

    Raises ``StudyLocked`` where the others hold all of them.
    """
    offered = execution.devices.cards if settings.device == "gpu" else ()
    most = 1 if settings.training.runs_at_once > 1 else jobs_of(settings, execution)
    with held(offered, most) as free:
        if len(free) < min(most, len(offered)):
            say(f"Only {len(free)} of {len(offered)} GPUs are free of other studies")
        yield replace(execution, devices=replace(execution.devices, cards=free))


def jobs_of(settings: Settings, execution: ExecutionOptions) -> int:
    """How many runs are trained at once on this machine: by default one a share of its cores.

    Two processes of one thread train nearly twice as much as one process of two (docs/log.md). On
    GPUs it is one each: small networks on the same card wait for each other, unless they are
    trained in groups.
    """
    if settings.training.runs_at_once > 1:
        return execution.jobs or settings.training.runs_at_once
    if settings.device == "gpu":
        return execution.jobs or max(1, len(execution.devices.cards))
    return execution.jobs or max(1, cores() // int(settings["threads"]))


@contextmanager
def engine_of(
    prepared: Prepared,
    checkpoints: Checkpoints,
    execution: ExecutionOptions,
    trainer: Trainer,
    say: Say,
    most: int | None = None,
) -> Iterator[Engine]:
    """The engine of the study's kind of training, of the cluster, or for as many runs at once.

    It holds the GPUs it trains on until it is closed. On this machine it trains at most ``most``
    runs at once. Raises ``StudyLocked`` where other studies hold all the GPUs.
    """
    settings = prepared.settings
    with _free_cards(settings, execution, say) as free:
        jobs = free.jobs
        if most is not None and free.scheduler is None:
            jobs = min(jobs_of(settings, free), most)
        here = replace(free, jobs=jobs)
        with closing(_engine(prepared, checkpoints, here, trainer, say)) as engine:
            yield engine


def _engine(
    prepared: Prepared,
    checkpoints: Checkpoints,
    execution: ExecutionOptions,
    trainer: Trainer,
    say: Say,
) -> Engine:
    settings = prepared.settings
    gpus = [card.uuid for card in execution.devices.cards if settings.device == "gpu"]
    jobs = execution.jobs if execution.scheduler else jobs_of(settings, execution)
    options = EngineOptions(
        dataset=prepared.inputs,
        checkpoints=checkpoints,
        trainer=trainer,
        jobs=jobs,
        threads=settings["threads"],
        device=settings.device,
        gpus=gpus,
        scheduler=execution.scheduler,
        resources=execution.resources,
        say=say,
    )
    return make_engine(options, settings.training.engine, own_process=execution.own_process)


def checkpoints_for(location: Location, execution: ExecutionOptions) -> Checkpoints:
    """Where unfinished runs are kept: a place that was named, else the study's own folder."""
    from study.training.checkpoint import checkpoints_at

    return checkpoints_at(execution.checkpoints or str(location.checkpoints))


def forget_in(location: Location, checkpoints: Checkpoints) -> Callable[[Run], None]:
    """A function that deletes the checkpoint of a run whose end is stored."""

    def forget(run: Run) -> None:
        location.database.flush()  # a power cut must not take the end of a run and this
        checkpoints.delete(run.key)

    return forget


def _hooks(prepared: Prepared, checkpoints: Checkpoints, keeper: models.Keeper) -> Hooks:
    settings, dataset = prepared.settings, prepared.inputs

    def attributes_of(spec: RunSpec) -> dict[str, float | str]:
        params = dict(spec.configuration or ())
        device: dict[str, float | str] = {"device": settings.device}
        if settings.training.runs_at_once > 1:
            device["training"] = settings["training"]
        if settings.model is not None:  # only a worker may build it
            return device
        cost = cost_of(params, dataset.input_shape, dataset.num_classes)
        return {**device, **cost.attributes}

    def run_of(spec: RunSpec) -> Run:
        assert spec.configuration is not None
        return Run.of(settings, dataset.fingerprint, spec.configuration, spec.repeat, spec.epochs)

    def score(spec: RunSpec, curve: Mapping[str, Sequence[float]]) -> float:
        params, metric = dict(spec.configuration or ()), settings.metric
        return recipe.value(params, curve[metric.name], metric, score_of(settings))

    return Hooks(
        run_of=run_of,
        attributes_of=attributes_of,
        score=score,
        keep_model=keeper.keep,
        forget_checkpoint=forget_in(prepared.location, checkpoints),
    )
