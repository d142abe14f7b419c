"""A study that grows: its old runs count, and it ends as one that was that large from the start."""

import itertools
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trainer
import image_files
import numpy as np
import pytest
import test_training as base
import tomlkit
from typer.testing import CliRunner, Result

import study
from study.cli.app import app
from study.errors import SettingsError, StudyError
from study.plan.plan import PlanState
from study.plan.statistics import Difference, Looks, Spread
from study.running import growth as running_growth
from study.running.driver import Observers
from study.running.growth import Growth
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import Prepared, prepare, prepare_again
from study.space import growth
from study.space.file import load
from study.space.model_source import ModelSource
from study.space.search_space import SearchSpace
from study.space.settings import Setting
from study.storage import change
from study.storage import database as storage
from study.storage.database import plan_state_of, trials_of
from study.storage.location import Database
from study.storage.trials import StoredTrials, run_spec
from study.training import network
from study.training.train import train

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


def prepared(of: SearchSpace, name: str, **given: Any) -> Prepared:
    database = Database.at("sqlite:///study.db")
    return prepare(of, name, database, settings(**given), approve=running_growth.accept)


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
    """A trainer whose process dies after ``epochs`` epochs of the study."""
    left = [epochs]

    def train(*args: Any, **more: Any) -> Any:
        training = fake_trainer.train(*args, **more)
        while True:
            try:
                epoch = next(training)
            except StopIteration as end:
                return end.value
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            yield epoch

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


# What is claimed.


def wrong_claims(*, corrected: bool, studies: int = 500) -> float:
    """Of studies of three equal options whose repeats are raised until a difference is claimed."""
    drawn, wrong = np.random.default_rng(0), 0
    for _ in range(studies):
        runs = drawn.normal(0.97, 0.004, (3, 12))
        for times, repeats in enumerate((3, 5, 8, 12)):
            looks = Looks(times if corrected else 0)
            first, *others = [option[:repeats].tolist() for option in runs]
            spread = Spread(None, None, looks)
            spread.learn([(first, None), *((one, first) for one in others)])
            pairs = itertools.combinations([first, *others], 2)
            gaps = [spread.difference(*pair, looks.comparisons(3)) for pair in pairs]
            if any(gap.clear for gap in gaps):
                wrong += 1
                break
    return wrong / studies


def test_repeats_that_are_added_until_something_is_claimed_do_not_inflate_claims() -> None:
    assert wrong_claims(corrected=False) > 0.1
    assert wrong_claims(corrected=True) < 0.1


def test_each_change_halves_the_room_for_error_and_removed_options_still_count() -> None:
    assert Looks().comparisons(3) == 3
    assert Looks(2).comparisons(3) == 12
    assert Looks(1, removed=2).comparisons(2) == 2 * 6
    values = [0.97, 0.98, 0.975]
    narrow, wide = (Spread(400, looks=one).score(values).interval for one in (Looks(), Looks(3)))
    assert narrow
    assert wide
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_study_that_changed_claims_less_and_decides_the_same() -> None:
    def gaps(state: PlanState) -> list[Difference]:
        return [o.gap for stage in state.stages for o in stage.options if o.gap]

    run(space())
    state, fresh = run(MORE), run(MORE, "fresh")
    pairs = list(zip(gaps(state), gaps(fresh), strict=True))
    assert pairs
    for one, other in pairs:
        assert one.comparisons == 2 * other.comparisons
        assert (one.mean, one.standard_error) == (other.mean, other.standard_error)


# The commands.


def command(*words: str, **given: Any) -> Result:
    return CliRunner().invoke(app, [*words, "--storage", "sqlite:///study.db"], **given)


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    for fragment in said:
        assert fragment in lines[0]


def test_status_and_report_tell_what_was_added_when() -> None:
    run(space())
    first = trained()
    run(NEW)
    told = json.loads(command("status", "grown", "--json").stdout)["history"]
    assert [(one["changes"], one["runs"]) for one in told] == [
        (["filters gains 3", "dropout is new"], first)
    ]
    said = f"after {first} runs: filters gains 3, dropout is new."
    assert said in command("status", "grown").stdout
    assert command("report", "grown", "--output", "page").exit_code == 0
    page = Path("page/report.html").read_text()
    assert said in page
    assert "2 times less room for error" in page


def test_two_studies_are_compared_in_pairs() -> None:
    run(space(), "small", confirm=0)
    run(MORE, "large", confirm=0)
    result = command("compare", "small", "large", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == (0 if told["answer"]["verdict"] == "better" else 1)
    assert told["answer"]["paired"]
    assert told["answer"]["difference"] > 0
    assert [one["study"] for one in told["studies"]] == ["small", "large"]
    assert told["in_both"] is None  # the very same runs
    assert told["differences"] == {}
    shown = command("compare", "small", "large").stdout
    assert "The answer of large is " in shown
    assert "in pairs" in shown
    assert json.loads(command("compare", "large", "small", "--json").stdout)["answer"][
        "difference"
    ] == pytest.approx(-told["answer"]["difference"])


def test_other_seeds_are_compared_unpaired_and_other_epochs_by_all_that_both_have() -> None:
    run(space(), "small")
    run(space(), "other", seed=2)
    run(space(), "long", epochs=6)
    told = json.loads(command("compare", "small", "other", "--json").stdout)
    assert told["unpaired_because_of"] == ["seed"]
    assert not told["answer"]["paired"]
    told = json.loads(command("compare", "small", "long", "--json").stdout)
    assert told["in_both"]["paired"]
    assert told["in_both"]["verdict"] in {"better", "tie"}
    assert told["differences"]["epochs"] == [4, 6]


def test_studies_that_cannot_be_compared_are_refused_in_a_line() -> None:
    run(space(), "small")
    refused(command("compare", "small", "small"), "name two different studies")
    refused(command("compare", "small", "nobody"), "no study named 'nobody'", "small")
    loss = SearchSpace.from_dict({**TABLE, "metric": "val_loss", "direction": "minimize"})
    run(loss, "loss")
    refused(command("compare", "small", "loss"), "metric", "val_accuracy", "val_loss")
    run(space(), "last", sampler="grid")
    refused(command("compare", "small", "last"), "score of a run", "mean of last 3")
    with pytest.raises(KeyboardInterrupt):
        run(space(), "open", trainer=killed_after(2))
    refused(command("compare", "small", "open"), "'open' has no answer", "resume")
    result = CliRunner().invoke(app, ["compare", "a", "b", "--storage", "sqlite:///gone.db"])
    refused(result, "gone.db: no such database")
    assert not Path("gone.db").exists()


def test_a_renamed_hyperparameter_of_a_custom_model_is_refused(tmp_path: Path) -> None:
    model = """
def build(params, input_shape, num_classes):
    raise ValueError("nobody builds this")
"""
    Path("model.py").write_text(model)
    table = {
        **{key: value for key, value in TABLE.items() if key not in {"fixed", "hyperparameters"}},
        "model": "model.py:build",
    }
    before, renamed, gone = (
        SearchSpace.from_dict({**table, "hyperparameters": dict.fromkeys(names, FILTERS)})
        for names in (["width", "depth"], ["breadth", "depth"], ["depth"])
    )
    from study.space.settings import resolve

    of = {one: resolve(one, "space.toml", {}) for one in (before, renamed, gone)}
    source = ModelSource.read("model.py:build", tmp_path, "space.toml", ())
    of = {one: replace(made, model=source) for one, made in of.items()}
    for other, said in ((renamed, "breadth is new, and the value"), (gone, "width is gone")):
        with pytest.raises(SettingsError, match=f"{said}.*--name"):
            running_growth._require_known(of[before], of[other])


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["n", "y", "\x03"], ids=["no", "yes", "interrupt"])
def test_a_terminal_is_asked(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("small.toml", space())
    write("large.toml", MORE)
    assert program("run", "small.toml").returncode == 0
    before = stored()[1]
    words = program_words("run", "large.toml")
    pid, terminal = pty.fork()
    if not pid:
        os.execve(words[0], words, environment())
    said = b""
    while b"[y/N]" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, f"{answer}\n".encode() if answer != "\x03" else b"\x03")
    with suppress(OSError):
        while more := os.read(terminal, 1000):
            said += more
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert b"filters gains 3: at most" in said
    assert code == {"n": 2, "y": 0, "\x03": 130}[answer]
    assert (stored()[1] == before) is (answer != "y")
    assert bool(stored()[1].history) is (answer == "y")


@pytest.mark.slow
def test_a_driver_that_is_killed_while_a_study_grows_loses_nothing() -> None:
    write("small.toml", space())
    write("large.toml", NEW)
    assert program("run", "small.toml").returncode == 0
    before = trained()
    words = program_words("run", "large.toml", "--yes")
    growing = subprocess.Popen(words, env=environment(FAKE_PAUSE="0.3"), stdout=subprocess.DEVNULL)
    while trained() < before + 2:
        assert growing.poll() is None
        time.sleep(0.2)
    growing.kill()
    growing.wait()
    assert program("resume", "grown").returncode == 0
    assert program("run", "large.toml", "--name", "fresh").returncode == 0
    study, recorded = stored()
    fresh = stored("fresh")
    assert decided(plan_state_of(study, recorded)) == decided(plan_state_of(*fresh))
    assert runs("fresh").items() <= runs().items()


def write(name: str, of: SearchSpace) -> None:
    table = {key: value for key, value in of.to_dict().items() if value != {}}
    Path(name).write_text(tomlkit.dumps(table))


def program_words(*words: str) -> list[str]:
    name = [] if "--name" in words or words[0] == "resume" else ["--name", "grown"]
    more = [*name, "--mlflow", "none", "--jobs", "1"]
    return [sys.executable, str(Path(fake_trainer.__file__)), *words, *more]


def program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program_words(*words), env=environment(), capture_output=True, text=True, check=False
    )


def environment(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("STUDY_")}
    return own | more


def test_one_more_option_of_the_digits_trains_its_own_runs_and_those_of_a_new_answer() -> None:
    """With the fake trainer, to which dropout makes no difference but by chance."""
    digits = load("digits")
    run(digits, "digits")
    dropout = digits.hyperparameters[-1]
    more = replace(dropout, options=(*dropout.options, 0.4))
    larger = replace(digits, hyperparameters=(*digits.hyperparameters[:-1], more))
    before, ids = (
        trained("digits"),
        {trial.trial_id for trial in StoredTrials()(stored("digits")[0])},
    )
    run(larger, "digits")
    assert 3 <= trained("digits") - before <= 9
    new = [t for t in StoredTrials()(stored("digits")[0]) if t.trial_id not in ids]
    assert {t.params["dropout"] for t in new if t.stage == "dropout"} == {0.4}
    assert {t.stage for t in new} <= {"dropout", "confirmed"}


def test_a_study_grows_from_python_with_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(ready: Prepared, watch: Any, how: Any, say: Any) -> PlanState:
        return launch(ready, watch, replace(how, jobs=1), say, fake_trainer.train)

    monkeypatch.setattr("study.running.launch.launch", fake)
    given: dict[str, Any] = {"storage": "sqlite:///study.db", "progress": False}
    first = study.run(space(), name="grown", **given)
    with pytest.raises(SettingsError, match="filters gains 3"):
        study.run(MORE, name="grown", **given)
    grown = study.run(MORE, name="grown", yes=True, **given)
    assert first.settings.history == ()
    assert [one.changes for one in grown.settings.history] == [("filters gains 3",)]
    assert set(grown.trials()["filters"]) == {1, 2, 3}


def test_batch_size_and_conditions_may_be_added() -> None:
    table = {key: value for key, value in TABLE.items() if key != "batch_size"}
    more = {
        "optimizer": {"options": ["adam", "sgd"], "start": "adam"},
        "momentum": {
            "options": [0.0, 0.9],
            "start": 0.9,
            "only_if": {"optimizer": "sgd"},
        },
        "batch_size": {"options": [10, 16], "start": 10},
    }
    larger = SearchSpace.from_dict({**table, "hyperparameters": TABLE["hyperparameters"] | more})
    run(space())
    before = trained()
    state, fresh = run(larger), run(larger, "fresh")
    assert decided(state) == decided(fresh)
    assert runs("fresh").items() <= runs().items()
    assert trained() - before < trained("fresh")
    assert "batch_size is new" in stored()[1].history[0].changes


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"a": 1, "o": "adam"}, {"a": 1, "o": "adam", "w": 0.0}),
        ({"o": "adam", "a": 1.0}, {"a": 1, "o": "adam", "w": 0.0}),
        ({"a": 1, "o": "sgd"}, None),  # its momentum is not known
        ({"a": 1, "o": "sgd", "m": 0.9}, {"a": 1, "o": "sgd", "m": 0.9, "w": 0.0}),
        ({"a": 1, "o": "adam", "m": 0.9}, None),  # does not apply, and was given
        ({"a": True, "o": "adam"}, None),
        ({"a": 1, "o": "adam", "w": 0.3}, None),  # out of the range
        ({"a": 1, "o": "adam", "w": "0.1"}, None),
        ({"a": 1, "o": "adam", "d": 0.2}, {"a": 1, "o": "adam", "w": 0.0}),
        ({"a": 1, "o": "adam", "d": 0.3}, None),  # the space has no d, and means 0.2
        ({"a": 1, "o": "adam", "x": 1}, None),
    ],
)
def test_a_stored_run_is_a_run_of_the_new_space_where_that_has_its_values(
    params: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    table = {
        **{key: value for key, value in TABLE.items() if key != "hyperparameters"},
        "fixed": {"a": 1},
        "hyperparameters": {
            "o": {"options": ["adam", "sgd"], "start": "adam"},
            "m": {"options": [0.8, 0.9], "start": 0.9, "only_if": {"o": "sgd"}},
            "w": {"low": 0.0, "high": 0.2},
        },
    }
    found = growth.translated(params, SearchSpace.from_dict(table), {"w": 0.0, "d": 0.2})
    assert found == expected
    assert found is None or [*found] == [*(expected or {})]


@pytest.mark.tensorflow
def test_what_a_space_does_not_name_changes_no_bit_of_a_run_when_it_is_named(
    tmp_path: Path,
) -> None:
    implied = network.implied(None, base.RUN.batch_size)
    named = base.having(**implied | base.PARAMS)
    assert {"weight_decay", "optimizer", "batch_size", "mixup", "strided"} <= implied.keys()
    assert named.key == base.RUN.key
    runs = [base.finish(train(run, base.DATA)) for run in (base.RUN, named)]
    assert base.same(*runs, tmp_path)
