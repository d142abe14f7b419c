"""Optuna's own samplers behind a budget: what is suggested follows from what is stored."""

import math
import random
import statistics
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import MedianPruner
from plan_fakes import IMAGES, SMALL, Chance, Crew, counted, decided, issued, new_study, row_of

from study.errors import SettingsError
from study.plan.plan import RunSpec
from study.plan.results import Configuration, StoredTrial
from study.plan.search import SEARCH, UNCOMPARED, Search
from study.space.search_space import SearchSpace
from study.storage.trials import StoredTrials
from study.tuning.sampler import PlanSampler

SAMPLERS = ["tpe", "random"]


def ranges(**changes: dict[str, Any]) -> SearchSpace:
    """A real range, a range of integers and two options."""
    table = {
        "rate": {"low": 0.001, "high": 0.1, "log": True},
        "units": {"low": 8, "high": 64, "step": 8},
        "deep": {"options": [False, True], "start": False},
    }
    base = {"name": "fake", "epochs": 3, "batch_size": 10, "repeats": 2, "fixed": {"k": 3}}
    return SearchSpace.from_dict(base | {"hyperparameters": changes or table})


def suggested(study: optuna.Study) -> list[Configuration]:
    """The configurations of a study in the order of their numbers."""
    found = {int(row.option or 0): row.configuration for row in StoredTrials()(study)}
    return [found[number] for number in sorted(found)]


def chosen(plan: Search, number: int, rows: list[StoredTrial]) -> RunSpec:
    """The slot of the configuration with this number, as the plan suggests it."""
    left_open = RunSpec(SEARCH, number, None, 0, UNCOMPARED)
    return replace(left_open, configuration=plan.suggest(left_open, rows))


def played(plan: Search, breaks: float = 0.0, chance: int = 0, **crew: Any) -> Crew:
    """A search that is played to its end, by crews that know nothing of each other."""
    crew_ = Crew(
        new_study(),
        lambda: Search(plan.space, plan.sampler, plan.budget, plan.seed, images=IMAGES),
        Chance(1),
        random.Random(chance),
        breaks=breaks,
        **crew,
    )
    crew_.play()
    return crew_


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("space", [SMALL, ranges()], ids=["options", "ranges"])
def test_an_interrupted_search_comes_to_the_same_end(sampler: str, space: SearchSpace) -> None:
    assert_interruptions_change_nothing(Search(space, sampler, 8, seed=3))


@pytest.mark.skipif(find_spec("torch") is None, reason="gp needs torch, which no lock file has")
def test_an_interrupted_search_by_gaussian_processes_does_so_too() -> None:
    assert_interruptions_change_nothing(Search(ranges(), "gp", 8, seed=3))


def assert_interruptions_change_nothing(plan: Search) -> None:
    calm, wild = played(plan), played(plan, breaks=0.15)
    assert suggested(wild.study) == suggested(calm.study)
    assert counted(wild.state()) == counted(calm.state())
    assert decided(wild.state()) == decided(calm.state())
    assert max(Counter(suggested(calm.study)).values()) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_seed_suggests_other_configurations(sampler: str) -> None:
    one, other = (played(Search(ranges(), sampler, 4, seed)).study for seed in (1, 2))
    assert suggested(one) != suggested(other)


def test_every_configuration_is_repeated() -> None:
    crew = played(Search(ranges(), "random", 5, seed=1))
    times = Counter(configuration for configuration, _, _ in issued(crew.study))
    assert set(times.values()) == {2}
    plan_state = crew.state()
    assert plan_state.complete
    assert plan_state.runs == plan_state.runs_expected == 10


def test_the_best_mean_is_the_answer() -> None:
    plan_state = played(Search(SMALL, "tpe", 6, seed=1)).state()
    means = {o.configuration: o.score.mean for o in plan_state.stages[0].options if o.score}
    assert plan_state.score is not None
    assert plan_state.incumbent is not None
    assert means[plan_state.incumbent] == plan_state.score.mean == max(means.values())
    carried = plan_state.stages[0].selected
    assert carried is not None
    assert carried.configuration == plan_state.incumbent


def test_a_search_knows_its_answer_so_far() -> None:
    crew = Crew(new_study(), lambda: Search(SMALL, "random", 4, 1), Chance(1))
    assert crew.state().incumbent is None
    plan_state = crew.play(3)
    assert plan_state.incumbent == suggested(crew.study)[0]
    assert not plan_state.stages[0].decided
    assert plan_state.runs_expected == 8


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_budget_larger_than_the_space_tries_it_whole(sampler: str) -> None:
    crew = played(Search(SMALL, sampler, 100, seed=1))
    assert len(suggested(crew.study)) == len(set(suggested(crew.study))) == 12
    assert max(Counter(issued(crew.study)).values()) == 1
    assert crew.state().complete


def test_ranges_of_whole_steps_are_a_space_that_ends_too() -> None:
    space = ranges(units={"low": 1, "high": 3}, rate={"low": 0.1, "high": 0.3, "step": 0.1})
    crew = played(Search(space, "tpe", 100, seed=1))
    assert len(suggested(crew.study)) == len(set(suggested(crew.study))) == 9
    assert {dict(one)["k"] for one in suggested(crew.study)} == {3}


def test_a_space_without_end_keeps_its_budget() -> None:
    many = {f"p{place}": {"options": [1, 2], "start": 1} for place in range(64)}
    assert Search(ranges(**many), "random", 7, 1).budget == 7
    assert Search(ranges(), "random", 7, 1).budget == 7


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_several_workers_never_get_the_same_slot(chance: int, workers: int) -> None:
    plan = Search(SMALL, "random", 10, seed=chance)
    crew = played(plan, 0.1, chance, workers=workers)
    assert max(Counter(issued(crew.study)).values()) == 1
    assert len(issued(crew.study)) == 20
    assert len(set(suggested(crew.study))) == 10


def test_a_pruned_configuration_has_no_mean_and_is_not_trained_on() -> None:
    study = new_study()
    crew = Crew(study, lambda: Search(SMALL, "random", 8, 5), Chance(5))
    study.pruner = MedianPruner(n_startup_trials=2, n_warmup_steps=1)
    plan_state = crew.play()
    gone = [option for option in plan_state.stages[0].options if option.state == "eliminated"]
    assert gone
    assert all(option.score is None and option.stopped == option.rows[-1] for option in gone)
    assert plan_state.incumbent not in {option.configuration for option in gone}
    assert plan_state.runs < 16


def test_a_search_of_which_everything_was_pruned_has_no_answer() -> None:
    plan = Search(SMALL, "random", 2, 1)
    rows: list[StoredTrial] = []
    while slots := plan.state(rows).next:
        suggested = plan.suggest(slots[0], rows)
        row = row_of(replace(slots[0], configuration=suggested), len(rows))
        rows.append(replace(row, state="pruned", reported=()))  # not even a report
    plan_state = plan.state(rows)
    assert plan_state.complete
    assert (plan_state.incumbent, plan_state.score) == (None, None)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_survives_runs_that_reported_no_number(sampler: str) -> None:
    plan = Search(ranges(), sampler, 4, 1)
    rows: list[StoredTrial] = []
    for number, accuracies in enumerate([(), (0.5, math.nan), (0.5, 0.6)]):
        slot = chosen(plan, number, rows)
        rows.append(replace(row_of(slot, number), state="pruned", reported=accuracies))
    assert chosen(plan, 3, rows).configuration not in {row.configuration for row in rows}


def test_numbers_left_out_are_taken_first() -> None:
    plan = Search(SMALL, "random", 4, 1)
    rows: list[StoredTrial] = []
    for number in (0, 2):
        slot = chosen(plan, number, rows)
        rows.append(row_of(slot, number, 0.9))
    numbers = [slot.option for slot in plan.state(rows).next if slot.configuration is None]
    assert numbers == [1, 3]


def test_a_sampler_learns_from_the_means() -> None:
    space = ranges(x={"low": -5.0, "high": 5.0}, y={"low": -5.0, "high": 5.0})
    plan = Search(replace(space, repeats=1), "tpe", 40, 1)
    study = optuna.create_study(direction="maximize", sampler=PlanSampler(plan))

    def hill(trial: optuna.Trial) -> float:
        params: dict[str, Any] = space.suggest(trial)
        return -float((params["x"] - 1.2) ** 2 + (params["y"] + 2) ** 2)

    study.optimize(hill)
    values = [trial.values[0] for trial in study.trials]
    assert statistics.median(values[-10:]) > statistics.median(values[:10]) / 2


def test_a_sampler_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.plan.search.find_spec", {"torch": None}.__getitem__)
    with pytest.raises(SettingsError, match=r"--sampler gp needs .*pip install torch"):
        Search(SMALL, "gp", 4, 1)


def test_a_search_is_a_sampler_in_plain_optuna_code() -> None:
    space = ranges()
    study = optuna.create_study(
        direction="maximize", sampler=PlanSampler(Search(space, "tpe", 4, 1))
    )
    study.optimize(lambda trial: float(space.suggest(trial)["rate"]))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 8
    assert [trial.params for trial in study.trials[::2]] == [t.params for t in study.trials[1::2]]
