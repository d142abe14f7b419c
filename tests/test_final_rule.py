"""An answer that is not better than the start on fresh repeats is given up, whatever found it."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from fakes import IMAGES
from plan_fakes import played, row_of, space_of

from study.cli.summary import _confirmation
from study.errors import SettingsError
from study.plan.budget import Budget
from study.plan.confirm import Confirmed
from study.plan.halving import FINAL, Halving
from study.plan.plan import PlanState
from study.plan.results import Configuration, StoredTrial
from study.plan.statistics import UNCHANGED
from study.plan.sweep import OneAtATime
from study.plan.tradeoff import rated
from study.text import sentences as words

SPACE = space_of(repeats=3, a=([1, 2, 3, 4], 1), b=([False, True], False))
START, OTHER = (("a", 1), ("b", False)), (("a", 4), ("b", False))
EPOCHS = 8


def swept(gain: float, fresh_gain: float) -> PlanState:
    """A sweep that finds ``a=4``, better by ``gain`` while choosing and by another on new ones."""

    def scores(one: Configuration, repeat: int) -> float:
        known = np.random.default_rng([repeat, *map(ord, repr(one))])
        better = gain if repeat < 3 else fresh_gain
        return 0.9 + better * (dict(one)["a"] == 4) + 0.002 * known.standard_normal()

    return played(Confirmed(OneAtATime(SPACE, images=IMAGES), 3), scores)[0]


def test_what_is_better_on_fresh_repeats_too_is_the_answer() -> None:
    state = swept(0.05, 0.05)
    assert dict(state.incumbent or ())["a"] == 4
    assert state.confirmation is not None
    assert state.confirmation.found is None
    assert words.answer(state).endswith("better than the start.")


@pytest.mark.parametrize("fresh_gain", [0.0, -0.05])
def test_the_start_stays_where_what_was_found_is_no_better_on_fresh_repeats(
    fresh_gain: float,
) -> None:
    state = swept(0.05, fresh_gain)
    fresh = state.confirmation
    assert state.incumbent == START
    assert fresh is not None
    assert fresh.found is not None
    assert dict(fresh.found)["a"] == 4
    assert fresh.start is None
    assert fresh.difference is not None
    start = next(one for one in state.stages[-1].options if one.configuration == START)
    assert (state.score, state.stages[-1].selected) == (start.score, start)
    assert state.score == fresh.answer
    assert words.answer(state).startswith("Use a=1, b=False: ")
    assert "this is the start, which stays: a=4" in words.answer(state)
    assert "this is the start, which stays" in words.decision(state.stages[-1])
    assert START in {one.configuration for one in rated(state, IMAGES, None)}
    record = json.loads(json.dumps(_confirmation(fresh)))
    assert (record["found"], record["start"]) == ({"a": 4, "b": False}, None)
    assert record["answer"]["mean"] == fresh.answer.mean


def halved(end: dict[int, float], budget: int = 200, **options: Any) -> tuple[PlanState, Any]:
    """Halving on curves that end at a level of ``a``, the start's being the lowest at first."""
    plan = Halving(SPACE, 3, IMAGES, seed=1, epochs=EPOCHS, budget=Budget(budget), **options)
    rows: list[StoredTrial] = []
    while specs := plan.state(rows).next:
        one, repeat = specs[0].configuration, specs[0].repeat
        assert one is not None
        known = np.random.default_rng([repeat, *map(ord, repr(one))])
        values = [end[int(dict(one)["a"])]] * EPOCHS
        if repeat < plan.choosing:
            values = [0.5 + 0.05 * int(dict(one)["a"])] * EPOCHS
        curve = tuple((np.array(values) + 0.002 * known.standard_normal(EPOCHS))[: specs[0].epochs])
        whole = len(curve) == EPOCHS
        state = "complete" if whole else "paused"
        before = next((r for r in rows if (r.configuration, r.repeat) == (one, repeat)), None)
        number = before.number if before else len(rows)
        new = row_of(specs[0], number, curve[-1] if whole else None, state=state, reported=curve)
        rows = [*(row for row in rows if row.number != number), new]
    return plan.state(rows), rows


def test_halving_trains_the_start_beside_its_finalists_and_says_how_much_better_they_are() -> None:
    state, rows = halved({1: 0.9, 2: 0.91, 3: 0.92, 4: 0.95})
    fresh = Counter(row.configuration for row in rows if row.stage == FINAL)
    assert START in fresh
    assert set(fresh.values()) == {3}
    assert dict(state.incumbent or ())["a"] == 4
    assert state.confirmation is not None
    assert state.confirmation.difference is not None
    assert state.confirmation.difference.mean == pytest.approx(0.05, abs=0.005)
    assert sum(len(row.reported) for row in rows) <= 200


def test_halving_keeps_a_start_that_its_finalists_are_no_better_than() -> None:
    state, _ = halved({1: 0.95, 2: 0.91, 3: 0.92, 4: 0.95})
    assert state.incumbent == START
    assert state.stages[0].selected is not None
    assert state.stages[0].selected.configuration == START
    if state.confirmation is not None:
        assert state.confirmation.answer == state.score


def test_a_small_budget_has_fewer_fresh_repeats_before_it_is_refused() -> None:
    state, rows = halved({1: 0.9, 2: 0.91, 3: 0.92, 4: 0.95}, budget=44)
    fresh = Counter(row.configuration for row in rows if row.stage == FINAL)
    assert set(fresh.values()) == {2}
    assert state.complete
    with pytest.raises(SettingsError, match=r"2 fresh repeats .*and of the start; give at least"):
        halved({}, budget=33)


def test_the_start_is_not_trained_twice_where_somebody_else_confirms() -> None:
    plan = Halving(SPACE, 3, IMAGES, seed=1, epochs=EPOCHS, budget=Budget(200), reserved=6)
    assert plan._start is None
    assert plan.after(UNCHANGED).state([]).next
