"""A standing as tables and sentences for the terminal; computes nothing that decides."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from study.plan.plan import Option, PlanState, Stage
from study.plan.results import Configuration, Row, Score
from study.space.search_space import Value
from study.tuning.pruning import mean_gap


def percent(fraction: float) -> str:
    """An accuracy, in per cent."""
    return f"{100 * fraction:.2f} %"


def points(fraction: float) -> str:
    """A difference of accuracies, in percentage points."""
    return f"{100 * fraction:.2f}"


def score(value: Score) -> str:
    """Mean and standard error, in per cent."""
    return f"{100 * value.mean:.2f} ± {100 * value.standard_error:.2f} %"


def params(configuration: Configuration | Mapping[str, Value]) -> str:
    """A configuration in one line."""
    items = configuration.items() if isinstance(configuration, Mapping) else configuration
    return ", ".join(f"{name}={value}" for name, value in items)


def behind(option: Option, stage: Stage) -> str:
    """How far an eliminated option was behind its reference, and when."""
    pruned = option.rows[-1]
    reference = _reference(pruned, stage)
    epochs = f"at epoch {len(pruned.val_acc)}"
    if reference is None:
        return f"stopped {epochs}"
    distance = mean_gap(pruned.val_acc, reference.val_acc)
    return f"behind by {100 * distance:.1f} points {epochs}"


def _reference(pruned: Row, stage: Stage) -> Row | None:
    for option in stage.options:
        if option.configuration == pruned.reference:
            return next((row for row in option.rows if row.repeat == pruned.repeat), None)
    return None


def verdict(option: Option, stage: Stage) -> str:
    """What became of an option, in words."""
    if option.state == "eliminated":
        return f"eliminated: {behind(option, stage)}"
    said = []
    if stage.best is not None and option.configuration == stage.best.configuration:
        said.append("best" if stage.kind == "configurations" else "best mean")
    if stage.selected is not None and option.configuration == stage.selected.configuration:
        said.append("selected" if stage.kind != "configurations" else "")
    elif stage.decided and option.tied and option.gap is not None:
        said.append("tie")
    return ", ".join(filter(None, said))


def decision(stage: Stage) -> str:
    """What a decided stage decided, in a few words."""
    assert stage.selected is not None
    if stage.kind == "configurations":
        return f"{stage.name}: {params(stage.selected.configuration)} is the best"
    if stage.kind == "combined":
        wins = stage.selected.configuration != stage.incumbent
        verdict = "better, and selected" if wins else "not clearly better"
        return f"{stage.name}: all best means together are {verdict}"
    return f"{stage.name}: {stage.selected.value} is selected"


def stage_table(stage: Stage, repeats: int) -> Table:
    """The options of a stage: repeats, mean, distance from the best, verdict."""
    state = "" if stage.decided else " (open)"
    table = Table(title=f"{stage.name}{state}", title_justify="left", title_style="bold")
    table.add_column(
        "configuration" if stage.kind == "configurations" else "option", justify="right"
    )
    table.add_column("runs", justify="right")
    table.add_column("mean ± error", justify="right")
    table.add_column("gap to best", justify="right")
    table.add_column("verdict")
    for option in stage.options:
        table.add_row(
            params(option.configuration) if stage.kind == "configurations" else str(option.value),
            f"{len(option.rows)}/{repeats}",
            _mean(option),
            ""
            if option.gap is None
            else f"{points(option.gap.mean)} ± {points(option.gap.standard_error)}",
            verdict(option, stage),
            style="bold" if stage.decided and option == stage.selected else "",
        )
    return table


def _mean(option: Option) -> str:
    if option.state == "eliminated":
        return ""
    if option.score is not None:
        return score(option.score)
    values = option.values
    return f"{percent(sum(values) / len(values))} so far" if values else ""


def stages(standing: PlanState, repeats: int) -> RenderableType:
    """Every stage so far, one table below the other."""
    return Group(*(stage_table(stage, repeats) for stage in standing.stages))


def answer(standing: PlanState) -> Text:
    """The configuration to use and how sure to be of it, in one sentence."""
    if standing.incumbent is None or standing.score is None:
        return Text("No configuration has a finished run yet.")
    word = "Use" if standing.complete else "So far"
    runs = f"{standing.score.repeats} repeat" + ("s" if standing.score.repeats > 1 else "")
    return Text.assemble(
        f"{word} ",
        (params(standing.incumbent), "bold"),
        f": validation accuracy {score(standing.score)} (mean and standard error of {runs}).",
    )


def doubts(standing: PlanState) -> list[str]:
    """What the data cannot tell apart: a sentence for each stage with a tie."""
    said = []
    for stage in standing.stages:
        ties = [o for o in stage.options if stage.decided and o.tied and o is not stage.best]
        if (
            not ties
            or stage.best is None
            or stage.selected is None
            or stage.kind == "configurations"
        ):
            continue
        names = " and ".join(str(option.value) for option in ties)
        kept = stage.selected.value
        verb = "ties" if len(ties) == 1 else "tie"
        said.append(f"{stage.name}: {names} {verb} with {stage.best.value}; {kept} is selected.")
    return said


def duration(seconds: float) -> str:
    """A duration in the two units that matter."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
