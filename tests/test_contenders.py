"""Contenders pay for every epoch they train and answer with what they have seen."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tables_fake import lines

from study.errors import SettingsError

if TYPE_CHECKING:
    from tables import Table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> "Table":
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from tables import Table

    return Table.of(lines(noise=0, epochs=12), "fake")


def test_without_noise_the_tutorial_and_the_whole_grid_find_the_best(table: "Table") -> None:
    from replay_contenders import random_search, tutorial, whole_budget
    from simulation import run

    best = int(table.truth.argmax())
    of_tutorial = (3 + 2 + 2) * 3 * 12
    for procedure, epochs in ((tutorial, of_tutorial), (random_search, 12 * 3 * 12)):
        outcomes = run(table, procedure, 10)
        assert {(one.answer, one.epochs) for one in outcomes} == {(best, epochs)}
    assert whole_budget(table) == (1 + 2 + 1 + 1) * 3 * 12


def test_a_halving_of_27_with_three_confirmed_costs_144_epochs(table: "Table") -> None:
    from itertools import product

    from replay_contenders import halving
    from simulation import run
    from tables import Table

    runs = [
        {
            "params": {"a": a, "b": b, "c": c},
            "repeat": repeat,
            "val_acc": [(a + b + c + epoch) / 60 for epoch in range(12)],
            "test_acc": (a + b + c) / 60,
        }
        for a, b, c in product(range(3), repeat=3)
        for repeat in range(3)
    ]
    cube = Table.of(runs, "cube")
    [outcome] = run(cube, partial(halving, configurations=27, confirmed=3), 1)
    assert (outcome.epochs, outcome.answer) == (144, 26)


@pytest.mark.parametrize("budget", [40, 100, 252])
def test_who_knows_the_budget_stays_within_it(table: "Table", budget: int) -> None:
    from replay_contenders import budgeted
    from simulation import run
    from tables import Table

    many = Table.of(lines(noise=0, epochs=12, repeats=8), "many")
    for name, versions in budgeted(many, budget).items():
        for procedure in versions.values():
            if name == "study halving" and budget == 40:
                with pytest.raises(SettingsError, match="does not pay for"):
                    run(many, procedure, 1)
            else:
                assert run(many, procedure, 1)[0].epochs <= budget


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_optuna_s_answer_is_its_best_complete_trial(table: "Table", sampler: str) -> None:
    from replay_contenders import optuna_search
    from simulation import run

    procedure = partial(optuna_search, sampler=sampler, pruner="median")
    [outcome] = run(table, procedure, 1, limits=[100, 2000])
    assert outcome.answer == table.truth.argmax()
    assert outcome.epochs <= 2000
