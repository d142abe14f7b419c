"""The plan as an Optuna sampler: in plain loops, by hand, in threads, after a kill."""

import random
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import Trial, TrialState
from plan_fakes import EAGER, IMAGES, SMALL, Chance, Crew, counted, issued, new_study, space_of

import study as package
import study.tuning.one_at_a_time
from study.errors import PlanExhausted, SettingsError
from study.plan.plan import RunSpec
from study.plan.results import configuration
from study.plan.sweep import OneAtATime
from study.storage.location import Database
from study.storage.trials import RUN_SPEC, StoredTrials
from study.tuning.one_at_a_time import OneAtATimeSampler
from study.tuning.pruning import SweepPruner
from study.tuning.sampler import run_spec

CURVES = Chance(1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def plan() -> OneAtATime:
    return OneAtATime(SMALL, images=IMAGES)


def study_of(storage: BaseStorage | None = None, **given: Any) -> optuna.Study:
    """A new study with a new sampler; an existing one as a new process would load it."""
    found = new_study(storage)
    found.sampler = OneAtATimeSampler(SMALL, images=IMAGES)
    for name, value in given.items():
        setattr(found, name, value)
    return found


def suggested(found: optuna.Study) -> Trial:
    """A new trial that has been asked for all that the plan varies."""
    trial = found.ask()
    SMALL.suggest(trial)
    return trial


def value_of(trial: Trial) -> float:
    return CURVES(configuration(SMALL.suggest(trial)), run_spec(trial).repeat)[-1]


def curve_of(trial: Trial) -> list[float]:
    spec = run_spec(trial)
    return CURVES(spec.configuration or (), spec.repeat)


def states(found: optuna.Study) -> Counter[str]:
    return Counter(trial.state.name for trial in found.trials)


def calm() -> optuna.Study:
    """The study when nothing disturbs it."""
    found = study_of()
    found.optimize(value_of)
    return found


def results(found: optuna.Study) -> dict[Any, Any]:
    """The values of the slots that count in the end."""
    plan_state = plan().state(StoredTrials()(found))
    assert plan_state.complete
    return {key: value[1] for key, value in counted(plan_state).items()}


def test_the_example_of_the_documentation_runs_and_ends_by_itself() -> None:
    documentation = study.tuning.one_at_a_time.__doc__ or ""
    example = textwrap.dedent(documentation.partition("::\n")[2].partition("\n`optimize`")[0])
    assert "optimize" in example
    names: dict[str, Any] = {
        "study": package,
        "optuna": optuna,
        "train": lambda filters, dropout: 0.5 + filters / 1000 - dropout,
    }
    exec(example, names)
    trials = names["optuna_study"].trials
    assert len(trials) == 3 * (1 + 2 + 2)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert study.run_spec(trials[0]).stage == "filters"


def test_a_loop_ends_with_the_plan() -> None:
    found = calm()
    assert states(found) == {"COMPLETE": len(found.trials)}
    assert max(Counter(issued(found)).values()) == 1
    assert plan().state(StoredTrials()(found)).complete


def test_a_trial_suggests_what_its_slot_says() -> None:
    for trial in calm().trials:
        assert trial.params == dict(run_spec(trial).configuration or ())
        assert trial.params == trial.system_attrs[RUN_SPEC]["params"]


def test_the_slot_of_a_running_trial_is_known_before_it_suggests_anything() -> None:
    found = study_of()
    slots = [run_spec(found.ask()) for _ in range(2)]
    assert [(one.stage, one.option, one.repeat) for one in slots] == [("a", 2, 0), ("a", 2, 1)]
    assert slots[0].configuration == configuration(SMALL.start)


def test_a_preferred_configuration_continues_before_another_one_begins() -> None:
    found = study_of()
    for trial in (found.ask(), found.ask()):  # the start's two repeats
        found.tell(trial, value_of(trial))
    begun, other = run_spec(found.ask()), run_spec(found.ask())
    assert other.configuration != begun.configuration
    trials = StoredTrials()(found)
    chosen = found.sampler.choose(plan().state(trials), trials, other.configuration)
    assert (chosen.configuration, chosen.repeat) == (other.configuration, other.repeat + 1)


def test_an_ask_beyond_the_plan_is_refused_and_leaves_no_trial_running() -> None:
    found = calm()
    with pytest.raises(PlanExhausted, match="nothing left to ask for"):
        found.ask()
    assert states(found)["RUNNING"] == 0
    assert results(found) == results(calm())


def test_an_ask_that_waits_for_the_askers_own_run_is_refused() -> None:
    found = study_of(pruner=SweepPruner(IMAGES))
    first, second = found.ask(), found.ask()
    with pytest.raises(PlanExhausted, match=r"depends on running trials \[0, 1\]"):
        found.ask()
    assert states(found) == {"RUNNING": 2, "FAIL": 1}
    for trial in (first, second):
        found.tell(trial, value_of(trial))
    found.optimize(value_of)
    assert results(found) == results(calm())


def test_without_a_pruner_that_compares_every_slot_of_a_stage_can_be_asked_for_at_once() -> None:
    found = study_of()
    asked = [run_spec(found.ask()) for _ in range(6)]
    assert {(one.option, one.repeat) for one in asked} == {
        (o, r) for o in (1, 2, 3) for r in (0, 1)
    }
    with pytest.raises(PlanExhausted):
        found.ask()


def test_a_loop_over_a_complete_study_ends_at_once() -> None:
    found = calm()
    before = states(found)["COMPLETE"]
    found.optimize(value_of)
    assert states(found)["COMPLETE"] == before
    assert states(found)["RUNNING"] == 0


def test_a_superfluous_trial_ends_before_it_trains_whatever_the_objective_asks_first() -> None:
    found = calm()
    trained: list[RunSpec] = []

    def objective(trial: Trial) -> float:
        trained.append(run_spec(trial))
        return 0.5

    found.optimize(objective)
    assert trained == []
    assert states(found)["PRUNED"] == 1


def test_an_objective_that_suggests_an_unknown_name_is_refused() -> None:
    found = study_of()
    with pytest.raises(SettingsError, match=r"suggests 'z'.* suggest only a, b, c"):
        found.optimize(lambda trial: trial.suggest_float("z", 0, 1))
    assert states(found)["RUNNING"] == 0


def test_enqueued_trials_are_refused() -> None:
    found = study_of()
    found.enqueue_trial({"a": 3})
    with pytest.raises(SettingsError, match=r"enqueue_trial: .*list the value among the options"):
        found.ask()
    assert states(found) == {"FAIL": 1}
    found.optimize(value_of)
    assert results(found) == results(calm())


def test_a_failing_run_eliminates_its_option_and_the_study_continues() -> None:
    found = study_of()

    def objective(trial: Trial) -> float:
        value = value_of(trial)
        if run_spec(trial).option == 3 and run_spec(trial).repeat == 1:
            trial.set_user_attr("failure", "out of memory")
            raise MemoryError
        return value

    found.optimize(objective, catch=(MemoryError,))
    tried = [row for row in StoredTrials()(found) if row.option == 3 and row.repeat == 1]
    assert [row.state for row in tried] == ["failed"]
    option = next(o for o in found.sampler.summary(found)[0].options if o.value == 3)
    assert option.failure == "out of memory"
    assert states(found)["RUNNING"] == 0


def test_a_run_that_comes_to_no_number_is_a_failure() -> None:
    found = study_of()
    found.optimize(lambda trial: float("nan") if value_of(trial) else 0.0)
    stages = found.sampler.summary(found)
    assert all(option.failure for stage in stages for option in stage.options)
    assert set(states(found)) == {"FAIL"}


def test_one_sampler_serves_two_studies() -> None:
    one, other = study_of(), study_of()
    other.sampler = one.sampler
    for found in (one, other):
        found.optimize(value_of)
        assert results(found) == results(calm())


def test_hyperbands_brackets_hide_nothing_from_the_plan() -> None:
    pruner = HyperbandPruner(min_resource=1, max_resource=9)
    found = study_of(pruner=pruner)

    def objective(trial: Trial) -> float:
        trial.report(value_of(trial), step=1)
        trial.should_prune()
        return value_of(trial)

    found.optimize(objective)
    assert results(found) == results(calm())


def test_a_pruner_that_stops_the_incumbent_is_refused() -> None:
    class Harsh(NopPruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return True

    found = study_of(pruner=Harsh())

    def objective(trial: Trial) -> float:
        trial.report(0.5, step=1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value_of(trial)

    with pytest.raises(SettingsError, match=r"pruner=study\.SweepPruner"):
        found.optimize(objective)
    assert states(found) == {"PRUNED": 1}
    found.pruner = NopPruner()
    found.optimize(objective)  # what was pruned does not count
    assert plan().state(StoredTrials()(found)).complete


def test_optunas_default_pruner_goes_with_an_objective_that_reports() -> None:
    found = study_of(pruner=MedianPruner(n_startup_trials=2, n_warmup_steps=1))
    pruned = []

    def objective(trial: Trial) -> float:
        for step, value in enumerate(curve_of(trial)):
            trial.report(value, step=step)
            if run_spec(trial).reference is not None and trial.should_prune():
                pruned.append(trial.number)
                raise optuna.TrialPruned
        return value_of(trial)

    found.optimize(objective)
    assert pruned
    assert plan().state(StoredTrials()(found)).complete


@pytest.mark.parametrize("attempt", range(4))
def test_threads_share_the_plan(attempt: int) -> None:
    """Every slot once, whoever takes it; nobody is left running and nobody raises."""
    chance = random.Random(attempt)

    def objective(trial: Trial) -> float:
        value = value_of(trial)
        time.sleep(chance.random() / 500)
        return value

    found = study_of()
    found.optimize(objective, n_jobs=3)
    assert results(found) == results(calm())
    assert max(Counter(issued(found)).values()) == 1
    assert states(found)["RUNNING"] == 0


class SlowToFinish(InMemoryStorage):
    """Takes its time to write down that a trial is complete; says when it began to."""

    def __init__(self) -> None:
        super().__init__()
        self.finishing = threading.Event()
        self.released = threading.Event()

    def set_trial_state_values(self, trial_id: int, state: TrialState, *values: Any) -> bool:
        if state == TrialState.COMPLETE:
            self.finishing.set()
            self.released.wait(60)
        return super().set_trial_state_values(trial_id, state, *values)


def test_an_ask_waits_for_a_run_whose_end_is_just_being_written() -> None:
    storage = SlowToFinish()
    found = study_of(
        storage, sampler=OneAtATimeSampler(SMALL, repeats=1), pruner=SweepPruner(IMAGES)
    )
    with ThreadPoolExecutor(2) as pool:
        told = pool.submit(lambda: found.tell(suggested(found), 0.5))
        assert storage.finishing.wait(60)
        asked = pool.submit(found.ask)
        with pytest.raises(TimeoutError):
            asked.result(0.3)
        storage.released.set()
        told.result()
        assert run_spec(asked.result()).option == 1


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    """A new process adopts what was running: the same trials, with their tickets and reports."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    space = space_of(a=([1, 2], 1))

    def loaded(*, create: bool = False) -> optuna.Study:
        found = new_study(Database.at(url).open(create=create))
        found.sampler = OneAtATimeSampler(space)
        return found

    found = loaded(create=True)
    first, second = found.ask(), found.ask()
    first.report(0.5, step=1)
    tickets = [trial.system_attrs[RUN_SPEC] for trial in found.trials]
    del found, first, second

    again = loaded()
    running = again.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    adopted = [Trial(again, trial._trial_id) for trial in running]
    assert [trial.number for trial in adopted] == [0, 1]
    assert [trial.system_attrs[RUN_SPEC] for trial in again.trials] == tickets
    assert [space.suggest(trial) for trial in adopted] == [{"a": 1}, {"a": 1}]
    for trial in adopted:
        again.tell(trial, 0.9)
    del again

    last = loaded()
    last.optimize(lambda trial: 0.8 + 0 * space.suggest(trial)["a"] + 0.01 * run_spec(trial).repeat)
    assert [trial.state for trial in last.trials] == [TrialState.COMPLETE] * 4
    assert max(Counter(issued(last)).values()) == 1
    assert last.trials[0].intermediate_values == {1: 0.5}


def test_a_study_in_a_database_is_the_study_in_memory(tmp_path: Path) -> None:
    """Integers, floats and truths come back from JSON as they were."""
    stored = Database.at(f"sqlite:///{tmp_path / 'study.db'}").open(create=True)
    in_memory, in_file = new_study(), new_study(stored)
    for found in (in_memory, in_file):
        Crew(found, plan, CURVES, margin=EAGER, workers=2).play()
    assert StoredTrials()(new_study(stored))[0].configuration == configuration(SMALL.start)
    assert counted(plan().state(StoredTrials()(in_file))) == counted(
        plan().state(StoredTrials()(in_memory))
    )


def test_an_interrupted_ask_leaves_a_run_to_adopt_or_nothing() -> None:
    class Interrupted(InMemoryStorage):
        after = False

        def set_trial_system_attr(self, *args: Any) -> None:
            if self.after:
                super().set_trial_system_attr(*args)
            raise KeyboardInterrupt

    for after in (False, True):
        storage = Interrupted()
        storage.after = after
        found = study_of(storage)
        with pytest.raises(KeyboardInterrupt):
            found.ask()
        assert not [row for row in StoredTrials()(found) if row.state == "failed"]


def test_the_sweep_pruner_and_the_sampler_go_together_in_plain_code() -> None:
    found = study_of(pruner=SweepPruner(IMAGES, EAGER))

    def objective(trial: Trial) -> float:
        for epoch, value in enumerate(curve_of(trial)):
            trial.report(value, step=epoch + 1)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value_of(trial)

    found.optimize(objective, n_jobs=2)
    by_values = replace(SMALL, score="last")  # as any objective's but the program's own
    crew = Crew(new_study(), lambda: OneAtATime(by_values, images=IMAGES), CURVES, margin=EAGER)
    plan_state = plan().state(StoredTrials()(found))
    assert counted(plan_state) == counted(crew.play())


def test_the_package_offers_the_sampler() -> None:
    offered = SimpleNamespace(**{name: getattr(package, name) for name in package.__all__})
    assert offered.OneAtATimeSampler is OneAtATimeSampler
    assert {*package.__all__} <= {*dir(package)}
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = package.Nonsense
