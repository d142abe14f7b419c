"""What a tracker should show of a study: a list of runs, computed from what is stored.

One run a trial, under one a configuration, under one a study. A run's points only ever grow at
their end while its trial runs, so that a sender needs to know no more than how many it has sent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from study.plan.plan import Confirmation, PlanState
from study.plan.race.result import RaceResult
from study.plan.results import Configuration, StoredTrial, by_configuration
from study.plan.statistics import Score, Spread
from study.plan.strategies import strategy_of
from study.space.growth import translated
from study.space.metric import Metric
from study.space.settings import Settings
from study.storage import models
from study.training import network

STUDY = "study"
"""The key of the run that stands for the study."""

MODEL = "model"
"""The name of the artifact that is a saved Keras model."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric: at a time (ms since 1970) and a step (epoch or repeats, from 1)."""

    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a run holds; params never change once they are sent, tags may."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Sequence[Point] = ()


@dataclass(frozen=True)
class Artifact:
    """A file of a run. ``mark`` is stored with the run once the file is sent: its version.

    ``read`` gives the bytes, or raises ``FileNotFoundError``; ``name`` is where a tracker shows it.
    Of a model, ``pixels`` is the number of a white pixel: it takes images of 0..``pixels``.
    """

    name: str
    filename: str
    mark: str
    read: Callable[[], bytes]
    pixels: int = 1


@dataclass(frozen=True)
class DesiredRun:
    """A run as it should be. Times in ms since 1970.

    ``key`` identifies it within its study, ``parent`` is the key of the run above it. ``mark``
    differs whenever the run, once sent, would have to be sent again. ``make_content`` is called
    only for runs that have to be sent.
    """

    key: str
    parent: str | None
    name: str
    state: str
    mark: str
    started: int
    ended: int
    make_content: Callable[[], Content] = field(compare=False, repr=False)
    artifact: Artifact | None = field(default=None, compare=False)

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment, with its trials scored as the plan compares them.

    ``live``: a driver is running. Without one, trials that the database holds as running were
    interrupted.
    ``model_folder`` holds the kept models, ``policy`` says which of them are worth keeping.
    """

    name: str
    settings: Settings
    trials: Sequence[StoredTrial]
    plan_state: PlanState
    live: bool
    model_folder: Path | None = None
    policy: models.Policy = "none"

    @property
    def metric(self) -> Metric:
        return self.settings.metric

    @cached_property
    def kept(self) -> set[int]:
        """The numbers of the trials whose models are worth sending."""
        return models.wanted(self.policy, self.trials, self.metric)

    @cached_property
    def fixed_params(self) -> dict[str, str]:
        settings = {name: self.settings[name] for name in ("epochs", "batch_size")}
        return {name: str(value) for name, value in settings.items() if value is not None}

    @cached_property
    def origin(self) -> dict[str, str]:
        return origin(self.settings)


def desired_runs(study: Snapshot) -> list[DesiredRun]:
    """Every run that should be shown, children before their parents; empty before the first epoch.

    A trial that waits for its first epoch, or was cancelled before it, is left out.
    """
    trials: list[DesiredRun] = []
    configurations: list[DesiredRun] = []
    for group in by_configuration(study.trials).values():
        if not any(map(_visible, group)):
            continue
        children = [_trial(study, trial) for trial in group]
        above = _configuration(study, group, children)
        for trial, child in zip(group, children, strict=True):
            if _visible(trial):
                trials.append(child if above.running else _with_model(study, trial, child))
        configurations.append(above)
    return [*trials, *configurations, _study(study, configurations)] if trials else []


def digest_of(desired: Sequence[DesiredRun]) -> str:
    """A digest of everything that there is to send; equal where nothing has changed."""
    marks = [(run.key, run.mark, run.artifact.mark if run.artifact else None) for run in desired]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def origin(settings: Settings) -> dict[str, str]:
    """Tags that name the data, the device, the custom model and the versions."""
    tags = {"data": str(settings["data"]), "device": settings.device}
    if settings.model is not None:
        tags |= {
            "network": settings.model.name,
            "network_fingerprint": settings.model.fingerprint,
        }
    if settings.network is not None:
        tags["network_parameters"] = str(settings.network.parameters)
    if settings.data is not None:
        tags["data_fingerprint"] = settings.data.fingerprint
    return tags | {f"version.{name}": number for name, number in settings.versions.items()}


# --- trials --------------------------------------------------------------------------------------


def trial_key(number: int) -> str:
    """The key of the run of trial ``number``."""
    return f"trial {number}"


def _visible(trial: StoredTrial) -> bool:
    """Whether there is anything to show: an epoch, or the reason of a failure."""
    return trial.state == "failed" or _epochs(trial) > 0


def _trial(study: Snapshot, trial: StoredTrial) -> DesiredRun:
    state = _state(study, trial)
    started = _milliseconds(trial.started.timestamp()) if trial.started else 0
    if trial.ended:
        ended = _milliseconds(trial.ended.timestamp())
    else:
        ended = _milliseconds(trial.curve["ended"][-1]) if trial.curve.get("ended") else started
    return DesiredRun(
        key=trial_key(trial.number),
        parent=_configuration_key(study, trial.configuration),
        name=f"{trial.stage}={trial.option}, repeat {trial.repeat + 1}",
        state=state,
        mark=state,
        started=started,
        ended=max(started, ended),
        make_content=partial(_trial_content, study, trial),
    )


def _with_model(study: Snapshot, trial: StoredTrial, run: DesiredRun) -> DesiredRun:
    """The run with its model, if that is worth sending."""
    if trial.number not in study.kept or study.model_folder is None:
        return run
    file = models.file(study.model_folder, trial.number)
    return replace(run, artifact=Artifact(MODEL, file.name, "kept", file.read_bytes))


def _state(study: Snapshot, trial: StoredTrial) -> str:
    """The state shown: an unfinished trial runs, or was interrupted if there is no driver.

    A trial that was paused until the study ended is "paused": no pruner stopped it.
    """
    if trial.state in ("running", "paused"):
        return "running" if study.live else "interrupted"
    return "paused" if trial.left_paused else trial.state


def _trial_content(study: Snapshot, trial: StoredTrial) -> Content:
    """Hyperparameters as params and tags, a point an epoch and series, then final and best ones."""
    params = {name: str(value) for name, value in trial.configuration} | study.fixed_params
    tags = params | {
        "stage": trial.stage,
        "option": str(trial.option),
        "repeat": str(trial.repeat + 1),
        "seed": str(study.settings["seed"]),
        "trial": str(trial.number),
        **study.origin,
    }
    if trial.failure:
        tags["failure"] = trial.failure
    if trial.cancelled:
        tags["cancelled"] = trial.cancelled
    return Content(params, tags, [*_curve(trial), *_summary(trial, study.metric)])


def _epochs(trial: StoredTrial) -> int:
    """The epochs that are stored whole: a driver can die between the statements that store one."""
    return min([len(trial.reported), *map(len, trial.curve.values())]) if trial.curve else 0


def _series(trial: StoredTrial) -> list[str]:
    return [name for name in trial.curve if name != "ended"]


def _curve(trial: StoredTrial) -> list[Point]:
    ended = [_milliseconds(at) for at in trial.curve.get("ended", ())]
    return [
        Point(name, float(trial.curve[name][epoch]), ended[epoch], epoch + 1)
        for epoch in range(_epochs(trial))
        for name in _series(trial)
    ]


def _summary(trial: StoredTrial, metric: Metric) -> list[Point]:
    """Values to sort runs by, once the run has ended; only a complete run has final ones."""
    epochs = _epochs(trial)
    if trial.state in ("running", "paused") or not epochs:
        return []
    curve = trial.curve[metric.name][:epochs]
    best = metric.best(curve)
    values = {f"best_{metric.name}": curve[best], "best_epoch": best + 1}
    values["total_seconds"] = math.fsum(trial.curve["seconds"][:epochs])
    if trial.state == "complete":
        logged = (name for name in _series(trial) if name != "seconds")
        values |= {f"final_{name}": trial.curve[name][epochs - 1] for name in logged}
    for name in ("parameters", "size", "milliseconds"):
        if name in trial.attributes:
            values[name] = trial.attributes[name]
    at = _milliseconds(trial.curve["ended"][epochs - 1])
    return [Point(name, float(value), at, epochs) for name, value in values.items()]


# --- configurations ------------------------------------------------------------------------------


def _configuration_key(study: Snapshot, configuration: Configuration) -> str:
    """The key of a configuration's run, the same before and after the study's space has grown."""
    if study.settings.history:
        first = study.settings.history[0].space
        implied = network.implied(study.settings.model, first.batch_size)
        own = translated(dict(configuration), first, implied)
        more = sorted(dict(configuration).items() - implied.items())
        configuration = tuple(more if own is None else own.items())
    digest = hashlib.sha256(json.dumps(configuration).encode()).hexdigest()[:16]
    return f"configuration {digest}"


def _configuration(
    study: Snapshot, trials: Sequence[StoredTrial], children: Sequence[DesiredRun]
) -> DesiredRun:
    """The parent run of the trials of one configuration."""
    repeats = len(_counted(trials))
    stopped = [trial for trial in trials if trial.state == "pruned" and trial.cancelled is None]
    paused = all(trial.left_paused for trial in stopped)
    trained = any(trial.state == "complete" for trial in trials)
    if study.live and any(trial.state == "running" for trial in trials):
        state = "running"
    elif repeats >= study.settings.repeats or (study.plan_state.complete and trained and paused):
        state = "complete"
    elif stopped:
        state = "paused" if paused else "pruned"
    else:
        state = "running" if study.live else "interrupted"
    ended = {trial.number: run.ended for trial, run in zip(trials, children, strict=True)}
    return DesiredRun(
        key=_configuration_key(study, trials[0].configuration),
        parent=STUDY,
        name=" ".join(f"{name}={value}" for name, value in trials[0].configuration),
        state=state,
        mark=f"{state}, {repeats} repeats",
        started=min(child.started for child in children),
        ended=max(child.ended for child in children),
        make_content=partial(_configuration_content, study, trials, ended),
    )


def _configuration_content(
    study: Snapshot, trials: Sequence[StoredTrial], ended: Mapping[int, int]
) -> Content:
    """The mean over the first n repeats and its standard error, at step n.

    The standard error is that of these repeats alone (with one repeat, what the number of
    validation images allows): a point that was sent never changes when other runs finish.
    """
    params = {name: str(value) for name, value in trials[0].configuration} | study.fixed_params
    counted = _counted(trials)
    spread = Spread(study.settings.images)
    points: list[Point] = []
    for repeats in range(1, len(counted) + 1):
        first = counted[:repeats]
        score = spread.score([trial.value for trial in first if trial.value is not None])
        points += _points(score, study.metric, max(ended[trial.number] for trial in first))
    return Content(params, params | {"repeats": str(len(counted)), **study.origin}, points)


def _counted(trials: Sequence[StoredTrial]) -> list[StoredTrial]:
    """The complete runs of repeats 0, 1, ... up to the first that is missing."""
    complete = {trial.repeat: trial for trial in reversed(trials) if trial.state == "complete"}
    if any(trial.left_paused for trial in trials):  # of a race: every repeat that was measured
        return [complete[repeat] for repeat in sorted(complete)]
    counted: list[StoredTrial] = []
    while len(counted) in complete:
        counted.append(complete[len(counted)])
    return counted


def _points(score: Score, metric: Metric, at: int) -> list[Point]:
    """A mean, and its standard error if known, at the step of its repeats and a time in ms."""
    values = {f"mean_{metric.name}": score.mean, "standard_error": score.standard_error}
    return [Point(name, v, at, score.repeats) for name, v in values.items() if v is not None]


# --- the study -----------------------------------------------------------------------------------


def _study(study: Snapshot, configurations: Sequence[DesiredRun]) -> DesiredRun:
    plan_state, settings = study.plan_state, study.settings
    state = "running" if study.live else "complete" if plan_state.complete else "interrupted"
    if plan_state.failure is not None and not study.live:
        state = "failed"
    ended = max(run.ended for run in configurations)
    source = settings.model
    network = None
    if source is not None:
        file = Path(source.path).name
        network = Artifact("network", file, source.fingerprint, source.text.encode)
    return DesiredRun(
        key=STUDY,
        parent=None,
        name=study.name,
        state=state,
        mark=f"{state}, {plan_state.runs} runs" if state != "running" else state,
        started=min(run.started for run in configurations),
        ended=ended,
        make_content=partial(_study_content, study, ended),
        artifact=network,
    )


def _study_content(study: Snapshot, ended: int) -> Content:
    """The settings, and once the study is complete its answer."""
    settings, plan_state = study.settings, study.plan_state
    names = ["data", "epochs", "batch_size", "seed", "sampler", "pruner", "threads", "training"]
    strategy = strategy_of(settings)
    names += [name for name in strategy.own if name in settings.chosen]
    params = {name: str(settings[name]) for name in names if settings[name] is not None}
    params |= {"metric": study.metric.name, "direction": study.metric.direction}
    params |= {"score": settings.space.score} if strategy.scores else {}
    tags = {"repeats": str(settings.repeats), **study.origin}
    points: list[Point] = []
    if plan_state.complete and plan_state.incumbent is not None and plan_state.score is not None:
        tags |= {f"answer.{name}": str(value) for name, value in plan_state.incumbent}
        points = _points(plan_state.score, study.metric, ended)
        points += _gain(plan_state.confirmation, ended)
    if plan_state.complete and plan_state.race is not None:
        points += [
            Point(name, value, ended, int(plan_state.race.spent))
            for name, value in _race_result(plan_state.race, study.metric).items()
        ]
    return Content(params, tags, points)


def _gain(confirmation: Confirmation | None, at: int) -> list[Point]:
    """How much better the answer is than the start, on fresh repeats, with its standard error."""
    gain = None if confirmation is None or confirmation.found else confirmation.difference
    if gain is None:
        return []
    values = {"gain": gain.mean, "gain_standard_error": gain.standard_error}
    return [Point(name, v, at, gain.pairs) for name, v in values.items() if v is not None]


def _race_result(result: RaceResult, metric: Metric) -> dict[str, float]:
    """How sure a race is of its leader."""
    found = {} if result.probability is None else {"probability": result.probability}
    if result.distance is not None:
        found["distance_high"] = result.distance[1]
    if result.interval is not None:
        found[f"{metric.name}_low"], found[f"{metric.name}_high"] = result.interval
    return found


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
