"""The dashboard follows a study: a thread that writes notes and never disturbs a driver.

The driver's only part is to leave its standing, which is frozen, and to set an event. Whatever
goes wrong becomes one line; the study goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from study.dashboard.writer import Writer
from study.space.settings import Settings
from study.storage.location import Location

if TYPE_CHECKING:
    from study.plan.plan import PlanState

PAUSE = 5.0
"""Seconds between two writings; more where a writing takes long, so that it costs little."""

_SHARE = 20  # the pause is at least so many times as long as this thread computed before it


class Writes(Protocol):
    """Writes a standing down for the dashboard."""

    def write(self, standing: PlanState, enough: threading.Event) -> None:
        """Write what has changed; leave off early once ``enough`` is set."""

    def close(self) -> None:
        """Give back what is held."""


class Follower:
    """An observer that has ``writer`` write down the latest standing, from a thread of its own."""

    def __init__(self, writer: Writes, say: Callable[[str], None], pause: float = PAUSE) -> None:
        self._writer = writer
        self._say = say
        self._pause = pause
        self._latest: PlanState | None = None
        self._written: PlanState | None = None
        self._news = threading.Event()
        self._closing = threading.Event()
        self._enough = threading.Event()
        self._complained = False
        self._thread = threading.Thread(target=self._follow, name="dashboard", daemon=True)

    def start(self) -> None:
        """Start the thread; nothing is imported or opened before the first standing."""
        self._thread.start()

    def see(self, standing: PlanState, active: Mapping[int, Any], event: object) -> None:
        """What the driver calls after every event; only a run that starts or ends is news."""
        del active, event
        if standing is not self._latest:
            self._latest = standing
            self._news.set()

    def close(self, seconds: float) -> None:
        """Write the last standing; give up after ``seconds``, what is missing is no loss."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)
        self._enough.set()

    def _follow(self) -> None:
        try:
            first = True  # it imports and connects, which is no measure of the others
            while not self._closing.is_set():
                self._news.wait()
                self._news.clear()
                began = time.thread_time()
                self._attempt()
                cost = 0.0 if first else time.thread_time() - began
                self._closing.wait(max(self._pause, _SHARE * cost))
                first = False
            self._attempt()
        finally:
            self._writer.close()

    def _attempt(self) -> None:
        standing = self._latest
        if standing is None or standing is self._written or self._enough.is_set():
            return
        try:
            self._writer.write(standing, self._enough)
            self._written = standing
        except Exception as error:  # noqa: BLE001 - nothing of the dashboard may end the thread
            if not self._complained:
                reason = " ".join(str(error).split()) or type(error).__name__
                self._say(f"Dashboard: its notes cannot be written ({reason}); the study goes on")
            self._complained = True


def follower(location: Location, settings: Settings, say: Callable[[str], None]) -> Follower:
    """The follower of the study at ``location``."""
    return Follower(Writer(location, settings.repeats, settings.images), say)
