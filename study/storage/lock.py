"""One driver a study: a lock that the system takes from a dead process.

Beside a SQLite database it is a lock on a small file; on a PostgreSQL server an advisory lock of
a session of its own, which the server drops when the driver or its machine is gone. On any other
server it is a file among this machine's temporary ones, and holds for this machine alone.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from study.errors import StorageError, StudyLocked
from study.storage.connection import network
from study.storage.location import Location

_PROBE = 0.3
"""Seconds to try: another command may be looking whether the study is driven, or have just died."""

# A host that was cut off is noticed within half a minute, not after TCP's two hours.
_KEEPALIVE = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"

_TAKE = text("SELECT pg_try_advisory_lock(:key)")
_RELEASE = text("SELECT pg_advisory_unlock(:key)")
_HOLDER = text(
    "SELECT activity.application_name FROM pg_locks JOIN pg_stat_activity AS activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32 | objid::bigint) = :key"
)


CheckLock = Callable[[], None]
"""Raises ``StorageError`` where the lock has been lost, because the connection was cut."""


@contextmanager
def driving(location: Location) -> Iterator[CheckLock]:
    """Hold the study at ``location``; ``StudyLocked`` names the other holder.

    Whoever writes asks what this yields before: a lock that was lost may be another driver's now.
    """
    if _on_server(location):
        with _advisory(location) as check_lock:
            yield check_lock
    else:
        with _file(location):
            yield lambda: None


def driven(location: Location) -> bool:
    """Whether a living process drives the study."""
    if _on_server(location):
        with _session(location.database.address) as session:
            return session.execute(_HOLDER, {"key": _key(location.name)}).first() is not None
    if not location.lock.exists():
        return False
    lock = FileLock(location.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _on_server(location: Location) -> bool:
    return location.database.address.get_backend_name() == "postgresql"


@contextmanager
def _file(location: Location) -> Iterator[None]:
    """The lock on a file, with another file beside it that says who holds it."""
    path = location.lock
    lock, holder = FileLock(path), path.with_suffix(".holder")
    try:
        lock.acquire(timeout=_PROBE)
    except Timeout:
        who = ""
        with suppress(OSError):  # it is told for information only, and may be gone by now
            who = holder.read_text()
        raise _locked(location.name, who) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with suppress(OSError):
            holder.write_text(_self())
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


@contextmanager
def _advisory(location: Location) -> Iterator[CheckLock]:
    """The server's own lock, held by a session that does nothing else."""
    with _session(location.database.address) as session:
        key = {"key": _key(location.name)}
        deadline = time.monotonic() + _PROBE
        while not session.execute(_TAKE, key).scalar():
            if time.monotonic() > deadline:
                raise _locked(location.name, str(session.execute(_HOLDER, key).scalar() or ""))
            time.sleep(_PROBE / 10)  # the server is just noticing that a driver has died

        def check_lock() -> None:
            try:
                session.execute(text("SELECT 1"))
            except SQLAlchemyError:
                raise StorageError(
                    f"{location.database.shown}: the connection was cut, and the "
                    "lock of the study with it; nothing is lost: resume once the server answers"
                ) from None

        try:
            yield check_lock
        finally:
            with suppress(SQLAlchemyError):  # the connection was cut, and the lock with it
                session.execute(_RELEASE, key)


@contextmanager
def _session(address: URL) -> Iterator[Connection]:
    """A connection that says whose it is."""
    arguments = {"application_name": _self()[:63], "options": _KEEPALIVE, **network(address)}
    engine = create_engine(address, poolclass=NullPool, connect_args=arguments)
    session = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        yield session
    finally:
        with suppress(SQLAlchemyError):  # it was cut
            session.close()


def _locked(name: str, holder: str) -> StudyLocked:
    who = holder or "another process"
    return StudyLocked(f"study {name!r} is being driven by {who}: wait for it or stop it first")


def _self() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _key(name: str) -> int:
    """A lock number of the name: 63 bits, so that it is positive as one number and as two."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
