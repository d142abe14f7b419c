"""Trials say what is stored; spreads say how sure a mean is."""

import math
import statistics
from itertools import pairwise
from random import Random

import numpy as np
import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.pruners import HyperbandPruner
from optuna.storages import InMemoryStorage
from plan_fakes import EAGER, SMALL, Chance, Crew, new_study

from study.plan.plan import Plan
from study.plan.results import StoredTrial
from study.plan.statistics import Spread, image_floor, sample_variance
from study.plan.sweep import OneAtATime
from study.storage.trials import StoredTrials

accuracies = st.integers(0, 1000).map(lambda images: images / 1000)
repeats = st.lists(accuracies, min_size=1, max_size=5)


def plan() -> Plan:
    return OneAtATime(SMALL)


def begun(runs: int) -> optuna.Study:
    """A study of which some runs are complete and one is running."""
    study = new_study()
    Crew(study, plan, Chance(1)).play(runs)
    study.ask()
    return study


def test_a_row_holds_what_the_trial_stores() -> None:
    study = begun(2)
    first, second, third = StoredTrials()(study)
    assert [row.state for row in (first, second, third)] == ["complete", "running", "running"]
    assert (first.stage, first.option, first.repeat) == ("a", 2, 0)
    assert first.params == {"a": 2, "b": 0.1, "c": False}
    assert first.value == first.reported[-1] == study.trials[0].value
    assert first.reported == Chance(1)(first.configuration, 0)
    assert first.ended is not None
    assert second.ended is None


def test_a_trial_without_a_ticket_is_no_row() -> None:
    study = new_study()
    study.ask()
    assert StoredTrials()(study) == []


def test_epochs_are_in_the_order_of_their_steps() -> None:
    study = begun(0)
    for step in (3, 1, 2):
        study._storage.set_trial_intermediate_value(study.trials[0]._trial_id, step, step / 10)
    assert StoredTrials()(study)[0].reported == (0.1, 0.2, 0.3)


def test_a_pruned_value_is_no_value() -> None:
    study = new_study()
    Crew(study, plan, Chance(3), margin=EAGER).play()
    pruned = [row for row in StoredTrials()(study) if row.state == "pruned"]
    assert pruned
    assert all(row.value is None and row.reported for row in pruned)


def test_only_rows_of_trials_that_changed_are_converted_again() -> None:
    study = begun(3)
    rows = StoredTrials()
    before = rows(study)
    changed = next(row for row in before if row.state == "running")
    study._storage.set_trial_intermediate_value(changed.trial_id, 99, 0.5)
    after = rows(study)
    same = [one is other for one, other in zip(before, after, strict=True)]
    assert same == [row is not changed for row in before]
    assert after[changed.number].reported[-1] == 0.5


def test_rows_of_another_study_are_not_mistaken_for_those_of_the_first() -> None:
    rows = StoredTrials()
    one, other = begun(3), new_study()
    Crew(other, plan, Chance(2)).play(3)
    assert rows(one)[0] != rows(other)[0]
    assert rows(one) == StoredTrials()(one)
    assert rows(other) == StoredTrials()(other)


def test_a_hyperband_study_hides_no_rows() -> None:
    # Hyperband takes brackets from the name: a random one may put all trials into one bracket.
    study = optuna.create_study(
        direction="maximize", study_name="brackets", storage=InMemoryStorage()
    )
    Crew(study, plan, Chance(1)).play(5)
    study.pruner = HyperbandPruner(1, max_resource=9)
    last = study.trials[-1]
    study.pruner.prune(study, last)  # sets the brackets up
    part = optuna.pruners._filter_study(study, last)
    assert len(part.trials) < len(study.trials)
    assert len(StoredTrials()(part)) == len(study.trials)


def test_a_standard_error_is_that_of_the_sample() -> None:
    values = [0.91, 0.93, 0.92]
    score = Spread(None).score(values)
    assert score.mean == pytest.approx(0.92)
    assert score.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(3))


def test_a_difference_is_taken_repeat_by_repeat() -> None:
    difference = Spread(None).difference([0.92, 0.95, 0.91], [0.91, 0.93, 0.91])
    assert difference.pairs == 3
    assert difference.mean == pytest.approx(0.01)
    assert difference.standard_error == pytest.approx(0.01 / math.sqrt(3))
    assert not difference.tie


def test_a_difference_within_one_standard_error_is_a_tie() -> None:
    assert Spread(None).difference([0.92, 0.90], [0.90, 0.90]).tie
    assert not Spread(None).difference([0.92, 0.91], [0.90, 0.90]).tie


def test_one_repeat_takes_the_spread_of_the_study() -> None:
    spread = Spread(None)
    spread.learn([([0.90, 0.92], [0.90, 0.90])])
    assert spread.score([0.9]).standard_error == pytest.approx(math.sqrt(0.0002))
    assert spread.difference([0.9], [0.8]).standard_error == pytest.approx(math.sqrt(0.0002))


def test_one_repeat_alone_has_no_error_and_nothing_is_called_better_by_it() -> None:
    spread = Spread(None)
    spread.learn([([0.4], [0.5])])
    assert spread.score([0.9]).standard_error is None
    difference = spread.difference([0.9], [0.1])
    assert (difference.standard_error, difference.tie) == (None, True)


def test_repeats_that_agree_exactly_where_none_differ_have_an_error_of_nothing() -> None:
    assert Spread(None).score([0.9, 0.9]).standard_error == 0


def test_repeats_that_agree_exactly_take_the_spread_of_the_study() -> None:
    spread = Spread(None)
    spread.learn([([0.90, 0.92], None), ([0.5, 0.5], None)])
    assert spread.score([0.9, 0.9]).standard_error == pytest.approx(math.sqrt(0.0002 / 2) / 2**0.5)


def test_no_spread_anywhere_leaves_what_the_images_allow() -> None:
    floor = math.sqrt(0.9 * 0.1 / (2 * 1000))
    assert Spread(1000).score([0.9]).standard_error == pytest.approx(floor)
    assert Spread(1000).score([0.9] * 4).standard_error == pytest.approx(floor / 2)
    pair = Spread(1000).difference([0.9], [0.9])
    assert pair.standard_error == pytest.approx(math.sqrt(2) * floor)


def test_a_perfect_score_is_not_a_certain_one() -> None:
    assert 0 < image_floor(1.0, 360) == image_floor(1 - 1 / 360, 360) < image_floor(0.9, 360)


def test_a_difference_in_the_last_bit_is_no_spread() -> None:
    assert sample_variance([0.1 + 0.2, 0.3]) == 0


@given(repeats)
def test_a_variance_is_the_one_of_the_textbook(values: list[float]) -> None:
    expected = statistics.variance(values) if len(values) > 1 else 0
    assert sample_variance(values) == pytest.approx(expected, abs=1e-15)


@given(repeats, st.integers(1, 10_000), st.randoms(use_true_random=True))
def test_a_score_does_not_depend_on_the_order_of_repeats(
    values: list[float], images: int, chance: Random
) -> None:
    score = Spread(images).score(values)
    chance.shuffle(values)
    assert Spread(images).score(values) == score
    assert score.standard_error >= image_floor(score.mean, images) / math.sqrt(len(values))


@given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=5), st.integers(1, 10_000))
def test_a_difference_the_other_way_round_is_the_same_one(
    pairs: list[tuple[float, float]], images: int
) -> None:
    ones, others = zip(*pairs, strict=True)
    forth = Spread(images).difference(ones, others)
    back = Spread(images).difference(others, ones)
    assert forth.mean == -back.mean
    assert forth.standard_error == pytest.approx(back.standard_error)
    assert forth.tie == back.tie


@given(st.lists(repeats, min_size=1, max_size=5), st.randoms(use_true_random=True))
def test_what_is_pooled_depends_neither_on_the_order_nor_on_when_it_is_asked(
    groups: list[list[float]], chance: Random
) -> None:
    assume(any(len(group) > 1 for group in groups))
    at_once, bit_by_bit = Spread(None), Spread(None)
    for group in groups:
        bit_by_bit.learn([(group, None)])
        bit_by_bit.score([0.5])
    chance.shuffle(groups)
    for group in groups:
        at_once.learn([(group, None)])
    assert at_once.score([0.5]).standard_error == pytest.approx(
        bit_by_bit.score([0.5]).standard_error
    )


def test_rows_come_in_the_order_of_their_trials() -> None:
    rows: list[StoredTrial] = StoredTrials()(begun(4))
    assert all(one.number < other.number for one, other in pairwise(rows))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_equal_options_are_rarely_called_different(seed: int) -> None:
    """Of 40 stages with three equal options at most 8; 2 are expected by chance."""
    rng = np.random.default_rng(seed)
    clear = 0
    for _ in range(40):
        spread, values = Spread(None), rng.normal(0.9, 0.01, (3, 3)).tolist()
        spread.learn([(values[0], None), (values[1], values[0]), (values[2], values[0])])
        pairs = [(0, 1), (0, 2), (1, 2)]
        clear += any(spread.difference(values[a], values[b], 3).clear for a, b in pairs)
    assert clear <= 8


def test_an_interval_is_about_new_images_and_not_below_what_the_shared_pool_allows() -> None:
    values = [0.9 + place / 1e4 for place in range(30)]
    alone, shared = Spread(500).score(values), Spread(500, pool=1000).score(values)
    assert alone.interval is not None
    assert shared.interval is not None
    assert shared.interval[1] - shared.interval[0] > 2 * 1.96 * (0.9 * 0.1 / 1000) ** 0.5
    assert alone.interval[1] - alone.interval[0] < shared.interval[1] - shared.interval[0]
