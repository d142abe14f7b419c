"""How a database of studies is connected to, and what its errors mean.

SQLite is opened with a write-ahead log, ``synchronous=NORMAL`` and a short busy timeout under a
retry that Ctrl-C can interrupt; any Optuna RDB URL works too.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from study.errors import StorageError

optuna.logging.set_verbosity(optuna.logging.WARNING)

_BUSY = 0.2  # seconds SQLite waits by itself: a signal is answered only after it
_PATIENCE = 600.0  # seconds a lock of another process is waited for

Answer = TypeVar("Answer")


def connect(address: URL, shown: str) -> RDBStorage:
    """A new storage of the database at this address, whose file is made if it is not there.

    Raises ``StorageError``, which names the address as ``shown``.
    """
    sqlite = address.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"pool_pre_ping": True, "connect_args": network(address)}
    if sqlite:
        options = {"connect_args": {"factory": PatientConnection, "timeout": _BUSY}}
    with explained(shown), _usable(shown):
        if sqlite:
            _prepare_file(address, options)
        url = address.render_as_string(hide_password=False)
        storage = RDBStorage(url, engine_kwargs=options)
        if sqlite:
            event.listen(storage.engine, "connect", _relax)
            storage.engine.dispose()
        return storage


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


def network(address: URL) -> dict[str, Any]:
    """How to connect to PostgreSQL, so that within half a minute a lost server is noticed."""
    if address.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
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


def _prepare_file(address: URL, options: dict[str, Any]) -> None:
    """Switch the file to a write-ahead log (readers never wait), unless it is another program's."""
    engine = create_engine(address, **options)
    try:
        with engine.connect() as connection:
            tables = inspect(connection).get_table_names()
            if tables and "studies" not in tables:
                raise StorageError(
                    f"{address.database}: is the database of another program; name another "
                    "with --storage"
                )
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    finally:
        engine.dispose()


def _relax(connection: sqlite3.Connection, _: object) -> None:
    # A power cut may cost the last epochs, never the file; a killed process costs nothing.
    connection.execute("PRAGMA synchronous=NORMAL")
