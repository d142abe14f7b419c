"""``study mirror NAME --follow`` as a child of the driver, at low priority.

MLflow takes seconds to import, and its local store works in Python: in the driver's process either
would hold the interpreter lock that training needs. The child reads the database by itself; all
it hears of its driver is that its standard input, a pipe, ends when the driver does. What it has to
say it says on standard error. Secrets are in its environment, never in its command line.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from study.mirror.target import Target
from study.storage.location import Location

LAST_PASS = 60.0
"""Seconds that the last pass may take once the driver has ended."""

_NICE = 10


class Follower:
    """The driver's side: starts the child, passes on what it says, and lets it end.

    Without a ``target`` it does nothing.
    """

    def __init__(
        self, location: Location, target: Target | None, say: Callable[[str], None]
    ) -> None:
        self._location = location
        self._target = target
        self._say = say
        self._reason = ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start the child; it contacts nobody before the first epoch is stored."""
        if self._target is None:
            return
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
        ours = {"STUDY_STORAGE": self._location.database.url, "PYTHONPATH": path}
        command = ["-P", "-m", "study", "mirror", "--follow", "--", self._location.name]
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # what a library writes there may be in any encoding
            env=os.environ | self._target.environment() | ours,
            start_new_session=True,  # Ctrl-C is the driver's business
        )
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()

    def close(self, seconds: float) -> None:
        """Let the child make a last pass; end it after ``seconds``, and say what sends the rest.

        To be called when the study's lock is given back. A child that has died is started again.
        """
        if self._process is None or self._target is None:
            return
        assert self._process.stdin is not None
        if self._process.poll() not in (None, 0):
            self._process.stdin.close()
            self.start()
        assert self._reader is not None
        self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.returncode:
            command = self._location.command(
                "mirror", *self._target.options, needs=self._target.needs
            )
            self._say(
                f"MLflow does not have everything yet{self._reason}; send the rest with: {command}"
            )

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Pass on the lines that are meant for people; libraries write there too."""
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                if line.startswith("MLflow: "):
                    self._say(line.rstrip())
                elif line.startswith("study: "):
                    self._reason = f" ({line.removeprefix('study: ').rstrip()})"


def parent_ended() -> threading.Event:
    """The child's side: set when standard input ends, if that is a pipe; else never.

    The process then has ``LAST_PASS`` seconds, however its driver ended.
    """
    ended = threading.Event()

    def listen() -> None:
        while os.read(0, 1024):
            pass
        ended.set()
        time.sleep(LAST_PASS)
        os._exit(1)

    if stat.S_ISFIFO(os.fstat(0).st_mode):
        os.nice(_NICE)
        threading.Thread(target=listen, daemon=True).start()
    return ended
