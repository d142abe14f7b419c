"""One loop owns a study: whatever ends it, and whenever, the next one comes to the same results."""

import math
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from fakes import (
    EPOCHS,
    IMAGES,
    Kept,
    Killed,
    Mixed,
    MortalStorage,
    accuracy,
    counted,
    drive,
    drive_killed,
    driver,
    rows,
    run_of,
    space,
    train,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna import Study
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from plan_fakes import new_study
from sqlalchemy import event, text

from study.errors import SettingsError, TrainingFailed
from study.plan.budget import Budget
from study.plan.plan import PlanState, RunSpec
from study.plan.race import Race
from study.plan.results import StoredTrial
from study.plan.sweep import OneAtATime
from study.storage.ledger import Ledger
from study.storage.location import Database
from study.training.run import Epoch, Run
from study.tuning.pruning import Margin, SweepPruner
from study.tuning.sampler import run_spec
from study.workers.engine import EpochReported, Event, InProcess, Notice, Train

EAGER = SweepPruner(IMAGES, Margin(warmup=1, window=1, errors=0.0, least=0.05))


def never(run: Run) -> Generator[Epoch, None, bytes]:
    raise AssertionError(f"{run} is trained again")
    yield


def undisturbed(pruner: optuna.pruners.BasePruner | None = None) -> dict:
    storage = InMemoryStorage()
    drive(storage, pruner=pruner)
    return counted(storage)


def test_a_study_is_driven_until_its_plan_is_complete() -> None:
    plan_state = drive(storage := InMemoryStorage())
    assert plan_state.complete
    assert dict(plan_state.incumbent)["width"] == 2
    assert {trial.state for trial in new_study(storage).trials} == {TrialState.COMPLETE}


def test_a_complete_study_is_not_trained_again() -> None:
    drive(storage := InMemoryStorage())
    before = new_study(storage).trials

    assert drive(storage, train=never).complete
    assert new_study(storage).trials == before


def test_every_epoch_is_reported_and_the_value_is_the_last_one() -> None:
    drive(storage := InMemoryStorage())
    for trial, row in zip(new_study(storage).trials, rows(storage), strict=True):
        run = run_of(RunSpec(row.stage, row.option, row.configuration, row.repeat, None))
        expected = [accuracy(run, number) for number in range(EPOCHS)]
        assert trial.intermediate_values == dict(enumerate(expected, start=1))
        assert "val_accuracy" not in trial.user_attrs["curve"]  # it is stored once
        assert list(row.curve["val_accuracy"]) == expected
        assert trial.value == expected[-1]


def test_a_finished_trial_says_its_slot_its_best_epoch_and_its_size() -> None:
    drive(storage := InMemoryStorage())
    first = new_study(storage).trials[0]
    attributes = first.user_attrs
    assert {"stage", "option", "repeat", "parameters"} <= attributes.keys()
    assert attributes["repeat"] == 1
    curve = [*first.intermediate_values.values()]
    assert attributes["best_val_accuracy"] == max(curve) == curve[attributes["best_epoch"] - 1]
    assert attributes["seconds"] == 0.5 * EPOCHS


def test_the_run_that_a_dead_driver_told_last_is_forgotten_again() -> None:
    storage = InMemoryStorage()
    first, second = Kept(), Kept()
    for kept in (first, second):
        drive(storage, kept=kept)
    assert second.forgotten == first.forgotten[-1:]


def test_the_model_of_every_complete_run_is_kept_and_every_told_run_forgotten() -> None:
    drive(storage := InMemoryStorage(), kept=(kept := Kept()))
    trained = {run.key.encode() for run in kept.forgotten}
    assert set(kept.models.values()) == trained
    assert set(kept.models) == {row.number for row in rows(storage)}


def test_a_run_that_falls_behind_is_pruned_and_eliminates_its_option() -> None:
    falling = space(hyperparameters={"width": {"options": [1, 3], "start": 3}}, fixed={"depth": 1})
    storage = InMemoryStorage()
    plan_state = drive(storage, plan=OneAtATime(falling, images=IMAGES), pruner=EAGER)
    pruned = [trial for trial in new_study(storage).trials if trial.state == TrialState.PRUNED]
    assert len(pruned) == 1
    assert len(pruned[0].intermediate_values) < EPOCHS
    assert plan_state.stages[0].options[0].state == "eliminated"


def broken(run: Run) -> Generator[Epoch, None, bytes]:
    """Fails wherever the network is wide."""
    epochs = train(run)
    if dict(run.params)["width"] == 2:
        yield next(epochs)
        raise TrainingFailed("out of memory")
    return (yield from epochs)


def test_a_failed_run_eliminates_its_option_and_the_study_continues() -> None:
    state = drive(storage := InMemoryStorage(), train=broken)
    assert state.complete
    assert state.incumbent is not None
    failures = {o.value: o.failure for s in state.stages for o in s.options if o.failure}
    assert failures == {2: "out of memory"}
    assert [row.state for row in rows(storage)].count("failed") == 1


def test_whatever_a_run_dies_of_is_recorded_as_its_reason() -> None:
    def mistaken(run: Run) -> Generator[Epoch, None, bytes]:
        raise ZeroDivisionError("no images\nto divide by")
        yield

    state = drive(storage := InMemoryStorage(), train=mistaken)
    assert state.complete
    assert state.incumbent is None
    assert "ZeroDivisionError: no images to divide by" in (state.failure or "")
    assert {row.state for row in rows(storage)} == {"failed"}


def test_what_would_stop_every_run_stops_the_study() -> None:
    def refused(run: Run) -> Generator[Epoch, None, bytes]:
        raise SettingsError("TensorFlow runs with other threads")
        yield

    with pytest.raises(SettingsError):
        drive(storage := InMemoryStorage(), train=refused)
    assert [row.state for row in rows(storage)] == ["running"]


def test_a_deadline_leaves_the_run_for_the_next_driver_to_adopt() -> None:
    storage = InMemoryStorage()
    assert not driver(storage).drive(deadline=time.monotonic()).complete
    (left,) = rows(storage)
    assert left.state == "running"
    drive(storage)
    assert rows(storage)[0].state == "complete"
    assert len(rows(storage)) == len(undisturbed())


def test_an_adopted_run_keeps_its_trial_and_stores_no_epoch_twice() -> None:
    def interrupted(run: Run) -> Generator[Epoch, None, bytes]:
        epochs = train(run)
        yield next(epochs)
        yield next(epochs)
        raise KeyboardInterrupt

    storage = InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        drive(storage, train=interrupted)
    assert [len(row.reported) for row in rows(storage)] == [2]
    drive(storage)
    assert [len(row.reported) for row in rows(storage)] == [EPOCHS] * len(undisturbed())


def test_a_trial_that_never_got_a_slot_is_put_away() -> None:
    storage = InMemoryStorage()
    new_study(storage).ask()
    assert drive(storage).complete
    assert new_study(storage).trials[0].state == TrialState.FAIL
    assert counted(storage) == undisturbed()


@settings(max_examples=40, deadline=None)
@given(deaths=st.lists(st.integers(0, 170), max_size=2), prune=st.booleans())
def test_a_driver_that_dies_at_any_write_costs_no_result(deaths: list[int], prune: bool) -> None:
    pruner = EAGER if prune else None
    storage = MortalStorage()
    assert drive_killed(storage, deaths, pruner=pruner).complete
    assert counted(storage) == undisturbed(pruner)
    assert not [row for row in rows(storage) if row.state in ("failed", "running")]


@settings(max_examples=40, deadline=None)
@given(
    workers=st.integers(2, 5),
    seed=st.integers(0, 1000),
    deaths=st.lists(st.integers(0, 170), max_size=2),
)
def test_the_answer_depends_neither_on_workers_nor_on_the_order_of_events(
    workers: int, seed: int, deaths: list[int]
) -> None:
    storage, alone = MortalStorage(), InMemoryStorage()
    expected = drive(alone, pruner=EAGER)
    plan_state = drive_killed(
        storage,
        deaths,
        engine=lambda: Mixed(train, workers, seed),
        pruner=EAGER,
    )
    assert plan_state.incumbent == expected.incumbent
    assert plan_state.score == expected.score
    assert [
        [o.rows and [r.value for r in o.rows] for o in s.options] for s in plan_state.stages
    ] == [[o.rows and [r.value for r in o.rows] for o in s.options] for s in expected.stages]


def test_a_run_that_cannot_count_any_more_is_given_up() -> None:
    falling = space(hyperparameters={"width": {"options": [1, 3], "start": 3}}, fixed={"depth": 1})

    engine = InProcess(train)  # trains the run to its end that was submitted first
    engine.workers = 2
    storage = InMemoryStorage()
    plan = OneAtATime(falling, images=IMAGES)
    plan_state = drive(storage, plan=plan, pruner=EAGER, engine=engine)
    narrow = [row for row in rows(storage) if dict(row.configuration)["width"] == 1]
    assert {row.state for row in narrow} == {"pruned"}
    assert [row.cancelled is not None for row in narrow] == [False, True]
    assert [row.repeat for row in plan_state.stages[0].options[0].rows] == [0]


def test_two_runs_in_flight_have_two_slots() -> None:
    storage = InMemoryStorage()
    driver(storage, engine=Mixed(train, 3, 0)).drive(deadline=time.monotonic())
    running = [(row.configuration, row.repeat) for row in rows(storage)]
    assert len(set(running)) == len(running) > 1


def test_the_watch_is_told_of_every_event() -> None:
    class Listener:
        def __init__(self) -> None:
            self.events = []

        def see(self, plan_state, active, event) -> None:
            self.events.append(event)

    storage, listener = InMemoryStorage(), Listener()
    drive(storage, watch=listener)
    epochs = [event for event in listener.events if isinstance(event, EpochReported)]
    assert len(epochs) == EPOCHS * len(rows(storage))
    assert listener.events[0] is None


def told(state: TrialState, value: float | None) -> Callable[[Study, int], None]:
    return lambda study, trial_id: study._storage.set_trial_state_values(
        trial_id, state, None if value is None else [value]
    )


def deleted(study: Study, trial_id: int) -> None:
    with study._storage._backend.engine.begin() as connection:
        for table in ("user_attributes", "system_attributes", "params", "intermediate_values"):
            connection.execute(text(f"DELETE FROM trial_{table} WHERE trial_id = {trial_id}"))
        connection.execute(text(f"DELETE FROM trials WHERE trial_id = {trial_id}"))


@pytest.mark.parametrize("after", [1, EPOCHS])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (told(TrialState.COMPLETE, 0.5), "Trial 2 was ended by another program as COMPLETE"),
        (told(TrialState.PRUNED, None), "Trial 2 was ended by another program as PRUNED"),
        (told(TrialState.FAIL, None), "Trial 2 was ended by another program as FAIL"),
        (deleted, "Trial 2 was deleted by another program"),
    ],
    ids=["complete", "pruned", "failed", "deleted"],
)
def test_a_trial_that_another_program_ends_or_deletes_costs_a_line(
    tmp_path: Path, change: Callable[[Study, int], None], said: str, after: int
) -> None:
    class Disturbed(InProcess):
        """Changes the third trial before one of its epochs, or before its end, is told."""

        epochs = 0

        def next_event(self) -> Event:
            event = super().next_event()
            if event.key == 2:
                self.epochs += 1
                if self.epochs == after + 1:
                    found = new_study(storage)
                    change(found, found.trials[2]._trial_id)
            return event

    storage = Database.at(f"sqlite:///{tmp_path / 'study.db'}").open(create=True)
    lines: list[str] = []
    state = drive(storage, engine=Disturbed(train), say=lines.append)
    assert state.complete
    assert len(lines) == 1
    assert said in lines[0]
    assert drive(storage, train=never).complete


def test_a_failed_run_is_not_trained_again_by_the_next_driver() -> None:
    storage = InMemoryStorage()
    before = drive(storage, train=broken)
    assert drive(storage, train=never) == before


@pytest.mark.parametrize(
    ("score", "why"),
    [(math.nan, "nan, which is not a number"), (1e200, "1e+200, which is too large")],
)
def test_a_score_that_is_no_number_is_a_failed_run(score: float, why: str) -> None:
    def undefined(run: Run) -> Generator[Epoch, None, bytes]:
        for epoch in train(run):
            wide = dict(run.params)["width"] == 2
            yield replace(epoch, val_accuracy=score) if wide else epoch
        return b"model"

    state = drive(storage := InMemoryStorage(), train=undefined)
    assert state.complete
    failures = [row.failure for row in rows(storage) if row.state == "failed"]
    assert failures == [f"its score is {why}"]


def test_a_run_in_whose_same_epoch_three_drivers_were_killed_has_failed() -> None:
    def deadly(run: Run) -> Generator[Epoch, None, bytes]:
        epochs = train(run)
        yield next(epochs)
        if dict(run.params)["width"] == 2:
            raise Killed
        return (yield from epochs)

    storage = InMemoryStorage()
    for _ in range(3):
        with pytest.raises(Killed):
            drive(storage, train=deadly, driver_died=True)
    state = drive(storage, train=deadly, driver_died=True)
    assert state.complete
    (failed,) = [row for row in rows(storage) if row.state == "failed"]
    assert "killed 3 times after epoch 1 of this run" in failed.failure
    assert "GiB" in failed.failure
    assert state.stages[0].options[1].failure == failed.failure


def test_drivers_that_are_stopped_or_that_come_further_each_time_fail_no_run() -> None:
    def stopped(run: Run) -> Generator[Epoch, None, bytes]:
        yield next(train(run))
        raise KeyboardInterrupt

    def killed_at(last: int) -> Train:
        def mortal(run: Run) -> Generator[Epoch, None, bytes]:
            for epoch in train(run):
                yield epoch
                if epoch.number >= last:
                    raise Killed

        return mortal

    storage = InMemoryStorage()
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            drive(storage, train=stopped)
    for last in range(1, EPOCHS):
        with pytest.raises(Killed):
            drive(storage, train=killed_at(last), driver_died=True)
    assert drive(storage, driver_died=True).complete
    assert counted(storage) == undisturbed()


def test_no_decision_reads_the_study_again_and_each_run_asks_the_plan_once() -> None:
    class Asked(OneAtATime):
        times = 0

        def state(self, trials: Sequence[StoredTrial]) -> PlanState:
            Asked.times += 1
            return super().state(trials)

    class Counted(InMemoryStorage):
        reads = 0

        def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
            self.reads += 1
            return super().get_all_trials(*args, **kwargs)

    storage = Counted()
    drive(storage, plan=Asked(space(), images=IMAGES))
    assert storage.reads <= 3  # to open the study, and to adopt its runs
    assert Asked.times == len(rows(storage)) + 1


def test_starting_a_run_is_one_write_of_all_that_its_trial_says(tmp_path: Path) -> None:
    storage = Database.at(f"sqlite:///{tmp_path / 'study.db'}").open(create=True)
    ledger = Ledger(new_study(storage), space(), space().metric)
    (spec, *_) = OneAtATime(space()).state([]).next
    statements: list[str] = []
    event.listen(storage.engine, "commit", lambda _: statements.append("COMMIT"))
    event.listen(
        storage.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement.split()[0]),
    )
    run = ledger.start(spec, {"parameters": 7.0})
    writes = [s for s in " ".join(statements).split("COMMIT") if "INSERT" in s or "UPDATE" in s]
    assert len(writes) == 1
    assert statements.count("COMMIT") <= 8
    trial = new_study(storage).trials[run.trial.number]
    assert trial.state == TrialState.RUNNING
    assert trial.params == {"width": 1, "depth": 2}
    assert trial.user_attrs == {"stage": "width", "option": 1, "repeat": 1, "parameters": 7.0}
    assert run_spec(trial) == run.spec == spec


def test_a_warning_of_a_worker_is_printed_once() -> None:
    class Worried(InProcess):
        def next_event(self) -> Event:
            if random.random() < 0.5:
                return Notice(next(iter(self._runs)), "no checkpoint can be written")
            return super().next_event()

    lines: list[str] = []
    assert drive(InMemoryStorage(), engine=Worried(train), say=lines.append).complete
    assert lines == ["no checkpoint can be written"]


@pytest.mark.parametrize("workers", [1, 3])
def test_what_the_ledger_remembers_is_what_is_stored(workers: int) -> None:
    """Of runs that pause and are resumed too, after every event."""

    class Compared:
        def see(self, _: PlanState, active: Mapping[int, Any], *__: Any) -> None:
            # A run that a worker has is paused once the worker has ended, in a while.
            now = found._ledger.trials
            stored = [
                replace(row, state="running") if row.number in active else row
                for row in rows(storage)
            ]
            # A budget in seconds decides by those of each epoch.
            assert [seconds(trial) for trial in now] == [seconds(row) for row in stored]
            now = [replace(trial, curve={}, attributes={}) for trial in now]
            assert now == [replace(row, curve={}, attributes={}) for row in stored]

    def seconds(trial: StoredTrial) -> tuple[float, ...]:
        return tuple(trial.curve.get("seconds", ()))

    storage = InMemoryStorage()
    wide = space(repeats=3, hyperparameters={"width": {"options": [*range(1, 9)], "start": 1}})
    race = Race(wide, images=IMAGES, budget=Budget(64))
    engine = Mixed(train, workers, 0)
    found = driver(storage, plan=race, engine=engine, watch=Compared())
    assert found.drive().complete
    ended = {row.state for row in rows(storage)}
    assert ended == {"complete", "pruned"}
    assert {row.left_paused for row in rows(storage) if row.state == "pruned"} == {True}


@pytest.mark.parametrize("seed", range(4))
def test_a_run_is_resumed_only_once_its_worker_has_paused_it(seed: int) -> None:
    class Once(Mixed):
        def submit(self, key: int, run: Run) -> None:
            assert key not in self._runs
            super().submit(key, run)

    wide = space(repeats=3, hyperparameters={"width": {"options": [*range(1, 9)], "start": 1}})
    race = Race(wide, images=IMAGES, budget=Budget(64))
    storage = InMemoryStorage()
    assert drive(storage, plan=race, engine=Once(train, 3, seed)).complete
    assert any(row.reported and row.state == "pruned" for row in rows(storage))
