"""The report as one HTML page that needs nothing else: pictures and style are inside.

What comes from names and data is escaped by the template engine; only the drawn figures, whose
texts matplotlib has escaped, are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.plan.strategies import strategy_of
from study.report import again, figures, numbers
from study.report.canvas import Picture
from study.report.contents import Contents
from study.report.figures import Cost, Panel, Spent, StageFigure
from study.report.numbers import Table, table
from study.report.racing import RaceFigure
from study.space.search_space import Hyperparameter
from study.space.settings import Settings
from study.text import sentences as words
from study.text import units
from study.text.units import duration
from study.text.view import interval

_HERE = Path(__file__).parent

_AGAINST_BUDGET = "Counted against the budget of the race."
_AGAINST_ALL = (
    "Counted against a search that trains every option of every stage with all its repeats over "
    "all epochs; seconds of what was saved are those of the mean epoch."
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of the page: what is shown, its picture, its table, its caption."""

    shown: StageFigure | Panel | Cost
    picture: Picture
    table: Table
    caption: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Every figure of a page."""

    stages: tuple[Drawn, ...]
    race: tuple[RaceFigure, ...]
    curves: tuple[Drawn, ...]
    cost: Drawn | None

    @property
    def pictures(self) -> list[Picture]:
        drawn = [*self.stages, *self.curves, *([self.cost] if self.cost else [])]
        return [*(one.picture for one in drawn), *(one.picture for one in self.race)]


def page(contents: Contents, drawn: Figures) -> str:
    """The page of a study."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    css = (_HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        css=css, **_texts(contents), **_figures(contents, drawn)
    )


def _texts(contents: Contents) -> dict[str, Any]:
    settings, plan_state = contents.settings, contents.plan_state
    stages = [] if plan_state.race else plan_state.stages
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
        "outcomes": [(stage.name, words.outcome(stage)) for stage in stages],
        "test": _test(contents),
        "finals": numbers.finals_table(contents.finals) if contents.finals else None,
        "settings": _settings(settings),
        "versions": _versions(settings),
        "command": again.command(contents.name, settings),
        "space": again.toml(settings.space),
        "network": settings.model,
        "trained": words.network(settings),
        "mlflow": contents.mlflow,
        "metric": settings.metric,
    }


def _figures(contents: Contents, drawn: Figures) -> dict[str, Any]:
    settings = contents.settings
    spent = figures.spent(
        contents.plan_state, contents.rows, settings["epochs"], int(settings.repeats)
    )
    return {
        "stages": drawn.stages,
        "race": drawn.race,
        "curves": drawn.curves,
        "cost": drawn.cost,
        "spent": _spent(spent),
        "savings": numbers.savings_table(spent),
        "against": _AGAINST_BUDGET if contents.plan_state.race else _AGAINST_ALL,
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
        f"{data.test_images:,} more images are kept for the test, and "
        "the search never sees them."
    )


def _network(settings: Settings) -> str:
    return "a small convolutional network" if settings.model is None else settings.model.name


def _searched(settings: Settings) -> Table:
    space = settings.space
    lines = [(p.name, _domain(p), _shown(p.start)) for p in space.hyperparameters]
    lines += [(name, str(value), "fixed") for name, value in space.fixed.items()]
    return table("The search space", ("hyperparameter", "options", "start"), lines)


def _domain(parameter: Hyperparameter) -> str:
    if parameter.options:
        return ", ".join(map(str, parameter.options))
    scale = ", logarithmic" if parameter.log else ""
    step = f", steps of {parameter.step}" if parameter.step else ""
    return f"{parameter.low} to {parameter.high}{scale}{step}"


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
    pruned = f" Runs that fall too far behind are stopped by the pruner {pruner}."
    trained = f"Every configuration is trained {settings.repeats} times for"
    if "budget" in strategy_of(settings).own:
        trained = "A run pauses until its next epochs are worth the most; a whole one has"
    return (
        f"{search}. {trained} "
        f"{settings['epochs']} epochs in batches of {settings['batch_size']}; repeat r is "
        f"validated on {how}{images}.{judged}{pruned if pruner != 'none' else ''}"
    )


def _remarks(contents: Contents) -> list[str]:
    plan_state, said = contents.plan_state, []
    score = plan_state.score
    metric = plan_state.metric
    ends = interval(score, metric) if score else None
    if plan_state.race is not None:
        said += words.race(plan_state.race, metric)
    elif score is not None and ends is not None:
        said.append(
            f"The 95 % interval of this mean is {metric.text(ends[0])} to "
            f"{metric.text(ends[1])} (Student's t, {score.repeats} repeats). As the "
            "best of several configurations that were measured on the same images it flatters "
            "itself a little; only the test set can tell how much."
        )
    elif score is not None:
        said.append("One repeat has no spread of its own: the standard error is an estimate.")
    if not plan_state.complete:
        going = contents.state == "running"
        resume = "" if going else f"; to go on: {contents.resume}"
        said.append(f"The study is not complete ({contents.state}{resume}).")
    return said


def _spent(spent: Spent) -> list[str]:
    if not spent.runs:
        return ["Nothing was trained yet."]
    runs = units.listed([f"{count} {state}" for state, count in sorted(spent.runs.items())])
    trained = f"{spent.epochs:,} epochs were trained in {duration(spent.seconds)}"
    said = [f"Runs: {runs}. {trained} of training time, added up over runs."]
    if spent.span is not None:
        said.append(
            f"From the first start to the last end {duration(spent.span)} passed, pauses included."
        )
    if spent.saved:
        share = spent.saved / (spent.saved + spent.epochs)
        said.append(
            f"{spent.saved:,} epochs, {share:.0%} of what would have been trained, were saved: "
            f"about {duration(spent.saved_seconds)}."
        )
    return said


def _test(contents: Contents) -> str:
    if not contents.finals:
        return "The test set was never opened: every value in this report is of validation data."
    times = "once" if contents.opened == 1 else f"{contents.opened} times"
    return (
        f"The test set was opened {times}. All values outside this section are of validation data."
    )


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
    return table("Versions and data", ("what", "version"), lines)


def captions(shown: StageFigure | Panel | Cost) -> str:
    """What a figure shows and, where it does not show all, by which rule it was thinned."""
    match shown:
        case StageFigure():
            drawn, total = len(shown.choices), shown.options
            said = f"{shown.metric.words.capitalize()} of {drawn} options."
            rule = "those with the best means"
        case Panel():
            drawn, total = len(shown.lines), shown.runs
            said = f"{drawn} runs."
            rule = "evenly spaced ones in the order of trials, and those of what is selected"
        case Cost():
            drawn, total = len(shown.places), shown.configurations
            said = (
                "Means with one standard error against the seconds a run took, beside whatever "
                "else the machine did, and against the number of parameters. Blue is the answer, "
                "vermilion the best mean where that is another one; of many, only these have a bar."
            )
            rule = "those with the best means"
    return said if drawn >= total else f"{said} {drawn} of {total} are drawn: {rule}."
