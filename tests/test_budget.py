"""A budget in epochs or in time: how it is written, what costs are learnt, and that it is kept."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_fakes import row_of, space_of
from test_race import EPOCHS, WIDE, curves

from study.errors import SettingsError
from study.plan.budget import Budget, Costs, parse
from study.plan.halving import Halving
from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.race import Race
from study.plan.results import Configuration, StoredTrial
from study.plan.strategies import completed
from study.space.settings import Setting, resolve

SECONDS = 300.0
COMPILING = 4.0


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("400", Budget(400)),
        (400, Budget(400)),
        ("90s", Budget(90, seconds=True)),
        ("10min", Budget(600, seconds=True)),
        ("1.5 h", Budget(5400, seconds=True)),
    ],
)
def test_a_plain_number_is_epochs_and_a_unit_makes_it_a_time(text: Any, budget: Budget) -> None:
    assert parse(text) == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10 parsecs", "give a whole number of epochs, or a time such as 90s, 10min or 2h"),
        ("min", "give a whole number of epochs"),
        ("3.5", "give a whole number of epochs"),
        ("0", "give a number above 0"),
        ("-5", "give a number above 0"),
        ("0s", "give a number above 0"),
        ("-10min", "give a number above 0"),
        ("nan", "give a whole number of epochs"),
        ("5s", "does not pay for compiling a run and confirming an answer; give at least 10s"),
        ("1000000000h", "give at most 1,000,000,000 epochs or seconds"),
    ],
)
def test_what_is_no_budget_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_of_epochs_is_recorded_as_a_number_however_it_was_given() -> None:
    for value in (400, "400"):
        chosen = {"sampler": Setting("race", "command line")}
        chosen["budget"] = Setting(value, "command line")
        assert completed(resolve(WIDE, "wide.toml", chosen))["budget"] == 400


def seconds(one: Configuration) -> float:
    """The fourth part of the configurations takes four times as long as the others."""
    return 4.0 if dict(one)["d"] and dict(one)["a"] == 3 else 1.0


def timed(spec: RunSpec, rows: list[StoredTrial]) -> list[StoredTrial]:
    """The rows once this run has trained as far as it asks, with the seconds of each epoch."""
    assert spec.configuration is not None
    key = spec.configuration, spec.repeat
    paused = next((row for row in rows if (row.configuration, row.repeat) == key), None)
    done = curves(0.1)(*key)[: spec.epochs]
    state = "complete" if len(done) == EPOCHS else "paused"
    each = [seconds(spec.configuration)] * len(done)
    each[0] += COMPILING
    number = paused.number if paused else len(rows)
    value = done[-1] if state == "complete" else None
    new = row_of(spec, number, value, state=state, reported=done, curve={"seconds": each})
    return [*(row for row in rows if row.number != number), new]


def played(plan: Plan, rows: list[StoredTrial] | None = None) -> tuple[PlanState, Any]:
    rows = list(rows or [])
    while wanted := plan.state(rows).next:
        rows = timed(wanted[0], rows)
    return plan.state(rows), rows


def spent(rows: list[StoredTrial]) -> float:
    return sum(sum(row.curve["seconds"]) for row in rows)


def plans() -> dict[str, Plan]:
    budget = Budget(SECONDS, seconds=True)
    options: dict[str, Any] = {"images": 4000, "seed": 1, "epochs": EPOCHS, "budget": budget}
    return {
        "race": Race(WIDE, tolerance=0.01, **options),
        "halving": Halving(WIDE, **options),
        "halving, confirmed": Halving(WIDE, reserved=6, **options),
    }


@pytest.mark.parametrize("name", plans())
def test_a_time_is_kept_with_compiling_and_confirming(name: str) -> None:
    state, rows = played(plans()[name])
    reserved = 6 * (EPOCHS + COMPILING) if "confirmed" in name else 0
    assert state.complete
    assert state.incumbent is not None
    assert 0.5 * SECONDS < spent(rows) + reserved <= 1.1 * SECONDS


@pytest.mark.parametrize("name", plans())
@settings(max_examples=3, deadline=None)
@given(cut=st.integers(0, 60))
def test_a_resumed_study_decides_the_same_by_the_seconds_that_are_stored(
    name: str, cut: int
) -> None:
    state, rows = played(plans()[name])
    first = sorted(rows, key=lambda row: row.number)[:cut]
    prefix: list[StoredTrial] = []
    plan = plans()[name]
    while len(prefix) < len(first):
        prefix = timed(plan.state(prefix).next[0], prefix)
    again, _ = played(plans()[name], prefix)
    assert (again.incumbent, again.race) == (state.incumbent, state.race)


def test_the_cost_of_an_epoch_is_learnt_of_a_configuration_and_of_its_values() -> None:
    rows: list[StoredTrial] = []
    for number, d in enumerate([False, True] * 4):
        one = (("a", 1 + number // 2 % 2), ("d", d))
        spec = RunSpec("race", number, one, number, None, 3)
        each = [12.0, 8.0, 8.0] if d else [6.0, 2.0, 2.0]
        rows.append(
            row_of(spec, number, state="paused", reported=(0.5,) * 3, curve={"seconds": each})
        )
    costs = Costs(Budget(SECONDS, seconds=True), rows)
    assert costs.epoch((("a", 1), ("d", True))) == 8.0
    slow, fast = (costs.epoch((("a", 3), ("d", d))) for d in (True, False))
    assert slow > 2.5 * fast
    assert costs.start == pytest.approx(4.0)
    assert costs.run((("a", 1), ("d", False)), 0, 10) == pytest.approx(24.0)
    assert costs.run((("a", 1), ("d", False)), 3, 10) == pytest.approx(14.0)
    running = replace(rows[0], state="running")
    assert costs.spent(running, until=10) == pytest.approx(10.0 + 14.0)


def test_before_any_run_has_stored_seconds_runs_start_all_the_same() -> None:
    for plan in plans().values():
        assert plan.state([]).next


def test_a_budget_that_does_not_pay_for_confirming_is_said_in_a_line() -> None:
    space = space_of(repeats=3, a=([1, 2, 3], 2), b=([0.1, 0.2], 0.1))
    Halving(space, epochs=12, budget=Budget(70))
    with pytest.raises(SettingsError, match="6 runs to confirm; give at least 1") as caught:
        Halving(space, epochs=12, budget=Budget(70), reserved=6)
    assert "\n" not in str(caught.value)
