"""The study in its database: open, lock, create, load, and what a dead driver left behind.

The database is the truth. SQLite is opened with a write-ahead log, ``synchronous=NORMAL`` and a
short busy timeout under a retry that Ctrl-C can interrupt; any Optuna RDB URL works too.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from study.errors import SettingsError, StorageError
from study.space.settings import FORMAT, Settings

if TYPE_CHECKING:
    from optuna import Study

optuna.logging.set_verbosity(optuna.logging.WARNING)

DEFAULT = "sqlite:///study.db"
SETTINGS = "settings"
"""The study attribute that holds what was recorded when the study was made."""

_BUSY = 0.2  # seconds SQLite waits by itself: a signal is answered only after it
_PATIENCE = 600.0  # seconds a lock of another process is waited for

Answer = TypeVar("Answer")


class PatientConnection(sqlite3.Connection):
    """A connection whose statements outlast another process's lock, and can be interrupted."""

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return super().cursor(PatientCursor)

    def commit(self) -> None:
        _patiently(super().commit)


class PatientCursor(sqlite3.Cursor):
    """A cursor that tries again while the database is locked."""

    def execute(self, *args: Any) -> Any:
        return _patiently(lambda: super(PatientCursor, self).execute(*args))

    def executemany(self, *args: Any) -> Any:
        return _patiently(lambda: super(PatientCursor, self).executemany(*args))


def _patiently(statement: Callable[[], Answer]) -> Answer:
    """Run a statement again while SQLite says that the database is locked."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return statement()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY / 4)


def check(url: str) -> URL:
    """Parse a database URL; refuse, before anything is made, a SQLite file that cannot be used.

    Raises ``StorageError``; its message never shows a password.
    """
    try:
        address = make_url(url)
    except ArgumentError:
        raise StorageError("--storage: is no database URL; write sqlite:///FILE") from None
    if address.get_backend_name() != "sqlite":
        return address
    if not address.database or address.database == ":memory:":
        raise StorageError(f"--storage {url}: a study is kept in a file; write sqlite:///FILE")
    path = Path(address.database)
    if path.is_dir():
        raise StorageError(f"{path}: is a folder; name a file in it with --storage")
    if not path.parent.is_dir():
        raise StorageError(f"{path.parent}: no such folder; make it or name another --storage")
    target = path if path.exists() else path.parent
    if not os.access(path.parent, os.W_OK) or not os.access(target, os.W_OK | os.R_OK):
        raise StorageError(f"{path}: cannot be written; check the permissions of file and folder")
    return address


def exists(url: str) -> bool:
    """Whether the database is there already; a server always is."""
    address = check(url)
    return address.get_backend_name() != "sqlite" or Path(str(address.database)).exists()


def open_storage(url: str = DEFAULT, *, create: bool = False) -> RDBStorage:
    """Open the database of studies at ``url``.

    ``create`` makes a SQLite file that is not there; without it a missing one is a
    ``StorageError``. So are an address that is none, a file that is no database, a folder that
    cannot be written and a server that does not answer; the message never shows a password.
    """
    address = check(url)
    if not create and not exists(url):
        raise StorageError(
            f"{address.database}: no such database; start a study with: python -m study run"
        )
    sqlite = address.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"pool_pre_ping": True, "connect_args": network(address)}
    if sqlite:
        options = {"connect_args": {"factory": PatientConnection, "timeout": _BUSY}}
    with explained(url), _usable(address.render_as_string(hide_password=True)):
        if sqlite:
            _prepare_file(url, options)
        storage = RDBStorage(url, engine_kwargs=options)
        if sqlite:
            event.listen(storage.engine, "connect", _relax)
            storage.engine.dispose()
        return storage


def network(address: URL) -> dict[str, Any]:
    """How to connect to PostgreSQL, so that within half a minute a lost server is noticed."""
    if address.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    # A server that was set up without a locale would send bytes.
    return {"connect_timeout": 10, "tcp_user_timeout": 30_000, "client_encoding": "utf8", **alive}


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what the database layer raises into one line about the database at ``url``."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        shown = make_url(url).render_as_string(hide_password=True)
        raise StorageError(f"{shown}: {_reason(error)}") from None


@contextmanager
def _usable(shown: str) -> Iterator[None]:
    """The same for what can only go wrong while a database is opened."""
    try:
        yield
    except NoSuchModuleError:
        raise StorageError(
            f"{shown}: no driver for this kind of database; write sqlite:///FILE or "
            "postgresql+psycopg://..."
        ) from None
    except ImportError as error:
        raise StorageError(
            f"{shown}: {_reason(error)}; install its client, or name another --storage"
        ) from None
    except RuntimeError as error:  # Optuna: the tables are those of another version
        raise StorageError(f"{shown}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The root of a chain of database errors, in words that say what to do."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    hints = {
        "file is not a database": "the file is no SQLite database; name another with --storage",
        "malformed": "the database file is damaged; restore a copy or name another with --storage",
        "readonly": "the database cannot be written; check the permissions of file and folder",
        "unable to open": "the database cannot be opened; check that the folder can be written",
        "disk is full": "the disk is full; free some space, then resume",
        "disk I/O error": "the disk cannot be written; free some space, then resume",
        "locked": "another process holds the database locked; end it, then resume",
    }
    return next((hint for sign, hint in hints.items() if sign in line), line)


def _prepare_file(url: str, options: dict[str, Any]) -> None:
    """Switch the file to a write-ahead log (readers never wait), unless it is another program's."""
    engine = create_engine(url, **options)
    try:
        with engine.connect() as connection:
            tables = inspect(connection).get_table_names()
            if tables and "studies" not in tables:
                raise StorageError(
                    f"{engine.url.database}: is the database of another program; name another "
                    "with --storage"
                )
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    finally:
        engine.dispose()


def _relax(connection: sqlite3.Connection, _: object) -> None:
    # A power cut may cost the last epochs, never the file; a killed process costs nothing.
    connection.execute("PRAGMA synchronous=NORMAL")


def names(storage: RDBStorage) -> list[str]:
    """The names of the studies in a database that this program made, oldest first."""
    return [
        study.study_name
        for study in storage.get_all_studies()  # Optuna's summaries would read every trial
        if SETTINGS in study.user_attrs
    ]


def create(storage: RDBStorage, name: str, settings: Settings) -> Study:
    """Make a study and record its settings.

    A study of this name without settings and trials is what a driver left that was killed in
    this very function: it is completed. Any other one is refused with ``SettingsError``.
    """
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        if SETTINGS in study.user_attrs or study.get_trials(deepcopy=False):
            raise SettingsError(f"a study named {name!r} exists; choose another --name") from None
    study.set_user_attr(SETTINGS, settings.to_dict())
    return study


def load(storage: RDBStorage, name: str | None = None) -> tuple[Study, Settings]:
    """A study with its recorded settings; without a name the one that was made last.

    Raises ``StorageError`` where there is none of this name, ``SettingsError`` where its format
    is of another version.
    """
    known = names(storage)
    if name is None and known:
        name = known[-1]
    if name is None or name not in known:
        wanted = f"no study named {name!r}" if name else "no study"
        there = f"; there are {', '.join(known)}" if known else ""
        raise StorageError(f"{wanted} in this database{there}: start one with: python -m study run")
    study = optuna.load_study(study_name=name, storage=storage)
    return study, read_settings(study)


def read_settings(study: Study) -> Settings:
    """What was recorded when the study was made; a format of another version is refused."""
    stored = study.user_attrs[SETTINGS]
    if stored.get("format") != FORMAT:
        raise SettingsError(
            f"study {study.study_name!r} was recorded in format {stored.get('format')}, and this "
            f"version reads {FORMAT}: start it anew under another --name, or use the version of "
            "the program that made it"
        )
    return Settings.from_dict(stored)


def find(storage: RDBStorage, name: str) -> Settings | None:
    """The settings of the study of this name, None where there is none."""
    if name not in names(storage):
        return None
    return load(storage, name)[1]


def record(study: Study, settings: Settings) -> None:
    """Store changed settings; only the number of repeats ever changes."""
    if settings.to_dict() != study.user_attrs[SETTINGS]:
        study.set_user_attr(SETTINGS, settings.to_dict())


def beside(storage: str) -> Path:
    """The folder of the study's database; the current one where the database is no file."""
    try:
        address = make_url(storage)
    except ArgumentError:
        return Path.cwd()  # whoever opens the database says what is wrong with it
    if address.get_backend_name() == "sqlite" and address.database:
        return Path(address.database).resolve().parent
    return Path.cwd()
