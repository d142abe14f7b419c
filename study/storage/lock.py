"""One driver a study: a lock by the study's UUID that the system takes from a dead process.

Beside a SQLite database it is a lock on a small file; on a PostgreSQL server an advisory lock of
a session, which the server drops when the driver or its machine is gone; for any other server a
file in the current folder. The study also records its driver: on one machine, neither a renamed
study nor a deleted lock file lets a second driver start.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

import psutil
from filelock import FileLock, Timeout
from optuna.storages._rdb.models import StudyModel, StudyUserAttributeModel
from pydantic import Field, TypeAdapter
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import TypedDict

from study.errors import StorageError, StudyLocked
from study.storage.connection import open_session
from study.storage.location import Location
from study.storage.models import IDENTITY, new_identity, valid_identity

if TYPE_CHECKING:
    from study.storage.location import Database

DRIVER = "driver"
"""The study attribute that says which process drives it; None after that has ended."""

_PROBE = 0.3
"""Seconds to try: another command may be looking whether the study is driven, or have just died."""

_TAKE = text("SELECT pg_try_advisory_lock(:key)")
_RELEASE = text("SELECT pg_advisory_unlock(:key)")


class _Driver(TypedDict):
    """A process: its start (seconds since 1970) tells it from a later one of the same number.

    ``file`` is the database file that it writes (device and inode): a copy has no driver.
    ``oom_kills`` are the processes that the system had ended before for lack of memory.
    """

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    started: float
    file: list[int] | None
    oom_kills: NotRequired[int | None]


_DRIVER = TypeAdapter(_Driver | None)


@dataclass
class StudyLock:
    """A study that this process drives; without a study yet, what it is to be made with.

    ``driver_died``: the driver before this one was killed. ``out_of_memory``: and that may have
    been for lack of memory.
    """

    location: Location
    identity: str
    driver_died: bool = False
    out_of_memory: bool = False
    _session: Connection | None = field(default=None, init=False)
    _file: list[int] | None = field(default=None, init=False)
    _log: list[int] | None = field(default=None, init=False)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of a study that is driven by this process."""
        started = psutil.Process().create_time()
        file = _number(self.location.database.file)
        driver = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        driver |= {"file": file, "oom_kills": _oom_kills()}
        return {IDENTITY: self.identity, DRIVER: driver}

    def check(self) -> None:
        """Raise ``StorageError`` where the study cannot be written as this process's any more.

        The connection was cut, and the lock with it; the file of the database, or its write-ahead
        log, was deleted, moved or replaced; the study was deleted or renamed. Call it before every
        write.
        """
        database, name = self.location.database, self.location.name
        self._file = self._unchanged(database.file, self._file)
        if self._session is None:
            self._session = open_session(database.address)
        elif database.log is not None:  # it is there as long as the session is open
            self._log = self._unchanged(database.log, self._log)
        known = (
            select(StudyModel.study_name)
            .join(StudyUserAttributeModel)
            .where(StudyUserAttributeModel.key == IDENTITY)
            .where(StudyUserAttributeModel.value_json == json.dumps(self.identity))
        )
        try:
            found = self._session.execute(known).scalar()
        except SQLAlchemyError:
            raise StorageError(
                f"{database.shown}: the connection was cut, and the lock of the study with it; "
                "nothing is lost: resume once the server answers"
            ) from None
        if found is None:
            raise StorageError(f"study {name!r} was deleted while it ran; it cannot go on")
        if found != name:
            again = database.study(found).command("resume")
            raise StorageError(
                f"study {name!r} was renamed to {found!r} while it ran; nothing is lost: continue "
                f"with: {again}"
            )

    def close(self) -> None:
        """Close the connection of `check`."""
        if self._session is not None:
            with suppress(SQLAlchemyError):  # it was cut
                self._session.close()

    def _unchanged(self, path: Path | None, before: list[int] | None) -> list[int] | None:
        """The number of a file of the database; raises ``StorageError`` where it has another."""
        number = _number(path)
        if path is not None and (number is None or (before or number) != number):
            raise StorageError(
                f"{path}: was deleted, moved or replaced while the study ran{self._saved()}; put "
                "the database back, then resume"
            )
        return number

    def _saved(self) -> str:
        """Save what was written to a file that has lost its name; where, in words."""
        file = self.location.database.file
        assert file is not None
        if self._session is None:  # nothing was written through this lock
            return ""
        target = file.with_name(f"{file.name}.saved-{new_identity()[:8]}")
        try:
            source: Any = self._session.connection.driver_connection  # open since before
            with closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
        except sqlite3.Error:
            return ""
        return f"; what it had stored is in {target.name}"


@contextmanager
def driver_lock(location: Location) -> Iterator[StudyLock]:
    """Hold the study at ``location``; ``StudyLocked`` names the other holder.

    Whoever writes calls `StudyLock.check` before.
    """
    identity, driver = _stored(location)
    out_of_memory = driver is not None and _ran_out_of_memory(driver)
    lock = StudyLock(location, identity or new_identity(), driver is not None, out_of_memory)
    with _on_server(lock) if _is_postgresql(location) else _on_file(lock):
        if _alive(location, driver):
            raise _locked(location)
        if identity:
            lock.check()
            _record(lock, lock.attributes[DRIVER])
        try:
            yield lock
        finally:
            with suppress(Exception):  # the study is gone, or another process locks the database
                _require_free(location.database)
                _record(lock, None)
            lock.close()


def driven(location: Location) -> bool:
    """Whether a living process drives the study."""
    identity, driver = _stored(location)
    if identity is None:
        return False
    if _is_postgresql(location):
        with closing(open_session(location.database.address)) as session:
            key = {"key": _key(identity)}
            free = session.execute(_TAKE, key).scalar()
            if free:
                session.execute(_RELEASE, key)
            return not free
    path = location.lock(identity)
    if path.exists():
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
        except OSError:  # it cannot be written: what the study records says it
            pass
    return _alive(location, driver)


@contextmanager
def _on_file(lock: StudyLock) -> Iterator[None]:
    path = lock.location.lock(lock.identity)
    file_lock = FileLock(path)
    try:
        file_lock.acquire(timeout=_PROBE)
    except Timeout:
        raise _locked(lock.location) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        file_lock.release()


@contextmanager
def _on_server(lock: StudyLock) -> Iterator[None]:
    """The server's own lock, held by the session of `StudyLock.check`."""
    lock._session = session = open_session(lock.location.database.address)
    key = {"key": _key(lock.identity)}
    deadline = time.monotonic() + _PROBE
    try:
        while not session.execute(_TAKE, key).scalar():
            if time.monotonic() > deadline:
                raise _locked(lock.location)
            time.sleep(_PROBE / 10)  # the server is just noticing that a driver has died
        yield
    finally:
        with suppress(SQLAlchemyError):  # the session ends, and the lock with it
            session.close()


def _is_postgresql(location: Location) -> bool:
    return location.database.address.get_backend_name() == "postgresql"


def _stored(location: Location) -> tuple[str | None, _Driver | None]:
    """The UUID of a study, None where there is no study yet, and its recorded driver."""
    database = location.database
    if not database.exists:
        return None, None
    wanted = (
        select(StudyUserAttributeModel.key, StudyUserAttributeModel.value_json)
        .join(StudyModel)
        .where(StudyModel.study_name == location.name)
        .where(StudyUserAttributeModel.key.in_((IDENTITY, DRIVER)))
    )
    with database.open().engine.connect() as connection:
        found = {key: str(value) for key, value in connection.execute(wanted)}
    if not found:
        return None, None
    driver = None
    with suppress(ValueError, TypeError):  # malformed: no driver
        driver = _DRIVER.validate_json(found.get(DRIVER, "null"))
    try:
        identity = json.loads(found.get(IDENTITY, "null"))
    except (ValueError, TypeError):
        identity = None
    return valid_identity(identity, location.name), driver


def _record(lock: StudyLock, driver: _Driver | None) -> None:
    """Store who drives the study, unless it was never made: one of its name is another's then."""
    location = lock.location
    if _stored(location)[0] == lock.identity:
        storage = location.database.open()
        storage.set_study_user_attr(storage.get_study_id_from_name(location.name), DRIVER, driver)
    else:
        location.lock(lock.identity).unlink(missing_ok=True)


def _require_free(database: Database) -> None:
    """Raise ``sqlite3.Error`` where another process keeps the file locked for a second.

    The end of a program does not wait for it as the middle of a study does: what a process that is
    gone has recorded counts for nothing.
    """
    if database.file is not None:
        address = f"{database.file.as_uri()}?mode=rw"  # a file that is gone is not made again
        with closing(sqlite3.connect(address, uri=True, timeout=1)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()


def _alive(location: Location, driver: _Driver | None) -> bool:
    """Whether another process of this machine still drives this very database."""
    if driver is None or driver["host"] != socket.gethostname() or driver["pid"] == os.getpid():
        return False
    if driver["file"] != _number(location.database.file):
        return False
    try:
        process = psutil.Process(driver["pid"])
        ended = process.status() == psutil.STATUS_ZOMBIE
        return not ended and abs(process.create_time() - driver["started"]) < 2
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _ran_out_of_memory(driver: _Driver) -> bool:
    """Whether a driver that was killed may have been so for lack of memory: if nothing denies it.

    Where the system counts whom it kills for that reason, it has done so since.
    """
    before, now = driver.get("oom_kills"), _oom_kills()
    return before is None or now is None or now > before


def _oom_kills() -> int | None:
    """How many processes Linux has killed for lack of memory, in containers too; else None."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    counts = dict(line.split() for line in lines)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None


def _number(path: Path | None) -> list[int] | None:
    """Device and inode of a file; None where there is none, as of a server's database."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else [found.st_dev, found.st_ino]


def _locked(location: Location) -> StudyLocked:
    """The error that names the process which drives the study, where that is recorded."""
    driver = _stored(location)[1]
    who = f"process {driver['pid']} on {driver['host']}" if driver else "another process"
    return StudyLocked(
        f"study {location.name!r} is being driven by {who}: wait for it or stop it first"
    )


def _key(identity: str) -> int:
    """A lock number of the UUID: 63 bits."""
    return int(identity, 16) >> 65
