"""The runs that stand above the trials in MLflow: one a configuration, and one for the study."""

from __future__ import annotations

from collections.abc import Sequence

from study.mirror.projection import (
    MARK,
    STUDY,
    Content,
    Point,
    Subject,
    Wanted,
    configuration_slot,
    cut,
    origin,
    trial,
)
from study.plan.plan import PlanState
from study.plan.race.result import RaceResult
from study.plan.results import StoredTrial
from study.plan.statistics import Score, Spread
from study.plan.strategies import strategy_of
from study.space.metric import Metric


def configuration(subject: Subject, rows: Sequence[StoredTrial]) -> Wanted:
    """The parent run of the trials of one configuration."""
    repeats = len(_counted(rows))
    stopped = [row for row in rows if row.state == "pruned" and row.cancelled is None]
    paused = all(row.left_paused for row in stopped)
    trained = any(row.state == "complete" for row in rows)
    if repeats >= subject.settings.repeats or (subject.complete and trained and paused):
        state = "complete"
    elif stopped:
        state = "paused" if paused else "pruned"
    else:
        state = "running" if subject.live else "interrupted"
    if subject.live and any(row.state == "running" for row in rows):
        state = "running"
    children = [trial(subject, row) for row in rows]
    return Wanted(
        configuration_slot(rows[0].configuration),
        STUDY,
        " ".join(f"{name}={value}" for name, value in rows[0].configuration),
        state,
        f"{state}, {repeats} repeats",
        min(child.started for child in children),
        max(child.ended for child in children),
    )


def configuration_content(subject: Subject, rows: Sequence[StoredTrial]) -> Content:
    """The mean over the first n repeats and its standard error, at step n; the rows are scored.

    The standard error is that of these repeats alone (with one repeat, what the number of
    validation images allows): a point that was sent never changes when other runs finish.
    """
    params = {name: str(value) for name, value in rows[0].configuration}
    params |= {"epochs": str(subject.epochs), "batch_size": str(subject.settings["batch_size"])}
    counted = _counted(rows)
    spread = Spread(subject.settings.images)
    points: list[Point] = []
    for repeats in range(1, len(counted) + 1):
        score = spread.score([row.value for row in counted[:repeats] if row.value is not None])
        at = max(trial(subject, row).ended for row in counted[:repeats])
        points += _points(score, subject.settings.metric, at)
    tags = params | {"repeats": str(len(counted)), **origin(subject.settings)}
    return cut(params, tags | {MARK: configuration(subject, rows).mark}, points)


def _counted(rows: Sequence[StoredTrial]) -> list[StoredTrial]:
    """The complete runs of repeats 0, 1, ... up to the first that is missing."""
    complete = {row.repeat: row for row in reversed(rows) if row.state == "complete"}
    if any(row.left_paused for row in rows):  # of a race: what was measured, whatever was paused
        return [complete[repeat] for repeat in sorted(complete)]
    counted: list[StoredTrial] = []
    while len(counted) in complete:
        counted.append(complete[len(counted)])
    return counted


def study(subject: Subject, rows: Sequence[StoredTrial], plan_state: PlanState) -> Wanted:
    """The run that stands for the whole study."""
    state = "running" if subject.live else "complete" if plan_state.complete else "interrupted"
    if plan_state.failure is not None and not subject.live:
        state = "failed"
    children = [trial(subject, row) for row in rows]
    started = min((child.started for child in children), default=0)
    ended = max((child.ended for child in children), default=0)
    mark = f"{state}, {plan_state.runs} runs" if state != "running" else state
    return Wanted(STUDY, None, subject.name, state, mark, started, ended)


def study_content(subject: Subject, rows: Sequence[StoredTrial], plan_state: PlanState) -> Content:
    """The settings, and once the study is complete its answer."""
    settings = subject.settings
    names = ["data", "epochs", "batch_size", "seed", "sampler", "pruner", "threads", "training"]
    strategy = strategy_of(settings)
    names += [name for name in strategy.own if name in settings.chosen]
    params = {name: str(settings[name]) for name in names}
    params |= {"metric": settings.metric.name, "direction": settings.metric.direction}
    params |= {"score": settings.space.score} if strategy.scores else {}
    wanted = study(subject, rows, plan_state)
    tags = {"repeats": str(settings.repeats), **origin(settings), MARK: wanted.mark}
    points = []
    if plan_state.complete and plan_state.incumbent is not None and plan_state.score is not None:
        tags |= {f"answer.{name}": str(value) for name, value in plan_state.incumbent}
        points = _points(plan_state.score, settings.metric, wanted.ended)
    if plan_state.complete and plan_state.race is not None:
        points += [
            Point(name, value, wanted.ended, plan_state.race.epochs)
            for name, value in _sureness(plan_state.race, settings.metric).items()
        ]
    return cut(params, tags, points)


def _points(score: Score, metric: Metric, at: int) -> list[Point]:
    """A mean, and its standard error if known, at the step of its repeats and a time in ms."""
    values = {f"mean_{metric.name}": score.mean, "standard_error": score.standard_error}
    return [Point(name, v, at, score.repeats) for name, v in values.items() if v is not None]


def _sureness(verdict: RaceResult, metric: Metric) -> dict[str, float]:
    """What a race says of its leader, at the step of the epochs that it took."""
    return {
        "probability": verdict.probability,
        f"{metric.name}_low": verdict.interval[0],
        f"{metric.name}_high": verdict.interval[1],
        "distance_high": verdict.distance[1],
    }
