"""A local MLflow server for as long as a benchmark needs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import servers


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """`mlflow server` on a free loopback port: SQLite behind it, artifacts through it."""
    port = servers.free_port()
    arguments = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    arguments += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    program = servers.Program(arguments, port, quiet)
    program.start("/health")
    try:
        yield program.url
    finally:
        program.kill()
