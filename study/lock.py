"""One driver a study: a lock that the system takes from a dead process.

On SQLite it is a lock on a small file beside the database, which also says who holds it.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy.engine import make_url

from study.errors import StorageError, StudyLocked


@contextmanager
def driving(url: str, name: str) -> Iterator[None]:
    """Hold the study ``name`` in the database ``url``; ``StudyLocked`` names the other holder."""
    path = _path(url, name)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyLocked(
            f"study {name!r} is being driven by {_holder(path)}: wait for it or stop it first"
        ) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        _holder_file(path).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        _holder_file(path).unlink(missing_ok=True)
        lock.release()


def driven(url: str, name: str) -> bool:
    """Whether a living process drives the study."""
    path = _path(url, name)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _path(url: str, name: str) -> Path:
    database = make_url(url).database
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return Path(f"{database}.{digest}.lock")


def _holder_file(path: Path) -> Path:
    return path.with_suffix(".holder")


def _holder(path: Path) -> str:
    try:
        return _holder_file(path).read_text() or "another process"
    except OSError:
        return "another process"
