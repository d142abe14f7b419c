"""A study on a PostgreSQL server: the same study, and a server that goes away costs nothing."""

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import fakes
import postgres
import pytest
from optuna.storages import RDBStorage

from study.data.dataset import Dataset
from study.errors import StorageError
from study.running import launch, prepare
from study.running.driver import Observers
from study.space import file as space_file
from study.space.settings import resolve
from study.storage import connection
from study.storage import database as storage
from study.storage.database import plan_state_of
from study.storage.location import Database
from study.storage.lock import driver_lock
from study.training.run import Epoch, Run

SPACE = """
name = "far"
epochs = 3
batch_size = 100
repeats = 2
[hyperparameters.filters]
options = [2, 4]
start = 2
[fixed]
k1 = 2
k2 = 2
dense = 4
"""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database; the connections that are left to the end of a command are closed."""
    opened: list[RDBStorage] = []

    def recorded(*words: Any, **given: Any) -> RDBStorage:
        opened.append(RDBStorage(*words, **given))
        return opened[-1]

    monkeypatch.setattr(connection, "RDBStorage", recorded)
    yield postgres.database()
    for one in opened:
        one.remove_session()
        one.engine.dispose()


def test_a_study_is_made_resumed_and_its_interrupted_run_adopted(url: str) -> None:
    def interrupted(run: Run) -> Generator[Epoch, None, bytes]:
        yield from itertools.islice(fakes.train(run), 2)
        raise KeyboardInterrupt

    settings = resolve(space_file.load("smoke"), "smoke", {})
    storage.create(Database.at(url).open(), "fake", settings)
    with pytest.raises(KeyboardInterrupt):
        fakes.drive(Database.at(url).open(), train=interrupted)
    opened = Database.at(url).open()
    assert storage.names(opened) == ["fake"]
    assert storage.load(opened, "fake")[1] == settings
    assert [len(row.reported) for row in fakes.rows(opened)] == [2]
    fakes.drive(opened)
    alone = fakes.InMemoryStorage()
    fakes.drive(alone)
    assert fakes.counted(opened) == fakes.counted(alone)
    assert {row.state for row in fakes.rows(opened)} == {"complete"}


def test_a_lock_whose_connection_was_cut_is_noticed(url: str) -> None:
    settings = resolve(space_file.load("smoke"), "smoke", {})
    location = Database.at(url).study("one")
    storage.create(location.database.open(), "one", settings)
    with driver_lock(location) as lock:
        lock.check()
        location.database.close()
        assert postgres.cut() == 1
        with pytest.raises(StorageError, match=r"connection was cut.*resume") as lost:
            lock.check()
        with driver_lock(location):  # another driver could begin
            pass
    assert "\n" not in str(lost.value)


def run(url: str, folder: Path, trainer: Any) -> Any:
    """Run, or go on with, the study; returns what it says in the end."""
    (folder / "far.toml").write_text(SPACE)
    prepared = prepare.prepare(str(folder / "far.toml"), None, Database.at(url), {})
    means = launch.ExecutionOptions(
        jobs=1, checkpoints=str(folder / "checkpoints"), keep_models="none"
    )
    launch.launch(prepared, Observers(), means, lambda line: None, trainer)
    study, settings = storage.load(Database.at(url).open())
    plan_state = plan_state_of(study, settings)
    values = [[[r.value for r in o.rows] for o in s.options] for s in plan_state.stages]
    return plan_state.complete, plan_state.incumbent, values


def trainer(run: Run, dataset: Dataset, **given: Any) -> Generator[Epoch, None, bytes]:
    return fakes.train(run)


def test_a_server_that_restarts_costs_a_line_and_no_result(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    epochs = iter(range(100))

    def disturbed(run: Run, dataset: Dataset, **given: Any) -> Generator[Epoch, None, bytes]:
        for epoch in fakes.train(run):
            if next(epochs) == 4:
                postgres.restart()
            yield epoch
        return b"model"

    with pytest.raises(StorageError, match=r"the connection was cut.*resume") as lost:
        run(url, tmp_path, disturbed)
    assert "\n" not in str(lost.value)
    expected = run(f"sqlite:///{tmp_path / 'calm.db'}", tmp_path, trainer)
    assert run(url, tmp_path, trainer) == expected
    assert expected[0]


def test_a_server_that_is_away_is_one_line_without_a_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://me:secret@/study?host={tmp_path}"
    with pytest.raises(StorageError, match=r"postgresql.*No such file or directory") as away:
        Database.at(url).open()
    assert "\n" not in str(away.value)
    assert "secret" not in str(away.value)
