"""The configurations that a race has begun, as options, and the leader's score as it is stated."""

from __future__ import annotations

from collections.abc import Iterable

from study.plan.plan import Option, OptionState
from study.plan.results import Configuration, StoredTrial
from study.plan.statistics import Score, Spread
from study.plan.verdict import Verdict


def options(runs: Iterable[StoredTrial], images: int | None) -> tuple[Option, ...]:
    """Every configuration that was begun; its score is that of its complete runs."""
    begun: dict[Configuration, list[StoredTrial]] = {}
    for row in runs:
        begun.setdefault(row.configuration, []).append(row)
    spread = Spread(images)
    found = []
    for one, held in begun.items():
        whole = tuple(sorted([r for r in held if r.state == "complete"], key=lambda r: r.repeat))
        failed = tuple([row for row in held if row.state == "failed"])
        values = [row.value for row in whole if row.value is not None]
        state: OptionState = "eliminated" if failed else "complete" if whole else "open"
        score = spread.score(values) if values else None
        number = held[0].option
        assert number is not None
        found.append(Option(number, one, None, (*whole, *failed), state, score))
    return tuple(found)


def stated(verdict: Verdict | None, leader: Option | None) -> Score | None:
    """The leader's accuracy as it is stated, and how many complete runs it has."""
    if verdict is None:  # a budget of one run: nothing was compared
        return leader.score if leader else None
    runs = len(leader.rows) if leader else 0
    return Score(runs, verdict.leader.value, verdict.leader.standard_error)
