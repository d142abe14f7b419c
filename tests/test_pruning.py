"""When a run is stopped: decided by stored curves, with a margin, and never the incumbent's."""

import math
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import BasePruner
from optuna.trial import Trial, TrialState
from plan_fakes import EAGER, IMAGES, SMALL, Chance, Crew, new_study

from study.errors import SettingsError
from study.plan.plan import Plan
from study.plan.results import StoredTrial
from study.plan.search import Search
from study.plan.statistics import image_floor, mean_gap
from study.plan.sweep import OneAtATime
from study.storage.trials import StoredTrials
from study.tuning.pruning import (
    PRUNERS,
    Margin,
    SparingPruner,
    SweepPruner,
    make_pruner,
    unrest,
)
from study.tuning.sampler import PlanSampler, run_spec

LEVEL = [0.90] * 12
MARGIN = Margin(warmup=4, window=2, errors=3.0, least=0.01)


class Always(BasePruner):
    """Would stop every run."""

    def prune(self, study: Any, trial: Any) -> bool:
        return True


def sweep_of(pruner: BasePruner) -> optuna.Study:
    study = new_study()
    study.sampler = PlanSampler(OneAtATime(SMALL, images=IMAGES))
    study.pruner = pruner
    return study


def test_a_lag_is_the_mean_difference_of_the_last_epochs() -> None:
    assert mean_gap([0.1, 0.8, 0.7], [0.9, 0.9, 0.9, 0.1], window=2) == pytest.approx(0.15)
    assert mean_gap([0.8], [0.9], window=3) == pytest.approx(0.1)


def test_a_run_that_is_far_behind_is_stopped_after_the_warm_up() -> None:
    assert MARGIN.behind([0.5] * 3, LEVEL, None) is None
    assert MARGIN.behind([0.5] * 4, LEVEL, None) == pytest.approx(0.4)


def test_one_bad_epoch_is_not_enough() -> None:
    assert MARGIN.behind([0.9] * 5 + [0.885], LEVEL, None) is None
    assert MARGIN.behind([0.9] * 4 + [0.885] * 2, LEVEL, None) == pytest.approx(0.015)


def test_a_lag_has_to_exceed_the_noise_that_the_images_leave() -> None:
    images = 100
    limit = 3 * 2**0.5 * image_floor(0.9, images)
    assert limit > MARGIN.least
    assert MARGIN.behind([0.9 - 0.99 * limit] * 5, LEVEL, images) is None
    assert MARGIN.behind([0.9 - 1.01 * limit] * 5, LEVEL, images) == pytest.approx(1.01 * limit)


def test_a_lag_has_to_exceed_the_least_that_matters() -> None:
    assert MARGIN.behind([0.891] * 5, LEVEL, 10**9) is None
    assert MARGIN.behind([0.889] * 5, LEVEL, 10**9) is not None


def test_a_lag_has_to_exceed_what_the_reference_itself_goes_up_and_down() -> None:
    steady, restless = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9], [0.5, 0.8, 0.6, 0.9, 0.8, 0.9]
    assert (unrest(steady), unrest([0.5])) == (0, 0)
    assert unrest(restless) == pytest.approx(math.sqrt((0.2**2 + 0.1**2) / 5))
    behind = [value - 0.2 for value in restless]
    assert MARGIN.behind(behind, steady, IMAGES) is not None
    assert MARGIN.behind(behind, restless, IMAGES) is None


def test_a_run_that_is_ahead_is_never_stopped() -> None:
    assert MARGIN.behind([0.99] * 6, LEVEL, None) is None


def test_a_reference_that_is_shorter_decides_nothing() -> None:
    assert MARGIN.behind([0.1] * 6, LEVEL[:5], None) is None


def test_what_is_no_number_decides_nothing() -> None:
    assert MARGIN.behind([float("nan")] * 6, LEVEL, IMAGES) is None
    assert MARGIN.behind([0.1] * 6, [float("nan")] * 6, IMAGES) is None


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.floats(0, 0.2), st.integers(1, 10**5))
def test_a_run_that_is_worse_is_stopped_at_least_as_soon(
    curve: list[float], less: float, images: int
) -> None:
    worse = [value - less for value in curve]
    if MARGIN.behind(curve, LEVEL, images) is not None:
        assert MARGIN.behind(worse, LEVEL, images) is not None


def test_a_run_is_compared_with_the_same_repeat_of_the_incumbent() -> None:
    """The other repeats, of the incumbent and of anything else, play no part."""
    study = sweep_of(SweepPruner(IMAGES, EAGER))
    for level in (0.5, 0.9):
        trial = study.ask()
        SMALL.suggest(trial)
        trial.report(level, step=1)
        study.tell(trial, level)
    stopped = []
    for _ in range(4):
        trial = study.ask()
        trial.report(0.7, step=1)
        stopped.append((run_spec(trial).repeat, trial.should_prune()))
    assert stopped == [(0, False), (0, False), (1, True), (1, True)]


def test_a_decision_is_the_same_while_other_runs_come_and_go() -> None:
    curves = Chance(4)
    study = sweep_of(SweepPruner(IMAGES, EAGER))
    Crew(study, lambda: OneAtATime(SMALL, images=IMAGES), curves, margin=EAGER).play()
    for row in StoredTrials()(study):
        if row.reference:
            reference = curves(row.reference, row.repeat)
            told = [
                EAGER.behind(row.reported[:epochs], reference, IMAGES) is not None
                for epochs in range(1, len(row.reported) + 1)
            ]
            assert told == [False] * (len(told) - 1) + [row.state == "pruned"]


def test_the_incumbents_runs_are_never_stopped() -> None:
    for pruner in (SweepPruner(IMAGES, EAGER), SparingPruner(Always())):
        study = sweep_of(pruner)
        trial = study.ask()
        trial.report(0.0, step=1)
        assert not trial.should_prune()


def test_a_spared_pruner_stops_any_other_run() -> None:
    study = sweep_of(SparingPruner(Always()))
    while run_spec(trial := study.ask()).reference is None:
        SMALL.suggest(trial)
        study.tell(trial, 0.9)
    assert trial.should_prune()
    search = new_study()
    search.sampler = PlanSampler(Search(SMALL, "random", 3, 1))
    search.pruner = SparingPruner(Always())
    assert search.ask().should_prune()


def test_trials_without_a_plan_are_left_to_the_pruner_in_question() -> None:
    for pruner, stopped in ((SweepPruner(), False), (SparingPruner(Always()), True)):
        study = optuna.create_study(direction="maximize", pruner=pruner)
        trial = study.ask()
        trial.report(0.5, step=1)
        assert trial.should_prune() is stopped


def pruned_by(name: str, plan: Plan) -> list[StoredTrial]:
    """The pruned rows of a study of longer runs, whose pruner has this name."""
    study, curves = new_study(), Chance(2, epochs=9, coarse=12)
    crew = Crew(study, lambda: plan, curves)
    study.pruner = make_pruner(name, 9, IMAGES)
    assert crew.play().complete
    return [row for row in StoredTrials()(study) if row.state == "pruned"]


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_leaves_the_incumbent_of_a_sweep_alone(name: str) -> None:
    pruned = pruned_by(name, OneAtATime(SMALL, images=IMAGES))
    assert all(row.reference for row in pruned)
    if name == "median":
        assert pruned


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "sweep"])
def test_every_other_pruner_goes_with_a_search(name: str) -> None:
    pruned = pruned_by(name, Search(SMALL, "random", 10, 1))
    if name == "median":
        assert pruned


def test_the_default_margin_spares_noise_and_stops_what_is_lost() -> None:
    pruner = make_pruner("sweep", 30, 6000)
    assert isinstance(pruner, SweepPruner)
    noise = image_floor(0.98, 6000)
    assert pruner.margin.behind([0.98 - noise] * 30, [0.98] * 30, 6000) is None
    assert pruner.margin.behind([0.9] * 30, [0.98] * 30, 6000) is not None


def test_an_unknown_pruner_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"--pruner swep: .* choose one of none, sweep, median"):
        make_pruner("swep", 30, None)


def test_a_pruned_trial_keeps_its_reports() -> None:
    study = sweep_of(SweepPruner(IMAGES, EAGER))
    Crew(study, lambda: OneAtATime(SMALL, images=IMAGES), Chance(3), margin=EAGER).play()
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned
    for trial in pruned:
        assert isinstance(trial.value, float)
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))


def test_a_pruner_is_asked_through_the_trial() -> None:
    """An adopted trial, made from its number alone, is judged like the one that was asked for."""
    study = sweep_of(SweepPruner(IMAGES, EAGER))
    for _ in range(2):
        trial = study.ask()
        SMALL.suggest(trial)
        trial.report(0.9, step=1)
        study.tell(trial, 0.9)
    trial = study.ask()
    trial.report(0.1, step=1)
    assert trial.should_prune()
    assert Trial(study, trial._trial_id).should_prune()
