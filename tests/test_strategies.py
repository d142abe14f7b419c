"""Strategies: what each promises, and that a new one is a file and an entry in the table."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from optuna.storages import InMemoryStorage
from plan_contract import PlanContract
from plan_fakes import SMALL
from typer.testing import CliRunner

from study.cli.app import app
from study.errors import SettingsError, SpaceError
from study.plan.budget import Budget
from study.plan.comparison import chosen_among, ranked
from study.plan.grid import Grid
from study.plan.halving import Halving
from study.plan.plan import Plan, PlanState, RunIndex, RunSpec
from study.plan.results import Configuration, StoredTrial, configuration
from study.plan.search import Search
from study.plan.strategies import STRATEGIES, Strategy, plan_of, strategy_of
from study.plan.sweep import OneAtATime
from study.space.search_space import SearchSpace
from study.space.settings import Setting, Settings, resolve


class RandomWithRepeats(Plan):
    """Plain random search: configurations drawn in advance, each with all its repeats."""

    def __init__(self, space: SearchSpace, repeats: int, budget: int, seed: int) -> None:
        super().__init__(space, repeats)
        draw = random.Random(seed)
        drawn = [
            configuration(
                space.fixed | {p.name: draw.choice(p.options) for p in space.hyperparameters}
            )
            for _ in range(budget)
        ]
        self.drawn: list[Configuration] = list(dict.fromkeys(drawn))

    def state(self, rows: Sequence[StoredTrial]) -> PlanState:
        index = RunIndex(rows)
        found = [index.option(n, c, (), self.repeats) for n, c in enumerate(self.drawn)]
        options, best = ranked(found, None, metric=self.metric)
        missing = [
            RunSpec("random", o.value, o.configuration, repeat, ())
            for o in options
            for repeat in o.missing(self.repeats)
        ]
        return chosen_among(
            "random",
            options,
            best,
            index.ready(missing),
            complete=not missing,
            runs_expected=len(options) * self.repeats,
            metric=self.metric,
        )


def halving() -> Halving:
    """Six configurations for one epoch, then fewer; two finalists with two fresh repeats."""
    return Halving(SMALL, 2, 500, seed=1, epochs=3, budget=Budget(30))


class TestSweep(PlanContract):
    def plan(self) -> Plan:
        return OneAtATime(SMALL, images=self.images)


class TestSweepInPasses(PlanContract):
    def plan(self) -> Plan:
        space = replace(SMALL, passes=3, score="last")
        return OneAtATime(space, images=self.images)


class TestGrid(PlanContract):
    def plan(self) -> Plan:
        return Grid(SMALL, images=self.images)


class TestRandom(PlanContract):
    def plan(self) -> Plan:
        return Search(SMALL, "random", 5, 3, images=self.images)


class TestTpe(PlanContract):
    def plan(self) -> Plan:
        return Search(SMALL, "tpe", 5, 3, images=self.images)


class TestPlainRandom(PlanContract):
    def plan(self) -> Plan:
        return RandomWithRepeats(SMALL, 2, 5, 1)


def test_the_runs_of_a_rung_start_at_once() -> None:
    plan = halving()
    first = plan.state([]).next
    paused = [
        StoredTrial(
            number, number, "paused", one.stage, one.option, one.configuration or (), 0, None, None,
            reported=(0.5,), until=one.epochs,
        )
        for number, one in enumerate(first)
    ]  # fmt: skip
    waiting = plan.state(paused).next
    one = next(trial for trial in paused if trial.configuration == waiting[0].configuration)
    resumed = replace(one, state="running", until=waiting[0].epochs)
    state = plan.state([resumed if trial is one else trial for trial in paused])
    assert len(waiting) > 1
    assert [spec.configuration for spec in state.next] == [
        spec.configuration for spec in waiting[1:]
    ]


class TestHalving(PlanContract):
    def plan(self) -> Plan:
        return halving()


def test_a_grid_trains_everything_and_takes_the_best_mean() -> None:
    rows = TestGrid().history(seed=4)
    assert len({(row.configuration, row.repeat) for row in rows}) == 3 * 2 * 2 * 2 == len(rows)
    means: dict[Configuration, float] = {}
    for row in rows:
        means[row.configuration] = means.get(row.configuration, 0) + (row.value or 0)
    state = Grid(SMALL, images=500).state(rows)
    assert state.incumbent is not None
    assert means[state.incumbent] == max(means.values())


def test_a_grid_needs_options_and_not_too_many() -> None:
    table = {"name": "a", "epochs": 1, "batch_size": 1, "repeats": 1}
    line = {"rate": {"low": 0.1, "high": 0.5, "start": 0.2}}
    with pytest.raises(SpaceError, match=r"hyperparameters\.rate: is a range"):
        Grid(SearchSpace.from_dict(table | {"hyperparameters": line}))
    wide = {name: {"options": list(range(22)), "start": 0} for name in "abc"}
    with pytest.raises(SpaceError, match="all 10648 configurations"):
        Grid(SearchSpace.from_dict(table | {"hyperparameters": wide}))


def settings(**chosen: str) -> Settings:
    given = {name: Setting(value, "command line") for name, value in chosen.items()}
    return resolve(SMALL, "small", given)


def test_the_sweep_has_its_own_pruner_and_a_search_has_none() -> None:
    assert strategy_of(settings()).pruner == "sweep"
    assert strategy_of(settings(sampler="tpe")).pruner == "none"


def test_an_unknown_sampler_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        SettingsError, match=r"--sampler tpee: .* choose one of sweep, grid, halving, race, tpe"
    ):
        plan_of(settings(sampler="tpee"))


def test_the_sweeps_pruner_is_refused_where_nothing_is_compared() -> None:
    with pytest.raises(SettingsError, match="--pruner sweep"):
        plan_of(settings(sampler="tpe", pruner="sweep"))


def test_paused_runs_are_gone_on_with_in_their_own_trial_or_told_pruned_at_the_end() -> None:
    kept = fakes.Kept()
    state = fakes.drive(storage := InMemoryStorage(), plan=halving(), kept=kept)
    assert state.complete
    rows = fakes.rows(storage)
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned
    assert all(len(row.reported) < fakes.EPOCHS for row in pruned)
    fresh = [r for r in rows if r.stage == "final" and r.configuration == state.incumbent]
    assert [row.state for row in fresh] == ["complete", "complete"]
    assert all(len(row.reported) == fakes.EPOCHS for row in fresh)
    assert len(kept.forgotten) >= len(rows)


@pytest.mark.parametrize("deaths", [[4], [9, 3], [14], [20], [25, 4]])
def test_a_driver_that_dies_between_pause_and_end_loses_nothing(deaths: list[int]) -> None:
    calm = fakes.drive(undisturbed := InMemoryStorage(), plan=halving())
    storage = fakes.MortalStorage()
    state = fakes.drive_killed(storage, deaths, plan=halving())
    assert state.incumbent == calm.incumbent
    lengths, others = (
        sorted(len(row.reported) for row in fakes.rows(one)) for one in (storage, undisturbed)
    )
    assert lengths == others


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_new_strategy_is_an_entry_in_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(chosen: Settings) -> Plan:
        return RandomWithRepeats(chosen.space, chosen.repeats, 2, chosen["seed"])

    monkeypatch.setitem(STRATEGIES, "mine", Strategy(make, "Two at random"))
    monkeypatch.chdir(tmp_path)
    words = [
        "--sampler",
        "mine",
        "--epochs",
        "1",
        "--repeats",
        "1",
        "--jobs",
        "1",
        "--mlflow",
        "none",
    ]
    done = CliRunner().invoke(app, ["run", "smoke", *words])
    assert done.exit_code == 0, done.output
    best = json.loads(CliRunner().invoke(app, ["best", "--json"]).output)
    assert best["state"] == "complete"
