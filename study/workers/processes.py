"""Starts the processes of the pool, forked or afresh, and shares arrays with them.

They are forked from a process that has imported TensorFlow.

No process listens on a port or at a path, and none imports the program's main module: a study can
be started from a script without ``__main__`` guard, from a notebook or from ``python -c``.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import IO, Any, Protocol

from study.errors import StudyError
from study.workers.child import KILL, MESSAGE, STARTED

FORKS = sys.platform == "linux"
"""Whether workers are forked; the libraries of macOS do not support it."""

PRELOADED = "study.workers.preloaded"

# Without MALLOC_TRIM_THRESHOLD_ freed memory is handed back at once, and each step pays for it.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

_PATIENCE = 10.0  # seconds for a killed process to end


@dataclass
class Process:
    """A worker process; ``kill`` ends it, ``wait`` waits for its end and returns its exit code.

    The code is the negative number of a signal, None if it cannot be known.
    """

    pid: int
    kill: Callable[[], None]
    wait: Callable[[], int | None]


class Starter(Protocol):
    """Starts worker processes."""

    def start(self, pipe: int, data: int, environ: Mapping[str, str]) -> Process:
        """Start a process with these two open descriptors."""

    def last_words(self) -> str:
        """The last line that any of the processes has written to stderr."""

    def close(self) -> None:
        """End what serves to start processes."""


class Fresh:
    """Starts each process as a new Python."""

    def __init__(self) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    def start(self, pipe: int, data: int, environ: Mapping[str, str]) -> Process:
        started = _python("main", (pipe, data), self._stderr, environ)

        def wait() -> int | None:
            try:
                return started.wait(_PATIENCE)
            except subprocess.TimeoutExpired:  # uninterruptible, on a device that does not answer
                return None

        return Process(started.pid, started.kill, cache(wait))

    def last_words(self) -> str:
        return _last_line(self._stderr)

    def close(self) -> None:
        self._stderr.close()


class ForkServer:
    """Starts processes as forks of one that has imported everything; it is started at once."""

    def __init__(self, preload: str = PRELOADED) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._preload = preload
        self._codes: dict[int, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            words = other.fileno(), self._preload
            self._process = _python("fork_server", words, self._stderr, {})

    def start(self, pipe: int, data: int, environ: Mapping[str, str]) -> Process:
        """Start a process; waits until the server has imported everything.

        ``environ`` cannot be given: forks have the server's environment.
        """
        assert not environ
        for attempt in (1, 2):
            try:
                socket.send_fds(self._control, [MESSAGE.pack(0, STARTED)], [pipe, data])
                while (received := self._receive())[1] != STARTED:
                    self._codes[received[0]] = received[1]
                pid = received[0]
                return Process(pid, partial(self._kill, pid), cache(partial(self._wait, pid)))
            except OSError:  # the server was killed
                if attempt == 1:
                    self._end()
                    self._begin()
        raise StudyError(
            "the process that starts the workers ends again and again"
            f"{_quoted(self.last_words())}; nothing is lost: resume"
        )

    def _kill(self, pid: int) -> None:
        """Kill a process if it has not ended; its number may be another process's by then."""
        with suppress(OSError):
            self._control.send(MESSAGE.pack(pid, KILL))

    def _wait(self, pid: int) -> int | None:
        """Wait until a process has ended; None if the server is gone or it does not end."""
        self._control.settimeout(_PATIENCE)
        try:
            while pid not in self._codes:
                ended, code = self._receive()
                self._codes[ended] = code
        except OSError:
            return None
        finally:
            self._control.settimeout(None)
        return self._codes.pop(pid)

    def _receive(self) -> tuple[int, int]:
        message = self._control.recv(MESSAGE.size)
        if not message:
            raise ConnectionResetError
        pid, code = MESSAGE.unpack(message)
        return pid, code

    def last_words(self) -> str:
        return _last_line(self._stderr)

    def close(self) -> None:
        self._end()
        self._stderr.close()

    def _end(self) -> None:
        """End the server, and all of its processes with it."""
        self._control.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:  # it still imports
            self._process.kill()
            self._process.wait()


_prepared: list[ForkServer] = []


def prepare() -> None:
    """Start the fork server of the next pool: it imports while the driver reads its data."""
    if FORKS and not _prepared:
        _prepared.append(ForkServer())


def fork_server() -> ForkServer:
    """The fork server that was prepared, or a new one."""
    return _prepared.pop() if _prepared else ForkServer()


def release() -> None:
    """End a fork server that was prepared and is not needed."""
    while _prepared:
        _prepared.pop().close()


def description(code: int | None) -> str:
    """How a process ended, for the user: by an exit code or a signal."""
    if code is None:
        return "ended for an unknown reason"
    if code >= 0:
        return f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), as the system does when memory runs out"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}"


def _python(
    function: str, words: tuple[object, ...], stderr: IO[bytes], environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Run a function of `child` in a new Python that finds modules where this one does.

    It has its own session, which a terminal's signals do not reach; ``-P`` keeps the current
    folder off its path unless it is on this process's.
    """
    path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" is this folder
    code = f"import sys; sys.path[:] = {path!r}; from study.workers.child import {function} as run"
    arguments = ", ".join(map(repr, words))
    return subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
        [sys.executable, "-P", "-c", f"{code}; run({arguments})"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, **ENVIRONMENT, **environ},
        pass_fds=[word for word in words if isinstance(word, int)],
        start_new_session=True,
    )


def _last_line(file: IO[bytes]) -> str:
    lines = os.pread(file.fileno(), 4096, max(0, os.fstat(file.fileno()).st_size - 4096))
    return (lines.decode(errors="replace").strip().splitlines() or [""])[-1].strip()[:300]


def _quoted(words: str) -> str:
    return f" ({words})" if words else ""


_ALIGNED = 4096  # TensorFlow trains on bytes without a copy if they begin at a multiple of 64


@dataclass(frozen=True)
class Shared:
    """An object in shared memory: its pickle, and where each of its arrays begins and ends."""

    pickled: bytes
    places: tuple[tuple[int, int], ...]

    def open(self, file: int) -> Any:
        """The object, its arrays mapped from the open ``file``."""
        if not self.places:
            return pickle.loads(self.pickled)  # noqa: S301 - the driver has written it
        mapped = memoryview(mmap.mmap(file, self.places[-1][1], access=mmap.ACCESS_COPY))
        buffers = [mapped[first:last] for first, last in self.places]
        return pickle.loads(self.pickled, buffers=buffers)  # noqa: S301 - as above


def share(value: object) -> tuple[Shared, int]:
    """Put the arrays of ``value`` into a file; returns how to open it, and its descriptor.

    On Linux the file is memory alone, elsewhere a temporary file without a name. Processes map it
    and copy nothing; a page to which one of them writes becomes its own.
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    file = _new_file()
    places, end = [], 0
    for buffer in buffers:
        content = buffer.raw()
        if not content.nbytes:
            places.append((end, end))
            continue
        first = -(-end // _ALIGNED) * _ALIGNED
        end = first + content.nbytes
        places.append((first, end))
        os.lseek(file, first, os.SEEK_SET)
        with open(file, "wb", closefd=False) as opened:
            opened.write(content)
    return Shared(pickled, tuple(places)), file


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("study")
    with tempfile.TemporaryFile() as opened:
        return os.dup(opened.fileno())
