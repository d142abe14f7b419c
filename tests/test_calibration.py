"""Tables whose truth is known, what a recorded table lets know of its truth, and a calibration."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tables_fake import lines, written

from study.space import file as space_file


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def test_a_synthetic_table_has_the_truth_of_new_images_and_a_pool_that_is_a_sample() -> None:
    from synthetic_table import RECIPES, table

    made = [table(space_file.load("digits"), seed, "digits") for seed in range(6)]
    for one in made:
        assert np.ptp(one.test_acc, axis=1).max() == 0
        assert (one.images, one.pool) == (479, 1437)
    off = [one.val_acc[:, :, -1].mean() - one.truth.mean() for one in made]
    recipe = RECIPES["digits"]
    assert np.std(off) < 3 * np.sqrt(recipe.error / recipe.pool)
    assert max(map(abs, off)) > 0.001


def test_early_epochs_of_a_misleading_table_say_less_of_its_truth() -> None:
    from synthetic_table import table

    def said(like: str) -> float:
        held = [table(space_file.load("digits"), seed, like) for seed in range(3)]
        each = [np.corrcoef(one.val_acc[:, :, 1].mean(axis=1), one.truth)[0, 1] for one in held]
        return float(np.mean(each))

    assert said("misleading") < said("digits") - 0.1


def test_what_a_table_lets_know_of_its_truth_holds_it_and_is_closer_than_its_test_means() -> None:
    from known import known
    from synthetic_table import table

    exact = table(space_file.load("digits"), 4, "digits")
    assert known(exact) is None
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.007, exact.test_acc.shape)
    images = 360
    noisy = replace(exact, test_acc=np.round((exact.test_acc + luck) * images) / images)
    draws = known(noisy)
    assert draws is not None
    assert draws.shape == (400, 243)

    def behind(accuracies: np.ndarray) -> np.ndarray:
        return accuracies.mean(axis=-1, keepdims=True) - accuracies

    truth, drawn, means = behind(exact.truth), behind(draws), behind(noisy.truth)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    assert 0.85 < np.mean((low <= truth) & (truth <= high)) <= 1
    assert np.abs(drawn.mean(axis=0) - truth).mean() < 0.7 * np.abs(means - truth).mean()


def test_the_pool_of_a_table_is_read_and_one_that_differs_refused(tmp_path: Path) -> None:
    from tables import TableError, load

    with_pool = [line | {"pool": 1500} for line in lines()]
    path = written(tmp_path / "table.jsonl", with_pool)
    assert load(path).pool == 1500
    with_pool[3]["pool"] = 1400
    with pytest.raises(TableError, match="pool: differs from line to line"):
        load(written(path, with_pool))


def test_a_calibration_holds_each_study_against_the_truth_of_its_own_table() -> None:
    from calibration import judged
    from simulation import Outcome, Stated

    easy, hard = np.array([0.98, 0.97]), np.array([0.90, 0.95])
    sure = Stated(0.97, (0.97, 0.99), (0.0, 0.001), "sure")
    found = judged([(Outcome(0, 10, stated=sure), easy), (Outcome(0, 20, stated=sure), hard)], 0.2)
    assert found["regret"].value == pytest.approx(2.5)
    for key in ("accuracy interval holds", "distance interval holds", "of these right"):
        assert found[key].value == 0.5
    assert found["ended sure"].value == 1
    [fifth] = found["probability"]
    assert (fifth["stated"], fifth["true"].value) == (pytest.approx(0.97), 0.5)
