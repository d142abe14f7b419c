"""The report as one HTML page with its style and pictures inside.

The template engine escapes every name and text, except the SVG of figures, whose texts matplotlib
has escaped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from study.final.records import FinalModel
from study.plan.plan import PlanState
from study.plan.strategies import rated, strategy_of
from study.report.canvas import Figure
from study.report.contents import Contents
from study.report.curves import end
from study.space.search_space import Hyperparameter
from study.space.settings import Settings
from study.text import sentences as words
from study.text import units
from study.text.tables import Table, table
from study.text.units import duration
from study.text.view import INTERVAL, interval

_HERE = Path(__file__).parent


class Figures(NamedTuple):
    """Every figure of a page, by its section."""

    stages: tuple[Figure, ...] = ()
    race: tuple[Figure, ...] = ()
    curves: tuple[Figure, ...] = ()
    cost: tuple[Figure, ...] = ()
    known: tuple[Figure, ...] = ()


def page(contents: Contents, figures: Figures) -> str:
    """The page of a study."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    css = (_HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        css=css, **_texts(contents), **figures._asdict()
    )


def _texts(contents: Contents) -> dict[str, Any]:
    settings, plan_state = contents.settings, contents.plan_state
    return {
        "name": contents.name,
        "state": contents.state,
        "complete": plan_state.complete,
        "runs": f"{plan_state.runs} of at most {plan_state.runs_expected} runs",
        "question": _question(settings),
        "searched": _searched(settings),
        "method": _method(settings),
        "answer": words.answer(plan_state),
        "remarks": _remarks(contents),
        "time": list(time_spent(contents)),
        "test": _test(contents),
        "finals": finals_table(contents.finals) if contents.finals else None,
        "settings": _settings(settings),
        "history": words.history(settings),
        "versions": _versions(settings),
        "command": contents.command,
        "space": contents.space,
        "network": settings.model,
        "trained": words.network(settings),
        "mlflow": contents.mlflow,
        "metric": settings.metric,
        "interval": INTERVAL,
    }


def _question(settings: Settings) -> str:
    names = units.listed([parameter.name for parameter in settings.space.hyperparameters])
    data = settings.data
    metric = settings.metric
    what = f"Which {names} give {_network(settings)} the best {metric.words} on "
    if data is None:
        return f"{what}{settings['data']}?"
    height, width, channels = data.input_shape
    return (
        f"{what}{settings['data']}, {data.images:,} images of {height}x{width}x{channels}"
        f"{' in ' if data.num_classes > 1 else '; '}{units.classes(data)}? "
        f"{data.test_images:,} more images are the test set, which "
        "the search never uses."
    )


def _network(settings: Settings) -> str:
    return "a small convolutional network" if settings.model is None else settings.model.name


def _searched(settings: Settings) -> Table:
    space = settings.space
    lines = [(p.name, _domain(p), _shown(p.start)) for p in space.hyperparameters]
    lines += [(name, str(value), "fixed") for name, value in space.fixed.items()]
    return table("The search space", ("hyperparameter", "options", "start"), lines)


def _domain(parameter: Hyperparameter) -> str:
    conditions = [f"{name} = {value}" for name, value in parameter.only_if.items()]
    only_if = f"; only if {units.listed(conditions)}" if conditions else ""
    if parameter.options:
        return ", ".join(map(str, parameter.options)) + only_if
    scale = ", logarithmic" if parameter.log else ""
    step = f", steps of {parameter.step}" if parameter.step else ""
    return f"{parameter.low} to {parameter.high}{scale}{step}{only_if}"


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def _method(settings: Settings) -> str:
    validation = settings.validation
    how = (
        f"fold r of {validation.folds}"
        if validation.kind == "folds"
        else f"{validation.fraction:.0%} of the images, drawn anew for each repeat"
    )
    search = strategy_of(settings).says
    images = f" ({settings.data.validation:,} images)" if settings.data else ""
    scoring = words.scoring(settings)
    judged = f" {scoring}." if scoring else ""
    pruner = settings["pruner"]
    pruned = f" The pruner {pruner} stops runs that fall too far behind."
    trained = f"Every configuration is trained {settings.repeats} times for"
    if "budget" in strategy_of(settings).own:
        trained = "A run pauses until its next epochs are worth the most; a complete run has"
    return (
        f"{search}. {trained} "
        f"{settings['epochs']} epochs in {words.batches(settings)}; repeat r is "
        f"validated on {how}{images}.{judged}{pruned if pruner != 'none' else ''}"
    )


def _remarks(contents: Contents) -> list[str]:
    """The meaning of the answer's numbers; for an open study the command that continues it."""
    plan_state, metric, said = contents.plan_state, contents.settings.metric, []
    confirmation = plan_state.confirmation
    score = plan_state.score if confirmation is None else confirmation.answer
    ends = interval(score, metric) if score else None
    if plan_state.race is not None:
        said += words.race(plan_state.race, metric)
    elif score is not None and ends is not None:
        repeats = units.counted(score.repeats, "fresh repeat" if confirmation else "repeat")
        said.append(f"{INTERVAL}: {' to '.join(map(metric.text, ends))}, from {repeats}.")
        if confirmation is None:
            said.append(
                "The mean of the best of several configurations is biased upwards; the test set "
                "measures it without this bias."
            )
    elif score is not None and score.repeats == 1:
        said.append("The spread of one repeat is unknown: the standard error is an estimate.")
    if sentence := words.limits(contents.settings):
        said.append(f"{sentence}.")
    if sentence := words.smallest(rated(contents.settings, plan_state), metric):
        said.append(f"{sentence}.")
    if not plan_state.complete:
        going = contents.state == "running"
        resume = "" if going else f"; continue with: {contents.resume}"
        said.append(f"The study is not complete ({contents.state}{resume}).")
    return said


def time_spent(contents: Contents) -> Iterator[str]:
    """Runs, epochs and seconds of a study, and the epochs that it did not have to train."""
    trials, settings = contents.rows, contents.settings
    if not trials:
        yield "No run has been trained yet."
        return
    states = sorted(Counter(map(end, trials)).items())
    epochs = sum(len(trial.reported) for trial in trials)
    seconds = math.fsum(math.fsum(trial.curve.get("seconds", ())) for trial in trials)
    yield (
        f"Runs: {units.listed([f'{count} {state}' for state, count in states])}. {epochs:,} epochs "
        f"were trained in {duration(seconds)} of training time, added up over runs."
    )
    starts = [trial.started for trial in trials if trial.started]
    ends = [trial.ended for trial in trials if trial.ended]
    if starts and ends:
        span = (max(ends) - min(starts)).total_seconds()
        yield f"The study took {duration(span)} from its first start to its last end."
    saved = saved_epochs(contents.plan_state, settings["epochs"], int(settings.repeats))
    if total := sum(saved.values()):
        parts = [f"{count:,} {why}" for why, count in saved.items() if count]
        cost = f"about {duration(total * seconds / epochs)}; " if epochs else ""
        yield (
            f"{total:,} epochs ({cost}{total / (total + epochs):.0%} of a search without savings) "
            f"did not have to be trained: {units.listed(parts)}."
        )


def saved_epochs(plan_state: PlanState, epochs: int, repeats: int) -> dict[str, int]:
    """The epochs that were not trained, by reason.

    They are counted against a search that trains all repeats of every option of every stage; of a
    race against its budget.
    """
    if plan_state.race is not None:
        race = plan_state.race
        return {} if race.unit == "seconds" else {"of the budget": max(0, int(race.left))}
    pairs = [(stage, option) for stage in plan_state.stages for option in stage.options]
    gone = [option for _, option in pairs if option.state == "eliminated"]
    return {
        "in runs that an earlier stage had trained": epochs
        * sum(trial.stage != stage.name for stage, option in pairs for trial in option.rows),
        "in further repeats of eliminated options": epochs
        * sum(max(0, repeats - len(option.rows)) for option in gone),
        "after the end of stopped runs": sum(
            epochs - len(trial.reported) for option in gone for trial in option.rows[-1:]
        ),
    }


def _test(contents: Contents) -> str:
    if not contents.finals:
        return "The test set was never used: every value in this report is of validation data."
    times = "once" if contents.opened == 1 else f"{contents.opened} times"
    return f"The test set was used {times}. All values outside this section are of validation data."


def _settings(settings: Settings) -> Table:
    shown = {key: str(chosen.value) for key, chosen in settings.chosen.items()}
    shown["validation"] = units.validation(settings.validation)
    lines = [("search space", settings.origin, "")]
    lines += [(key, shown[key], chosen.source) for key, chosen in settings.chosen.items()]
    return table("Settings", ("setting", "value", "from"), lines)


def _versions(settings: Settings) -> Table:
    lines = list(settings.versions.items())
    if settings.data is not None:
        lines.append(("data (SHA-256)", settings.data.fingerprint))
    return table("Versions and data", ("package", "version"), lines)


def finals_table(finals: Sequence[FinalModel]) -> Table:
    """The final models with their values on the test set."""
    lines = [
        (
            final.model,
            "; ".join(map(units.params, final.configurations)),
            ("" if final.validation is None else final.metric.text(final.validation))
            + final.own_words("validation"),
            final.metric.text(final.value) + final.own_words(),
            f"{final.metric.text(final.low)} to {final.metric.text(final.high)}",
            str(final.images),
            final.opened,
        )
        for final in finals
    ]
    accuracy = all(final.measure == "accuracy" for final in finals)
    what = "accuracy" if accuracy else "mean absolute error"
    columns = ("model", "configuration", "held out", f"test {what}", "95 % interval")
    return table("Measured on the test set", (*columns, "test images", "opened"), lines)
