"""Decisions and their certainty in sentences, for terminal, report and dashboard."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from study.plan import tradeoff
from study.plan.plan import Option, PlanState, Stage
from study.plan.statistics import Difference, Score
from study.plan.strategies import outside, strategy_of
from study.space.architecture import OUT, size_text
from study.space.metric import Metric
from study.space.search_space import SearchSpace
from study.text import units
from study.text.view import behind, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from study.plan.contenders import Contender
    from study.plan.race.result import RaceResult
    from study.plan.results import Configuration
    from study.plan.tradeoff import Rated
    from study.space.settings import Settings

_NO_ERROR = "no error can be estimated from"


def scoring(settings: Settings) -> str | None:
    """How a run is scored; None if every run is scored by its last epoch."""
    count = min(3, settings["epochs"])
    averages = strategy_of(settings).scores and settings.space.score != "last" and count > 1
    if name := _keeps_best(settings.space):
        other = f"the mean of its last {count}" if averages else "that of its last"
        return (
            f"The score of a run with {name} is that of its best epoch, which is biased upwards; "
            f"of any other run {other}"
        )
    if averages:
        return f"The score of a run is the mean of its last {count} epochs"
    return None


def limits(settings: Settings) -> str | None:
    """The limits, and how many configurations are out before any is trained; None if unlimited."""
    given = settings.space.limits
    if given is None:
        return None
    said = [f"{given.parameters:,} parameters"] if given.parameters is not None else []
    said += [given.size] if given.size is not None else []
    said += [f"{given.milliseconds:g} ms a picture"] if given.milliseconds is not None else []
    sentence = f"Limits: at most {units.listed(said)}"
    if (found := outside(settings)) is not None:
        why = ", ".join(f"{count} by {name}" for name, count in found.by.items())
        sentence += f"; {found.out} of {found.configurations} configurations are out"
        sentence += f" ({why})" if why else ""
    if given.milliseconds is not None or settings.model is not None:
        sentence += "; the first run of each configuration measures it before it trains"
    return sentence


def smallest(found: Sequence[Rated], metric: Metric) -> str | None:
    """The smallest network that is not clearly worse than the best; None if no cost is known."""
    one = tradeoff.smallest(found)
    if one is None or len(found) < 2:
        return None
    cost = [f"{one.parameters:,.0f} parameters"]
    cost += [size_text(round(one.size))] if one.size is not None else []
    if one.milliseconds is not None:
        cost.append(f"{one.milliseconds:.3g} ± {one.milliseconds_error or 0:.1g} ms a picture")
    said = f"The smallest network that is not clearly worse is {units.params(one.configuration)}"
    behind = (
        "it has the best mean"
        if one.gap is None
        else f"{units.gap(one.gap, metric)}{metric.points} behind the best mean"
    )
    return f"{said} ({', '.join(cost)}): {behind}"


def batches(settings: Settings) -> str:
    """How many images a step of a run is taken on."""
    size = settings["batch_size"]
    return f"batches of {'batch_size' if size is None else size}"


def _keeps_best(space: SearchSpace) -> str | None:
    """The hyperparameter by which runs keep the weights of their best epoch; None: no run does."""
    searched = {one.name for one in space.hyperparameters}
    names = ("restore_best_weights", "patience")
    return next((name for name in names if name in searched or space.fixed.get(name)), None)


def history(settings: Settings) -> list[str]:
    """What was changed after the study was made, a sentence for each time, and what follows."""
    said = [
        f"{one.when[:16].replace('T', ' ')} UTC, after {units.counted(one.trials, 'run')}: "
        f"{', '.join(one.changes)}."
        for one in settings.history
    ]
    looks = sum(one.trials > 0 for one in settings.history)
    if looks and "tolerance" not in strategy_of(settings).own:
        said.append(
            f"As results could be seen before, claims and intervals have {2**looks} times less "
            "room for error than those of a study that never changed."
        )
    return said


def network(settings: Settings) -> str | None:
    """Which custom model is trained, and how; None for the program's own network."""
    source, facts = settings.model, settings.network
    if source is None:
        return None
    said = f"Custom model {source.name} (SHA-256 {source.digest[:12]})"
    steps = settings.training.words
    if facts is not None:
        said += f", {facts.parameters:,} parameters at the start"
        if facts.backbone is not None:
            said += (
                f", on the outputs of {source.backbone}, frozen, {facts.backbone.parameters:,} "
                "parameters, computed once"
            )
        if facts.unused:
            steps += f"; its own {' and '.join(facts.unused)} are never called"
    said += f": trained by {steps}; every process that trains runs its file"
    if facts is not None and facts.unbuilt:
        said += f". It cannot be built {'; '.join(facts.unbuilt)}: its runs there will fail"
    return said


def outcome(stage: Stage) -> str:
    """What a stage decided and by how much, in a sentence or two; or how much of it is known."""
    if stage.failure is not None:
        return f"No option can be trained: {stage.failure}."
    if stage.best is None or stage.selected is None:
        known = sum(option.state != "open" for option in stage.options)
        return f"Open: {known} of {len(stage.options)} {_kind(stage)} are known so far."
    if stage.kind == "configurations":
        return _searched(stage, stage.best)
    if stage.kind == "combined":
        return _together(stage)
    if stage.kind == "confirmed":
        return _confirmed(stage)
    return _swept(stage, stage.best, stage.selected)


def eliminated(stage: Stage) -> list[str]:
    """The options that were stopped early, each with how far behind it was and when."""
    called = labels(stage)
    return [
        f"{called[option.configuration]}: {behind(option, stage)}"
        + (f", in repeat {option.rows[-1].repeat + 1}" if option.rows else "")
        for option in stage.options
        if option.state == "eliminated"
    ]


def _kind(stage: Stage) -> str:
    return "configurations" if stage.kind == "configurations" else "options"


def next_best(stage: Stage) -> Option | None:
    """The option of a decided stage with the second-best mean."""
    others = [option for option in stage.options if option.gap is not None]
    return min(others, key=lambda option: option.gap.mean if option.gap else 0.0, default=None)


def _swept(stage: Stage, best: Option, selected: Option) -> str:
    """The best mean against the option selected or, where that is the same one, the next best."""
    other = next_best(stage) if selected.gap is None else selected
    if other is None or other.gap is None:
        return f"{best.value} is selected: no other option has a mean."
    against = _against(best, other, stage.metric)
    if not other.gap.tie:
        return f"{against}, and is selected."
    return f"{against}: a tie; {selected.value} is selected because {_reason(stage, other.gap)}."


def _against(best: Option, other: Option, metric: Metric) -> str:
    assert other.gap is not None
    if not float(metric.number(other.gap.mean)):  # 0.00 points
        gap = f"{units.gap(other.gap, metric)}{metric.points}"
        return f"{best.value} and {other.value} have the same mean ({gap})"
    return _ahead(str(best.value), str(other.value), other.gap, metric)


def _ahead(one: str, other: str, gap: Difference, metric: Metric) -> str:
    """By how much one option is ahead of another, with the error of the difference if known."""
    by = f"{units.gap(gap, metric)}{metric.points}"
    if gap.standard_error is None:
        return f"{one} is ahead of {other} by {by} ({_NO_ERROR} 1 repeat)"
    return f"{one} is {'better than' if gap.clear else 'ahead of'} {other} by {by}"


def _reason(stage: Stage, gap: Difference) -> str:
    """Why one of the options that tie is selected, as the sweep's rule has it."""
    assert stage.selected is not None
    assert stage.best is not None
    selected, best = stage.selected.configuration, stage.best.configuration
    if gap.mean and selected == best:
        return "its mean is better"
    places = [option.configuration for option in stage.options]
    if selected == stage.incumbent:
        cheaper = places.index(selected) < places.index(best)
        return "it is the incumbent" + (" and cheaper" if cheaper else "")
    cheapest = next(option for option in stage.options if option.tied)
    return "it is cheaper" if selected == cheapest.configuration else "its mean is better"


def _together(stage: Stage) -> str:
    """The last stage: all best means together against the selected values."""
    selected, together = stage.options[0], stage.options[-1]
    gap = together.gap or selected.gap
    if gap is None:
        ended = "failed" if together.failure else "were stopped early"
        return f"All best means together {ended}; the selected values stay."
    ahead = together.gap is None
    better = "are better than" if gap.clear else "are ahead of"
    word = better if ahead else "are behind"
    by = f"{units.gap(gap, stage.metric)}{stage.metric.points}"
    said = f"All best means together {word} the selected values by {by}"
    if stage.selected is not None and stage.selected.configuration == together.configuration:
        return f"{said}, and are selected."
    return f"{said}{': a tie' if gap.tie else ''}; the selected values stay."


def _searched(stage: Stage, best: Option) -> str:
    other, said = next_best(stage), f"The best of {len(stage.options)} configurations"
    if other is None or other.gap is None:
        return f"{said} is {units.params(best.configuration)}; no other one has a mean."
    ties = sum(option.tied for option in stage.options) - 1
    ahead = _ahead(said, "the next best", other.gap, stage.metric)
    stays = "; the start stays" if stage.selected is not stage.best else ""
    return f"{ahead}{f': a tie; {_count(ties)} with it' if ties else ''}{stays}."


def _confirmed(stage: Stage) -> str:
    """The answer on fresh repeats, and how it compares with the start."""
    found, start = stage.options[0], stage.options[1] if len(stage.options) > 1 else None
    if found.score is None:
        return f"The answer failed on fresh repeats: {found.failure}."
    if start is not None and start.gap is not None:
        stays = stage.selected is not None and stage.selected is not stage.best
        score = start.score if stays and start.score else found.score
        return _beside_start(score, start.gap, found.configuration if stays else None, stage)
    alone = "the answer is the start"
    if start is not None:
        out = (start.failure or "").startswith(OUT)
        alone = f"the start is {start.failure}" if out else "the start failed"
    return f"{_fresh(found.score, stage.metric)}; {alone}."


def _fresh(score: Score, metric: Metric) -> str:
    return f"{units.score(score, metric)} on {units.counted(score.repeats, 'fresh repeat')}"


def _beside_start(score: Score, gap: Difference, found: Configuration | None, stage: Stage) -> str:
    """The answer's score, and by how much what was found is better than the start.

    ``found`` is given where that is not enough, and the answer is the start.
    """
    metric = stage.metric
    said, by = _fresh(score, metric), f"{units.gap(gap, metric)}{metric.points}"
    worse = f"by {by.removeprefix('-')}" if gap.clear and gap.mean < 0 else ""
    if found is not None:
        better = f"no better, as far as {units.counted(gap.pairs, 'repeat')} can tell ({by})"
        how = f"worse {worse}" if worse else better
        return f"{said}; this is the start, which stays: {units.params(found)} is {how}."
    if worse:
        return f"{said}; worse than the start {worse}."
    if gap.clear:
        return f"{said}; {by} better than the start."
    scored = sum(option.score is not None for option in stage.options)
    return f"{said}; {_unclear(gap, by, metric, math.comb(scored, 2))}."


def _unclear(gap: Difference, by: str, metric: Metric, pairs: int) -> str:
    """Why the answer is not called better than the start: how far ahead it would have to be.

    There are more comparisons than those of ``pairs`` only after the study was changed.
    """
    if gap.mean <= 0:
        return f"no better than the start ({by})"
    said = f"not clearly better than the start: ahead by {by}"
    if gap.needed is None:
        repeats = units.counted(gap.pairs, "repeat")
        unknown = f"{_NO_ERROR} {repeats}"
        known = f"{repeats} cannot show a clear difference"
        return f"{said} ({unknown if gap.standard_error is None else known})"
    first = replace(gap, comparisons=max(1, pairs)).needed
    never = f" ({metric.number(first or 0.0)} in a study that never changed)"
    changed = never if gap.comparisons > max(1, pairs) else ""
    return f"{said}, and a clear difference needs {metric.number(gap.needed)}{changed}"


def _count(ties: int) -> str:
    return "one configuration ties" if ties == 1 else f"{ties} configurations tie"


def answer(plan_state: PlanState) -> str:
    """The configuration to use and how sure to be of it, in one sentence."""
    if plan_state.failure is not None:
        return f"The study has no answer: {plan_state.failure}."
    if plan_state.incumbent is None or plan_state.score is None:
        return "No configuration has a finished run yet."
    word = "Use" if plan_state.complete else "So far"
    if plan_state.confirmation is not None:
        said = f"{word} {units.params(plan_state.incumbent)}: {plan_state.metric.words}"
        fresh, gap = plan_state.confirmation, plan_state.confirmation.difference
        if gap is None:
            return f"{said} {_confirmed(plan_state.stages[-1])}"
        return f"{said} {_beside_start(fresh.answer, gap, fresh.found, plan_state.stages[-1])}"
    runs = units.counted(plan_state.score.repeats, "repeat")
    single = plan_state.score.repeats == 1
    error = "the error is an estimate from" if single else "mean and standard error of"
    if plan_state.score.standard_error is None:
        error = _NO_ERROR
    if plan_state.race is not None and plan_state.race.score is not None:
        error, runs = f"{error} {runs}", "that had no part in choosing it"
    return (
        f"{word} {units.params(plan_state.incumbent)}: {plan_state.metric.words} "
        f"{units.score(plan_state.score, plan_state.metric)} ({error} {runs})."
    )


_FAR = 0.4
"""A distance that needs no more digits."""

_ENDS = {
    "sure": "The race has reached that probability",
    "budget": "The budget is spent",
    "exhausted": "All repeats of the configurations that matter are trained",
    None: "The race is not complete",
}


def race(result: RaceResult, metric: Metric) -> list[str]:
    """How certain a race is of its leader, why it has ended, and its two intervals."""
    within = f"within {metric.number(result.tolerance)}{metric.points} of the best"
    asked = f"(requested: {_probability(result.confidence)}), after {_spent(result)}"
    if result.probability is None:
        close = f"Whether the leader is {within} is not known {asked}: no other configuration is "
        close += "trained to the end on two of its repeats"
    else:
        number = len(result.compared)
        close = f"The leader is {within} of {number} configurations trained to the end "
        close += f"in pairs with a probability of {_probability(result.probability)} {asked}"
    said = [f"{close}. {_ENDS[result.reason]}."]
    sure = []
    if result.interval is not None:
        low, high = metric.bounded(*result.interval)
        sure += [f"its {metric.words} on new images is {metric.number(low)} to {metric.text(high)}"]
    if result.distance is not None:
        farthest = metric.number(result.distance[1])
        better = f"the best of these is at most {farthest}{metric.points} better"
        sure += [better if float(farthest) else "none of these is likely to be better"]
    if sure:
        said.append(f"With 95 % confidence {', and '.join(sure)}.")
    if not result.curves:
        said.append("Curves are not as the model expects: full runs only.")
    return said


def race_in_short(result: RaceResult, metric: Metric) -> str:
    """The progress of a race, for one line of the live view."""
    within = f"within {metric.number(result.tolerance)}{metric.points}"
    if result.probability is None:
        return f"{within}: not known yet, {_spent(result)}"
    close = (
        f"{within} of the best of {len(result.compared)} with {_probability(result.probability)}"
    )
    return f"{close}, {_spent(result)}"


def _spent(result: RaceResult) -> str:
    if result.unit == "seconds":
        spent, budget = units.duration(result.spent), units.duration(result.budget)
        return f"{spent} of at most {budget} of training"
    return f"{result.spent:.0f} of at most {result.budget:.0f} epochs"


def lag(one: Contender, metric: Metric) -> str:
    """How far a configuration is behind the leader, as far as its own runs say.

    An error is stated of two or more pairs of complete runs only.
    """
    side = "behind" if one.behind >= 0 else "ahead"
    if one.standard_error is not None:
        gap = metric.uncertain(abs(one.behind), one.standard_error)
        return f"{side} by {gap}{metric.points} ({one.pairs} pairs)"
    far = metric.is_accuracy and abs(one.behind) > _FAR
    size = f"more than {metric.number(_FAR)}" if far else metric.number(abs(one.behind))
    return f"{side} by {size}{metric.points} after {units.counted(one.epochs, 'epoch')}"


def _probability(value: float) -> str:
    """Per cent, never quite 0 or 100."""
    return f"{min(max(100 * value, 0.1), 99.9):.3g} %"


def decision(stage: Stage) -> str:
    """What a decided stage decided, in a few words."""
    if stage.failure is not None:
        return f"{stage.name}: {stage.failure}"
    assert stage.selected is not None
    if stage.kind == "configurations":
        best = "is the best" if stage.selected is stage.best else "stays"
        return f"{stage.name}: {units.params(stage.selected.configuration)} {best}"
    if stage.kind == "confirmed":
        return f"{stage.name}: {_confirmed(stage).rstrip('.')}"
    if stage.kind == "combined":
        wins = stage.selected.configuration != stage.incumbent
        how = "better, and selected" if wins else "not clearly better"
        return f"{stage.name}: all best means together are {how}"
    return f"{stage.name}: {stage.selected.value} is selected"


def doubts(plan_state: PlanState) -> list[str]:
    """The ties of a sweep: a sentence for each stage that has one."""
    return [
        _doubt(stage, stage.best, stage.selected)
        for stage in plan_state.stages
        if stage.kind in {"hyperparameter", "combined"} and stage.best and stage.selected
        if any(option.tied and option is not stage.best for option in stage.options)
    ]


def _doubt(stage: Stage, best: Option, selected: Option) -> str:
    if stage.kind == "combined":
        return f"{stage.name}: all best means together tie with the selected values, which stay."
    ties = [option for option in stage.options if option.tied and option is not best]
    verb = "ties" if len(ties) == 1 else "tie"
    unknown = any(option.gap and option.gap.standard_error is None for option in ties)
    why = f" ({_NO_ERROR} 1 repeat)" if unknown else ""
    return (
        f"{stage.name}: {units.listed([str(option.value) for option in ties])} {verb} with "
        f"{best.value}{why}; {selected.value} is selected."
    )
