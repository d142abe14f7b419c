"""What was decided and why, in sentences that a person can check against the numbers."""

from dataclasses import replace

import pytest
from fakes import IMAGES, drive, space
from optuna.storages import InMemoryStorage
from plan_fakes import EAGER, fixed_scores, played, space_of

from study.plan.contenders import Contender
from study.plan.plan import Confirmation, Option, PlanState, Stage
from study.plan.race.result import RaceResult
from study.plan.results import Configuration
from study.plan.search import Search
from study.plan.statistics import Difference, Score
from study.plan.sweep import OneAtATime
from study.space.metric import ACCURACY
from study.text import sentences as words
from study.text import units
from study.text.view import labels, views
from study.tuning.pruning import SweepPruner


def stage(scores: dict[int, list[float]], start: int, tie: str = "cheapest") -> Stage:
    """The only swept stage of a hyperparameter whose options have these scores."""
    given = space_of(filters=(list(scores), start))
    table = given.to_dict() | {"tie": tie}
    plan = OneAtATime(type(given).from_dict(table))
    plan_state, _ = played(plan, fixed_scores({(value,): held for value, held in scores.items()}))
    return plan_state.stages[0]


def test_a_tie_says_who_is_ahead_by_how_much_and_why_the_other_is_carried() -> None:
    found = stage({16: [0.97, 0.98], 32: [0.972, 0.979]}, start=16)
    assert words.outcome(found) == (
        "32 is ahead of 16 by 0.05 ± 0.15 points: a tie; 16 is selected because it is the "
        "incumbent and cheaper."
    )


def test_of_two_that_beat_the_start_and_tie_the_cheaper_one_is_carried_for_that() -> None:
    found = stage({8: [0.97, 0.98], 16: [0.972, 0.979], 32: [0.9, 0.91]}, start=32)
    assert words.outcome(found) == (
        "16 is ahead of 8 by 0.05 ± 0.11 points: a tie; 8 is selected because it is cheaper."
    )


def test_where_the_best_is_carried_whatever_ties_its_mean_is_the_reason() -> None:
    found = stage({8: [0.97, 0.98], 16: [0.972, 0.979]}, start=8, tie="best")
    assert words.outcome(found).endswith("16 is selected because its mean is better.")


def test_a_clear_difference_needs_no_reason() -> None:
    found = stage({16: [0.90, 0.91], 32: [0.95, 0.962]}, start=16)
    assert words.outcome(found) == ("32 is better than 16 by 5.10 ± 0.10 points, and is selected.")


def test_equal_means_are_no_victory() -> None:
    found = stage({16: [0.97, 0.98], 32: [0.98, 0.97]}, start=16)
    assert words.outcome(found).startswith("16 and 32 have the same mean (0.00 ± 1.00 points): a ")


def test_an_eliminated_option_says_how_far_behind_it_was_and_when() -> None:
    wide = space(hyperparameters={"width": {"options": [1, 2], "start": 2}})
    plan = OneAtATime(wide, images=IMAGES)
    plan_state = drive(InMemoryStorage(), plan=plan, pruner=SweepPruner(IMAGES, EAGER))
    (said,) = words.eliminated(plan_state.stages[0])
    assert said.startswith("1: behind by 1")
    assert said.endswith(" points at epoch 1, in repeat 1")
    assert words.outcome(plan_state.stages[0]) == "2 is selected: no other option has a mean."


def test_an_open_stage_says_how_much_of_it_is_known() -> None:
    plan = OneAtATime(space_of(filters=([16, 32], 16)))
    scores = fixed_scores({(16,): [0.9, 0.91], (32,): [0.95, 0.96]})
    plan_state, _ = played(plan, scores, runs=2)
    assert words.outcome(plan_state.stages[0]) == "Open: 1 of 2 options are known so far."


def test_all_best_means_together_are_compared_with_the_selected_values() -> None:
    plan = OneAtATime(space_of(a=([1, 2], 1), b=([1, 2], 1)))
    table = {
        (1, 1): [0.90, 0.92],
        (2, 1): [0.91, 0.92],
        (1, 2): [0.91, 0.92],
        (2, 2): [0.95, 0.975],
    }
    plan_state, _ = played(plan, fixed_scores(table))
    assert words.outcome(plan_state.stages[-1]) == (
        "All best means together are better than the selected values by 5.25 ± 0.43 points, and "
        "are selected."
    )
    assert set(labels(plan_state.stages[-1]).values()) == {"selected", "best means"}


def test_a_combination_that_ties_is_said_to_in_one_sentence() -> None:
    plan = OneAtATime(space_of(a=([1, 2], 1), b=([1, 2], 1)))
    level = {(1, 1): [0.90, 0.92], (2, 1): [0.905, 0.917], (1, 2): [0.905, 0.917]}
    plan_state, _ = played(plan, fixed_scores({**level, (2, 2): [0.91, 0.914]}))
    assert words.doubts(plan_state)[-1] == (
        "combined: all best means together tie with the selected values, which stay."
    )


def confirmed(gap: Difference) -> Stage:
    """The answer and the start on three fresh repeats, with this difference."""
    score = Score(3, 0.9, 0.01)
    answer = Option("answer", (("a", 1),), None, (), "complete", score)
    start = Option("start", (("a", 2),), None, (), "complete", score, gap)
    return Stage("confirmed", "confirmed", (("a", 1),), (answer, start), answer, answer)


UNCLEAR = "not clearly better than the start: ahead by "
NEVER = "(3.78 in a study that never changed)"


@pytest.mark.parametrize(
    ("gap", "said", "verdict"),
    [
        (Difference(3, 0.0473, 0.0164, 8), "4.73 ± 1.64 points better than the start", "worse"),
        (
            Difference(3, 0.0473, 0.0164, 8, comparisons=4),
            f"{UNCLEAR}4.73 ± 1.64 points, and a clear difference needs 5.26 {NEVER}",
            "behind",
        ),
        (
            Difference(3, 0.0102, 0.0059, 8),
            f"{UNCLEAR}1.02 ± 0.59 points, and a clear difference needs 1.36",
            "behind",
        ),
        (Difference(3, -0.01, 0.02, 8), "no better than the start (-1.00 ± 2.00 points)", "tie"),
        (Difference(3, -0.03, 0.02, 8), "no better than the start (-3.00 ± 2.00 points)", "ahead"),
        (Difference(3, -0.09, 0.02, 8), "worse than the start by 9.00 ± 2.00 points", "better"),
        (
            Difference(1, 0.05, 0.004),
            f"{UNCLEAR}5.00 ± 0.40 points (1 repeat cannot show a clear difference)",
            "behind",
        ),
        (
            Difference(1, 0.01, None),
            f"{UNCLEAR}1.00 points (no error can be estimated from 1 repeat)",
            "tie",
        ),
    ],
)
def test_the_answer_is_called_better_than_the_start_only_if_the_test_says_so(
    gap: Difference, said: str, verdict: str
) -> None:
    stage = confirmed(gap)
    assert words.outcome(stage) == f"90.00 ± 1.00 % on 3 fresh repeats; {said}."
    assert views(stage)[1].verdict == verdict


def test_the_best_mean_is_no_reason_of_cost_although_it_is_the_cheapest_that_ties() -> None:
    found = stage({8: [0.972, 0.979], 16: [0.97, 0.98], 32: [0.9, 0.91]}, start=32, tie="best")
    assert words.outcome(found).endswith(": a tie; 8 is selected because its mean is better.")


def test_one_repeat_is_one_and_its_error_an_estimate() -> None:
    plan = OneAtATime(space_of(a=([1, 2], 1), repeats=1), images=IMAGES)
    plan_state, _ = played(plan, fixed_scores({(1,): [0.9], (2,): [0.95]}))
    assert words.answer(plan_state).endswith("(the error is an estimate from 1 repeat).")


def test_one_repeat_of_what_is_no_share_of_images_has_no_error() -> None:
    plan_state = of_losses({1: 0.9, 2: 0.5, 3: 0.7}, start=1)
    said = "validation loss 0.5 (no error can be estimated from 1 repeat)."
    assert words.answer(plan_state).endswith(said)


def test_without_a_known_error_nothing_is_better_and_the_best_mean_is_selected() -> None:
    plan_state = of_losses({1: 0.9, 2: 0.5, 3: 0.7}, start=1)
    (stage,) = plan_state.stages
    assert words.outcome(stage) == (
        "2 is ahead of 3 by 0.2 (no error can be estimated from 1 repeat): a tie; 2 is selected "
        "because its mean is better."
    )
    assert words.doubts(plan_state) == [
        "a: 1 and 3 tie with 2 (no error can be estimated from 1 repeat); 2 is selected."
    ]
    assert [(view.verdict, view.record()["standard_error"]) for view in views(stage)] == [
        ("tie", None),
        ("best mean, selected", None),
        ("tie", None),
    ]


def test_without_a_known_error_the_sweep_keeps_what_it_has_where_the_means_are_equal() -> None:
    (stage,) = of_losses({1: 0.7, 2: 0.5, 3: 0.5}, start=3).stages
    assert words.outcome(stage).endswith(": a tie; 3 is selected because it is the incumbent.")


def of_losses(losses: dict[int, float], start: int) -> PlanState:
    """A complete sweep of one hyperparameter, by one validation loss an option."""
    one = space_of(a=(list(losses), start), repeats=1)
    plan = OneAtATime(replace(one, metric_name="val_loss", direction="minimize"))
    return played(plan, fixed_scores({(value,): [loss] for value, loss in losses.items()}))[0]


def test_a_search_names_what_differs_and_how_many_tie_with_the_best() -> None:
    table = {"hyperparameters": {"a": {"options": [1, 2, 3], "start": 1}}, "fixed": {"width": 3}}
    plan = Search(space(**table), "random", 3, seed=1, images=IMAGES)
    plan_state = drive(InMemoryStorage(), plan=plan)
    stage = plan_state.stages[0]
    assert set(labels(stage).values()) == {"a=1", "a=2", "a=3"}
    said = words.outcome(stage)
    assert said.startswith("The best of 3 configurations is ahead of the next best by ")


def test_words_are_listed_as_people_list_them() -> None:
    assert [units.listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


RACED = RaceResult(
    leader=(("a", 1),),
    probability=0.99,
    compared=tuple((("a", number),) for number in range(1, 5)),
    score=Score(3, 0.9, 0.01),
    interval=(0.88, 0.92),
    distance=(0.0, 0.00004),
    contenders=(),
    tolerance=0.002,
    confidence=0.95,
    spent=15,
    budget=24,
)


def test_a_race_that_found_no_rival_says_so_in_place_of_a_distance_of_nothing() -> None:
    verdict = RACED
    assert words.race(verdict, ACCURACY)[1].endswith("and none of these is likely to be better.")
    behind = replace(verdict, distance=(0.0, 0.0012))
    said = "and the best of these is at most 0.12 points better."
    assert words.race(behind, ACCURACY)[1].endswith(said)


def test_a_race_states_a_probability_of_those_alone_that_it_has_compared_in_pairs() -> None:
    said = words.race(RACED, ACCURACY)[0]
    assert "of the best of 4 configurations trained to the end in pairs with a" in said
    assert "probability of 99 %" in said
    alone = replace(RACED, probability=None, compared=(), distance=None)
    said = words.race(alone, ACCURACY)[0]
    assert said.startswith("Whether the leader is within 0.20 points of the best is not known")
    assert words.race_in_short(alone, ACCURACY).startswith("within 0.20 points: not known yet")


@pytest.mark.parametrize(
    ("mean", "freedom", "found", "said"),
    [
        (0.02, 40, None, "2.00 ± 0.30 points better than the start."),
        (0.02, 0, None, "not clearly better than the start: ahead by 2.00 ± 0.30 points"),
        (0.001, 40, (("a", 2),), "a=2 is no better, as far as 3 repeats can tell (0.10 ± 0.30 poi"),
        (-0.02, 40, (("a", 2),), "this is the start, which stays: a=2 is worse by 2.00 ± 0.30 poi"),
    ],
)
def test_the_answer_is_called_better_than_the_start_only_by_a_test(
    mean: float, freedom: int, found: Configuration | None, said: str
) -> None:
    gap = Difference(3, mean, 0.003, freedom)
    fresh = Confirmation(Score(3, 0.9, 0.01), None, gap, found)
    stage = Stage("s", "configurations", (), ())
    state = PlanState((stage,), (("a", 1),), fresh.answer, (), True, 9, 9, confirmation=fresh)
    assert said in words.answer(state)


def test_a_race_of_seconds_says_how_much_training_it_has_had() -> None:
    timed = replace(RACED, spent=312.0, budget=600.0, unit="seconds")
    assert "after 5 min of at most 10 min of training." in words.race(timed, ACCURACY)[0]
    assert "after 15 of at most 24 epochs." in words.race(RACED, ACCURACY)[0]


def test_a_race_without_fresh_repeats_states_no_accuracy() -> None:
    early = replace(RACED, score=None, interval=None, distance=None, curves=False)
    said = words.race(early, ACCURACY)
    assert len(said) == 2
    assert "accuracy" not in " ".join(said)
    assert said[1] == "Curves are not as the model expects: full runs only."


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Contender((), 1, 1, 0.81), "behind by more than 40.00 points after 1 epoch"),
        (Contender((), 6, 2, 0.031), "behind by 3.10 points after 6 epochs"),
        (Contender((), 12, 1, 0.02, None, complete=True), "behind by 2.00 points after 12 epochs"),
        (
            Contender((), 12, 3, -0.001, 0.002, complete=True),
            "ahead by 0.10 ± 0.20 points (3 pairs)",
        ),
    ],
)
def test_a_distance_has_an_error_only_if_pairs_of_complete_runs_support_it(
    one: Contender, said: str
) -> None:
    assert words.lag(one, ACCURACY) == said
