"""A study that grows: its old runs count, and it ends as one that was that large from the start."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fake_trainer
import image_files
import pytest

from study.errors import SettingsError, StudyError
from study.plan.plan import PlanState
from study.running.driver import Observers
from study.running.growth import Growth
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import Prepared, prepare, prepare_again
from study.space import growth
from study.space.search_space import SearchSpace
from study.space.settings import Setting
from study.storage import change
from study.storage import database as storage
from study.storage.location import Database
from study.storage.progress import trials_of
from study.storage.trials import StoredTrials, run_spec
from study.training import network

TABLE: dict[str, Any] = {
    "name": "small",
    "epochs": 4,
    "batch_size": 10,
    "repeats": 2,
    "data": "data.npz",
    "validation": {"folds": 2},
    "hyperparameters": {
        "filters": {"options": [1, 2], "start": 1},
        "dense": {"options": [4, 8], "start": 4},
    },
    "fixed": {"k1": 2, "k2": 2},
}
FILTERS = TABLE["hyperparameters"]["filters"]


def space(*, fixed: Mapping[str, Any] | None = None, **hyperparameters: Any) -> SearchSpace:
    """The small space with other hyperparameters; None leaves one out."""
    table = {**TABLE["hyperparameters"], **hyperparameters}
    varied = {name: one for name, one in table.items() if one is not None}
    more = {"fixed": TABLE["fixed"] | fixed} if fixed is not None else {}
    return SearchSpace.from_dict({**TABLE, "hyperparameters": varied, **more})


MORE = space(filters={"options": [1, 2, 3], "start": 1})
NEW = space(
    filters={"options": [1, 2, 3], "start": 1}, dropout={"options": [0.1, 0.2], "start": 0.2}
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKE_PAUSE", "0")
    image_files.write_npz(
        Path("data.npz"),
        x_train=image_files.pictures(shape=(12, 12)),
        y_train=image_files.numbers(),
    )
    return tmp_path


def settings(**given: Any) -> dict[str, Setting]:
    return {name: Setting(value, "command line") for name, value in given.items()}


def accepted(growth: Growth) -> None:
    """Approve every change."""


def prepared(of: SearchSpace, name: str, **given: Any) -> Prepared:
    database = Database.at("sqlite:///study.db")
    return prepare(of, name, database, settings(**given), approve=accepted)


Trainer = Callable[..., Any]


def run(
    of: SearchSpace, name: str = "grown", trainer: Trainer = fake_trainer.train, **given: Any
) -> PlanState:
    """What `study run` does, with a fake trainer."""
    return drive(prepared(of, name, **given), trainer)


def drive(ready: Prepared, trainer: Trainer = fake_trainer.train) -> PlanState:
    return launch(ready, Observers(), ExecutionOptions(jobs=1), print, trainer)


def stored(name: str = "grown") -> tuple[Any, Any]:
    return storage.load(Database.at("sqlite:///study.db").open(), name)


def runs(name: str = "grown") -> dict[Any, Any]:
    """The complete runs of a study: value and curve of each repeat of each configuration."""
    study, recorded = stored(name)
    return {
        (trial.configuration, trial.repeat): (trial.value, trial.reported)
        for trial in trials_of(study, recorded)
        if trial.state == "complete"
    }


def trained(name: str = "grown") -> int:
    """How many trials a study has, whether they count or not."""
    return len(StoredTrials()(stored(name)[0]))


def decided(state: PlanState) -> Any:
    """What a study has decided, with the values that it rests on."""
    options = [
        (option.value, option.configuration, option.values)
        for stage in state.stages
        for option in stage.options
        if option.state == "complete"
    ]
    return state.incumbent, sorted(options, key=repr)


def killed_after(epochs: int) -> Trainer:
    """A trainer whose process dies after so many epochs of the study."""
    left = [epochs]

    def train(*args: Any, **more: Any) -> Any:
        for epoch in fake_trainer.train(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            yield epoch
        return b"model"

    return train


SAMPLERS: dict[str, dict[str, Any]] = {
    "sweep": {},
    "grid": {"sampler": "grid"},
    "halving": {"sampler": "halving", "budget": 200},
    "race": {"sampler": "race", "budget": 100},
}


@pytest.mark.parametrize("sampler", ["sweep", "grid", "halving"])
def test_a_study_that_grew_ends_as_one_of_that_space_from_the_start(sampler: str) -> None:
    given = SAMPLERS[sampler]
    run(space(), **given)
    kept, before = runs(), trained()
    state, fresh = run(NEW, **given), run(NEW, "fresh", **given)
    assert state.complete
    assert decided(state) == decided(fresh)
    assert runs("fresh").items() <= runs().items()
    assert len(runs()) == len({*translated_runs(kept, NEW), *runs("fresh")})
    if sampler != "halving":  # where runs that were left paused are trained again
        assert trained() - before == len(runs()) - len(kept)


def translated_runs(found: Mapping[Any, Any], larger: SearchSpace) -> set[Any]:
    """Runs of the small space as runs of the larger one."""
    known = {**network.DEFAULTS}
    names = growth.names(larger)
    return {
        (tuple((name, (known | dict(one))[name]) for name in names), repeat)
        for one, repeat in found
    }


@pytest.mark.parametrize("larger", [MORE, NEW], ids=["option", "hyperparameter"])
def test_the_runs_of_a_race_that_grew_are_those_of_a_race_of_that_space(
    larger: SearchSpace,
) -> None:
    run(space(), **SAMPLERS["race"])
    kept = runs()
    state, fresh = run(larger, **SAMPLERS["race"]), run(larger, "fresh", **SAMPLERS["race"])
    assert state.complete
    assert fresh.complete
    shared = runs().keys() & runs("fresh").keys()
    assert shared
    assert all(runs()[one] == runs("fresh")[one] for one in shared)
    assert translated_runs(kept, larger) <= runs().keys()


@pytest.mark.parametrize("sampler", ["sweep", "grid", "halving", "race"])
def test_a_study_that_is_killed_before_and_after_it_grew_ends_the_same(sampler: str) -> None:
    given = SAMPLERS[sampler]
    with pytest.raises(KeyboardInterrupt):
        run(space(), trainer=killed_after(11), **given)
    for epochs in (3, 9):
        with pytest.raises(KeyboardInterrupt):
            run(NEW, trainer=killed_after(epochs), **given)
    state, fresh = run(NEW, **given), run(NEW, "fresh", **given)
    assert state.complete
    shared = runs().keys() & runs("fresh").keys()
    assert {one: runs()[one] for one in shared} == {one: runs("fresh")[one] for one in shared}
    if sampler != "race":
        assert decided(state) == decided(fresh)
    states = {trial.state.name for trial in stored()[0].trials}
    assert "RUNNING" not in states


def test_an_epoch_that_was_trained_before_a_study_grew_is_not_trained_again() -> None:
    class Trace:
        epochs = 0

        def __call__(self, *args: Any, **more: Any) -> Any:
            left = len(fake_history(*args, **more))
            for number, epoch in enumerate(fake_trainer.train(*args, **more)):
                self.epochs += number >= left
                yield epoch
            return b"model"

    with pytest.raises(KeyboardInterrupt):
        run(space(), trainer=killed_after(3))  # in the middle of a run
    trace = Trace()
    run(NEW, trainer=trace)
    # Of the run that was killed a fourth epoch had its checkpoint, and was not stored yet.
    assert trace.epochs == sum(len(values) for _, values in runs().values()) - 4


def fake_history(run: Any, *_: Any, checkpoints: Any, **__: Any) -> Any:
    found = checkpoints.load(run.key)
    return found.history if found else ()


def test_options_that_are_removed_no_longer_count_and_count_again_when_they_are_back() -> None:
    run(MORE)
    before, whole = trained(), runs()
    less = run(space())
    assert less.complete
    assert all(dict(one)["filters"] < 3 for one, _ in runs())
    run(space(filters={"options": [3, 1], "start": 3}))
    run(MORE)
    assert whole.items() <= runs().items()
    assert before < trained()
    assert len({(t.configuration, t.repeat) for t in StoredTrials()(stored()[0])}) == trained()


def test_a_hyperparameter_that_is_fixed_keeps_the_runs_of_that_value() -> None:
    run(space())
    before = trained()
    state = run(space(dense=None, fixed={"dense": 4}))
    assert state.complete
    assert {dict(one)["dense"] for one, _ in runs()} == {4}
    assert trained() == before + 3  # of the start, now the answer's or not, on fresh repeats


def test_more_repeats_take_those_that_were_fresh_before_and_train_fresh_ones() -> None:
    run(space())
    before = trained()
    state = run(space(), repeats=4)
    fresh = run(space(), "fresh", repeats=4)
    assert decided(state) == decided(fresh)
    assert trained() - before < trained("fresh")
    assert len({(t.configuration, t.repeat) for t in StoredTrials()(stored()[0])}) == trained()


@pytest.mark.parametrize("sampler", ["halving", "race", "tpe"])
def test_a_larger_budget_goes_on(sampler: str) -> None:
    key, small, large = ("configurations", 2, 4) if sampler == "tpe" else ("budget", 60, 120)
    run(NEW, sampler=sampler, **{key: small})
    before = runs()
    state = run(NEW, sampler=sampler, **{key: large})
    fresh = run(NEW, "fresh", sampler=sampler, **{key: large})
    assert state.complete
    assert before.items() <= runs().items()
    assert state.incumbent is not None
    if sampler == "halving":
        assert decided(state) == decided(fresh)
    with pytest.raises(SettingsError, match=f"--{key} {small}: the study has {large}"):
        prepared(NEW, "grown", sampler=sampler, **{key: small})


def test_more_repeats_of_a_race_measure_its_leader_on_as_many() -> None:
    first = run(space(), sampler="race", budget=100)
    state = drive(prepare_again("grown", Database.at("sqlite:///study.db"), 5))
    fresh = [repeat for one, repeat in runs() if one == state.incumbent and repeat >= 5]
    assert first.complete
    assert state.complete
    assert sorted(fresh) == [5, 6, 7, 8, 9]


def test_a_crash_after_the_change_and_before_the_first_run_leaves_a_study_to_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(space())
    with monkeypatch.context() as patched:
        patched.setattr("study.running.driver.Driver.drive", died)
        with pytest.raises(KeyboardInterrupt):
            run(NEW)
    state = drive(prepare_again("grown", Database.at("sqlite:///study.db"), None))
    assert decided(state) == decided(run(NEW, "fresh"))


def died(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_change_is_stored_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    run(space())

    def contents() -> Any:
        study, recorded = stored()
        return recorded, [(t.params, t.distributions, t.system_attrs) for t in study.trials]

    before = contents()
    calls: list[Any] = []

    def second_time(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rewrite(*args)

    rewrite = change._rewrite_parameter
    monkeypatch.setattr(change, "_rewrite_parameter", second_time)
    with pytest.raises(KeyboardInterrupt):
        run(NEW)
    assert len(calls) == 2
    assert contents() == before


def test_optuna_reads_every_trial_of_a_study_that_changed_with_one_distribution() -> None:
    given = {"sampler": "random", "configurations": 3}
    run(MORE, **given)
    run(space(filters={"low": 1, "high": 3}, dropout={"low": 0.0, "high": 0.3}), **given)
    run(space(filters={"options": [2, 4, 5, 1, 3], "start": 2}), **given)
    study = stored()[0]
    for trial in study.trials:
        spec = run_spec(trial.system_attrs)
        assert spec is not None
        for name, value in trial.params.items():
            assert dict(spec.configuration or ()).get(name, value) == value
    found = {trial.distributions["filters"] for trial in study.trials}
    assert len(found) == 1
    assert {*found.pop().choices} == {1, 2, 3, 4, 5}


def test_another_process_that_changes_the_study_meanwhile_is_noticed() -> None:
    run(space())
    ready = prepared(NEW, "grown")
    run(MORE)
    with pytest.raises(SettingsError, match="changed by another process meanwhile"):
        drive(ready)
    assert stored()[1].space == MORE


def test_what_is_new_is_said_in_a_line_with_what_is_kept_and_left() -> None:
    run(space())
    said: list[Growth] = []
    database = Database.at("sqlite:///study.db")
    prepare(NEW, "grown", database, {}, approve=said.append)
    fewer = space(filters={"options": [2, 3], "start": 2})
    prepare(fewer, "grown", database, settings(repeats=3), approve=said.append)
    kept = len(runs())
    assert str(said[0]).startswith("filters gains 3, dropout is new: at most ")
    assert str(said[0]).endswith(f" runs to train, {kept} are kept")
    assert str(said[1]).startswith(
        "filters gains 3, filters loses 1, filters starts at 2, repeats 3, not 2: at most "
    )
    assert said[1].kept + said[1].left_out == kept
    assert f", {said[1].left_out} no longer count" in str(said[1])


def test_the_number_of_runs_to_train_is_an_upper_bound() -> None:
    run(space())
    said: list[Growth] = []
    before = trained()
    prepare(NEW, "grown", Database.at("sqlite:///study.db"), {}, approve=said.append)
    run(NEW)
    assert 0 < trained() - before <= said[0].at_most


def test_the_history_of_a_study_is_recorded_and_checked() -> None:
    run(space())
    first = trained()
    run(NEW)
    drive(prepare_again("grown", Database.at("sqlite:///study.db"), 3))
    study, recorded = stored()
    assert [one.changes for one in recorded.history] == [
        ("filters gains 3", "dropout is new"),
        ("repeats 3, not 2",),
    ]
    assert recorded.history[0].trials == first
    assert recorded.history[0].space.hyperparameters == space().hyperparameters
    for wrong in ({"when": "yesterday"}, {"removed": -1}, {"space": {}}, {"changes": "x"}):
        held = recorded.to_dict()
        held["history"][0] |= wrong
        study.set_user_attr(storage.SETTINGS, held)
        with pytest.raises(StudyError, match=r"malformed in the database|search space: name"):
            stored()


def test_without_approval_another_space_is_refused_and_nothing_is_changed() -> None:
    run(space())
    before = Path("study.db").read_bytes()
    with pytest.raises(SettingsError, match=r"filters gains 3.*--yes.*--name"):
        prepare(MORE, "grown", Database.at("sqlite:///study.db"), {})
    assert Path("study.db").read_bytes() == before


def test_a_space_without_a_stored_run_is_refused() -> None:
    run(space())
    for other in (
        space(filters={"options": [5, 6], "start": 5}),
        space(fixed={"k1": 3}),
    ):
        with pytest.raises(SettingsError, match=r"none of the .* complete runs .* --name"):
            prepared(other, "grown")
    assert stored()[1].history == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 5}, r"epochs \(4, not 5\)"),
        ({"batch_size": 20}, r"batch_size \(10, not 20\)"),
        ({"seed": 2}, r"seed \(1, not 2\)"),
        ({"sampler": "grid"}, r"sampler \(sweep, not grid\)"),
        ({"data": "digits"}, "the contents of the data"),
    ],
)
def test_what_makes_another_study_is_refused_with_name(given: dict[str, Any], said: str) -> None:
    run(space())
    with pytest.raises(SettingsError, match=f"{said}.*--name"):
        prepared(MORE, "grown", **given)


@pytest.mark.parametrize(
    "other",
    [
        {"validation": {"folds": 3}},
        {"metric": "val_loss", "direction": "minimize"},
        {"score": "last"},
    ],
    ids=["validation", "metric", "score"],
)
def test_another_validation_metric_or_score_is_refused_with_name(other: dict[str, Any]) -> None:
    run(space())
    with pytest.raises(SettingsError, match=r"not .*--name"):
        prepared(SearchSpace.from_dict({**TABLE, **other}), "grown")
