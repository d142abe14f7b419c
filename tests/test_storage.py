"""The database is the truth: it is opened with care; what is wrong with it is said in a line."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mirror_fakes
import optuna
import postgres
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel

from study.errors import SettingsError, StorageError
from study.space import file as space_file
from study.space.settings import Settings, resolve
from study.storage import connection
from study.storage import database as storage
from study.storage.connection import explained
from study.storage.database import plan_state_of
from study.storage.location import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def settings() -> Settings:
    return resolve(space_file.load("smoke"), "smoke", {})


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process in the middle of writing."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.close()


def test_a_database_is_made_only_when_asked_for(path: Path, url: str) -> None:
    with pytest.raises(StorageError, match=r"no such database.*study run"):
        Database.at(url).open()
    assert not path.exists()
    Database.at(url).open(create=True)
    assert path.exists()


def test_sqlite_writes_ahead_and_syncs_as_often_as_it_must(path: Path, url: str) -> None:
    opened = Database.at(url).open(create=True)
    with opened.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def _killed(url: str, **given: Any) -> None:
    RDBStorage(url, **given).engine.dispose()
    raise KeyboardInterrupt


def test_a_database_is_there_whole_or_not_at_all(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(connection, "RDBStorage", _killed)
        with pytest.raises(KeyboardInterrupt):
            Database.at(url).open(create=True)
    assert not list(tmp_path.iterdir())
    Database.at(url).open(create=True)


@pytest.mark.parametrize("made", ["", "studies", "studies, version_info", "no version"])
def test_a_half_made_database_is_completed(
    path: Path, url: str, settings: Settings, made: str
) -> None:
    """As an older start left it that was killed while it made the tables."""
    if made == "no version":
        Database.at(url).open(create=True).engine.dispose()
        with closing(sqlite3.connect(path)) as half, half:
            half.execute("DROP TABLE alembic_version")
    else:
        with closing(sqlite3.connect(path)) as half, half:
            for table in filter(None, made.split(", ")):
                create = sqlalchemy.schema.CreateTable(BaseModel.metadata.tables[table])
                half.execute(str(create))
    storage.create(Database.at(url).open(create=True), "mine", settings)
    assert storage.names(Database.at(url).open()) == ["mine"]


MAKE = """
import sys
from study.space import file
from study.space.settings import resolve
from study.storage.database import create
from study.storage.location import Database
settings = resolve(file.load("smoke"), "smoke", {})
sys.stdin.readline()
create(Database.at(sys.argv[1]).open(create=True), sys.argv[2], settings)
"""


@pytest.mark.parametrize("server", [False, True])
def test_studies_are_started_at_once_in_an_empty_place(url: str, server: bool) -> None:
    url = postgres.database() if server else url
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, url, name],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for name in ("one", "two", "three")
    ]
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("\n")
        start.stdin.flush()
    assert [start.communicate()[1] for start in starts] == [""] * 3
    database = Database.at(url)
    with closing(database):
        assert {*storage.names(database.open())} == {"one", "two", "three"}


def test_a_flush_puts_everything_into_the_file_itself(
    path: Path, tmp_path: Path, url: str, settings: Settings
) -> None:
    database = Database.at(url)
    study = storage.create(database.open(create=True), "mine", settings)
    study.set_user_attr("note", "written")
    database.flush()
    shutil.copy(path, tmp_path / "alone.db")
    alone = storage.load(Database.at(f"sqlite:///{tmp_path / 'alone.db'}").open(), "mine")[0]
    assert alone.user_attrs["note"] == "written"


def test_a_flush_syncs_the_log_where_a_reader_keeps_it_from_the_file(
    path: Path, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.at(url)
    study = storage.create(database.open(create=True), "mine", settings)
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name)
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        study.set_user_attr("note", "written")
        database.flush()
    assert synced == ["study.db-wal"]
    database.flush()
    assert synced == ["study.db-wal"]


def test_a_study_is_found_again_with_its_settings(url: str, settings: Settings) -> None:
    storage.create(Database.at(url).open(create=True), "mine", settings)
    study, found = storage.load(Database.at(url).open(), "mine")
    assert study.study_name == "mine"
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert found == settings


def test_without_a_name_it_is_the_study_made_last(url: str, settings: Settings) -> None:
    opened = Database.at(url).open(create=True)
    for name in ("first", "second"):
        storage.create(opened, name, settings)
    assert storage.names(opened) == ["first", "second"]
    assert storage.load(opened)[0].study_name == "second"


def test_a_name_that_is_not_there_is_answered_with_those_that_are(
    url: str, settings: Settings
) -> None:
    opened = Database.at(url).open(create=True)
    with pytest.raises(StorageError, match="no study in this database"):
        storage.load(opened)
    storage.create(opened, "mine", settings)
    with pytest.raises(StorageError, match=r"no study named 'yours'.*which holds mine"):
        storage.load(opened, "yours")
    assert storage.find(opened, "yours") is None


def test_studies_of_other_programs_are_not_ours(url: str, settings: Settings) -> None:
    opened = Database.at(url).open(create=True)
    optuna.create_study(study_name="theirs", storage=opened).add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    assert storage.names(opened) == []
    with pytest.raises(SettingsError, match="'theirs' exists"):
        storage.create(opened, "theirs", settings)


def test_a_study_is_made_whole_or_not_at_all(
    url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Database.at(url).open(create=True)
    with monkeypatch.context() as patched:
        patched.setattr(Settings, "to_dict", lambda _: {"not": {1, 2}})
        with pytest.raises(TypeError):
            storage.create(opened, "mine", settings)
    assert opened.get_all_studies() == []
    storage.create(opened, "mine", settings)
    assert storage.find(opened, "mine") == settings


def test_changed_repeats_are_recorded(url: str, settings: Settings) -> None:
    opened = Database.at(url).open(create=True)
    study = storage.create(opened, "mine", settings)
    storage.record(study, settings.with_repeats(5))
    found = storage.find(opened, "mine")
    assert found is not None
    assert found.repeats == 5


def test_a_format_of_another_version_is_refused(url: str, settings: Settings) -> None:
    opened = Database.at(url).open(create=True)
    study = storage.create(opened, "mine", settings)
    study.set_user_attr(storage.SETTINGS, settings.to_dict() | {"format": 99})
    with pytest.raises(SettingsError, match=r"'mine' was recorded in format 99.*another --name"):
        storage.load(opened, "mine")


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"these are no tables " * 100, "is no SQLite database"),
        (b"SQLite format 3\x00" + bytes(5000), "is no SQLite database"),
    ],
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    path: Path, url: str, contents: bytes, said: str
) -> None:
    path.write_bytes(contents)
    with pytest.raises(StorageError, match=said):
        Database.at(url).open()
    assert path.read_bytes() == contents


def test_a_schema_that_is_no_text_is_called_damaged(path: Path, url: str) -> None:
    Database.at(url).open(create=True).engine.dispose()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE trials", b"CREATE \xd4ABLE trials"))
    with pytest.raises(StorageError, match="damaged; restore a copy"):
        Database.at(url).open()


def test_what_a_damaged_database_holds_is_not_printed(
    path: Path, url: str, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    study = storage.create(Database.at(url).open(create=True), "one", settings)
    study.ask()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE trials SET datetime_start = CAST(X'1B5B33316DFF' AS TEXT)")
    with pytest.raises(StorageError, match="damaged; restore a copy"), explained(url):
        plan_state_of(*storage.load(Database.at(url).open()))
    assert capfd.readouterr() == ("", "")


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path, url: str) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE runs (name)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="database of another program"):
        Database.at(url).open(create=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("study.db", "no database URL"),
        ("sqlite://", "kept in a file"),
        ("sqlite:///:memory:", "kept in a file"),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/none/study.db", "no such folder"),
        ("mssql+nothing://user:secret@host/base", "no driver for this kind"),
        ("oracle://user:secret@host/base", "install its client"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/base", "127.0.0.1"),
    ],
)
def test_an_address_that_is_of_no_use_is_refused_without_its_password(
    tmp_path: Path, address: str, said: str
) -> None:
    with pytest.raises(StorageError, match=said) as caught:
        Database.at(address.format(folder=tmp_path)).open(create=True)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


LOOK = """
import os, sys
from study.cli.app import app
for command in (["list"], ["status"], ["best", "--json"], ["report", "--output", sys.argv[1]]):
    try:
        app(command)
    except SystemExit as end:
        assert not end.code, command
from study.storage.location import Database
from study.storage.lock import driver_lock
driver_lock(Database.at("sqlite:///study.db").study("digits")).__enter__()
"""


@pytest.mark.parametrize("left", ["by a study that ended", "by a driver that was killed"])
def test_a_study_is_looked_at_where_nothing_can_be_written(tmp_path: Path, left: str) -> None:
    (tmp_path / "made").mkdir()
    made = mirror_fakes.make(tmp_path / "made")
    made.add(made.start(), 0)
    if left == "by a study that ended":
        Database.at(made.url).flush()
    folder = tmp_path / "folder"
    shutil.copytree(tmp_path / "made", folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in (*folder.iterdir(), folder):
        path.chmod(0o500 if path.is_dir() else 0o400)
    command = [sys.executable, "-c", LOOK, str(tmp_path / "out")]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "digits" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("study.errors.StorageError: ")
    assert "cannot be written" in last
    assert [path.suffix for path in (tmp_path / "out").iterdir()]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder no one can write: Linux")
def test_a_folder_where_not_even_root_can_write_is_refused() -> None:
    with pytest.raises(StorageError, match=r"/sys/study\.db: .*(folder|permissions)"):
        Database.at("sqlite:////sys/study.db").open(create=True)


def test_a_write_outlasts_the_lock_of_another_process(
    path: Path, url: str, settings: Settings
) -> None:
    study = storage.create(Database.at(url).open(create=True), "mine", settings)
    writing = threading.Thread(target=study.set_user_attr, args=("note", "written"))
    with locked(path) as other:
        writing.start()
        writing.join(3 * connection._BUSY)
        assert writing.is_alive()
        other.execute("COMMIT")
    writing.join(30)
    assert storage.load(Database.at(url).open(), "mine")[0].user_attrs["note"] == "written"


def test_a_database_that_is_locked_for_long_is_said(
    path: Path,
    url: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "_SILENCE", 0.3)
    monkeypatch.setattr(connection, "_PATIENCE", 1.0)
    study = storage.create(Database.at(url).open(create=True), "mine", settings)
    with (
        pytest.raises(StorageError, match="another process holds the database locked"),
        explained("the.db"),
        locked(path),
    ):
        study.set_user_attr("note", "never")
    (said,) = caplog.messages
    assert "locked by another process; waiting" in said


def test_waiting_for_a_lock_can_be_interrupted(path: Path, url: str, settings: Settings) -> None:
    def ring(*_: object) -> None:
        raise KeyboardInterrupt

    study = storage.create(Database.at(url).open(create=True), "mine", settings)
    before = signal.signal(signal.SIGALRM, ring)
    began = time.monotonic()
    with locked(path):
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            study.set_user_attr("note", "never")
    signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 60  # the patience itself is ten minutes


def test_what_the_database_layer_raises_later_is_one_line_too(url: str, settings: Settings) -> None:
    opened = Database.at(url).open(create=True)
    study = storage.create(opened, "mine", settings)
    with opened.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE study_user_attributes")
    with (
        pytest.raises(StorageError, match=r"the.db: no such table"),
        explained("sqlite:///the.db"),
    ):
        study.set_user_attr("note", "nowhere")


def test_other_errors_are_not_taken_for_those_of_the_database() -> None:
    with pytest.raises(RuntimeError, match="mistake"), explained("sqlite:///the.db"):
        raise RuntimeError("a mistake of the program")
