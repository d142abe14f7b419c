"""What was decided and how sure it is, in plain sentences: for the report and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence

from study import tables
from study.plan import Option, Stage, Standing
from study.results import Difference
from study.search import SEARCH
from study.sweep import NOTED


def label(option: Option, stage: Stage) -> str:
    """What an option is called within its stage."""
    if stage.name == NOTED:
        return f"{option.value} values"
    return tables.params(option.configuration) if stage.name == SEARCH else str(option.value)


def distance(difference: Difference) -> str:
    """A difference with its standard error, in percentage points."""
    return f"{tables.points(difference.mean)} ± {tables.points(difference.standard_error)} points"


def outcome(stage: Stage) -> str:
    """What a stage decided and by how much, in a sentence or two; while it is open, that it is."""
    if stage.noted is None or stage.carried is None:
        known = sum(option.state != "open" for option in stage.options)
        return f"Open: {known} of {len(stage.options)} {_kind(stage)} are known so far."
    if stage.name == SEARCH:
        return _searched(stage, stage.noted)
    if stage.name == NOTED:
        return _together(stage)
    named = _named(stage, stage.noted)
    if stage.carried.configuration == stage.noted.configuration:
        return _clear(stage, stage.noted, named)
    assert stage.carried.lead is not None
    return (
        f"{named} beats {stage.carried.value} by {distance(stage.carried.lead)}: a tie; "
        f"{stage.carried.value} is carried because {_reason(stage)}."
    )


def eliminated(stage: Stage) -> list[str]:
    """The options that were stopped early, each with how far behind it was and when."""
    return [
        f"{label(option, stage)}: {tables.behind(option, stage)}, in repeat "
        f"{option.rows[-1].repeat + 1}"
        for option in stage.options
        if option.state == "eliminated"
    ]


def answer(standing: Standing) -> str:
    """The configuration to use and how sure to be of it."""
    return tables.answer(standing).plain


def _kind(stage: Stage) -> str:
    return "configurations" if stage.name == SEARCH else "options"


def _named(stage: Stage, option: Option) -> str:
    return f"{stage.name} {option.value}"


def next_best(stage: Stage) -> Option | None:
    """Of a decided stage the option with the second-best mean."""
    others = [option for option in stage.options if option.lead is not None]
    return min(others, key=lambda option: option.lead.mean if option.lead else 0.0, default=None)


def _clear(stage: Stage, noted: Option, named: str) -> str:
    other = next_best(stage)
    if other is None or other.lead is None:
        return f"{named} is carried: no other option has a mean."
    if not other.lead.tie:
        return f"{named} beats {other.value} by {distance(other.lead)}, and is carried."
    held = noted.configuration == stage.incumbent
    why = "the better mean is carried, and the sweep had it already" if held else _cheapest(stage)
    return f"{named} beats {other.value} by {distance(other.lead)}: a tie; {why}."


def _cheapest(stage: Stage) -> str:
    """Why a noted option that was not the incumbent is carried although another ties with it."""
    tied = [option for option in stage.options if option.tied]
    assert stage.carried is not None
    if tied and tied[0].configuration == stage.carried.configuration:
        return f"{stage.carried.value} is carried because it is cheaper"
    return f"{stage.carried.value} is carried because its mean is better"


def _reason(stage: Stage) -> str:
    """Why another option than the one with the best mean is carried."""
    assert stage.carried is not None
    assert stage.noted is not None
    places = [option.configuration for option in stage.options]
    cheaper = places.index(stage.carried.configuration) < places.index(stage.noted.configuration)
    if stage.carried.configuration != stage.incumbent:
        return "it is cheaper"
    return "the sweep had it already" + (" and it is cheaper" if cheaper else "")


def _together(stage: Stage) -> str:
    """The last stage: the noted values together against the carried ones."""
    carried, together = stage.options[0], stage.options[-1]
    lead = together.lead or carried.lead
    if lead is None:
        return f"All noted values together were stopped early; {carried.value} values stay."
    ahead = together.lead is None
    word = "beat" if ahead else "are behind"
    said = f"All noted values together {word} the carried ones by {distance(lead)}"
    if stage.carried is not None and stage.carried.value == NOTED:
        return f"{said}, and are taken."
    return f"{said}{': a tie' if lead.tie else ''}; the carried ones stay."


def _searched(stage: Stage, best: Option) -> str:
    other, said = next_best(stage), f"The best of {len(stage.options)} configurations"
    if other is None or other.lead is None:
        return f"{said} is {tables.params(best.configuration)}; no other one has a mean."
    ties = sum(option.tied for option in stage.options) - 1
    return (
        f"{said} beats the next best by {distance(other.lead)}"
        f"{f': a tie; {_count(ties)} with it' if ties else ''}."
    )


def _count(ties: int) -> str:
    return "one configuration ties" if ties == 1 else f"{ties} configurations tie"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
