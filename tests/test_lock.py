"""One driver a study, and the lock of a dead process is gone."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mirror_fakes
import optuna
import postgres
import pytest

from study.errors import SettingsError, StorageError, StudyLocked
from study.storage.database import create
from study.storage.location import Database, Location
from study.storage.lock import DRIVER, _oom_kills, driven, driver_lock

HOLDER = """
import sys
from study.storage.location import Database
from study.storage.lock import driver_lock
with driver_lock(Database.at(sys.argv[1]).study("one")):
    print("held", flush=True)
    sys.stdin.read()
"""

Process = subprocess.Popen[bytes]


_opened: dict[str, Database] = {}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    for database in _opened.values():
        database.close()
    _opened.clear()


def at(url: str) -> Database:
    return _opened.setdefault(url, Database.at(url))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the studies "one" and "two"."""
    file = f"sqlite:///{tmp_path / 'study.db'}"
    url = postgres.database() if request.param == "postgresql" else file
    for name in ("one", "two"):
        create(at(url).open(create=True), name, mirror_fakes.settings())
    return url


@pytest.fixture
def holder(url: str) -> Iterator[Process]:
    """A process that drives "one"."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def located(url: str, name: str = "one") -> Location:
    return at(url).study(name)


def stored(url: str, name: str = "one") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=at(url).open())


def rename(url: str, name: str) -> None:
    """What optuna-dashboard does to rename the study "one"."""
    with at(url).open().engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE studies SET study_name='{name}' WHERE study_name='one'")


def test_a_second_driver_is_told_which_process_holds_the_study(url: str, holder: Process) -> None:
    assert driven(located(url))
    with pytest.raises(StudyLocked, match=f"'one' is being driven by process {holder.pid} on"):
        driver_lock(located(url)).__enter__()


def test_the_lock_of_a_killed_process_is_free(url: str, holder: Process) -> None:
    holder.kill()
    holder.wait()
    with driver_lock(located(url)):
        assert driven(located(url))
    assert not driven(located(url))


def test_a_driver_was_killed_for_memory_only_where_the_system_has_done_so_since(
    url: str, holder: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.storage.lock._oom_kills", lambda: 7)
    holder.kill()
    holder.wait()
    recorded = stored(url).user_attrs[DRIVER]
    for before, expected in ((7, False), (6, True), (9, False), (None, True)):
        stored(url).set_user_attr(DRIVER, recorded | {"oom_kills": before})
        with driver_lock(located(url)) as lock:
            assert (lock.driver_died, lock.out_of_memory) == (True, expected)
            assert stored(url).user_attrs[DRIVER]["oom_kills"] == 7
    with driver_lock(located(url)) as lock:  # after one that ended by itself
        assert (lock.driver_died, lock.out_of_memory) == (False, False)


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="Linux counts whom it kills")
def test_linux_says_how_many_processes_it_has_killed_for_memory() -> None:
    assert isinstance(_oom_kills(), int)


def test_another_study_of_the_same_database_is_free(url: str, holder: Process) -> None:
    assert holder.poll() is None
    assert not driven(located(url, "two"))
    with driver_lock(located(url, "two")):
        assert driven(located(url, "two"))


def test_a_study_that_was_renamed_is_still_held(url: str, holder: Process) -> None:
    rename(url, "new")
    assert driven(located(url, "new"))
    with pytest.raises(StudyLocked, match=f"'new' is being driven by process {holder.pid} on"):
        driver_lock(located(url, "new")).__enter__()


def test_a_study_whose_lock_file_was_deleted_is_still_held(
    tmp_path: Path, url: str, holder: Process
) -> None:
    for path in tmp_path.glob("*.lock"):
        path.unlink()
    assert driven(located(url))
    with pytest.raises(StudyLocked, match=f"driven by process {holder.pid}"):
        driver_lock(located(url)).__enter__()


def test_another_process_of_the_same_number_holds_nothing(url: str, holder: Process) -> None:
    recorded = stored(url).user_attrs[DRIVER]
    holder.kill()
    holder.wait()
    stored(url).set_user_attr(DRIVER, recorded | {"pid": os.getppid()})
    assert not driven(located(url))


def test_a_malformed_record_of_the_driver_holds_nothing(url: str) -> None:
    for malformed in (3, [], {"host": 1}, {"pid": -1}, "x"):
        stored(url).set_user_attr(DRIVER, malformed)
        with driver_lock(located(url)) as lock:
            lock.check()


def test_a_copy_of_the_database_is_free(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    create(at(url).open(create=True), "one", mirror_fakes.settings())
    with driver_lock(located(url)):
        with (
            closing(sqlite3.connect(tmp_path / "study.db")) as source,
            closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
        ):
            source.backup(copy)
        assert not driven(located(f"sqlite:///{tmp_path / 'copy.db'}"))


def test_a_study_that_is_deleted_or_renamed_while_it_runs_ends_in_a_line(url: str) -> None:
    with driver_lock(located(url)) as lock:
        lock.check()
        rename(url, "new")
        with pytest.raises(StorageError, match=r"'one' was renamed to 'new'.*study resume new"):
            lock.check()
    with driver_lock(located(url, "two")) as lock:
        optuna.delete_study(study_name="two", storage=at(url).open())
        with pytest.raises(StorageError, match="'two' was deleted while it ran"):
            lock.check()


def test_of_two_that_make_a_study_of_one_name_the_second_leaves_the_first_alone(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with driver_lock(located(url)) as first:
        with driver_lock(Database.at(url).study("one")) as second:
            create(at(url).open(create=True), "one", mirror_fakes.settings(), first.attributes)
            with pytest.raises(SettingsError, match="'one' exists"):
                create(at(url).open(), "one", mirror_fakes.settings(), second.attributes)
        assert stored(url).user_attrs[DRIVER]["pid"] == os.getpid()
        assert len([*tmp_path.glob("*.lock")]) == 1
        first.check()


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "its log deleted"])
def test_a_database_file_that_is_taken_away_is_noticed_and_saved(tmp_path: Path, how: str) -> None:
    path, url = tmp_path / "study.db", f"sqlite:///{tmp_path / 'study.db'}"
    study = create(at(url).open(create=True), "one", mirror_fakes.settings())
    with driver_lock(located(url)) as lock:
        study.set_user_attr("note", "written before")
        if how == "deleted":
            for file in tmp_path.glob("study.db*"):
                file.unlink()
        elif how == "moved":
            path.rename(tmp_path / "elsewhere.db")
        elif how == "its log deleted":
            lock.check()
            (tmp_path / "study.db-wal").unlink()
        else:
            path.with_suffix(".new").write_bytes(path.read_bytes())
            path.with_suffix(".new").replace(path)
        with pytest.raises(StorageError, match="was deleted, moved or replaced") as stopped:
            lock.check()
    (saved,) = tmp_path.glob("study.db.saved-*")
    assert saved.name in str(stopped.value)
    kept = optuna.load_study(study_name="one", storage=f"sqlite:///{saved}")
    assert kept.user_attrs["note"] == "written before"
    assert path.exists() is (how not in {"deleted", "moved"})


@pytest.mark.parametrize("checked", [False, True])
def test_a_new_database_that_is_deleted_at_once_is_noticed(
    tmp_path: Path, *, checked: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with driver_lock(located(url)) as lock:
        create(at(url).open(create=True), "one", mirror_fakes.settings(), lock.attributes)
        if checked:
            lock.check()
        for file in tmp_path.glob("study.db*"):
            if file.suffix != ".lock":
                file.unlink()
        with pytest.raises(StorageError, match="was deleted, moved or replaced") as stopped:
            lock.check()
        assert ("what it had stored is in" in str(stopped.value)) is checked


def test_a_study_that_was_never_driven_leaves_no_file_when_asked_about(tmp_path: Path) -> None:
    assert not driven(Database.at(f"sqlite:///{tmp_path / 'study.db'}").study("one"))
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    create(at(url).open(create=True), "one", mirror_fakes.settings())
    mine = tmp_path / "mine"
    mine.write_text("of another program")
    located(url).lock(stored(url).user_attrs["uuid"]).symlink_to(mine)
    with pytest.raises(StorageError, match="cannot be written"):
        driver_lock(located(url)).__enter__()
    assert mine.read_text() == "of another program"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder no one can write: Linux")
def test_a_folder_that_cannot_be_written_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"/sys/study\.db.*cannot be written"):
        driver_lock(Database.at("sqlite:////sys/study.db").study("one")).__enter__()
