"""Real servers on free loopback ports: MLflow, S3 (moto), MFlux's handshake, and a faulty proxy.

Every server process ends with the test process, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

ACCESS_KEY = "the-access-key"
SECRET_KEY = "the-secret-key-of-minio"
TOKEN = "the-project-token"
BUCKET = "mlflow"

_PATIENCE = 120.0  # seconds a server may take to start

# Runs a program until standard input ends, then kills its whole process group.
_GUARD = """
import os, signal, subprocess, sys, threading
program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def wait():
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=wait, daemon=True).start()
program.wait()
"""


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Program:
    """A server in a process of its own, answering at ``url``."""

    def __init__(self, arguments: Sequence[str], port: int, environ: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._arguments = arguments
        self._environ = dict(os.environ) | dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, path: str = "/") -> None:
        """Start it and wait until it answers at ``path``."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _GUARD, sys.executable, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environ,
            start_new_session=True,
        )
        deadline = time.monotonic() + _PATIENCE
        while not self._answers(path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._arguments[:3]} did not start")
            time.sleep(0.1)

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def mlflow_server(folder: Path, s3: str) -> Program:
    """`mlflow server`; new experiments go to S3 directly, `mlflow-artifacts:` ones through it."""
    port = free_port()
    arguments = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    arguments += ["--default-artifact-root", f"s3://{BUCKET}/direct"]
    arguments += ["--artifacts-destination", f"s3://{BUCKET}/proxied", "--serve-artifacts"]
    environ = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "MLFLOW_S3_ENDPOINT_URL": s3,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Program(arguments, port, environ)


def s3_server() -> Program:
    """moto's S3."""
    port = free_port()
    return Program(["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, {})


@dataclass(frozen=True)
class Request:
    """A request as the proxy sees it."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """What a proxy does instead of passing on an answer.

    ``status``: answer this, with ``body``. ``worked``: only after the server has done the work.
    ``silent``: answer nothing until the proxy is stopped. ``cut``: close the connection.
    """

    status: int = 500
    body: bytes = b"a fault"
    worked: bool = False
    silent: bool = False
    cut: bool = False


Rule = Callable[[Request], Fault | None]


def no_fault(_: Request) -> Fault | None:
    return None


@dataclass
class Proxy:
    """Passes requests on to ``upstream``, apart from what its ``rule`` says."""

    upstream: str
    rule: Rule = no_fault
    port: int = field(default_factory=free_port)
    requests: list[Request] = field(default_factory=list)
    answered: Callable[[Request], None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._stopped = threading.Event()
        self._server = _Quiet(("127.0.0.1", self.port), _handler(self._handle))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Nobody answers any more; ``start`` listens again at the same address."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        number = len(self.requests) + 1
        headers = {name: value for name, value in handler.headers.items() if name != "Connection"}
        request = Request(number, handler.command, handler.path, headers, body)
        if self._stopped.is_set():  # a connection from before the stop
            handler.close_connection = True
            return
        self.requests.append(request)
        fault = self.rule(request)
        status, kind, answer = 0, "text/plain", b""
        if fault is None or fault.worked:
            status, kind, answer = self._pass_on(request)
        if fault is not None:
            if fault.silent:
                self._stopped.wait()
            if fault.silent or fault.cut:
                handler.close_connection = True
                return
            status, kind, answer = fault.status, "text/plain", fault.body
        if self.answered is not None:
            self.answered(request)
        respond(handler, status, kind, answer)

    def _pass_on(self, request: Request) -> tuple[int, str, bytes]:
        host = urlsplit(self.upstream).netloc
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", "text/plain"), answer.read()
        except OSError:
            return 502, "text/plain", b"bad gateway"
        finally:
            connection.close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


def respond(handler: BaseHTTPRequestHandler, status: int, kind: str, answer: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(answer)


def _handler(handle: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            handle(self)

        do_POST = do_PUT = do_HEAD = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


Behaviour = Callable[[socket.socket], None]
"""What a hostile server does with a connection once it has read the head of a request."""

_BYTE_EVERY = 0.3  # seconds, of a server that drips: no time-out between two bytes notices it


class Hostile:
    """A server that behaves in one way, whatever it is asked."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(2**16)
            self._behaviour(connection)


def drip_head(connection: socket.socket) -> None:
    _drip(connection, b"HTTP/1.1 200 OK\r\nX-Long: ")


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    _drip(connection, b"{")


def _drip(connection: socket.socket, start: bytes) -> None:
    connection.sendall(start)
    while True:
        time.sleep(_BYTE_EVERY)
        connection.sendall(b" ")


def silence(connection: socket.socket) -> None:
    connection.recv(1)
    time.sleep(60)


def flood(connection: socket.socket) -> None:
    size = 4 * 2**30
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(size // 2**20):
        connection.sendall(b" " * 2**20)


def redirect(connection: socket.socket) -> None:
    here = f"http://127.0.0.1:{connection.getsockname()[1]}/elsewhere"
    head = f"HTTP/1.1 301 Moved\r\nLocation: {here}\r\nContent-Length: 0\r\n"
    connection.sendall(f"{head}Connection: close\r\n\r\n".encode())


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def echo(request: Request) -> Fault:
    """Refuses, and repeats every header of the request in the reason."""
    reason = {"error_code": "PERMISSION_DENIED", "message": f"no: {dict(request.headers)}"}
    return Fault(403, json.dumps(reason).encode())


_OLD_REQUESTS = re.compile(
    r"/api/2\.0/(preview/)?mlflow/("
    r"artifacts/list"
    r"|experiments/(create|delete|get|get-by-name|list|restore|set-experiment-tag|update)"
    r"|metrics/get-history"
    r"|runs/(create|delete|delete-tag|get|log-batch|log-metric|log-parameter|restore|search"
    r"|set-tag|update)"
    r")(\?.*)?"
)


def as_old(request: Request) -> Fault | None:
    """MLflow 1.3: 404 to what it did not have, and an SQL store that fails on a killed run."""
    if not _OLD_REQUESTS.fullmatch(request.path):
        return Fault(404, b"<h1>Not Found</h1>")
    if "experiments/list?" in request.path:  # MLflow 3 has no such request any more
        known = {"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}
        return Fault(200, json.dumps({"experiments": [known]}).encode())
    if request.path.endswith("runs/update") and b'"KILLED"' in request.body:
        return Fault(500, b"CHECK constraint failed: status")
    return None


def as_minio(keys: set[str]) -> Rule:
    """A MinIO of 2020: refuses keys that are not among ``keys``, and newer checksums.

    These come in a trailer over HTTPS, which it cannot read, and over HTTP in headers.
    """
    newer = ("x-amz-trailer", "x-amz-checksum-", "x-amz-sdk-checksum-")

    def rule(request: Request) -> Fault | None:
        signed = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
        if signed is None or signed.group(1) not in keys:
            return Fault(403, b"<Error><Code>ExpiredToken</Code><Message>no</Message></Error>")
        if any(name.lower().startswith(newer) for name in request.headers):
            return Fault(501, b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>")
        return None

    return rule


class MFlux:
    """The handshake of MFlux: hands out addresses and keys for a known token."""

    def __init__(self, tracking: str, s3: str) -> None:
        self.answer = {
            "mlflow_server": tracking,
            "minio_server": s3,
            "minio_access_key": ACCESS_KEY,
            "minio_secret_key": SECRET_KEY,
        }
        self.asked = 0
        self._server = _Quiet(("127.0.0.1", 0), _handler(self._handle))
        self.host = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        wanted = "application/vnd.aiascience.mflux+json; version=0.4"
        if handler.path != "/api/env_vars/":
            respond(handler, 404, "text/html", b"not here")
        elif handler.headers.get("Accept") != wanted:
            respond(handler, 406, "text/plain", b"Invalid version")
        elif handler.headers.get("Authorization") != f"api-key {TOKEN}":
            respond(handler, 204, "text/plain", b"")
        else:
            respond(handler, 200, "application/json", json.dumps(self.answer).encode())


@dataclass(frozen=True)
class Running:
    """MLflow with S3 behind it, for all tests of a process."""

    mlflow: Program
    s3: Program
    database: Path


@functools.cache
def running() -> Running:
    """Start them with the first test that needs them; they end with the process."""
    folder = Path(tempfile.mkdtemp(prefix="study-servers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    s3 = s3_server()
    atexit.register(s3.kill)
    s3.start("/moto-api/")
    mlflow = mlflow_server(folder, s3.url)
    atexit.register(mlflow.kill)
    make_bucket(s3.url)
    mlflow.start("/health")
    return Running(mlflow, s3, folder / "server.db")


@functools.cache
def local_store() -> Path:
    """An empty local store, to be copied."""
    from study.mirror.mlflow import open_store

    folder = Path(tempfile.mkdtemp(prefix="study-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_store(folder / "mlflow.db")
    return folder / "mlflow.db"


def make_bucket(url: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)


@dataclass(frozen=True)
class Shown:
    """A run as MLflow's database has it; parents by slot, points as (key, step, time, value)."""

    name: str
    status: str
    started: int
    ended: int | None
    parent: str | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Sequence[tuple[str, int, int, float]]


def shown(database: Path, uuid: str) -> dict[str, Shown]:
    """The runs of a study by slot, read from MLflow's own SQLite file; a double is an error."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        runs = opened.execute(
            "SELECT r.run_uuid, r.name, r.status, r.start_time, r.end_time, s.value FROM runs r"
            " JOIN tags u ON u.run_uuid = r.run_uuid AND u.key = 'study_uuid' AND u.value = ?"
            " JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'study_slot'"
            " WHERE r.lifecycle_stage = 'active'",
            (uuid,),
        ).fetchall()
        slots = {run[0]: run[5] for run in runs}
        assert len(set(slots.values())) == len(slots), "a slot has two runs"
        found = {}
        for run_id, name, status, started, ended, slot in runs:
            tags = dict(_select(opened, "SELECT key, value FROM tags", run_id))
            params = dict(_select(opened, "SELECT key, value FROM params", run_id))
            points = _select(opened, "SELECT key, step, timestamp, value FROM metrics", run_id)
            parent = slots.get(tags.pop("mlflow.parentRunId", ""))
            points = sorted(points)
            found[slot] = Shown(name, status, started, ended, parent, params, tags, points)
        return found


def _select(opened: sqlite3.Connection, query: str, run_id: str) -> list[Any]:
    return opened.execute(f"{query} WHERE run_uuid = ?", (run_id,)).fetchall()
