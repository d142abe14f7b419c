"""The dashboard answers pages of this machine alone, and no connection blocks another."""

import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a dashboard with one study."""
    folder = tmp_path_factory.mktemp("served")
    optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="mine")
    with subprocess.Popen(
        [sys.executable, "-m", "study", "dashboard", "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+) ", process.stdout.readline())
        assert found
        yield int(found[1])
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def answer(port: int, headers: str, method: str = "GET", path: str = "/api/studies") -> str:
    """The first line of the answer to a request with exactly these headers."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode())
        return connection.makefile().readline()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: 127.0.0.1:{port}\r\n", 200),
        ("Host: LOCALHOST:{port}\r\nOrigin: http://LOCALHOST:{port}\r\n", 200),
        ("Host: localhost:9999\r\nOrigin: http://localhost:9999\r\n", 200),  # a forwarded port
        ("", 403),
        ("Host: rebound.example:{port}\r\n", 403),
        ("Host: rebound.example:{port}\r\nHost: 127.0.0.1:{port}\r\n", 403),
        ("Host: 127.0.0.1.example\r\n", 403),
        ("Host: localhost@rebound.example\r\n", 403),
        ("Host: rebound.example/@localhost\r\n", 403),
        ("Host: [::1\r\n", 403),
        ("Host: 127.0.0.1:{port}\r\nOrigin: http://rebound.example\r\n", 403),
        ("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:1\r\n", 403),
        ("Host: 127.0.0.1:{port}\r\nOrigin: https://127.0.0.1:{port}\r\n", 403),
        ("Host: 127.0.0.1:{port}\r\nOrigin: null\r\n", 403),
    ],
)
def test_only_this_machine_s_pages_are_answered(port: int, headers: str, status: int) -> None:
    assert f" {status} " in answer(port, headers.format(port=port))


def test_a_file_is_sent_to_a_client_that_unpacks_nothing(port: int) -> None:
    """Without a header Accept-Encoding optuna-dashboard failed, and printed a traceback."""
    assert " 200 " in answer(port, "Host: localhost\r\n", path="/static/bundle.js")


def test_a_page_of_another_host_cannot_delete_a_study(port: int) -> None:
    for headers in ("Host: rebound.example\r\n", f"Host: 127.0.0.1:{port}\r\nOrigin: null\r\n"):
        assert " 403 " in answer(port, headers, "DELETE", "/api/studies/1")
    own = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    own.request("GET", "/api/studies")
    assert b"mine" in own.getresponse().read()


def test_idle_connections_block_no_other(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    idle[0].sendall(b"GET /api/studies HTTP/1.1\r\nHost: 127.0")  # and never the rest
    try:
        for _ in range(30):  # more than the connections that a pool of the database has
            assert " 200 " in answer(port, "Host: 127.0.0.1\r\n")
    finally:
        for connection in idle:
            connection.close()


def test_it_listens_on_this_machine_alone(port: int) -> None:
    listening = [
        line.split()[1].split(":")
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    assert [place for place, number in listening if int(number, 16) == port] == ["0100007F"]
