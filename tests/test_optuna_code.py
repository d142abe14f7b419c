"""The sampler in plain Optuna code, as people who know Optuna write it."""

import multiprocessing
import os
import pickle
import runpy
import socket
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optunahub
import psutil
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import Trial

import study.tuning.sampler
from study.errors import PlanExhausted
from study.storage.ledger import as_json
from study.storage.location import Database
from study.storage.trials import RUN_SPEC
from study.tuning.one_at_a_time import OneAtATimeSampler
from study.tuning.sampler import ASKED_BY, run_spec

OPTIONS = {"filters": [8, 16, 32], "dropout": [0.1, 0.2, 0.3]}
START = {"filters": 16, "dropout": 0.2}


def sampler(**given: Any) -> OneAtATimeSampler:
    return OneAtATimeSampler(OPTIONS, start=START, repeats=2, **given)


def error(filters: float, dropout: float) -> float:
    return abs(filters - 32) / 100 + abs(dropout - 0.1)


def study_of(direction: str = "maximize", **given: Any) -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=sampler(), **given)


def asked(trial: Trial) -> tuple[float, float]:
    return trial.suggest_int("filters", 8, 32), trial.suggest_float("dropout", 0.0, 0.5)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_better_end_is_found_in_either_direction(direction: str) -> None:
    found = study_of(direction)
    sign = -1 if direction == "maximize" else 1
    found.optimize(lambda trial: sign * error(*asked(trial)))
    stages = found.sampler.summary(found)
    assert [stage.selected and stage.selected.value for stage in stages] == [32, 0.1]
    gaps = [option.gap.mean for stage in stages for option in stage.options if option.gap]
    assert gaps
    assert min(gaps) > 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda t: (t.suggest_int("filters", 8, 64, step=8), t.suggest_float("dropout", 0, 1)),
        lambda t: (
            t.suggest_int("filters", 8, 64, log=True),
            t.suggest_float("dropout", 0, 1, step=0.1),
        ),
        lambda t: (
            t.suggest_categorical("filters", [32, 8, 16]),
            t.suggest_categorical("dropout", [0.3, 0.1, 0.2, 0.9]),
        ),
        lambda t: (t.suggest_float("filters", 1, 99), t.suggest_float("dropout", 0.1, 0.3)),
    ],
    ids=["steps", "log", "choices in another order", "real numbers"],
)
def test_an_objective_may_ask_in_any_way_that_holds_the_plans_value(
    ask: Callable[[Trial], tuple[float, float]],
) -> None:
    found = study_of("minimize")
    found.optimize(lambda trial: error(*ask(trial)))
    assert found.best_params == {"filters": 32, "dropout": pytest.approx(0.1)}
    assert len(found.trials) == 2 * (1 + 2 + 2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda t: t.suggest_int("filters", 8, 12),
        lambda t: t.suggest_int("filters", 9, 33, step=4),
        lambda t: t.suggest_categorical("filters", [8, 32]),
        lambda t: t.suggest_categorical("filters", ["16", "8", "32"]),
    ],
)
def test_a_value_outside_of_what_is_suggested_is_refused_by_name(
    ask: Callable[[Trial], Any],
) -> None:
    with pytest.raises(ValueError, match=r"filters: the plan.s 16 is not in what the objective"):
        study_of().optimize(lambda trial: float(ask(trial)))


def test_a_hyperparameter_that_is_never_asked_for_is_refused_after_the_first_trial() -> None:
    found = study_of()
    with pytest.raises(ValueError, match="never suggests 'dropout'"):
        found.optimize(lambda trial: float(trial.suggest_int("filters", 8, 32)))
    assert len(found.trials) == 1
    assert found.sampler.summary(found)[0].options[0].rows == ()  # and does not count


def test_an_objective_that_always_fails_ends_the_study_without_an_answer() -> None:
    def objective(trial: Trial) -> float:
        asked(trial)
        raise RuntimeError("the disk is on fire")

    found = study_of()
    found.optimize(objective, catch=(RuntimeError,))
    stages = found.sampler.summary(found)
    assert "all 3 configurations failed" in (stages[-1].failure or "")
    assert all(option.failure for stage in stages for option in stage.options)


def test_fixing_a_hyperparameter_from_outside_is_refused_with_the_way_out() -> None:
    found = study_of()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found.sampler = optuna.samplers.PartialFixedSampler({"filters": 8}, found.sampler)
    with pytest.raises(ValueError, match="filters was 8 where the plan trains 16: fix a"):
        found.optimize(lambda trial: error(*asked(trial)))


def test_a_hyperparameter_of_one_option_is_fixed() -> None:
    single = OneAtATimeSampler({"filters": [16], "dropout": [0.1, 0.2]}, repeats=1)
    found = optuna.create_study(direction="minimize", sampler=single)
    found.optimize(lambda trial: error(*asked(trial)))
    assert {trial.params["filters"] for trial in found.trials} == {16}
    assert found.best_params["dropout"] == 0.1


@pytest.mark.parametrize(
    ("options", "start", "says"),
    [
        ({"a": [[1], [2]]}, {}, r"a: \[1\] is not allowed"),
        ({"a": [1, "1"]}, {}, "mix types"),
        ({"a": []}, {}, "a"),
        ({"a": [1, 2]}, {"a": 3}, "start"),
        ({"a": [1, 2]}, {"b": 1}, "start.b"),
        ({}, {}, "are missing"),
    ],
)
def test_options_that_cannot_be_a_plan_are_refused(
    options: dict[str, Any], start: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        OneAtATimeSampler(options, start=start)


def test_a_space_or_its_name_is_taken_too() -> None:
    named = OneAtATimeSampler("digits")
    assert named.plan.repeats == 3
    assert OneAtATimeSampler(named.plan.space).plan.space == named.plan.space


def test_a_sampler_can_be_pickled_and_goes_on() -> None:
    found = study_of("minimize")
    found.optimize(lambda trial: error(*asked(trial)), n_trials=3)
    found.sampler = pickle.loads(pickle.dumps(found.sampler))
    found.optimize(lambda trial: error(*asked(trial)))
    assert found.best_params == {"filters": 32, "dropout": 0.1}
    assert len(found.trials) == 10


def _work(url: str) -> None:
    found = optuna.load_study(
        study_name="shared", storage=Database.at(url).open(), sampler=sampler()
    )
    found.optimize(lambda trial: error(*asked(trial)))


@pytest.mark.slow
def test_several_processes_on_one_storage_train_each_run_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    optuna.create_study(
        study_name="shared", storage=Database.at(url).open(create=True), direction="minimize"
    )
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(url,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    found = optuna.load_study(
        study_name="shared", storage=Database.at(url).open(), sampler=sampler()
    )
    stages = found.sampler.summary(found)
    assert [stage.selected and stage.selected.value for stage in stages] == [32, 0.1]
    trained = Counter(
        (spec.configuration, spec.repeat)
        for spec in (run_spec(trial) for trial in found.trials if trial.values)
    )
    assert len(trained) == 10
    assert set(trained.values()) == {1}


def elsewhere(host: str | None = None, number: int | None = None, age: float = 0.0) -> list[Any]:
    """Who asked for a trial: by default the process that started this one, which lives."""
    parent = psutil.Process(os.getppid())
    number = parent.pid if number is None else number
    return [host or socket.gethostname(), number, parent.create_time() - age]


def asked_by(found: optuna.Study, process: list[Any]) -> int:
    """A new running trial that says that this process has asked for it; its number in storage."""
    trial_id = found._storage.create_new_trial(found._study_id)
    found._storage.set_trial_system_attr(trial_id, ASKED_BY, process)
    return trial_id


def test_a_trial_chooses_only_when_every_running_one_before_it_has_its_run_spec() -> None:
    found = study_of("minimize")
    first = asked_by(found, elsewhere())
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(found.ask)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        plan = found.sampler.plan
        spec = as_json(plan.state([]).next[0], plan.metric)
        found._storage.set_trial_system_attr(first, RUN_SPEC, spec)
        assert run_spec(second.result(60)).repeat == spec["repeat"] + 1


@pytest.mark.parametrize("process", [elsewhere(number=2**22 + 1), elsewhere(age=100)])
def test_a_running_trial_before_it_is_not_awaited_if_its_process_is_gone(
    process: list[Any],
) -> None:
    found = study_of("minimize")
    asked_by(found, process)
    assert run_spec(found.ask()).repeat == 0


def left_behind(process: list[Any]) -> optuna.Study:
    """A study whose first stage waits for two runs of this process."""
    single = OneAtATimeSampler({"a": [1, 2], "b": [1, 2]}, repeats=1)
    found = optuna.create_study(sampler=single)
    for trial in (found.ask(), found.ask()):
        found._storage.set_trial_system_attr(trial._trial_id, ASKED_BY, process)
    found.sampler = pickle.loads(pickle.dumps(single))  # as in another process
    return found


@pytest.mark.parametrize(
    "process", [elsewhere(number=2**22 + 1), elsewhere(age=100)], ids=["gone", "number given again"]
)
def test_runs_of_a_process_that_is_gone_are_trained_again(process: list[Any]) -> None:
    found = left_behind(process)
    found.optimize(lambda trial: trial.suggest_int("a", 1, 2) + trial.suggest_int("b", 1, 2))
    gone = [trial.user_attrs.get("cancelled", "") for trial in found.trials[:2]]
    assert all("is gone" in why for why in gone)
    assert found.best_params == {"a": 1, "b": 1}
    assert len(found.trials) == 2 + 3


def test_runs_of_another_host_are_awaited_as_long_as_they_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(study.tuning.sampler, "_SILENCE", 2.0)
    found = left_behind(elsewhere(host="another"))
    reporting = Trial(found, 0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(found.ask)
        for step in range(15):
            reporting.report(0.5, step)
            with pytest.raises(TimeoutError):
                asked.result(0.2)
        with pytest.raises(PlanExhausted, match=r"running trials \[0, 1\]: .*gone"):
            asked.result(60)
    waiting = [said for said in caplog.messages if said.startswith("waiting")]
    assert waiting == [f"waiting for trial {n} of host another" for n in (0, 1)]


def test_a_pickled_sampler_does_not_grow_with_the_study() -> None:
    found = study_of("minimize")
    before = len(pickle.dumps(found.sampler))
    found.optimize(lambda trial: error(*asked(trial)))
    assert len(pickle.dumps(found.sampler)) == before


def test_options_may_be_of_numpy_and_none_among_them() -> None:
    single = OneAtATimeSampler(
        {"units": np.arange(8, 24, 8), "decay": [None, 0.1], "rate": np.array([0.1, 0.2])},
        start={"units": np.int64(16)},
        repeats=1,
    )
    found = optuna.create_study(sampler=pickle.loads(pickle.dumps(single)))

    def objective(trial: Trial) -> float:
        units = trial.suggest_int("units", 8, 16)
        decay = trial.suggest_categorical("decay", [None, 0.1])
        rate = trial.suggest_float("rate", 0.1, 0.2)
        return units + rate + (0 if decay is None else 100 * decay)

    found.optimize(objective)
    assert found.best_params == {"units": 8, "decay": None, "rate": 0.1}
    stages = found.sampler.summary(found)
    assert [option.value for option in stages[0].options] == [8, 16]
    assert [option.value for option in stages[1].options] == ["None", "0.1"]


def test_the_summary_is_a_table_too() -> None:
    found = study_of("minimize")
    found.optimize(lambda trial: error(*asked(trial)))
    table = found.sampler.summary_frame(found)
    assert list(table["option"]) == [8, 16, 32, 0.1, 0.2, 0.3]
    assert list(table.loc[table["selected"], "option"]) == [32, 0.1]
    assert (table["runs"] == 2).all()


class TestOptunasContract(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own contract; a case that does not apply is listed with its reason."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return sampler


_FREE = "the plan's values come from its options, not from the distribution of a single suggestion"
DOES_NOT_APPLY = {
    "test_float": _FREE,
    "test_int": _FREE,
    "test_categorical": _FREE,
    "test_conditional_sample_independent": _FREE,
    "test_nan_objective_value": "suggests a name outside of the plan, which is refused",
    "test_partial_fixed_sampling": "a value fixed from outside is refused, tested above",
    "test_sample_single_distribution": "suggests names outside of the plan, which is refused",
    "test_single_parameter_objective": "suggests a name outside of the plan, which is refused",
    "test_conditional_parameter_objective": "every trial has all hyperparameters of the plan",
    "test_combination_of_different_distributions_objective": "suggests names outside of the plan",
    "test_dynamic_range_objective": "suggests names outside of the plan, which is refused",
}
for _case in DOES_NOT_APPLY:
    setattr(TestOptunasContract, _case, None)


def test_every_case_of_optunas_contract_applies_or_has_a_reason() -> None:
    cases = {name for name in vars(BasicSamplerTestCase) if name.startswith("test_")}
    assert cases == DOES_NOT_APPLY.keys()
    assert all(len(reason) > 20 for reason in DOES_NOT_APPLY.values())


def test_a_distribution_of_truths_is_not_one_of_numbers() -> None:
    single = OneAtATimeSampler({"a": [0, 1]}, repeats=1)
    found = optuna.create_study(sampler=single)
    with pytest.raises(ValueError, match="a: the plan"):
        found.ask().suggest_categorical("a", [False, True])


EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "own_objective.py"))
    assert "kernel: rbf" in capsys.readouterr().out


def test_the_package_for_optunahub_loads_and_its_example_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = EXAMPLES / "optunahub" / "package"
    name = "samplers/one_at_a_time"
    module = optunahub.load_local_module(name, registry_root=str(registry))
    assert module.OneAtATimeSampler is OneAtATimeSampler
    monkeypatch.setattr(optunahub, "load_module", lambda _: module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, that 30 iterations are few
        runpy.run_path(str(registry / name / "example.py"), run_name="__main__")
    assert "units" in capsys.readouterr().out
    head = (registry / name / "README.md").read_text().split("---")[1]
    for key in ("author", "title", "description", "tags", "optuna_versions", "license"):
        assert f"{key}: " in head
    assert (registry / name / "LICENSE").read_text().startswith("MIT License")
