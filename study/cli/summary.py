"""What `status`, `best`, `list` and the end of a study print: JSON objects and text."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from study.cli.terminal import say
from study.mirror.tracker import DEFAULT, Finding
from study.plan import tradeoff
from study.plan.plan import Confirmation, PlanState, Stage
from study.plan.strategies import outside, rated
from study.space.metric import ACCURACY, Metric
from study.space.settings import Settings
from study.text import sentences as words
from study.text import tables, units
from study.text.view import views

if TYPE_CHECKING:
    from study.running.launch import ExecutionOptions
    from study.storage.database import StoredStudy


def best(found: StoredStudy) -> dict[str, Any]:
    """The answer so far; accuracies are fractions, ``params`` is None while there is none."""
    settings, plan_state = found.settings, found.plan_state
    score = plan_state.score
    return {
        "study": found.name,
        "dataset": settings["data"],
        "classes": list(settings.data.label_names) if settings.data else [],
        "metric": plan_state.metric.name,
        "direction": plan_state.metric.direction,
        "params": None if plan_state.incumbent is None else dict(plan_state.incumbent),
        "mean": score and score.mean,
        "standard_error": score and score.standard_error,
        "repeats": score.repeats if score else 0,
        "runs": plan_state.runs,
        "runs_expected": plan_state.runs_expected,
        "state": found.state,
        **({"race": asdict(plan_state.race)} if plan_state.race else {}),
        **({"confirmation": _confirmation(fresh)} if (fresh := plan_state.confirmation) else {}),
        "smallest": smallest(settings, plan_state),
    }


def _confirmation(fresh: Confirmation) -> dict[str, Any]:
    return asdict(fresh) | {"found": None if fresh.found is None else dict(fresh.found)}


def smallest(settings: Settings, plan_state: PlanState) -> dict[str, Any] | None:
    """The smallest network that is not clearly worse than the best; None while there is none."""
    one = tradeoff.smallest(rated(settings, plan_state))
    return one.record() if one else None


def status(found: StoredStudy) -> dict[str, Any]:
    """The answer so far, the settings with where each came from, and every stage."""
    settings, plan_state = found.settings, found.plan_state
    excluded = outside(settings)
    return {
        **best(found),
        "space": settings.origin,
        "failure": plan_state.failure,
        "outside": excluded and asdict(excluded),
        "settings": {
            key: {"value": chosen.value, "source": chosen.source}
            for key, chosen in settings.chosen.items()
        },
        "history": [
            {"when": one.when, "changes": list(one.changes), "runs": one.trials}
            for one in settings.history
        ],
        "stages": [_stage(stage) for stage in plan_state.stages],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "best_mean": stage.best and stage.best.value,
        "selected": stage.selected and stage.selected.value,
        "options": [view.record() for view in views(stage)],
    }


def print_header(console: Console, name: str, settings: Settings, *, new: bool) -> None:
    """Print the study, its data, and how runs are validated and trained."""
    data = settings.data
    kind = "New study" if new else "Study"
    say(console, f"{kind} {name!r}, space {settings.origin}", "bold")
    if data is not None:
        height, width, channels = data.input_shape
        how = units.validation(settings.validation)
        say(
            console,
            f"Data {settings['data']}: {data.images} images of {height}x{width}x{channels}, "
            f"{units.classes(data)}, {data.test_images} more kept for the test; "
            f"validation on {how}, {data.validation} images per repeat",
        )
    if network := words.network(settings):
        say(console, network)
    stock = "" if settings["training"] == "fast" else f"{settings['training']} training, "
    say(
        console,
        f"{settings['sampler']} with {units.counted(settings.repeats, 'repeat')}, "
        f"pruner {settings['pruner']}, {units.counted(settings['epochs'], 'epoch')}, "
        f"{words.batches(settings)}, {_aim(settings.metric)}"
        f"{stock}{units.counted(settings['threads'], 'thread')} per run, seed {settings['seed']}",
    )
    for sentence in (words.limits(settings), words.scoring(settings)):
        if sentence:
            say(console, sentence)


def _aim(metric: Metric) -> str:
    """The metric and its direction; empty for accuracy."""
    return "" if metric == ACCURACY else f"{metric.direction} {metric.name}, "


def print_execution(
    console: Console, jobs: int, execution: ExecutionOptions, settings: Settings
) -> None:
    """Print where runs are trained, how many at once, and which MLflow server shows them."""
    mirror = execution.mirror
    if mirror is not None and mirror.source == DEFAULT:
        more = "with mlflow-artifacts/ beside it (--mlflow none: neither)"
        say(console, f"MLflow: every run is shown in {mirror.shown}, {more}")
    elif mirror is not None:
        say(console, f"MLflow: every run is shown at {mirror.shown} (from {mirror.source})")
    if execution.scheduler is not None:
        say(console, f"Training on the Dask cluster at {execution.scheduler}")
    else:
        how = "one run at a time" if jobs == 1 else f"{jobs} runs at once, a process each"
        grouped, device = settings.training.runs_at_once > 1, settings.device
        if grouped:
            how = f"up to {jobs} runs at once, those of one network as one program"
        cards = execution.devices.cards
        used = ("one of " if grouped and len(cards) > 1 else "") + " and ".join(map(str, cards))
        where = "" if device == "cpu" else f" on {used}"
        say(console, f"Training {how}{where} (--jobs changes it)")
        if device == "cpu" and cards:
            why = execution.devices.problem or "this study trains on the CPU"
            say(console, f"The GPU is not used: {why}")


def print_end(
    console: Console, settings: Settings, plan_state: PlanState, resume: str, *, quiet: bool
) -> None:
    """Print a table per stage and the answer; of an incomplete study how to ``resume`` it."""
    if not quiet:
        console.print(*tables.stage_tables(plan_state, settings.repeats))
        for sentence in _more(plan_state):
            say(console, sentence)
    say(console, words.answer(plan_state))
    if not plan_state.complete:
        say(console, f"The study is not complete. Continue with: {resume}")


def print_status(console: Console, found: StoredStudy) -> None:
    """Print the settings with their sources, every stage, and the answer so far."""
    settings, plan_state = found.settings, found.plan_state
    print_header(console, found.name, settings, new=False)
    runs = f"{plan_state.runs} of at most {plan_state.runs_expected} runs"
    say(console, f"State: {found.state}, {runs}")
    table = Table("setting", "value", "from", title="settings", title_justify="left")
    for key, chosen in settings.chosen.items():
        value = chosen.value if key != "validation" else units.validation(settings.validation)
        table.add_row(key, str(value), chosen.source)
    console.print(table)
    for sentence in words.history(settings):
        say(console, sentence)
    console.print(*tables.stage_tables(plan_state, settings.repeats))
    say(console, words.answer(plan_state))


def print_best(console: Console, found: StoredStudy) -> None:
    """Print the answer in a sentence, and the state of the study."""
    settings, plan_state = found.settings, found.plan_state
    say(console, words.answer(plan_state))
    for sentence in _more(plan_state):
        say(console, sentence)
    if least := words.smallest(rated(settings, plan_state), settings.metric):
        say(console, f"{least}.")
    say(console, f"Study {found.name!r} is {found.state}.")


def _more(plan_state: PlanState) -> list[str]:
    """Sentences about the answer: ties of a sweep, how sure a race is."""
    return (
        words.race(plan_state.race, plan_state.metric)
        if plan_state.race
        else words.doubts(plan_state)
    )


def print_list(console: Console, found: Sequence[dict[str, Any]]) -> None:
    """Print a line per study."""
    table = Table("study", "data", "state", "runs", "mean", "configuration")
    for item in found:
        metric = Metric(item["metric"], item["direction"])
        mean = metric.text(item["mean"]) if item["mean"] is not None else ""
        params = units.params(item["params"]) if item["params"] else ""
        runs = f"{item['runs']}/{item['runs_expected']}"
        table.add_row(item["study"], item["dataset"], item["state"], runs, mean, params)
    console.print(table)


def print_finding(console: Console, finding: Finding) -> None:
    """Print a line of the doctor."""
    mark = {True: "ok", False: "WRONG", None: "-"}[finding.fine]
    style = "bold red" if mark == "WRONG" else ""
    say(console, f"{mark:<7}{finding.link:<11}{finding.says}", style)


def versions() -> str:
    """The version of this program, and of what decides the bits of a run."""
    found = []
    for name in ("mnist-study", "tensorflow", "keras", "optuna", "numpy"):
        with suppress(PackageNotFoundError):  # a checkout that is not installed
            found.append(f"{name} {version(name)}")
    return ", ".join([*found, f"Python {platform.python_version()}"])
