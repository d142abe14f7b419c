"""A plan that works on a table sees the rows that a study has, and pays for new epochs only."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tables_fake import lines

from study.plan.plan import PlanState
from study.plan.results import StoredTrial
from study.plan.sweep import OneAtATime
from study.tuning.pruning import Margin

if TYPE_CHECKING:
    from meter import Draw
    from tables import Table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> "Table":
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from tables import Table

    return Table.of(lines(noise=0), "fake")


def sweep(draw: "Draw") -> OneAtATime:
    return OneAtATime(draw.space, images=draw.images)


def test_without_noise_the_sweep_finds_the_best_from_every_start(table: "Table") -> None:
    from simulation import simulate

    outcomes = simulate(table, sweep, 20)
    assert {outcome.answer for outcome in outcomes} == {int(table.truth.argmax())}
    runs = 3 * (1 + 2 + 1 + 1)
    assert {outcome.epochs for outcome in outcomes} == {runs * table.epochs}


def test_outcomes_depend_on_the_seed_alone(table: "Table") -> None:
    from simulation import simulate

    alone = simulate(table, sweep, 12, margin=Margin(), seed=3)
    assert simulate(table, sweep, 12, margin=Margin(), seed=3, processes=2) == alone
    assert simulate(table, sweep, 12, margin=Margin(), seed=4) != alone


def test_workers_change_neither_answer_nor_rows_that_count(table: "Table") -> None:
    from simulation import simulate

    alone = simulate(table, sweep, 12, margin=Margin())
    three = simulate(table, sweep, 12, margin=Margin(), workers=3)
    assert [one.answer for one in three] == [one.answer for one in alone]
    assert sum(one.epochs for one in three) >= sum(one.epochs for one in alone)
    assert three[0].seconds < sum(table.epochs * 0.32 for _ in range(15))


def test_a_pruned_run_costs_the_epochs_it_trained(table: "Table") -> None:
    from simulation import simulate

    eager = Margin(warmup=1, window=1, errors=0.0, least=0.02)
    pruned = simulate(table, sweep, 20, margin=eager)
    whole = simulate(table, sweep, 20)
    assert sum(one.epochs for one in pruned) < sum(one.epochs for one in whole)


def test_the_answer_at_a_limit_is_what_stood_before_more_was_trained(table: "Table") -> None:
    from simulation import drawn, simulate

    begun, decided = simulate(table, sweep, 1, limits=[4, 1000])[0].at
    start = drawn(table, 0, 1, 3).start
    assert table.configurations[begun] == start
    assert decided == table.truth.argmax()
    [cut] = simulate(table, sweep, 1, limits=[7])
    assert (cut.epochs, cut.stated) == (7, None)


class Paused(OneAtATime):
    """Every run of the sweep in two parts, where slots can ask for that."""

    seen: list[list[tuple[str, int]]]

    def state(self, rows: Sequence[StoredTrial]) -> PlanState:
        self.seen.append([(row.state, len(row.reported)) for row in rows])
        state = super().state(rows)
        half = {(row.configuration, row.repeat) for row in rows if row.state == "paused"}
        slots = [
            slot if (slot.configuration, slot.repeat) in half else replace(slot, epochs=2)
            for slot in state.next
        ]
        return replace(state, next=tuple(slots))


def test_a_resumed_run_is_one_row_and_pays_only_what_is_new(table: "Table") -> None:
    from simulation import simulate

    plans: list[Paused] = []

    def plan(draw: "Draw") -> Paused:
        plans.append(Paused(draw.space, images=draw.images))
        plans[-1].seen = []
        return plans[-1]

    [outcome] = simulate(table, plan, 1)
    assert outcome == simulate(table, sweep, 1)[0]
    assert len(plans[0].seen[-1]) == 15
    assert ("paused", 2) in plans[0].seen[1]


def test_a_repeat_that_the_table_lacks_is_an_error(table: "Table") -> None:
    from simulation import simulate
    from tables import TableError

    with pytest.raises(TableError, match="repeat 5, and the table has 4"):
        simulate(table, sweep, 1, repeats=6)
