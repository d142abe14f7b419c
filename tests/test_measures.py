"""Regret with standard errors, and stated numbers held against the truth."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tables_fake import lines

if TYPE_CHECKING:
    from tables import Table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> "Table":
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from tables import Table

    return Table.of(lines(), "fake")


def test_regret_is_in_points_of_the_mean_test_accuracy(table: "Table") -> None:
    from measures import regrets
    from simulation import Outcome

    best = int(table.truth.argmax())
    missed = regrets(table, [Outcome(place, 1) for place in range(len(table.truth))])
    assert missed[best] == 0
    assert missed[0] == pytest.approx(100 * np.mean(table.test_acc[best] - table.test_acc[0]))


def test_the_truth_is_that_of_the_repeats_that_the_study_has_not_seen(table: "Table") -> None:
    from measures import regrets
    from simulation import Outcome

    [missed] = regrets(table, [Outcome(0, 1, unused=(2, 3))])
    rest = table.test_acc[:, 2:4].mean(axis=1)
    assert missed == pytest.approx(100 * (rest.max() - rest[0]))


def test_shares_and_means_have_their_standard_errors(table: "Table") -> None:
    from measures import measured
    from simulation import Outcome

    best, worst = int(table.truth.argmax()), int(table.truth.argmin())
    outcomes = [Outcome(best, 10), Outcome(best, 20), Outcome(best, 30), Outcome(worst, 40)]
    found = measured(table, outcomes)
    assert (found["within 0.1"].value, found["within 0.1"].error) == (0.75, math.sqrt(0.75 / 16))
    assert found["epochs"].value == 25
    assert found["epochs"].error == pytest.approx(np.std([10, 20, 30, 40], ddof=1) / 2)
    gap = 100 * (table.truth[best] - table.truth[worst])
    assert found["regret"].value == pytest.approx(gap / 4)
    assert 0 < found["95th percentile"].value <= gap


def test_probabilities_and_intervals_are_held_against_the_truth(table: "Table") -> None:
    from measures import judged
    from simulation import Outcome, Stated

    best, worst = int(table.truth.argmax()), int(table.truth.argmin())
    validation, test = table.val_acc[:, :, -1].mean(axis=1), table.truth

    def stating(answer: int, probability: float) -> Outcome:
        at = validation[best]
        stated = Stated(probability, (at - 1e-3, at + 1e-3), (0.0, 0.001), "sure")
        return Outcome(answer, 1, 1.0, stated)

    outcomes = [*[stating(best, 0.9)] * 3, stating(worst, 1.0), stating(best, 0.5), Outcome(0, 1)]
    found = judged(table, outcomes, tolerance=0.2)
    assert found["stated"].value == pytest.approx(5 / 6)
    assert found["accuracy interval holds the validation truth"].value == pytest.approx(4 / 5)
    near = [abs(test[one] - validation[best]) <= 1e-3 for one in (best, worst)]
    expected = (4 * near[0] + near[1]) / 5
    assert found["accuracy interval holds the test truth"].value == pytest.approx(expected)
    assert found["distance interval holds the test truth"].value == pytest.approx(4 / 5)
    middle, high = found["probability"]
    assert (middle["studies"], middle["came true"].value) == (1, 1.0)
    assert (high["studies"], high["stated"]) == (4, pytest.approx(0.925))
    assert high["came true"].value == 0.75
    assert found["ended"]["sure"]["came true"].value == pytest.approx(4 / 5)


def test_what_states_nothing_is_not_judged(table: "Table") -> None:
    from measures import judged
    from simulation import Outcome

    assert judged(table, [Outcome(0, 1)], 0.2) == {}
