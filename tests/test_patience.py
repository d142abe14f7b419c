"""Runs that end early, as their patience is over: plans and pruners go on with what they had."""

from dataclasses import replace
from typing import Any

import optuna
import pytest
from plan_contract import PlanContract
from plan_fakes import IMAGES, SMALL, Chance, row_of

from study.plan.halving import Halving
from study.plan.plan import Plan, RunSpec
from study.plan.race import Race
from study.plan.results import Configuration, configuration
from study.plan.sweep import OneAtATime
from study.space.metric import ACCURACY
from study.storage.ledger import as_json
from study.storage.trials import RUN_SPEC
from study.tuning.pruning import Margin, SweepPruner

EPOCHS = 8


class Impatient(Chance):
    """Curves of 1 to 8 epochs, the same ones for the same configuration and repeat."""

    def __call__(self, configuration: Configuration, repeat: int) -> tuple[float, ...]:
        whole = super().__call__(configuration, repeat)
        return whole[: 1 + sum(f"{configuration}{repeat}{self.seed}".encode()) % EPOCHS]


class EndEarly(PlanContract):
    def curves(self, seed: int) -> Chance:
        return Impatient(seed, EPOCHS)


class TestSweep(EndEarly):
    def plan(self) -> Plan:
        return OneAtATime(SMALL, images=IMAGES)


class TestHalving(EndEarly):
    def plan(self) -> Plan:
        return Halving(SMALL, images=IMAGES, epochs=EPOCHS)


class TestRace(EndEarly):
    def plan(self) -> Plan:
        return Race(SMALL, images=IMAGES, epochs=EPOCHS)


def test_the_curve_of_a_run_that_ended_early_goes_on_at_its_value() -> None:
    spec = RunSpec("a", 1, configuration({"a": 1}), 0, None)
    ended = row_of(spec, 0, 0.9, reported=(0.8, 0.9, 0.85))
    assert ended.continued(5) == (0.8, 0.9, 0.85, 0.9, 0.9)
    assert ended.continued(3) == (0.8, 0.9, 0.85)
    assert row_of(spec, 0, reported=(0.8,)).continued(5) == (0.8,)  # it is running


@pytest.mark.parametrize(("level", "pruned"), [(0.80, True), (0.899, False)])
def test_a_run_is_compared_with_the_best_epoch_of_a_reference_that_ended_early(
    level: float, pruned: bool
) -> None:
    study = optuna.create_study(direction="maximize")
    reference, own = configuration({"a": 1}), configuration({"a": 2})

    def added(spec: RunSpec, curve: list[float], **fields: Any) -> None:
        study.add_trial(
            optuna.trial.create_trial(
                system_attrs={RUN_SPEC: as_json(spec, ACCURACY)},
                intermediate_values=dict(enumerate(curve, start=1)),
                **fields,
            )
        )

    spec = RunSpec("a", 1, reference, 0, None)
    added(spec, [0.7, 0.9, 0.6], value=0.9)
    added(
        replace(spec, configuration=own, reference=reference),
        [0.7, 0.8, 0.8, level, level, level],
        state=optuna.trial.TrialState.RUNNING,
    )
    pruner = SweepPruner(1000, Margin(errors=0.0))
    assert pruner.prune(study, study.trials[1]) == pruned
