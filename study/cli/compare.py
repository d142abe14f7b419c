"""The command that puts two studies side by side, and compares the runs that they can share."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.exits import opened
from study.cli.options import JSON, STORAGE, takes
from study.cli.terminal import SafeConsole, print_json, say
from study.errors import SettingsError

if TYPE_CHECKING:
    from study.plan.judge import Judgement
    from study.space.metric import Metric
    from study.space.settings import Settings
    from study.storage.database import StoredStudy

_A = Annotated[str, typer.Argument(metavar="A", help="A study of the database.")]
_B = Annotated[str, typer.Argument(metavar="B", help="Another one, compared with the first.")]

Values = dict[str, float]
"""A study's values by repeat."""


@takes(STORAGE, JSON)
def compare(context: typer.Context, first: _A, second: _B) -> None:
    """Put two studies side by side: is the answer of B better than that of A?

    Exit code 0: it is better; 1: it is not; 2: the two cannot be compared.

    Examples:
    - `study compare digits digits-long`
    - `study compare digits digits-long --json`
    """
    with opened(context) as database:
        from study.storage.database import read

        one, other = (read(database, name) for name in (first, second))
        _require_comparable(one, other)
        paired = not _unpaired(one.settings, other.settings)
        answer = _judged(one, other, _answer(one), _answer(other), paired=paired)
        mine, others = _in_both(one, other) if paired else ({}, {})
        both = _judged(one, other, mine, others, paired=True) if len(mine) > 1 else None
        if context.params["json"]:
            print_json(_record(one, other, answer, both))
        else:
            _print(SafeConsole(), one, other, answer, both)
    if answer is None or answer.verdict != "better":
        raise typer.Exit(1)


def _require_comparable(one: StoredStudy, other: StoredStudy) -> None:
    """Raise ``SettingsError`` where no number of one study says anything of the other."""
    from study.plan.strategies import score_of

    if one.name == other.name:
        raise SettingsError(f"compare {one.name} {one.name}: name two different studies")
    mine, others = one.settings, other.settings
    compared = [
        ("metric", mine.metric.name, others.metric.name),
        ("direction", mine.metric.direction, others.metric.direction),
        ("score of a run", score_of(mine), score_of(others)),
    ]
    for what, a, b in compared:
        if a != b:
            raise SettingsError(
                f"compare {one.name} {other.name}: their {what} differs ({a}, {b}); compare "
                "studies with the same one"
            )
    if mine.data is None or others.data is None or mine.data.fingerprint != others.data.fingerprint:
        raise SettingsError(
            f"compare {one.name} {other.name}: their data differs ({mine['data']}, "
            f"{others['data']}); compare studies of the same images"
        )


def _unpaired(one: Settings, other: Settings) -> list[str]:
    """The settings that keep repeat r of one study from being paired with that of the other."""
    return [name for name in ("validation", "seed") if one[name] != other[name]]


def _answer(side: StoredStudy) -> Values:
    """The runs that the answer's mean is of, by repeat."""
    stage = side.plan_state.stages[-1]
    score, rows = side.plan_state.score, stage.selected.rows if stage.selected else ()
    values = {str(row.repeat): row.value for row in rows if row.value is not None}
    fresh = [*values][-score.repeats :] if score else []
    values = {repeat: values[repeat] for repeat in fresh}
    if len(values) < 2:
        raise SettingsError(
            f"compare: study {side.name!r} has no answer with two complete runs yet; continue it "
            "with resume, or with more --repeats"
        )
    return values


def _in_both(one: StoredStudy, other: StoredStudy) -> tuple[Values, Values]:
    """The means over the configurations that both studies trained, by repeat."""
    sides = [_complete(side) for side in (one, other)]
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in sides[0].keys() & sides[1].keys():
        shared[str(run[1])].append((sides[0][run], sides[1][run]))
    most = max(map(len, shared.values()), default=0)
    whole = {repeat: pairs for repeat, pairs in shared.items() if len(pairs) == most}
    mine = {repeat: math.fsum(a for a, _ in pairs) / most for repeat, pairs in whole.items()}
    others = {repeat: math.fsum(b for _, b in pairs) / most for repeat, pairs in whole.items()}
    return mine, others


def _complete(side: StoredStudy) -> dict[tuple[frozenset[Any], int], float]:
    """The value of each complete run, by its values that are not the network's own, and repeat."""
    from study.training.network import implied

    own = implied(side.settings.model, side.settings["batch_size"])
    return {
        (frozenset(trial.params.items() - own.items()), trial.repeat): trial.value
        for trial in side.trials
        if trial.value is not None and not trial.cancelled
    }


def _judged(
    one: StoredStudy, other: StoredStudy, mine: Values, others: Values, *, paired: bool
) -> Judgement | None:
    """The second study's values against the first's; None where they are the same runs."""
    from study.plan.judge import judge
    from study.plan.strategies import looks_of

    if not paired:
        others = {f"{other.name} {repeat}": value for repeat, value in others.items()}
    if mine == others:
        return None
    looks = max(looks_of(side.settings).looks for side in (one, other))
    minimize = one.settings.metric.direction == "minimize"
    results = {one.name: mine, other.name: others}
    return judge(results, one.name, minimize=minimize, tests=looks)[0]


def _record(
    one: StoredStudy, other: StoredStudy, answer: Judgement | None, both: Judgement | None
) -> dict[str, Any]:
    from study.cli import summary

    return {
        "studies": [summary.best(side) for side in (one, other)],
        "differences": {name: list(values) for name, values in _differences(one, other).items()},
        "unpaired_because_of": _unpaired(one.settings, other.settings),
        "answer": answer and asdict(answer),
        "in_both": both and asdict(both),
    }


def _differences(one: StoredStudy, other: StoredStudy) -> Mapping[str, tuple[Any, Any]]:
    """The settings that differ, with both values."""
    chosen = [
        {name: setting.value for name, setting in side.settings.chosen.items() if name != "data"}
        for side in (one, other)
    ]
    names = {**chosen[0], **chosen[1]}
    pairs = {name: (chosen[0].get(name), chosen[1].get(name)) for name in names}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def _print(
    console: SafeConsole,
    one: StoredStudy,
    other: StoredStudy,
    answer: Judgement | None,
    both: Judgement | None,
) -> None:
    from study.text import units
    from study.text.tables import table
    from study.text.view import interval

    def both_say(name: str, tell: Any) -> tuple[str, str, str]:
        return name, str(tell(one)), str(tell(other))

    def mean(side: StoredStudy) -> str:
        return units.score(side.plan_state.score, metric) if side.plan_state.score else ""

    def where(side: StoredStudy) -> str:
        ends = side.plan_state.score and interval(side.plan_state.score, metric)
        return " to ".join(map(metric.text, ends)) if ends else ""

    metric = one.settings.metric
    lines = [
        both_say("state", lambda side: side.state),
        both_say("runs", lambda side: side.plan_state.runs),
        both_say("epochs trained", lambda side: sum(len(one.reported) for one in side.trials)),
        both_say("answer", lambda side: units.params(side.plan_state.incumbent or {})),
        both_say(metric.words, mean),
        both_say("95 % interval", where),
        *((name, str(a), str(b)) for name, (a, b) in _differences(one, other).items()),
    ]
    console.print(table("Side by side", ("", one.name, other.name), lines))
    if answer is None:
        say(console, "Both answers are the same configuration, on the same runs.")
    else:
        said, by = _verdict(answer, metric)
        say(console, f"The answer of {other.name} is {said} that of {one.name}: {by}.")
    if both is not None:
        said, by = _verdict(both, metric)
        of = f"those of {other.name} are {said} those of {one.name}: {by}."
        say(console, f"Over the configurations that both studies trained, {of}")


def _verdict(found: Judgement, metric: Metric) -> tuple[str, str]:
    """How one side compares with the other, and by how much."""
    interval = "no interval, as the repeats have no spread"
    if found.interval is not None:
        low, high = found.interval
        interval = f"95 %: {metric.number(low)} to {metric.number(high)}{metric.points}"
    how = "in pairs" if found.paired else "unpaired"
    by = f"{metric.number(found.difference)}{metric.points} ({interval}, {how})"
    words = {"better": "better than", "worse": "worse than", "tie": "not clearly different from"}
    return words[found.verdict], by
