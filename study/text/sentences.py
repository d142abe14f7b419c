"""What was decided and how sure it is, in plain sentences: for the report and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.plan.plan import Option, PlanState, Stage
from study.plan.results import Configuration, Difference
from study.space.search_space import SearchSpace, Value
from study.text import tables

KEEPS_BEST = (
    "A run with restore_best_weights is judged by its best epoch, which looks better than it is; "
    "any other by its last"
)


def restores_best_weights(space: SearchSpace) -> bool:
    """Whether runs of the space may keep the weights of their best epoch."""
    name = "restore_best_weights"
    return bool(space.fixed.get(name)) or any(one.name == name for one in space.hyperparameters)


def labels(stage: Stage) -> dict[Configuration, str]:
    """What the options of a stage are called; in a search by what differs between them."""
    if stage.kind == "combined":
        return {option.configuration: str(option.value) for option in stage.options}
    if stage.kind != "configurations":
        return {option.configuration: str(option.value) for option in stage.options}
    seen: dict[str, set[Value]] = {}
    for option in stage.options:
        for name, value in option.configuration:
            seen.setdefault(name, set()).add(value)
    return {o.configuration: _differing(o.configuration, seen) for o in stage.options}


def _differing(configuration: Configuration, seen: Mapping[str, set[Value]]) -> str:
    """The parameters that have more than one value; reals to four digits."""
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in configuration
        if len(seen[name]) > 1 or len(seen) == 1
    }
    return tables.params(shown or dict(configuration))


def distance(difference: Difference) -> str:
    """A difference with its standard error, in percentage points."""
    return f"{tables.points(difference.mean)} ± {tables.points(difference.standard_error)} points"


def outcome(stage: Stage) -> str:
    """What a stage decided and by how much, in a sentence or two; while it is open, that it is."""
    if stage.best is None or stage.selected is None:
        known = sum(option.state != "open" for option in stage.options)
        return f"Open: {known} of {len(stage.options)} {_kind(stage)} are known so far."
    if stage.kind == "configurations":
        return _searched(stage, stage.best)
    if stage.kind == "combined":
        return _together(stage)
    return _swept(stage, stage.best, stage.selected)


def eliminated(stage: Stage) -> list[str]:
    """The options that were stopped early, each with how far behind it was and when."""
    called = labels(stage)
    return [
        f"{called[option.configuration]}: {tables.behind(option, stage)}, in repeat "
        f"{option.rows[-1].repeat + 1}"
        for option in stage.options
        if option.state == "eliminated"
    ]


def answer(standing: PlanState) -> str:
    """The configuration to use and how sure to be of it."""
    return tables.answer(standing).plain


def _kind(stage: Stage) -> str:
    return "configurations" if stage.kind == "configurations" else "options"


def next_best(stage: Stage) -> Option | None:
    """Of a decided stage the option with the second-best mean."""
    others = [option for option in stage.options if option.gap is not None]
    return min(others, key=lambda option: option.gap.mean if option.gap else 0.0, default=None)


def _swept(stage: Stage, best: Option, selected: Option) -> str:
    """The best mean against the option selected or, where that is the same one, the next best."""
    other = next_best(stage) if selected.gap is None else selected
    if other is None or other.gap is None:
        return f"{best.value} is selected: no other option has a mean."
    if not other.gap.tie:
        return f"{best.value} beats {other.value} by {distance(other.gap)}, and is selected."
    return f"{_against(best, other)}: a tie; {selected.value} is selected because {_reason(stage)}."


def _against(best: Option, other: Option) -> str:
    assert other.gap is not None
    if abs(other.gap.mean) < 5e-5:  # 0.00 points
        return f"{best.value} and {other.value} have the same mean ({distance(other.gap)})"
    return f"{best.value} beats {other.value} by {distance(other.gap)}"


def _reason(stage: Stage) -> str:
    """Why one of the options that tie is selected, as the sweep's rule has it."""
    assert stage.selected is not None
    assert stage.best is not None
    places = [option.configuration for option in stage.options]
    selected, best = stage.selected.configuration, stage.best.configuration
    if selected == stage.incumbent:
        cheaper = places.index(selected) < places.index(best)
        return "the sweep had it already" + (" and it is cheaper" if cheaper else "")
    cheapest = next(option for option in stage.options if option.tied)
    return "it is cheaper" if selected == cheapest.configuration else "its mean is better"


def _together(stage: Stage) -> str:
    """The last stage: all best means together against the selected values."""
    selected, together = stage.options[0], stage.options[-1]
    gap = together.gap or selected.gap
    if gap is None:
        return "All best means together were stopped early; the selected values stay."
    ahead = together.gap is None
    word = "beat" if ahead else "are behind"
    said = f"All best means together {word} the selected values by {distance(gap)}"
    if stage.selected is not None and stage.selected.configuration == together.configuration:
        return f"{said}, and are selected."
    return f"{said}{': a tie' if gap.tie else ''}; the selected values stay."


def _searched(stage: Stage, best: Option) -> str:
    other, said = next_best(stage), f"The best of {len(stage.options)} configurations"
    if other is None or other.gap is None:
        return f"{said} is {tables.params(best.configuration)}; no other one has a mean."
    ties = sum(option.tied for option in stage.options) - 1
    return (
        f"{said} beats the next best by {distance(other.gap)}"
        f"{f': a tie; {_count(ties)} with it' if ties else ''}."
    )


def _count(ties: int) -> str:
    return "one configuration ties" if ties == 1 else f"{ties} configurations tie"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
