"""Plans without training: curves that follow from configuration and repeat, and ways to play them.

A plan is played either over rows alone (``played``), or over an Optuna study by asking and telling
(``Crew``) with several workers, in any order, with failures and interruptions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.results import Configuration, StoredTrial
from study.space.search_space import SearchSpace, Value
from study.storage.ledger import Ledger
from study.storage.trials import StoredTrials
from study.tuning.pruning import Margin, SweepPruner
from study.tuning.sampler import PlanSampler, run_spec

IMAGES = 500
EAGER = Margin(warmup=1, window=1, errors=0.0, least=0.02)
"""A margin that prunes often, so that the fewest runs tell something about pruning."""

Scores = Callable[[Configuration, int], float]
Curves = Callable[[Configuration, int], tuple[float, ...]]


def space_of(*, repeats: int = 2, **options: tuple[list[Any], Value]) -> SearchSpace:
    """A space from names with their options and start: ``space_of(a=([1, 2], 1))``."""
    given = {name: {"options": held, "start": start} for name, (held, start) in options.items()}
    table = {"name": "fake", "epochs": 3, "batch_size": 10, "repeats": repeats, "tie": "cheapest"}
    return SearchSpace.from_dict(table | {"hyperparameters": given})


SMALL = space_of(a=([1, 2, 3], 2), b=([0.1, 0.2], 0.1), c=([False, True], False))
"""At most (1 + 2 + 1 + 1 + 1) * 2 = 12 runs; integers, floats and truths."""


def fixed_scores(table: Mapping[Any, list[float]]) -> Scores:
    """The scores that ``table`` gives by the values of a configuration."""
    return lambda configuration, repeat: table[tuple(v for _, v in configuration)][repeat]


@dataclass(frozen=True)
class Chance:
    """Accuracies in whole images, so that ties and equal means occur; the same in any order.

    ``coarse`` is how many images one step of quality is worth, ``noise`` the most images that a
    repeat differs by.
    """

    seed: int
    epochs: int = 3
    coarse: int = 6
    noise: int = 6

    def __call__(self, configuration: Configuration, repeat: int) -> tuple[float, ...]:
        level = 400 + self.coarse * random.Random(f"{self.seed}{configuration}").randrange(6)
        own = random.Random(f"{self.seed}{configuration}{repeat}")
        correct = [
            level - 30 // 2**epoch + own.randint(0, self.noise) for epoch in range(self.epochs)
        ]
        return tuple(images / IMAGES for images in correct)


def row_of(slot: RunSpec, number: int, value: float | None = None, **fields: Any) -> StoredTrial:
    """A row of ``run_spec``: complete with ``value``, running without; ``fields`` override."""
    assert slot.configuration is not None
    return StoredTrial(
        **{
            "number": number,
            "trial_id": number,
            "state": "running" if value is None else "complete",
            "stage": slot.stage,
            "option": slot.option,
            "configuration": slot.configuration,
            "repeat": slot.repeat,
            "reference": slot.reference,
            "until": slot.epochs,
            "value": value,
            "reported": () if value is None else (value,),
        }
        | fields
    )


def played(
    plan: Plan, scores: Scores, rows: list[StoredTrial] | None = None, runs: int = 10**6
) -> tuple[PlanState, list[StoredTrial]]:
    """Play a plan of known configurations one run after the other, at most ``runs`` of them."""
    rows = list(rows or [])
    while runs and (plan_state := plan.state(rows)).next:
        slot = plan_state.next[0]
        assert slot.configuration is not None
        rows.append(row_of(slot, len(rows), scores(slot.configuration, slot.repeat)))
        runs -= 1
    return plan.state(rows), rows


def counted(plan_state: PlanState) -> dict[tuple[Configuration, int], tuple[Any, ...]]:
    """What the plan_state is made of: the end and the curve of every counted slot."""
    return {
        (row.configuration, row.repeat): (row.state, row.value, row.reported)
        for stage in plan_state.stages
        for option in stage.options
        for row in option.rows
    }


def decided(plan_state: PlanState) -> list[Any]:
    """What the plan_state says, stage by stage, and the answer."""
    stages = [
        (s.name, s.best and s.best.value, s.selected and s.selected.configuration)
        for s in plan_state.stages
    ]
    return [*stages, plan_state.incumbent, plan_state.score]


def new_study(storage: optuna.storages.BaseStorage | None = None) -> optuna.Study:
    """The study "fake" that maximizes; it is made where ``storage`` has none."""
    return optuna.create_study(
        study_name="fake", storage=storage, direction="maximize", load_if_exists=True
    )


@dataclass
class Crew:
    """Workers who ask for the slots of a plan, report epoch by epoch and tell.

    ``chance`` decides who goes on next, whether a run that cannot count any more is given up, and,
    with the probability ``breaks``, whether everything is killed and begun anew. ``fails`` says
    which runs fail, after their first epoch.
    """

    study: optuna.Study
    plan: Callable[[], Plan]
    curves: Curves
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    workers: int = 1
    margin: Margin | None = None
    fails: Callable[[Configuration, int], bool] = lambda _configuration, _repeat: False
    breaks: float = 0.0

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """What a new process does: nothing is known but what is stored."""
        self.mind = self.plan()
        self.sampler = PlanSampler(self.mind)
        self.study.sampler = self.sampler
        self.study.pruner = (
            SweepPruner(IMAGES, self.margin) if self.margin else optuna.pruners.NopPruner()
        )
        running = [row for row in self.rows() if row.state == "running"]
        self.active = [Trial(self.study, row.trial_id) for row in running]

    def rows(self) -> list[StoredTrial]:
        return StoredTrials()(self.study)

    def state(self) -> PlanState:
        return self.mind.state(StoredTrials()(self.study))

    def play(self, runs: int | None = None) -> PlanState:
        """Play until the plan is complete, or until ``runs`` trials were begun."""
        begun = 0
        while not (plan_state := self.state()).complete:
            free = bool(plan_state.next) and len(self.active) < self.workers
            if runs is not None and begun >= runs:
                return plan_state
            if free and (not self.active or self.chance.random() < 0.5):
                spec = self.sampler.choose(plan_state, self.rows())
                ledger = Ledger(self.study, self.mind.space, self.mind.metric)
                self.active.append(ledger.start(spec, {}).trial)
                begun += 1
            else:
                self._advance(self.chance.choice(self.active), plan_state)
            if self.chance.random() < self.breaks:
                self._begin()
        return plan_state

    def _advance(self, trial: Trial, plan_state: PlanState) -> None:
        """One epoch more of a run, or its failure, or its end."""
        wanted = run_spec(trial)
        assert wanted.configuration is not None
        if plan_state.superseded(wanted) and self.chance.random() < 0.5:
            trial.set_user_attr("cancelled", "the plan does not want it any more")
            self._tell(trial, state=TrialState.PRUNED)
            return
        curve = self.curves(wanted.configuration, wanted.repeat)
        done = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
        if done < len(curve):
            trial.report(curve[done], step=done + 1)
            done += 1
        if self.fails(wanted.configuration, wanted.repeat):
            trial.set_user_attr("failure", "the loss is NaN")
            self._tell(trial, state=TrialState.FAIL)
        elif trial.should_prune():
            self._tell(trial, state=TrialState.PRUNED)
        elif done == len(curve):
            trial.set_user_attr("curve", {"val_accuracy": list(curve)})
            self._tell(trial, curve[-1])
        elif done == wanted.epochs:
            self._release(trial)

    def _tell(
        self, trial: Trial, value: float | None = None, state: TrialState | None = None
    ) -> None:
        self.study.tell(trial, value, state=state)
        self._release(trial)

    def _release(self, trial: Trial) -> None:
        self.active = [run for run in self.active if run.number != trial.number]


def issued(study: optuna.Study) -> list[tuple[Configuration, int, Configuration | None]]:
    """The slots that were given out and ended well, with what they were compared with.

    One entry for each time; a run that was given up may have to be begun again.
    """
    return [
        (row.configuration, row.repeat, row.reference)
        for row in StoredTrials()(study)
        if row.state in {"complete", "pruned"} and row.cancelled is None
    ]
