"""Hyperparameters that apply only to some configurations: no configuration is counted twice."""

from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from plan_contract import PlanContract
from plan_fakes import IMAGES, Chance, Crew, new_study, played

from study.errors import SpaceError
from study.plan.grid import Grid
from study.plan.halving import Halving
from study.plan.plan import Plan
from study.plan.points import drawn, points, size
from study.plan.race import Race
from study.plan.results import configuration
from study.plan.search import Search
from study.plan.sweep import OneAtATime
from study.report.effects import effects
from study.space.search_space import SearchSpace
from study.tuning.one_at_a_time import OneAtATimeSampler

TABLE: dict[str, Any] = {
    "width": {"options": [4, 8], "start": 4},
    "optimizer": {"options": ["adam", "sgd", "lion"], "start": "adam"},
    "momentum": {"options": [0.0, 0.9], "start": 0.9, "only_if": {"optimizer": "sgd"}},
    "nesterov": {
        "options": [False, True],
        "start": False,
        "only_if": {"optimizer": "sgd", "momentum": 0.9},
    },
}


def space_of(table: dict[str, Any] = TABLE, **more: Any) -> SearchSpace:
    base = {"name": "conditions", "epochs": 3, "batch_size": 10, "repeats": 2}
    return SearchSpace.from_dict({**base, **more, "hyperparameters": table})


SPACE = space_of(fixed={"k": 3})


def test_a_space_counts_each_configuration_once() -> None:
    every = list(points(SPACE))
    assert size(SPACE) == len(every) == len(set(every)) == 2 * (1 + 1 + 1 + 2)
    assert dict(every[0]) == {"k": 3, "width": 4, "optimizer": "adam"}
    assert (
        Counter(len(one) for one in every) == {3: 4, 4: 2, 5: 4}  # k and width are in all of them
    )

    found = {drawn(SPACE, np.random.default_rng(seed)) for seed in range(200)}
    assert found == set(every)


def test_a_space_without_end_has_no_size_with_conditions_too() -> None:
    rate = {"low": 0.1, "high": 0.2, "only_if": {"optimizer": "sgd"}}
    assert size(space_of({**TABLE, "rate": rate})) is None


def test_each_option_is_tried_where_it_applies() -> None:
    alone = SPACE.each_alone()
    assert len(alone) == len({tuple(one.items()) for one in alone}) == 1 + 1 + 2 + 1 + 1
    assert {"k": 3, "width": 4, "optimizer": "sgd", "momentum": 0.9, "nesterov": True} in alone
    assert {"k": 3, "width": 4, "optimizer": "sgd", "momentum": 0.0} in alone


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimiser": "sgd"}, "only_if: optimiser is not in the space; did you mean optimizer? a"),
        ({"optimizer": "adagrad"}, 'optimizer = "adagrad" never holds; allowed: "adam", "sgd", "l'),
        ({"width": True}, "width = true never holds; allowed: 4, 8"),
        ({"k": 4}, "k = 4 never holds; fixed.k is 3"),
        ({"last": 1}, "last comes later in the file; put [hyperparameters.last] above this one"),
        (
            {"momentum": 0.9},
            "momentum.only_if: goes in a circle by way of momentum",
        ),
        ({"rate": 2}, "rate = 2 never holds; it is a range, 0.1 to 0.2"),
        ({"optimizer": ["sgd"]}, '["sgd"] is not allowed; give { NAME = VALUE } of hyper'),
        ("sgd", '"sgd" is not allowed; give { NAME = VALUE } of hyperparameters above'),
    ],
)
def test_a_condition_that_cannot_hold_is_named(given: Any, said: str) -> None:
    momentum = TABLE["momentum"] | {"only_if": given}
    table = {"rate": {"low": 0.1, "high": 0.2}, **TABLE, "momentum": momentum}
    table |= {"last": {"options": [1], "start": 1}}
    with pytest.raises(SpaceError) as error:
        space_of(table, fixed={"k": 3})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_longer_circle_is_named_too() -> None:
    circle = {
        name: {"options": [1, 2], "start": 1, "only_if": {other: 1}}
        for name, other in [("a", "b"), ("b", "c"), ("c", "a")]
    }
    with pytest.raises(SpaceError, match=r"\.a\.only_if: goes in a circle by way of b"):
        space_of(circle)


def test_a_condition_is_part_of_the_space() -> None:
    assert SearchSpace.from_dict(SPACE.to_dict()) == SPACE
    without = TABLE | {"momentum": {**TABLE["momentum"], "only_if": {"width": 8}}}
    assert space_of(without).hyperparameters != SPACE.hyperparameters


class Conditional(PlanContract):
    """As every plan; and each configuration has what applies to it, and nothing else."""

    def test_a_configuration_has_what_applies_to_it_alone(self) -> None:
        for row in self.history():
            assert configuration(SPACE.completed(row.params)) == row.configuration
            assert SPACE.is_whole(row.params)


class TestSweep(Conditional):
    def plan(self) -> Plan:
        return OneAtATime(SPACE, images=IMAGES)


class TestGrid(Conditional):
    def plan(self) -> Plan:
        return Grid(SPACE, images=IMAGES)


class TestHalving(Conditional):
    def plan(self) -> Plan:
        return Halving(SPACE, images=IMAGES, epochs=3)


class TestRace(Conditional):
    def plan(self) -> Plan:
        return Race(SPACE, images=IMAGES, epochs=3)

    def test_the_effect_of_what_does_not_always_apply_is_known(self) -> None:
        found = effects(Race(SPACE, images=IMAGES, epochs=3), self.history())
        assert found is not None
        levels = {one.name: [level.value for level in one.levels] for one in found.main}
        assert levels["momentum"] == [0.0, 0.9]
        assert levels["optimizer"] == ["adam", "lion", "sgd"]


class TestTPE(Conditional):
    def plan(self) -> Plan:
        return Search(SPACE, "tpe", 8, 3, images=IMAGES)


class TestRandom(Conditional):
    def plan(self) -> Plan:
        return Search(SPACE, "random", 10, 3, images=IMAGES)


def test_a_sweep_has_a_stage_of_what_applies_to_its_incumbent() -> None:
    def scores(bonus: str) -> Any:
        return lambda one, _repeat: 0.9 + 0.05 * (dict(one)["optimizer"] == bonus)

    for best, stages in [
        ("lion", ["width", "optimizer"]),
        ("sgd", ["width", "optimizer", "momentum", "nesterov"]),
    ]:
        state, rows = played(OneAtATime(SPACE, images=IMAGES), scores(best))
        assert [stage.name for stage in state.stages] == stages
        assert state.complete
        assert state.runs == len(rows) <= OneAtATime(SPACE).state([]).runs_expected
        assert state.incumbent is not None
        assert dict(state.incumbent)["optimizer"] == best


def test_a_sweep_that_leaves_a_condition_leaves_what_applied_under_it() -> None:
    table = {**TABLE, "optimizer": TABLE["optimizer"] | {"start": "sgd"}}
    space = space_of({**table, "last": {"options": [1, 2], "start": 1}}, passes=2)
    state, _ = played(
        OneAtATime(space, images=IMAGES),
        lambda one, _: 0.9 + 0.05 * (dict(one)["optimizer"] == "lion") + 0.01 * dict(one)["last"],
    )
    assert [stage.name for stage in state.stages][:3] == ["width", "optimizer", "last"]
    assert state.incumbent == configuration({"width": 4, "optimizer": "lion", "last": 2})


def test_a_search_tries_a_small_space_whole() -> None:
    crew = Crew(new_study(), lambda: Search(SPACE, "tpe", 50, 3, images=IMAGES), Chance(1))
    state = crew.play()
    assert {option.configuration for option in state.stages[0].options} == set(points(SPACE))
    conditional = [t for t in crew.study.trials if t.params["optimizer"] == "sgd"]
    assert all(("momentum" in trial.params) for trial in conditional)
    assert len(conditional) < len(crew.study.trials)


def test_plain_optuna_code_suggests_what_applies() -> None:
    sampler = OneAtATimeSampler(SPACE)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        params = SPACE.suggest(trial)
        return 0.5 + 0.1 * (params["optimizer"] == "sgd") + 0.01 * float(params.get("momentum", 0))

    study.optimize(objective)
    assert [stage.name for stage in sampler.summary(study)] == [
        *("width", "optimizer", "momentum", "nesterov")
    ]
    assert study.best_params["momentum"] == 0.9


def test_plain_optuna_code_that_suggests_what_does_not_apply_is_told_so() -> None:
    study = optuna.create_study(direction="maximize", sampler=OneAtATimeSampler(SPACE))

    def objective(trial: optuna.Trial) -> float:
        SPACE.suggest(trial)
        return trial.suggest_float("momentum", 0, 1)

    with pytest.raises(ValueError, match="'momentum', which does not apply to"):
        study.optimize(objective)


def test_a_report_says_where_a_hyperparameter_applies() -> None:
    from study.report.page import _domain

    domains = [_domain(parameter) for parameter in SPACE.hyperparameters]
    assert domains[1:3] == ["adam, sgd, lion", "0.0, 0.9; only if optimizer = sgd"]
    assert domains[3].endswith("; only if optimizer = sgd and momentum = 0.9")
