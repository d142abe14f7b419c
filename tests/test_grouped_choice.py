"""When the runs of a study are trained in groups, and what is said where they cannot be."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_device import Prepared, cards, database, made, prepared  # noqa: F401

from study.errors import SettingsError
from study.running import prepare as preparing
from study.running.driver import Observers
from study.running.launch import ExecutionOptions, jobs_of, launch
from study.running.prepare import prepare_again
from study.storage import database as storage
from study.storage.location import Database
from study.storage.trials import StoredTrials
from study.training.device import CPU, Devices

# ruff: noqa: F811 - fixtures of another file


def test_where_jax_has_a_gpu_groups_are_the_default(database: Database, cards: Devices) -> None:
    devices = replace(cards, libraries=("tensorflow", "jax"))
    settings = prepared(database, devices).settings
    assert (settings["training"], settings["precision"]) == ("grouped", "float32")
    assert "jax" in settings.versions
    assert jobs_of(settings, ExecutionOptions(devices=devices)) == 16
    assert jobs_of(settings, ExecutionOptions(devices=devices, jobs=5)) == 5
    assert prepared(database, devices, training="stock").settings["training"] == "stock"
    assert prepared(database, CPU).settings["training"] == "fast"


def test_a_study_keeps_how_it_is_trained_and_in_which_precision(database: Database) -> None:
    made(prepared(database, CPU, training="grouped", precision="fast"))
    asked = prepared(database, CPU, training="grouped", precision="fast")
    for again in (prepare_again(None, database, None), asked):
        assert (again.settings["training"], again.settings["precision"]) == ("grouped", "fast")
    with pytest.raises(SettingsError, match=r"precision \(fast, not float32\)"):
        prepared(database, CPU, training="grouped", precision="float32")
    with pytest.raises(SettingsError, match=r"training \(grouped, not stock\)"):
        prepared(database, CPU, training="stock")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"training": "group"}, "--training group: choose fast, stock or grouped"),
        ({"training": "grouped", "precision": "tf32"}, "precision tf32: choose float32 or fast"),
        ({"precision": "fast"}, "--precision fast: give --training grouped too"),
    ],
)
def test_what_cannot_be_chosen_is_said(
    database: Database, given: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        prepared(database, CPU, **given)
    assert not database.exists


def test_a_cluster_trains_no_groups(database: Database) -> None:
    with pytest.raises(SettingsError, match="grouped is this machine's: leave --scheduler out"):
        prepared(database, replace(CPU, remote=True), training="grouped")


def test_without_jax_the_cure_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"needs JAX: pip install '\.\[jax\]'"):
        prepared(database, CPU, training="grouped")


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_whole_study_is_trained_in_groups(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    study = prepared(database, CPU, training="grouped", precision="fast")
    plan_state = launch(study, Observers(), ExecutionOptions(keep_models="none"), print)
    assert plan_state.complete
    rows = StoredTrials()(storage.load(database.open())[0])
    assert {row.state for row in rows if row.value is not None} == {"complete"}
    assert {row.attributes["training"] for row in rows} == {"grouped"}
    assert not list(study.location.checkpoints.glob("*"))
