"""Limits of a space, and accuracy against what a network costs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import test_own_model as own
import test_training as base
from plan_contract import PlanContract
from plan_fakes import IMAGES, SMALL, Chance, played, row_of, space_of

from study.errors import SpaceError, TrainingFailed
from study.plan.confirm import Confirmed
from study.plan.grid import Grid
from study.plan.halving import Halving
from study.plan.plan import Plan, PlanState
from study.plan.points import fits
from study.plan.race import Race
from study.plan.results import Configuration, StoredTrial
from study.plan.search import Search
from study.plan.statistics import Difference, Score
from study.plan.strategies import limited, outside
from study.plan.sweep import OneAtATime
from study.plan.tradeoff import Rated, rated, smallest
from study.report.cost import cost_figure
from study.space.architecture import Cost, Limits, cost_of
from study.space.metric import ACCURACY
from study.space.search_space import SearchSpace
from study.space.settings import DataFacts, Settings, resolve
from study.text import sentences
from study.text.view import verdict
from study.training.checkpoint import FolderCheckpoints
from study.training.run import Epoch
from study.training.train import start_tensorflow, train


def test_a_limit_says_by_how_much_it_is_exceeded() -> None:
    limits = Limits(parameters=1000, size="10 kB", milliseconds=5)
    assert limits.bytes == 10_000
    assert Limits(size="1.5 MB").bytes == 1_500_000
    assert limits.reason(Cost(1000, 10_000, 5.0, 0.1)) is None
    assert limits.reason(Cost(12345, 10_001, 5.04, 0.123)) == (
        "out: 12,345 parameters, more than 1,000; 10.0 kB, more than 10 kB; "
        "5.04 ± 0.12 ms a picture, more than 5 ms"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": "100 KB"}, 'limits.size: "100 KB" is not allowed; give a text like'),
        ({"size": "0 kB"}, "limits.size"),
        ({"size": 100}, "limits.size: 100 is not allowed; give a text like '100 kB'"),
        ({"parameters": 0}, "limits.parameters: 0 is not allowed; give a whole number of at least"),
        ({"milliseconds": 0}, "limits.milliseconds: 0 is not allowed; give a number above 0"),
        ({"parameter": 5}, "limits.parameter: unknown key; did you mean parameters? allowed:"),
        (5, "limits: 5 is not allowed; give { parameters = NUMBER, size = '100 kB', "),
    ],
)
def test_what_is_no_limit_is_named(given: Any, said: str) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_dict(SMALL.to_dict() | {"limits": given})
    assert said in str(error.value)


def test_limits_are_part_of_a_space() -> None:
    space = SearchSpace.from_dict(SMALL.to_dict() | {"limits": {"size": "20 kB"}})
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert space.limits == Limits(size="20 kB")


def too_large(configuration: Configuration) -> str | None:
    """The limit that a is below 3, unless c."""
    params = dict(configuration)
    return "out: 3 of a, more than 2" if params["a"] == 3 and not params["c"] else None


class Limited(PlanContract):
    """As every plan; and what is out is not trained."""

    def test_what_is_out_is_not_trained(self) -> None:
        for seed in (1, 2, 3):
            assert not any(too_large(row.configuration) for row in self.history(seed))


class TestSweep(Limited):
    def plan(self) -> Plan:
        return OneAtATime(SMALL, images=IMAGES, out=too_large)


class TestGrid(Limited):
    def plan(self) -> Plan:
        return Grid(SMALL, images=IMAGES, out=too_large)


class TestHalving(Limited):
    def plan(self) -> Plan:
        return Halving(SMALL, images=IMAGES, epochs=3, out=too_large)


class TestRace(Limited):
    def plan(self) -> Plan:
        return Race(SMALL, images=IMAGES, epochs=3, out=too_large)


class TestSearch(Limited):
    def plan(self) -> Plan:
        return Search(SMALL, "tpe", 50, 3, images=IMAGES, out=too_large)


def test_a_search_tries_all_that_is_not_out() -> None:
    plan = Search(SMALL, "random", 50, 3, images=IMAGES, out=too_large)
    assert plan.budget == 12 - 2


def test_a_sweep_shows_what_is_out_with_the_reason() -> None:
    plan = OneAtATime(SMALL, images=IMAGES, out=too_large)
    state, _ = played(plan, lambda one, repeat: Chance(1)(one, repeat)[-1])
    stage = state.stages[0]
    out = stage.options[2]
    assert (out.value, out.state, out.rows) == (3, "eliminated", ())
    assert verdict(out, stage) == "out: 3 of a, more than 2"
    assert "3: out: 3 of a, more than 2" in sentences.eliminated(stage)
    assert state.complete


def test_a_sweep_whose_start_is_out_begins_with_an_option_that_fits() -> None:
    space = space_of(a=([1, 2, 3], 3), b=([0.1, 0.2], 0.1), c=([False, True], False))
    state, rows = played(OneAtATime(space, images=IMAGES, out=too_large), lambda _one, _: 0.9)
    assert state.complete
    assert dict(rows[0].configuration)["a"] == 1


@pytest.mark.parametrize("measured", [False, True])
def test_a_start_that_is_out_is_not_trained_to_be_compared_with(measured: bool) -> None:
    space = space_of(a=([1, 2, 3], 3), b=([0.1, 0.2], 0.1), c=([False, True], False))
    sweep = OneAtATime(space, images=IMAGES, out=fits if measured else too_large)
    plan, rows = Confirmed(sweep, 2), list[StoredTrial]()
    while specs := plan.state(rows).next:
        configuration = specs[0].configuration
        assert configuration is not None
        why = too_large(configuration)
        if why is not None:  # what the run finds out by itself
            assert measured
            assert specs[0].repeat == 0
            failed = {"state": "failed", "attributes": {"failure": why}}
            rows.append(row_of(specs[0], len(rows), None, **failed))
        else:
            rows.append(row_of(specs[0], len(rows), 0.9))
    state = plan.state(rows)
    assert state.complete
    assert sentences.answer(state).endswith("the start is out: 3 of a, more than 2.")


def test_a_study_of_which_everything_is_out_says_so() -> None:
    nothing = Grid(SMALL, images=IMAGES, out=lambda _: "out: 5 parameters, more than 4").state([])
    assert nothing.complete
    assert nothing.failure == (
        "all 12 configurations exceed a limit, the last one: 5 parameters, more than 4"
    )


NETWORKS = SearchSpace.from_dict(
    {
        "name": "networks",
        "epochs": 2,
        "batch_size": 10,
        "repeats": 2,
        "hyperparameters": {
            "filters": {"options": [4, 8, 16], "start": 8},
            "dense": {"options": [8, 64], "start": 8},
        },
        "limits": {"parameters": 5000, "size": "60 kB"},
    }
)
FACTS = DataFacts("f", (12, 12, 1), 3, 200, 50, 60)


def settings_of(space: SearchSpace = NETWORKS) -> Settings:
    return resolve(space, "networks", {}).with_data(FACTS, {})


def test_a_study_says_how_many_configurations_are_out_and_why() -> None:
    settings, limits = settings_of(), NETWORKS.limits
    out = limited(settings)
    every = [{"filters": filters, "dense": dense} for filters in (4, 8, 16) for dense in (8, 64)]
    costs = [cost_of(one, (12, 12, 1), 3) for one in every]
    assert limits is not None
    exceeded = [limits.exceeded(cost) for cost in costs]
    assert [out(tuple(one.items())) for one in every] == [limits.reason(cost) for cost in costs]
    many = sum("parameters" in one for one in exceeded)
    assert 0 < many < 6
    said = sentences.limits(settings)
    assert said is not None
    assert f"at most 5,000 parameters and 60 kB; {sum(map(bool, exceeded))} of 6 conf" in said
    assert f"{many} by parameters" in said
    found = outside(settings)
    assert found is not None
    assert (found.configurations, found.by["parameters"]) == (6, many)
    assert sentences.limits(settings_of(replace(NETWORKS, limits=None))) is None


def costly(scores: dict[int, list[float]], parameters: dict[int, int]) -> PlanState:
    """A grid over the hyperparameter a with these scores and numbers of parameters."""
    plan = Grid(space_of(a=([1, 2, 3], 1), repeats=3), images=None)
    rows: list[StoredTrial] = []
    while specs := plan.state(rows).next:
        spec = specs[0]
        assert spec.configuration is not None
        number = int(dict(spec.configuration)["a"])
        costs = {"parameters": parameters[number], "milliseconds": 0.5, "milliseconds_error": 0.1}
        value = scores[number][spec.repeat]
        rows.append(row_of(spec, len(rows), value, attributes=costs | {"size": 2e4}))
    return plan.state(rows)


SCORES = {1: [0.800, 0.801, 0.802], 2: [0.930, 0.921, 0.922], 3: [0.931, 0.924, 0.923]}


def test_the_smallest_network_that_is_not_clearly_worse_is_found() -> None:
    state = costly(SCORES, {1: 10, 2: 100, 3: 1000})
    found = rated(state, None, None)
    assert [dict(one.configuration)["a"] for one in found] == [3, 2, 1]
    assert [one.worse for one in found] == [False, False, True]
    least = smallest(found)
    assert least is not None
    assert (dict(least.configuration), least.parameters) == ({"a": 2}, 100)
    said = sentences.smallest(found, ACCURACY)
    assert said is not None
    assert said.startswith(
        "The smallest network that is not clearly worse is a=2 (100 parameters, 20.0 kB, "
        "0.5 ± 0.1 ms a picture): 0.1"
    )
    figure = cost_figure(state, found)
    assert figure is not None
    assert said in figure.caption
    assert "smallest that is not clearly worse" in str(figure.table)
    again = costly(SCORES, {1: 10, 2: 2000, 3: 1000})
    assert sentences.smallest(rated(again, None, None), ACCURACY) == (
        "The smallest network that is not clearly worse is a=3 (1,000 parameters, 20.0 kB, "
        "0.5 ± 0.1 ms a picture): it has the best mean"
    )


def test_without_an_answer_there_is_no_smallest_network() -> None:
    state = Grid(SMALL, images=IMAGES).state([])
    assert rated(state, IMAGES, None) == ()
    assert smallest(()) is None
    assert sentences.smallest((), ACCURACY) is None


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "params",
    [
        {"filters": 2, "dense": 2},
        {"filters": 16, "dense": 32},
        {"filters": 32, "dense": 128, "batch_norm": True},
        {"filters": 8, "blocks": 3, "convolutions": 2, "strided": True, "batch_norm": True},
    ],
    ids=str,
)
def test_the_size_of_a_models_file_is_known_beforehand(params: dict[str, Any]) -> None:
    from study.final.classifier import with_preprocessing
    from study.training.compiled import to_bytes
    from study.training.network import build_cnn

    start_tensorflow(1)
    shape = (28, 28, 1)
    model = build_cnn(params, shape, 10)
    file = to_bytes(with_preprocessing([model], shape))
    assert cost_of(params, shape, 10).size == pytest.approx(len(file), rel=0.02)


@pytest.mark.tensorflow
def test_a_network_that_is_too_slow_is_not_trained(tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path)
    run = replace(base.RUN, limits=Limits(milliseconds=1e-6))
    with pytest.raises(TrainingFailed, match=r"^out: [\d.e-]+ ± [\d.e-]+ ms a picture, more than"):
        next(train(run, base.DATA, checkpoints=store))
    assert store.load(run.key) is None


@pytest.mark.tensorflow
def test_a_time_is_measured_once_and_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.training import trainer

    store = FolderCheckpoints(tmp_path)
    run = replace(base.RUN, limits=Limits(milliseconds=1e6))
    assert run.key == base.RUN.key
    training = train(run, base.DATA, checkpoints=store)
    first = next(training)
    training.close()
    assert first.cost is not None
    assert first.cost.milliseconds is not None
    assert first.cost.error is not None
    assert 0 < first.cost.error < first.cost.milliseconds < 1000

    def never(*_: Any) -> Any:
        raise AssertionError("measured a second time")

    monkeypatch.setattr(trainer, "measured_cost", never)
    epochs, _ = base.finish(train(run, base.DATA, checkpoints=store))
    assert epochs[0].cost == first.cost
    assert epochs[1].cost is None
    plain, _ = base.finish(train(base.RUN, base.DATA))
    assert base.bits(epochs) == base.bits(plain)


def test_a_cost_travels_with_its_epoch() -> None:
    epoch = Epoch.of(0, {"loss": 1.0}, {"loss": 2.0}, 1.0, 2.0)
    for one in (epoch, replace(epoch, cost=Cost(5, 60, 0.5, 0.1))):
        assert str(Epoch.read(asdict(one))) == str(one)  # as NaN is no NaN


@pytest.mark.tensorflow
def test_a_custom_model_is_measured_too() -> None:
    run = own.run_of(own.SEQUENTIAL)
    with pytest.raises(TrainingFailed, match=r"^out: 343 parameters, more than 5$"):
        next(train(replace(run, limits=Limits(parameters=5)), base.DATA))
    epoch = next(train(replace(run, limits=Limits(size="1 MB")), base.DATA))
    assert epoch.cost is not None
    assert epoch.cost.milliseconds is None
    assert 4 * epoch.cost.parameters < epoch.cost.size < 1e5


def test_a_configuration_far_behind_is_clearly_worse_however_many_are_compared() -> None:
    behind = Difference(2, 0.0261, 0.0067, freedom=10, comparisons=55)
    one = Rated((("filters", 16),), Score(2, 0.92, 0.01), behind, 1.0, 9.0, None, None, None)
    assert not behind.clear  # as a claim among 55
    assert one.worse
    level = replace(behind, mean=0.01)
    assert not replace(one, gap=level).worse


def test_an_answer_behind_the_start_on_fresh_repeats_is_not_called_the_best_mean() -> None:
    plan = Confirmed(OneAtATime(space_of(a=([1, 2], 1)), images=IMAGES), 2)

    def scores(configuration: Configuration, repeat: int) -> float:
        other = configuration != (("a", 1),)
        return 0.5 + 0.1 * other * (
            1 if repeat < 2 else -1
        )  # better when chosen, worse on fresh ones

    state, _ = played(plan, scores)
    found, start = state.stages[-1].options
    assert start.gap is not None
    assert start.gap.mean < 0
    assert verdict(start, state.stages[-1]) == "selected"
    assert verdict(found, state.stages[-1]) == ""
