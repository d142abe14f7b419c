"""Connections to a database of studies, and what its errors mean.

SQLite is opened with a write-ahead log, ``synchronous=NORMAL`` and a short busy timeout under a
retry that Ctrl-C can interrupt; any Optuna RDB URL works too.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from study.errors import StorageError
from study.files import made_once

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("optuna.storages").setLevel(logging.ERROR)  # it quotes what a database holds
_log = logging.getLogger(__name__)

_BUSY = 0.2  # seconds SQLite waits by itself: a signal is answered only after it
_PATIENCE = 600.0  # seconds to wait for a lock of another process
_SILENCE = 5.0  # seconds of them without a word
_TRIES = 5  # how often to set up a schema that another process sets up at the same time

Answer = TypeVar("Answer")


def connect(address: URL, shown: str) -> RDBStorage:
    """A new storage of the database at this address; a SQLite file has to be there.

    It is opened read-only where the file, or its folder, cannot be written. Raises
    ``StorageError``, which names the address as ``shown``.
    """
    with explained(shown), _usable(shown):
        if address.get_backend_name() != "sqlite":
            return _storage(address, pool_pre_ping=True, connect_args=network(address))
        path = Path(str(address.database))
        _require_own(path)
        return _storage(address, creator=sqlite(path))


def make(address: URL, shown: str) -> None:
    """Make a SQLite file whole or not at all; one that another process has just made is kept."""
    with explained(shown), _usable(shown), made_once(Path(str(address.database))) as aside:
        sqlite3.connect(aside).close()
        storage = _storage(address.set(database=str(aside)), creator=sqlite(aside))
        storage.remove_session()
        storage.engine.dispose()


def _storage(address: URL, **options: Any) -> RDBStorage:
    """Optuna's storage, with the tables that are missing; two processes may make them at once."""
    url = address.render_as_string(hide_password=False)
    for attempt in range(_TRIES):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            made_elsewhere = "already exists" in str(error) or "unique" in str(error).lower()
            if not made_elsewhere or attempt == _TRIES - 1:
                raise
            time.sleep(_BUSY)
    raise AssertionError


def sqlite(path: Path) -> Callable[[], sqlite3.Connection]:
    """Makes connections to a file that is there; without write access, read-only ones.

    A read-only folder has no room for SQLite's shared memory: a file whose log is folded in is then
    read as one that does not change.
    """
    mode = "mode=rw"
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        log = path.with_name(f"{path.name}-wal")
        folded = not log.exists() or log.stat().st_size == 0
        mode = "mode=ro&immutable=1" if folded else "mode=ro"

    def open_connection() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{mode}",
            uri=True,
            timeout=_BUSY,
            factory=PatientConnection,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous=NORMAL")  # `flush` syncs what has to last
        return connection

    return open_connection


def _require_own(path: Path) -> None:
    """Refuse a file of another program; switch to a write-ahead log, so that readers never wait."""
    connection = sqlite(path)()
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if tables and "studies" not in tables:
            raise StorageError(
                f"{path}: is the database of another program; name another with --storage"
            )
        mode = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != ("wal",) and os.access(path, os.W_OK):
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def open_session(address: URL) -> Connection:
    """A connection of its own to a database that is there, in which each statement commits."""
    options: dict[str, Any] = {"connect_args": network(address)}
    if address.get_backend_name() == "sqlite":
        options = {"creator": sqlite(Path(str(address.database)))}
    engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT", **options)
    return engine.connect()


def flush(storage: RDBStorage) -> None:
    """Fold SQLite's write-ahead log into the file, synced to the disk.

    What was committed before outlasts a power cut, and the file alone is the whole database. While
    a reader prevents that, the log itself is synced: it is folded in the next time.
    """
    if storage.engine.dialect.name != "sqlite":
        return
    with storage.engine.connect() as connection:
        row = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    if row[0]:
        log = os.open(f"{storage.engine.url.database}-wal", os.O_RDWR)
        try:
            os.fsync(log)
        finally:
            os.close(log)


class PatientConnection(sqlite3.Connection):
    """A connection whose statements wait for another process's lock, and can be interrupted."""

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return super().cursor(PatientCursor)

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def commit(self) -> None:
        _patiently(super().commit)


class PatientCursor(sqlite3.Cursor):
    """A cursor that tries again while the database is locked."""

    def execute(self, *args: Any) -> Any:
        return _patiently(lambda: super(PatientCursor, self).execute(*args))

    def executemany(self, *args: Any) -> Any:
        return _patiently(lambda: super(PatientCursor, self).executemany(*args))


def _patiently(statement: Callable[[], Answer]) -> Answer:
    """Run a statement again while SQLite says that the database is locked.

    Raises ``sqlite3.Error``, also where SQLite quotes text of the file that is no UTF-8.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            return statement()
        except UnicodeDecodeError:
            raise sqlite3.DatabaseError("malformed text") from None
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - began
            if "locked" not in str(error) or waited > _PATIENCE:
                raise
            if waited > _SILENCE and not said:
                said = True
                _log.warning(
                    "The database is locked by another process; waiting up to %d minutes for it",
                    _PATIENCE / 60,
                )
            time.sleep(_BUSY / 4)


def network(address: URL) -> dict[str, Any]:
    """How to connect to PostgreSQL, so that within half a minute a lost server is noticed."""
    if address.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    alive: dict[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    if "options" not in address.query:  # the server notices a lost driver too, and drops its lock
        settings = {f"tcp_{name}": value for name, value in alive.items()}
        alive["options"] = " ".join(f"-c {name}={value}" for name, value in settings.items())
    # A server that was set up without a locale would send bytes.
    return {"connect_timeout": 10, "tcp_user_timeout": 30_000, "client_encoding": "utf8", **alive}


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turn what the database layer raises into one line about the database shown so."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
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
    except OSError as error:
        raise StorageError(f"{shown}: {error.strerror}") from None
    except RuntimeError as error:  # Optuna: the tables are those of another version
        raise StorageError(f"{shown}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The root of a chain of database errors, in words that say what to do."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    damaged = "the database file is damaged; restore a copy or name another with --storage"
    hints = {
        "file is not a database": "the file is no SQLite database; name another with --storage",
        "malformed": damaged,
        "not decode": damaged,
        "readonly": "the database cannot be written; check the permissions of file and folder",
        "unable to open": "the database cannot be opened; check that the file is still there, the"
        " permissions of file and folder, and the limit of open files (ulimit -n)",
        "disk is full": "the disk is full; free some space, then resume",
        "disk I/O error": "the disk cannot be written; free some space, then resume",
        "locked": "another process holds the database locked; end it, then resume",
    }
    return next((hint for sign, hint in hints.items() if sign in line), line)
