"""The mirror follows a study: a thread that has pass after pass made and never disturbs a driver.

The driver's only part is ``poke()``, which sets an event. Whatever goes wrong becomes one line; the
study goes on, and what is missing is sent when the server is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from study.errors import MirrorError
from study.mirror.subprocess import Aside, Errand, Here
from study.mirror.target import Target
from study.mirror.transfer import Report
from study.storage.location import Location

if TYPE_CHECKING:
    from study.plan.plan import PlanState

PAUSE = 2.0
"""Seconds between two passes while a study runs; more where a pass takes long."""

LONGEST = 60.0
"""Seconds between two tries, at most, while the server cannot be used."""

_TRIES = 3  # of the command that mirrors a study once


class Passes(Protocol):
    """Makes passes of the mirror: in this process (`aside.Here`) or another (`aside.Aside`)."""

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Make one pass; raises ``MirrorError`` where the server cannot be used."""

    def close(self) -> None:
        """Give up whatever is being made."""


class Follower:
    """Follows a study from a thread of its own; ``say`` is told what goes wrong.

    ``command`` is what a person may type to send what is missing. It observes the driver too:
    whatever the driver sees is a poke. Without ``passes`` it does nothing.
    """

    def __init__(
        self,
        command: str,
        passes: Passes | None,
        say: Callable[[str], None],
        pause: float = PAUSE,
    ) -> None:
        self._command = command
        self._passes = passes
        self._say = say
        self._pause = pause
        self._delay = pause
        self._poked = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._outage = False
        self._reason: str | None = None
        self._missing = False
        self._behind = False

    def start(self) -> None:
        """Start the thread; nothing is imported or contacted before the first poke."""
        if self._passes is not None and self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
            self._thread.start()

    def poke(self) -> None:
        """Say that the database has changed; costs the setting of an event."""
        self._behind = True
        self._poked.set()

    def see(self, standing: PlanState, active: Mapping[int, Any], event: object) -> None:
        """What the driver calls after every event."""
        del standing, active, event
        self.poke()

    def close(self, seconds: float) -> None:
        """Make a last pass, in which nothing is left running; give up after ``seconds``."""
        thread, self._thread = self._thread, None
        if thread is None or self._passes is None:
            return
        self._closing.set()
        self._poked.set()
        thread.join(seconds)
        if thread.is_alive() or self._behind:
            why = f" ({self._reason})" if self._reason else ""
            self._say(
                f"MLflow does not have everything yet{why}; send the rest with: {self._command}"
            )
        self._passes.close()

    def _follow(self) -> None:
        while not self._closing.is_set():
            self._poked.wait()
            self._poked.clear()
            if not self._closing.is_set():
                self._attempt(live=True)
                self._closing.wait(self._delay)
        if self._behind:
            self._attempt(live=False)

    def _attempt(self, *, live: bool) -> None:
        """Have a pass made, and tell the user of the first of a row of failures."""
        assert self._passes is not None
        began = time.monotonic()
        try:
            report = self._passes.run(live=live, afresh=not live)
        except Exception as error:  # noqa: BLE001 - nothing of the mirror may end the thread
            self._fail(str(error) if isinstance(error, MirrorError) else repr(error))
            return
        self._delay = min(LONGEST, max(self._pause, 2 * (time.monotonic() - began)))
        if self._outage:
            self._say("MLflow: the server is back")
        self._outage = False
        self._reason = None
        self._tell_missing(report)
        self._behind = live  # only a last pass is known to have everything

    def _fail(self, reason: str) -> None:
        if not self._outage and not self._closing.is_set():
            self._say(f"MLflow: {reason}; the study goes on, and what is missing is sent later")
        self._outage = True
        self._reason = reason
        self._delay = min(LONGEST, 2 * max(self._delay, 0.01))
        self._poked.set()  # try again, whether or not anything new happens

    def _tell_missing(self, report: Report) -> None:
        if report.problems and not self._missing:
            more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
            self._say(f"MLflow: {report.problems[0]}{more}; the study goes on")
        if self._missing and not report.problems:
            self._say("MLflow: what was missing has been sent")
        self._missing = bool(report.problems)


def follower(location: Location, target: Target | None, say: Callable[[str], None]) -> Follower:
    """The follower of the study at ``location``; idle without a target."""
    if target is None:
        return Follower("", None, say)
    command = location.command("mirror", *target.options, needs=target.needs)
    return Follower(command, Aside(Errand(location.database.url, location.name, target)), say)


def mirror_once(location: Location, target: Target) -> Report:
    """Mirror a study now, as ``python -m study mirror`` does; only what is missing is sent.

    Raises ``MirrorError`` where the server cannot be used after a few tries.
    """
    from study.storage.lock import driven

    here = Here(Errand(location.database.url, location.name, target))
    for attempt in range(1, _TRIES + 1):
        try:
            return here.run(live=driven(location), afresh=True)
        except MirrorError:
            if attempt == _TRIES:
                raise
            time.sleep(attempt)
    raise AssertionError
