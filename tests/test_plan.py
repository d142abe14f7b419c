"""The rules by which rows fill slots, whatever the plan: what counts, what waits, what ends."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from plan_fakes import row_of

from study.plan.comparison import compared
from study.plan.plan import Option, PlanState, RunIndex, RunSpec, Stage
from study.plan.results import Configuration, StoredTrial
from study.plan.statistics import Spread
from study.space.metric import ACCURACY

START: Configuration = (("a", 1),)
OTHER: Configuration = (("a", 2),)
THIRD: Configuration = (("a", 3),)


def wanted(repeat: int = 0, reference: Configuration | None = START) -> RunSpec:
    return RunSpec("a", 2, OTHER, repeat, reference)


def complete(repeat: int = 0, value: float = 0.9) -> StoredTrial:
    return row_of(wanted(repeat), 10 + repeat, value)


def pruned(repeat: int = 0, reference: Configuration | None = START) -> StoredTrial:
    row = row_of(wanted(repeat, reference), 20 + repeat, 0.5)
    return replace(row, state="pruned", value=None)


def failed(repeat: int = 0) -> StoredTrial:
    return row_of(wanted(repeat), 30, state="failed", attributes={"failure": "out of memory"})


def held(*repeats: int) -> list[StoredTrial]:
    """Complete runs of the incumbent."""
    return [row_of(RunSpec("a", 1, START, repeat, None), repeat, 0.9) for repeat in repeats]


def option(*rows: StoredTrial, repeats: int = 3, reference: Configuration | None = START) -> Option:
    return RunIndex(rows).option(2, OTHER, reference, repeats)


def test_a_complete_run_counts_whatever_it_was_compared_with() -> None:
    row = complete()
    assert option(row, reference=THIRD).rows == (row,)
    assert option(row, reference=None).rows == (row,)


def test_a_pruned_run_counts_only_where_it_would_be_compared_with_the_same() -> None:
    row = pruned()
    assert option(row).rows == (row,)
    assert option(row, reference=THIRD).rows == ()
    assert option(row, reference=None).rows == ()


def test_a_pruned_run_that_was_never_to_be_pruned_does_not_count() -> None:
    assert option(pruned(reference=None), reference=None).rows == ()


def test_a_run_that_was_given_up_does_not_count_and_is_no_failure() -> None:
    cancelled = {"cancelled": "interrupted"}
    rows = [replace(row, attributes=cancelled) for row in (failed(), pruned())]
    assert option(*rows).rows == ()
    assert RunIndex([*held(0), *rows]).ready([wanted()]) == [wanted()]


def test_of_two_runs_of_one_slot_the_earlier_counts() -> None:
    first, second = complete(), replace(complete(value=0.8), number=11)
    assert option(first, second).rows == (first,)


def test_an_option_is_complete_with_all_its_repeats() -> None:
    assert option(complete(0), complete(2)).state == "open"
    assert option(complete(0), complete(1), complete(2)).state == "complete"
    assert option(complete(0), complete(2)).missing(3) == [1]


def test_a_pruned_run_eliminates_its_option() -> None:
    eliminated = option(complete(0), pruned(1))
    assert eliminated.state == "eliminated"
    assert eliminated.missing(3) == []
    assert eliminated.stopped == pruned(1)
    assert eliminated.failure is None


def test_a_failed_run_eliminates_its_option_whatever_it_was_compared_with() -> None:
    for reference in (START, THIRD, None):
        eliminated = option(complete(0), failed(1), complete(2), reference=reference)
        assert eliminated.state == "eliminated"
        assert eliminated.values == (0.9,)
        assert eliminated.failure == "out of memory"
        assert eliminated.missing(3) == []


def test_repeats_after_the_pruned_one_do_not_count() -> None:
    assert option(pruned(0), complete(1), pruned(2)).rows == (pruned(0),)
    assert option(complete(0), pruned(1), complete(2)).values == (0.9,)


def test_an_option_is_open_until_the_repeats_before_the_pruned_one_are_known() -> None:
    option_ = option(pruned(1), complete(2))
    assert option_.state == "open"
    assert option_.missing(3) == [0]


@given(st.permutations([complete(0), pruned(1), complete(2), failed(2), pruned(3)]))
def test_what_counts_does_not_depend_on_who_finished_first(rows: list[StoredTrial]) -> None:
    assert option(*rows, repeats=4).rows == (complete(0), pruned(1))


def test_a_running_slot_is_not_issued() -> None:
    running = row_of(wanted(1), 5)
    assert RunIndex([*held(0, 1), running]).ready([wanted(0), wanted(1)]) == [wanted(0)]


def test_a_slot_waits_for_the_same_repeat_of_its_reference() -> None:
    index = RunIndex(held(1))
    assert index.ready([wanted(0), wanted(1)]) == [wanted(1)]
    assert index.ready([wanted(0), wanted(1)], compares=False) == [wanted(0), wanted(1)]


def test_a_slot_without_a_reference_waits_for_nothing() -> None:
    for reference in (None, ()):
        assert RunIndex([]).ready([wanted(0, reference)]) == [wanted(0, reference)]


def scored(*means: float, prefer: Configuration | None = None) -> tuple[Option, ...]:
    options = [
        Option(place, (("a", place),), None, (complete(value=mean),), "complete")
        for place, mean in enumerate(means)
    ]
    return compared(options, Spread(100), prefer, metric=ACCURACY)


def best(options: tuple[Option, ...]) -> list[object]:
    return [option.value for option in options if option.gap is None]


def test_the_best_mean_leads() -> None:
    options = scored(0.7, 0.9, 0.8)
    assert best(options) == [1]
    assert [option.gap and round(option.gap.mean, 6) for option in options] == [0.2, None, 0.1]


def test_of_equal_means_the_preferred_one_leads_else_the_cheapest() -> None:
    assert best(scored(0.7, 0.9, 0.9)) == [1]
    assert best(scored(0.7, 0.9, 0.9, prefer=(("a", 2),))) == [2]
    assert best(scored(0.7, 0.9, 0.9, prefer=(("a", 0),))) == [1]


def test_an_eliminated_option_has_neither_a_mean_nor_a_distance() -> None:
    gone = Option(9, OTHER, START, (complete(0), pruned(1)), "eliminated")
    first = Option(1, START, None, tuple(held(0, 1)), "complete")
    judged = compared([gone, first], Spread(100), metric=ACCURACY)[0]
    assert (judged.score, judged.gap, judged.tied) == (None, None, False)


def plan_state_of(*stages: Stage) -> PlanState:
    return PlanState(stages, START, None, (), complete=False, runs=0, runs_expected=9)


def test_a_run_is_superseded_once_an_earlier_repeat_was_pruned() -> None:
    other = Option(3, THIRD, START, (), "open")
    plan_state = plan_state_of(
        Stage("a", "hyperparameter", START, (option(complete(0), pruned(1)), other))
    )
    assert [plan_state.superseded(wanted(repeat)) for repeat in range(3)] == [False, False, True]
    assert not plan_state.superseded(RunSpec("a", 3, THIRD, 2, START))


def test_a_guess_is_superseded_once_its_stage_wants_something_else() -> None:
    guess = RunSpec("b", 1, THIRD, 0, OTHER)
    first = Stage("a", "hyperparameter", START, (option(complete(0)),))
    assert not plan_state_of(first).superseded(guess)
    second = Stage("b", "hyperparameter", OTHER, (Option(1, THIRD, OTHER, (), "open"),))
    assert not plan_state_of(first, second).superseded(guess)
    assert plan_state_of(first, replace(second, options=())).superseded(guess)
    assert plan_state_of(first, second).superseded(replace(guess, reference=START))
    assert replace(plan_state_of(first), complete=True).superseded(guess)


def test_a_run_is_superseded_in_a_stage_that_is_decided_too() -> None:
    decided = Stage("a", "hyperparameter", START, (option(pruned(0)),))
    later = Stage("b", "hyperparameter", START, (option(complete(0)),))
    assert plan_state_of(decided, replace(later, options=())).superseded(wanted(1))
