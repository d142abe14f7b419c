"""What is seen of a study while it runs: a live view in a terminal, plain lines elsewhere."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import EPOCHS, IMAGES, driver, rows, space, train
from optuna.storages import InMemoryStorage
from plan_fakes import fixed_scores, played, space_of
from rich.console import Console

from study.cli.live import Cell, Lines, Screen, watching
from study.cli.summary import print_execution
from study.errors import TrainingFailed
from study.mirror.tracker import resolve
from study.plan.race import Race
from study.plan.sweep import OneAtATime
from study.running.driver import Observer
from study.running.launch import ExecutionOptions
from study.space.training_kinds import KINDS
from study.storage.location import Database
from study.text import sentences as words
from study.text.tables import stage_table
from study.text.units import duration
from study.text.view import views
from study.training.run import Run
from study.workers.devices import Card, Devices
from study.workers.engine import InProcess


def console(**given: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=100, **given), written


def watched(watch: Observer, trainer=train) -> None:
    """A fake study, by last epochs, with somebody looking on."""
    plan = OneAtATime(space(score="last"), images=IMAGES)
    driver(InMemoryStorage(), engine=InProcess(trainer), plan=plan, watch=watch).drive()


def test_without_a_terminal_there_is_a_line_a_run_and_a_line_a_decision() -> None:
    to, written = console()
    watched(Lines(to, EPOCHS))
    lines = written.getvalue().splitlines()
    runs = [line for line in lines if " in 2.0 s  [" in line]
    assert len(runs) == 8
    assert runs[0].startswith("width 1, repeat 1: 6")
    assert "[1 of at most " in runs[0]
    assert any(line.startswith("width: 2 is selected, 7") for line in lines)
    assert "combined: all best means together are not clearly better" in written.getvalue()
    assert not [line for line in lines if "epoch " in line]


def test_verbose_adds_a_line_an_epoch() -> None:
    to, written = console()
    watched(Lines(to, EPOCHS, each_epoch=True))
    epochs = [line for line in written.getvalue().splitlines() if ": epoch " in line]
    assert len(epochs) == 8 * EPOCHS
    assert epochs[0].startswith("  width 1, repeat 1: epoch 1, ")


def test_a_failed_run_is_told_with_its_reason_as_it_is() -> None:
    failures = iter([True])

    def fragile(run: Run):
        if next(failures, False):
            raise TrainingFailed("out of memory in [mul] of [100,28]")
        return (yield from train(run))

    to, written = console()
    watched(Lines(to, EPOCHS), fragile)
    assert "repeat 1: failed, out of memory in [mul] of [100,28]" in written.getvalue()


def test_a_run_that_is_not_wanted_any_more_is_not_called_stopped() -> None:
    seen = []
    watch = seen_by(lambda plan_state, active, _: seen.append((plan_state, dict(active))))
    driver(InMemoryStorage(), watch=watch).drive()
    plan_state, active = next(pair for pair in seen if pair[1])
    to, written = console()
    lines = Lines(to, EPOCHS)
    lines.see(plan_state, active, None)
    lines.see(plan_state, {}, None)
    assert "width 1, repeat 1: cancelled, the plan does not need it" in written.getvalue()
    assert "stopped" not in written.getvalue()


def seen_by(see) -> Observer:
    return type("Seen", (), {"see": staticmethod(see)})()


def test_in_a_terminal_the_open_stage_is_shown_with_its_runs() -> None:
    seen = []

    class Looking(Screen):
        def see(self, plan_state, active, event) -> None:
            super().see(plan_state, active, event)
            to, written = console()
            to.print(self)
            seen.append(written.getvalue())

    watched(Looking(console(force_terminal=True)[0], EPOCHS, 2))
    assert "starting TensorFlow" in seen[0]
    assert any("width 1, repeat 1: epoch 2 of 4" in view for view in seen)
    assert any("width: 2 is selected" in view and "depth (open)" in view for view in seen)
    assert all("Ctrl-C stops" in view for view in seen[:-1])
    assert "Ctrl-C stops" not in seen[-1]


def test_a_duration_has_the_unit_that_matters() -> None:
    assert [duration(89), duration(600), duration(9000)] == ["89 s", "10 min", "2.5 h"]


def test_a_race_names_its_leader_and_says_how_sure_it_is() -> None:
    wide = space(repeats=3, hyperparameters={"width": {"options": [1, 2, 3], "start": 1}})
    to, written = console()
    race = Race(wide, images=IMAGES)
    state = driver(storage := InMemoryStorage(), plan=race, watch=Lines(to, EPOCHS)).drive()
    said = written.getvalue()
    assert f"width={dict(state.incumbent or ())['width']} leads" in said
    assert "[within 0.20 points: not known yet, 1 of at most 48 epochs" in said
    assert "[within 0.20 points of the best of " in said
    assert "after 1 epoch, paused" in said
    assert state.race is not None
    sure = words.race(state.race, state.metric)[0]
    best = f"the best of {len(state.race.compared)} configurations"
    assert f"The leader is within 0.20 points of {best}" in sure
    assert {row.state for row in rows(storage)} <= {"complete", "pruned"}


def test_an_open_stage_shows_the_mean_of_what_is_trained_already() -> None:
    seen = []
    watch = seen_by(lambda plan_state, *_: seen.append(plan_state))
    driver(InMemoryStorage(), watch=watch).drive()
    open_stages = [s.stages[-1] for s in seen if not s.stages[-1].decided]
    trained = [
        view for stage in open_stages for view in views(stage) if view.option.state == "complete"
    ]
    assert trained
    assert all(view.mean is not None for view in trained)


@pytest.mark.parametrize(("options", "lines"), [(25, 25), (26, 25), (60, 25)])
def test_a_table_shows_the_best_of_many_options_and_counts_the_others(
    options: int, lines: int
) -> None:
    plan = OneAtATime(space_of(width=(list(range(options)), 0), repeats=1), images=IMAGES)
    scores = {(value,): [0.5 + value / 4_000] for value in range(options)}
    stage = played(plan, fixed_scores(scores))[0].stages[0]
    to, written = console()
    to.print(stage_table(stage, 1))
    said = written.getvalue()
    assert said.count("1/1") == lines
    assert f" {options - 1} │" in said
    hidden = options - lines
    assert (f"and {hidden:,} more (status --json prints all)" in said) == (hidden > 0)


def test_the_cursor_is_seen_while_the_live_view_is() -> None:
    """A driver that is killed could not show it again."""
    to, written = console(force_terminal=True)
    with Screen(to, EPOCHS, 2):
        said = written.getvalue()
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


def on(device: str) -> Any:
    """As much of a study's settings as says where it is trained."""
    return SimpleNamespace(device=device, training=KINDS["stock"])


def test_the_first_lines_say_what_mlflow_writes_and_how_to_have_none(tmp_path: Path) -> None:
    to, written = console()
    there = Database.at(f"sqlite:///{tmp_path / 'study.db'}")
    print_execution(to, 1, ExecutionOptions(mirror=resolve(None, {}, there)), on("cpu"))
    for said in ("mlflow.db", "mlflow-artifacts/", "--mlflow none"):
        assert said in written.getvalue()


@pytest.mark.parametrize(
    ("device", "problem", "said"),
    [
        (
            "gpu",
            "",
            "Training 2 runs at once, a process each on NVIDIA H200 (140 GiB, driver 570.1)",
        ),
        ("cpu", "its driver is too old", "The GPU is not used: its driver is too old"),
        ("cpu", "", "The GPU is not used: this study trains on the CPU"),
    ],
)
def test_the_first_lines_say_whether_a_gpu_is_used(device: str, problem: str, said: str) -> None:
    to, written = console()
    cards = (Card("GPU-1", "NVIDIA H200", 143771, "570.1"),)
    devices = Devices("cpu" if problem else "gpu", cards, problem=problem)
    print_execution(to, 2, ExecutionOptions(devices=devices), on(device))
    assert said in written.getvalue().replace("\n", " ")


def test_in_a_notebook_there_is_one_output_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    shown: list[str] = []

    def display(view: Cell, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        made.append(view._repr_html_())
        return SimpleNamespace(update=lambda view: shown.append(view._repr_html_()))

    monkeypatch.setattr("IPython.display.display", display)
    to, written = console(force_jupyter=True)
    with watching(to, EPOCHS, 2) as view:
        watched(view)
    assert made == ["<div>starting</div>"]
    assert "Interrupt the kernel to stop" in shown[0]
    assert "<table>" in shown[-1]
    assert "width: 2 is selected" in shown[-1]
    assert "Interrupt" not in shown[-1]
    assert written.getvalue() == ""


def test_the_view_fits_what_it_is_shown_on() -> None:
    for given, kind in (({"force_terminal": True}, Screen), ({"force_terminal": False}, Lines)):
        with watching(console(**given)[0], EPOCHS, 2) as view:
            assert isinstance(view, kind)
    with watching(console(force_terminal=True)[0], EPOCHS, 2, verbose=True) as view:
        assert isinstance(view, Lines)
