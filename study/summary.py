"""What `status`, `best`, `list` and the end of a study say: as JSON objects and as text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from study import tables
from study.plan import Option, Stage, Standing
from study.settings import Settings


def best(name: str, settings: Settings, standing: Standing, state: str) -> dict[str, Any]:
    """The answer so far; accuracies are fractions, ``params`` is None while there is none."""
    score = standing.score
    return {
        "study": name,
        "dataset": settings["data"],
        "params": None if standing.incumbent is None else dict(standing.incumbent),
        "mean": score and score.mean,
        "standard_error": score and score.standard_error,
        "repeats": score.repeats if score else 0,
        "runs": standing.runs,
        "runs_expected": standing.runs_expected,
        "state": state,
    }


def status(name: str, settings: Settings, standing: Standing, state: str) -> dict[str, Any]:
    """The answer so far, the settings with where each came from, and every stage."""
    return {
        **best(name, settings, standing, state),
        "space": settings.origin,
        "failure": standing.failure,
        "settings": {
            key: {"value": chosen.value, "source": chosen.source}
            for key, chosen in settings.chosen.items()
        },
        "stages": [_stage(stage) for stage in standing.stages],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "noted": stage.noted and stage.noted.value,
        "carried": stage.carried and stage.carried.value,
        "options": [_option(option) for option in stage.options],
    }


def _option(option: Option) -> dict[str, Any]:
    return {
        "option": option.value,
        "state": option.state,
        "runs": len(option.rows),
        "values": list(option.values),
        "mean": option.score and option.score.mean,
        "standard_error": option.score and option.score.standard_error,
        "behind_best": option.lead and option.lead.mean,
        "behind_best_standard_error": option.lead and option.lead.standard_error,
    }


def print_header(console: Console, name: str, settings: Settings, *, new: bool) -> None:
    """What is about to run: the study, its data, how runs are validated and trained."""
    data = settings.data
    validation = settings.validation
    console.print(
        f"{'New study' if new else 'Study'} {name!r}, space {settings.origin}", style="bold"
    )
    if data is not None:
        height, width, channels = data.input_shape
        how = (
            f"{validation.folds} folds"
            if validation.kind == "folds"
            else f"{validation.fraction:.0%} held out"
        )
        console.print(
            f"Data {settings['data']}: {data.images} images of {height}x{width}x{channels}, "
            f"{data.num_classes} classes, {data.test_images} more kept for the test; "
            f"validation on {how}, {data.validation} images a repeat",
            highlight=False,
        )
    console.print(
        f"{settings['sampler']} with {settings.repeats} repeats, pruner {settings['pruner']}, "
        f"{settings['epochs']} epochs, batches of {settings['batch_size']}, "
        f"{settings['threads']} thread(s) a run, seed {settings['seed']}",
        highlight=False,
    )


def print_end(
    console: Console, name: str, settings: Settings, standing: Standing, *, quiet: bool
) -> None:
    """The tables of every stage and the answer, or how to go on where there is none yet."""
    if not quiet:
        console.print(tables.stages(standing, settings.repeats))
        for sentence in tables.doubts(standing):
            console.print(sentence, highlight=False)
    console.print(tables.answer(standing))
    if not standing.complete:
        command = f"python -m study resume {shlex.quote(name)}"
        console.print(f"The study is not complete. Continue with: {command}", highlight=False)


def print_status(
    console: Console, name: str, settings: Settings, standing: Standing, state: str
) -> None:
    """Settings with their sources, every stage, the answer so far."""
    print_header(console, name, settings, new=False)
    runs = f"{standing.runs} of at most {standing.runs_expected} runs"
    console.print(f"State: {state}, {runs}", highlight=False)
    if standing.failure:
        console.print(f"Failed: {standing.failure}", highlight=False)
    table = Table("setting", "value", "from", title="settings", title_justify="left")
    for key, chosen in settings.chosen.items():
        value = chosen.value
        shown = tables.params(value) if isinstance(value, dict) else str(value)
        table.add_row(key, shown, chosen.source)
    console.print(table)
    console.print(tables.stages(standing, settings.repeats))
    console.print(tables.answer(standing))


def print_best(console: Console, name: str, standing: Standing, state: str) -> None:
    """The answer in a sentence, and the state of the study it comes from."""
    console.print(tables.answer(standing))
    for sentence in tables.doubts(standing):
        console.print(sentence, highlight=False)
    console.print(f"Study {name!r} is {state}.", highlight=False)


def print_list(console: Console, found: Sequence[dict[str, Any]]) -> None:
    """A line a study."""
    table = Table("study", "data", "state", "runs", "mean", "configuration")
    for item in found:
        mean = tables.percent(item["mean"]) if item["mean"] is not None else ""
        params = tables.params(item["params"]) if item["params"] else ""
        runs = f"{item['runs']}/{item['runs_expected']}"
        table.add_row(item["study"], item["dataset"], item["state"], runs, mean, params)
    console.print(table)
