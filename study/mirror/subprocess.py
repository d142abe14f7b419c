"""The mirror in a process of its own, at low priority.

MLflow takes seconds to import, and its local store works in Python: in the driver's process either
would hold the interpreter lock that training needs. The process is told what to do through a pipe
(so that no secret is in its command line), answers a line a pass, and ends with its driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from study.errors import MirrorError
from study.mirror.sync import Mirror
from study.mirror.target import Access, Target, redact, secrets
from study.mirror.transfer import Report
from study.storage import models

_NICE = 10
_PATIENCE = 20.0


@dataclass(frozen=True)
class Errand:
    """Which study to mirror, and where to; ``patience`` in seconds bounds a single request."""

    storage: str
    name: str
    target: Target
    patience: float = _PATIENCE

    def to_json(self) -> str:
        """For the pipe; holds secrets."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Errand:
        sent = json.loads(line)
        return cls(**{**sent, "target": Target(**sent["target"])})


class Here:
    """The mirror of an errand in this process; what it raises shows no secret."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._access: Access | None = None
        self._mirror: Mirror | None = None

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Make one pass; raises ``MirrorError``, in one line, whatever goes wrong."""
        try:
            if self._mirror is None:
                self._mirror = self._open()
            report = self._mirror.run(live=live, afresh=afresh)
        except MirrorError as error:
            raise MirrorError(self._clean(str(error))) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, a study must not end by it
            raise MirrorError(self._clean(f"{type(error).__name__}: {error}")) from None
        report.problems = [self._clean(problem) for problem in report.problems]
        return report

    def close(self) -> None:
        """Nothing is held between passes."""

    def _open(self) -> Mirror:
        from study.plan.strategies import plan_of
        from study.storage import database as storage
        from study.storage.location import Database

        errand = self._errand
        location = Database.at(errand.storage).study(errand.name)
        study, settings = storage.load(location.database.open(), location.name)
        folder = location.models(models.identity(study))
        return Mirror(study, settings, plan_of(settings), folder, self._connect)

    def _connect(self) -> Any:
        from study.mirror.tracking import Server

        self._access = self._errand.target.access(self._errand.patience)
        return Server(self._access, self._errand.patience)

    def _clean(self, message: str) -> str:
        return redact(message, secrets(os.environ, self._errand.target, self._access))


class Aside:
    """The mirror of an errand in a process of its own, started with the first pass."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._process: subprocess.Popen[str] | None = None

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Have one pass made; raises ``MirrorError`` where it could not be."""
        process = self._process or self._start()
        answer = self._exchange(process, {"live": live, "afresh": afresh})
        if "error" in answer:
            raise MirrorError(answer["error"])
        return Report(**answer["report"])

    def close(self) -> None:
        """End the process; a pass that is being made is given up."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _start(self) -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parents[2])
        start = "from study.mirror.subprocess import main; main()"
        code = f"import sys; sys.path.append({root!r}); {start}"
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is the driver's business
        )
        _write(self._process.stdin, self._errand.to_json())
        return self._process

    def _exchange(self, process: subprocess.Popen[str], order: Mapping[str, Any]) -> dict[str, Any]:
        try:
            _write(process.stdin, json.dumps(order))
            assert process.stdout is not None
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            self.close()
            raise MirrorError("the mirror's process ended; it is started again") from None
        return answer


def _write(stream: IO[str] | None, line: str) -> None:
    assert stream is not None
    stream.write(line + "\n")
    stream.flush()


def main() -> None:
    """Mirror as told on standard input until it ends; a line on standard output a pass."""
    os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MLflow prints is no answer
    here = Here(Errand.from_json(sys.stdin.readline()))
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while True:
        order = orders.get()
        try:
            answer: dict[str, Any] = {"report": asdict(here.run(**order))}
        except MirrorError as error:
            answer = {"error": str(error)}
        _write(answers, json.dumps(answer))


def _listen(orders: queue.Queue[dict[str, Any]]) -> None:
    """Queue what comes in; where the driver is gone, so is this process."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)
