"""The one-at-a-time sweep: which slots, what is best, what is selected, what is the answer."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_fakes import (
    EAGER,
    IMAGES,
    SMALL,
    Chance,
    Crew,
    counted,
    decided,
    fixed_scores,
    issued,
    new_study,
    played,
    row_of,
    space_of,
)

from study.errors import SpaceError
from study.plan.plan import PlanState
from study.plan.results import Configuration, StoredTrial, configuration
from study.plan.sweep import BEST, SELECTED, OneAtATime
from study.space.file import load
from study.space.search_space import SearchSpace
from study.tuning.pruning import Margin

TUTORIAL = load("mnist")
MEAN = "mean of last 3"
CHANCE = st.randoms(use_true_random=True)


def scores(**worth: list[float]) -> Any:
    """Scores that add up over hyperparameters, without any spread between the repeats."""

    def score(configuration: Configuration, repeat: int) -> float:
        space = {p.name: list(p.options) for p in TUTORIAL.hyperparameters}
        return sum(worth[name][space[name].index(value)] for name, value in configuration)

    return score


CLEAR = scores(
    filters=[0.1, 0.2, 0.3],
    k1=[0.03, 0.02, 0.01],
    k2=[0.01, 0.03, 0.02],
    dense=[0.01, 0.02, 0.03],
    dropout=[0.03, 0.02, 0.01],
)


def of(*values: Any) -> Configuration:
    return tuple(zip(TUTORIAL.start, values, strict=True))


def test_the_tutorials_space_without_a_tie_is_trained_in_this_order() -> None:
    plan_state, rows = played(OneAtATime(TUTORIAL), CLEAR)
    start = of(16, 4, 5, 32, 0.2)
    stages = [
        [of(8, 4, 5, 32, 0.2), of(32, 4, 5, 32, 0.2)],
        [of(32, 3, 5, 32, 0.2), of(32, 7, 5, 32, 0.2)],
        [of(32, 3, 3, 32, 0.2), of(32, 3, 7, 32, 0.2)],
        [of(32, 3, 5, 16, 0.2), of(32, 3, 5, 64, 0.2)],
        [of(32, 3, 5, 64, 0.1), of(32, 3, 5, 64, 0.3)],
    ]
    expected = [(start, repeat) for repeat in range(3)]
    expected += [(one, repeat) for stage in stages for repeat in range(3) for one in stage]
    assert [(row.configuration, row.repeat) for row in rows] == expected
    assert len(rows) == 33
    assert plan_state.complete
    assert plan_state.incumbent == of(32, 3, 5, 64, 0.1)
    assert [stage.name for stage in plan_state.stages] == list(TUTORIAL.start)


def test_a_reference_is_the_incumbent_of_its_stage_and_the_incumbent_has_none() -> None:
    _, rows = played(OneAtATime(TUTORIAL), CLEAR)
    assert {row.reference for row in rows[:3]} == {None}
    assert {row.reference for row in rows[3:9]} == {of(16, 4, 5, 32, 0.2)}
    assert {row.reference for row in rows[9:15]} == {of(32, 4, 5, 32, 0.2)}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["cheapest", "best"]), st.integers(1, 3))
def test_the_tutorials_space_never_takes_more_than_36_runs(
    seed: int, tie: Any, repeats: int
) -> None:
    space = replace(TUTORIAL, tie=tie, repeats=repeats)
    curves = Chance(seed)
    plan_state, rows = played(OneAtATime(space, images=IMAGES), lambda c, r: curves(c, r)[-1])
    assert plan_state.complete
    assert len(rows) in {repeats * 11, repeats * 12}
    assert plan_state.runs == plan_state.runs_expected == len(rows)
    assert len(set(issued_rows(rows))) == len(rows)


def issued_rows(rows: list[Any]) -> list[tuple[Configuration, int]]:
    return [(row.configuration, row.repeat) for row in rows]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["cheapest", "best"]), st.integers(1, 3))
def test_expected_runs_are_a_bound_that_only_falls(seed: int, tie: Any, passes: int) -> None:
    curves = Chance(seed)
    plan = OneAtATime(replace(SMALL, tie=tie, passes=passes), images=IMAGES)
    plan_state, rows = played(plan, lambda c, r: curves(c, r)[-1])
    expected = [plan.state(rows[:length]).runs_expected for length in range(len(rows) + 1)]
    assert expected[0] == 2 + 8 * passes + (0 if tie == "best" else 2)
    assert expected == sorted(expected, reverse=True)
    assert expected[-1] == plan_state.runs == len(rows)


ONE = space_of(a=([1, 2, 3], 2))


def outcome(
    table: dict[Any, list[float]], space: SearchSpace = ONE, images: int | None = None
) -> tuple[Any, Any, PlanState]:
    """What is best and selected in the first stage, and where the sweep stands then."""
    repeats = len(next(iter(table.values())))
    plan = OneAtATime(space, repeats, images)
    plan_state, _ = played(plan, fixed_scores({(key,): value for key, value in table.items()}))
    first = plan_state.stages[0]
    assert first.best is not None
    assert first.selected is not None
    return first.best.value, first.selected.value, plan_state


def test_the_best_mean_is_selected() -> None:
    assert outcome({1: [0.90, 0.91], 2: [0.92, 0.93], 3: [0.95, 0.96]})[:2] == (3, 3)


def test_the_incumbent_is_carried_where_it_ties_with_the_best() -> None:
    # paired differences 0.00 and 0.02: 0.01 +- 0.01
    assert outcome({1: [0.90, 0.91], 2: [0.95, 0.93], 3: [0.95, 0.95]})[:2] == (3, 2)


def test_the_incumbent_is_not_carried_where_it_is_just_behind_a_tie() -> None:
    assert outcome({1: [0.8, 0.8], 2: [0.95, 0.92], 3: [0.96, 0.95]})[:2] == (3, 3)


def test_else_the_cheapest_that_ties_with_the_best_is_carried() -> None:
    assert outcome({1: [0.96, 0.94], 2: [0.80, 0.80], 3: [0.95, 0.96]})[:2] == (3, 1)


def test_a_tie_is_judged_in_pairs() -> None:
    # The means are far closer than the spread of either, but every pair says the same.
    assert outcome({1: [0.5, 0.6], 2: [0.80, 0.900], 3: [0.81, 0.911]})[:2] == (3, 3)


def test_of_equal_means_the_incumbent_is_the_best_then_the_cheapest() -> None:
    assert outcome({1: [0.94, 0.96], 2: [0.95, 0.95], 3: [0.96, 0.94]})[:2] == (2, 2)
    assert outcome({1: [0.94, 0.96], 2: [0.90, 0.90], 3: [0.96, 0.94]})[:2] == (1, 1)


def test_the_best_is_carried_whatever_it_ties_with_where_the_space_says_so() -> None:
    table = {1: [0.90, 0.91], 2: [0.95, 0.93], 3: [0.95, 0.95]}
    best, selected, plan_state = outcome(table, replace(ONE, tie="best"))
    assert (best, selected) == (3, 3)
    assert plan_state.complete
    assert len(plan_state.stages) == 1


def test_one_repeat_ties_within_what_the_validation_images_allow() -> None:
    # At 0.95 on 1,000 images the error of a difference is sqrt(2 * 0.95 * 0.05 / 2000) = 0.0069.
    assert outcome({1: [0.9], 2: [0.947], 3: [0.953]}, images=1000)[:2] == (3, 2)
    assert outcome({1: [0.9], 2: [0.943], 3: [0.953]}, images=1000)[:2] == (3, 3)


def test_without_spread_and_images_only_equal_means_tie() -> None:
    assert outcome({1: [0.9], 2: [0.949], 3: [0.95]})[:2] == (3, 3)
    assert outcome({1: [0.9, 0.9], 2: [0.949, 0.949], 3: [0.95, 0.95]})[:2] == (3, 3)


def test_repeats_that_agree_take_their_spread_from_the_other_options() -> None:
    # 3 is ahead of 2 by 0.01 in every pair, but 1 shows how far apart two pairs can be.
    table = {1: [0.90, 0.82], 2: [0.94, 0.94], 3: [0.95, 0.95]}
    assert outcome(table)[:2] == (3, 2)


def test_the_spread_of_an_earlier_stage_is_remembered() -> None:
    space = space_of(a=([1, 2], 1), b=([1, 2], 1))
    loud = {(1, 1): [0.90, 0.90], (2, 1): [0.80, 0.88], (1, 2): [0.91, 0.91]}
    quiet = loud | {(2, 1): [0.80, 0.801]}
    for table, carried in ((loud, 1), (quiet, 2)):
        table |= {(2, 2): [0.5, 0.5]}
        plan_state, _ = played(OneAtATime(space), fixed_scores(table))
        assert plan_state.stages[1].selected is not None
        assert plan_state.stages[1].selected.value == carried


def test_the_spread_of_every_stage_is_remembered() -> None:
    space = space_of(a=([1, 2], 1), b=([1, 2], 1), c=([1, 2], 1))
    quiet = {
        (1, 1, 1): [0.90, 0.90],
        (2, 1, 1): [0.80, 0.80],
        (1, 2, 1): [0.80, 0.801],
        (1, 1, 2): [0.91, 0.91],
        (1, 2, 2): [0.5, 0.5],
    }
    for table, carried in ((quiet | {(1, 2, 1): [0.80, 0.88]}, 1), (quiet, 2)):
        plan_state, _ = played(OneAtATime(space), fixed_scores(table))
        assert plan_state.stages[2].selected is not None
        assert plan_state.stages[2].selected.value == carried


TWO = space_of(a=([1, 2], 1), b=([1, 2], 1))
TIE = {(1, 1): [0.90, 0.92], (2, 1): [0.92, 0.92], (1, 2): [0.95, 0.95]}


def test_best_means_that_were_not_selected_are_trained_together_at_the_end() -> None:
    plan_state, rows = played(OneAtATime(TWO), fixed_scores(TIE | {(2, 2): [0.97, 0.98]}))
    assert [row.configuration for row in rows[-2:]] == [(("a", 2), ("b", 2))] * 2
    assert {(row.stage, row.option, row.reference) for row in rows[-2:]} == {
        ("combined", BEST, None)
    }
    assert plan_state.incumbent == (("a", 2), ("b", 2))
    assert [option.value for option in plan_state.stages[-1].options] == [SELECTED, BEST]
    assert plan_state.score is not None
    assert plan_state.score.mean == pytest.approx(0.975)


def test_the_best_means_together_replace_the_selected_only_by_more_than_a_tie() -> None:
    plan_state, _ = played(OneAtATime(TWO), fixed_scores(TIE | {(2, 2): [0.95, 0.97]}))
    last = plan_state.stages[-1]
    assert last.best is not None
    assert last.best.value == BEST
    assert last.options[0].tied
    assert plan_state.incumbent == (("a", 1), ("b", 2))
    assert plan_state.score is not None
    assert plan_state.score.mean == pytest.approx(0.95)


def test_the_best_means_together_are_left_where_it_is_worse() -> None:
    plan_state, _ = played(OneAtATime(TWO), fixed_scores(TIE | {(2, 2): [0.80, 0.80]}))
    assert plan_state.incumbent == (("a", 1), ("b", 2))


def test_a_combination_that_was_trained_already_is_not_trained_again() -> None:
    # a: 2 is best, 1 selected; b: 1 is best and selected, so (2, 1) is known from the first stage.
    table = {(1, 1): [0.90, 0.92], (2, 1): [0.92, 0.92], (1, 2): [0.5, 0.5]}
    plan_state, rows = played(OneAtATime(TWO), fixed_scores(table))
    assert len(rows) == 6
    assert plan_state.complete
    assert plan_state.stages[-1].kind == "combined"


VALLEY = {(1, 1): [0.90, 0.91], (2, 1): [0.88, 0.89], (1, 2): [0.92, 0.93], (2, 2): [0.95, 0.96]}
"""From (1, 1) the best is found only by who comes back to ``a`` once ``b`` has moved."""


def test_a_second_pass_goes_round_again_where_the_first_one_moved_the_optimum() -> None:
    space = replace(TWO, passes=3)
    once, _ = played(OneAtATime(TWO), fixed_scores(VALLEY))
    assert once.incumbent == (("a", 1), ("b", 2))
    again, rows = played(OneAtATime(space), fixed_scores(VALLEY))
    assert again.incumbent == (("a", 2), ("b", 2))
    assert [stage.name for stage in again.stages] == ["a", "b", "a (pass 2)", "b (pass 2)"]
    assert len(rows) == again.runs == 8  # and no third pass: the second one's end changed nothing


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from(["cheapest", "best"]))
def test_whatever_is_trained_is_of_the_space(seed: int, passes: int, tie: Any) -> None:
    plan = OneAtATime(replace(SMALL, passes=passes, tie=tie), images=IMAGES)
    _, rows = played(plan, lambda c, r: Chance(seed)(c, r)[-1])
    options = {p.name: p.options for p in SMALL.hyperparameters}
    assert all(value in options[name] for row in rows for name, value in row.configuration)


def test_there_is_no_second_pass_where_the_first_one_changed_nothing() -> None:
    flat = {(1, 1): [0.95, 0.96]} | {key: [0.9, 0.91] for key in [(1, 2), (2, 1), (2, 2)]}
    state, _ = played(OneAtATime(replace(TWO, passes=2)), fixed_scores(flat))
    assert [stage.name for stage in state.stages] == ["a", "b"]


def test_while_a_stage_is_open_the_answer_is_the_one_carried_into_it() -> None:
    plan = OneAtATime(TUTORIAL)
    assert plan.state([]).incumbent is None
    plan_state, _ = played(plan, CLEAR, runs=1)
    assert plan_state.incumbent == configuration(TUTORIAL.start)
    assert plan_state.score is not None
    assert plan_state.score.repeats == 1
    plan_state, _ = played(plan, CLEAR, runs=10)
    assert plan_state.incumbent == of(32, 4, 5, 32, 0.2)


def test_a_range_is_refused() -> None:
    parameter = {"low": 1, "high": 3}
    table = ONE.to_dict() | {"hyperparameters": {"a": parameter}}
    with pytest.raises(SpaceError, match=r"hyperparameters\.a: is a range"):
        OneAtATime(SearchSpace.from_dict(table))


def test_hyperparameters_may_be_named_like_stages() -> None:
    space = space_of(best=([1, 2], 1), search=([1, 2], 1))
    table = {(1, 1): [0.1, 0.1], (2, 1): [0.2, 0.2], (2, 2): [0.3, 0.3]}
    plan_state, rows = played(OneAtATime(space), fixed_scores(table))
    assert plan_state.complete
    assert len(rows) == 6
    assert OneAtATime(space).state([]).runs_expected == 8


def test_more_repeats_train_only_what_is_missing_and_decide_again() -> None:
    _, rows = played(OneAtATime(TWO), fixed_scores(TIE | {(2, 2): [0.97, 0.98]}))
    more = {(1, 1): 0.99, (2, 1): 0.50, (1, 2): 0.95, (2, 2): 0.5}
    table = {k: [*v, more[k]] for k, v in (TIE | {(2, 2): [0.97, 0.98]}).items()}
    plan_state, longer = played(OneAtATime(TWO, repeats=3), fixed_scores(table), rows)
    assert [(row.repeat, row.stage) for row in longer[len(rows) :]] == [
        (2, "a"),
        (2, "a"),
        (2, "b"),
    ]
    assert plan_state.stages[0].best is not None
    assert plan_state.stages[0].best.value == 1
    assert plan_state.complete


def test_more_repeats_train_nothing_more_of_what_was_eliminated() -> None:
    plan = lambda: OneAtATime(SMALL, images=IMAGES)  # noqa: E731 - a plan without memory
    study = new_study()
    before = Crew(study, plan, Chance(7), margin=EAGER).play()
    gone = {o.configuration for s in before.stages for o in s.options if o.state == "eliminated"}
    assert gone
    more = lambda: OneAtATime(SMALL, repeats=4, images=IMAGES)  # noqa: E731
    after = Crew(study, more, Chance(7), margin=EAGER).play()
    assert after.complete
    stage = after.stages[0]
    assert all(option.state != "open" for option in stage.options)
    eliminated = [o for o in stage.options if o.configuration in gone]
    assert all(len(option.rows) <= 2 for option in eliminated)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    CHANCE,
    st.integers(1, 4),
    st.sampled_from([None, EAGER]),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([0.0, 0.1]),
)
def test_any_order_and_any_interruption_lead_to_the_same_slots_and_decisions(
    seed: int,
    chance: random.Random,
    workers: int,
    margin: Margin | None,
    failing: int,
    breaks: float,
) -> None:
    def plan() -> OneAtATime:
        return OneAtATime(SMALL, images=IMAGES)

    def fails(configuration: Configuration, repeat: int) -> bool:
        """Some fail in every repeat, others in the second one."""
        draw = random.Random(f"{seed}{configuration}").randrange(8)
        return draw < failing and (draw == 0 or repeat == 1)

    calm = Crew(new_study(), plan, Chance(seed), margin=margin, fails=fails).play()
    study = new_study()
    crew = Crew(study, plan, Chance(seed), chance, workers, margin, fails, breaks)
    wild = crew.play()
    assert counted(wild) == counted(calm)
    assert decided(wild) == decided(calm)
    assert max(Counter(issued(study)).values()) == 1


WAITING = {(1, 1): [0.9, 0.9], (2, 1): [0.8, 0.95], (2, 2): [0.5, 0.5], (1, 2): [0.6, 0.6]}


def waiting(repeat: int) -> list[StoredTrial]:
    """The first stage of ``TWO``, of which the second option's ``repeat`` is still running."""
    _, rows = played(OneAtATime(TWO), fixed_scores(WAITING), runs=4)
    return [
        replace(row, state="running", value=None)
        if (row.option, row.repeat) == (2, repeat)
        else row
        for row in rows
    ]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), CHANCE, st.integers(2, 4))
def test_asks_before_any_run_finishes_give_different_slots(
    seed: int, chance: random.Random, workers: int
) -> None:
    plan = OneAtATime(SMALL, images=IMAGES)
    curves = Chance(seed)
    _, rows = played(plan, lambda c, r: curves(c, r)[-1], runs=chance.randrange(10))
    given: list[Any] = []
    while len(given) < workers and (slots := plan.state([*rows, *given]).next):
        given.append(row_of(slots[0], len(rows) + len(given)))
    asked = [(row.configuration, row.repeat) for row in [*rows, *given]]
    assert len(set(asked)) == len(asked)
