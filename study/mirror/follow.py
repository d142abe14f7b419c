"""The mirror at work: one pass, or pass after pass for as long as a study is driven.

Whatever goes wrong becomes one line; what is missing is sent when the server is back.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from study.errors import MirrorError, StudyError
from study.mirror.requests import Refused
from study.mirror.sync import Mirror
from study.mirror.target import Access, Target, redact, secrets
from study.mirror.tracking import PATIENCE, Server
from study.mirror.transfer import Report
from study.plan.strategies import plan_of
from study.storage import database as storage
from study.storage import models
from study.storage.connection import explained
from study.storage.location import Location
from study.storage.lock import driven

PAUSE = 2.0
"""Seconds between two passes while a study runs; more where a pass takes long."""

LONGEST = 60.0
"""Seconds between two tries, at most, while the server cannot be used."""

_TRIES = 3  # of the command that mirrors a study once


class Passing(Protocol):
    """Makes passes of the mirror."""

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Make one pass; raises ``MirrorError`` where the server cannot be used."""


class Passes:
    """Passes over the study at ``location``; what they raise and report shows no secret."""

    def __init__(self, location: Location, target: Target, patience: float = PATIENCE) -> None:
        self._location = location
        self._target = target
        self._patience = patience
        self._access: Access | None = None
        self._mirror: Mirror | None = None

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Make one pass; raises ``MirrorError``, in one line, whatever goes wrong."""
        try:
            if self._mirror is None:
                self._mirror = self._open()
            report = self._mirror.run(live=live, afresh=afresh)
        except MirrorError as error:
            raise type(error)(self._clean(str(error))) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, a study must not end by it
            raise MirrorError(self._clean(f"{type(error).__name__}: {error}")) from None
        report.problems = [self._clean(problem) for problem in report.problems]
        return report

    def _open(self) -> Mirror:
        study, settings = storage.load(self._location.database.open(), self._location.name)
        folder = self._location.models(models.identity(study))
        return Mirror(study, settings, plan_of(settings), folder, self._connect)

    def _connect(self) -> Any:
        self._access = self._target.access(self._patience)
        return Server(self._access, self._patience)

    def _clean(self, message: str) -> str:
        return redact(message, secrets(os.environ, self._target, self._access))


def mirror_once(location: Location, target: Target) -> Report:
    """Mirror a study now; only what is missing is sent.

    Raises ``MirrorError`` where the server cannot be used after a few tries, or refuses.
    """
    passes = Passes(location, target)
    for attempt in range(1, _TRIES + 1):
        try:
            return passes.run(live=driven(location), afresh=True)
        except MirrorError as error:
            if attempt == _TRIES or isinstance(error, Refused):
                raise
            time.sleep(attempt)
    raise AssertionError


def follow_study(
    location: Location, target: Target, ended: threading.Event, say: Callable[[str], None]
) -> None:
    """Mirror a study while it is driven, and once more when it is not; see `follow`."""

    def live() -> bool:
        with explained(location.database.shown):
            return driven(location)

    follow(Passes(location, target), live, ended, say)


def follow(
    passes: Passing,
    live: Callable[[], bool],
    ended: threading.Event,
    say: Callable[[str], None],
    pause: float = PAUSE,
) -> None:
    """Make passes while ``live`` says that a driver is at work, and a last one after it.

    ``ended`` is set once the driver that this process belongs to has ended: there is one pass
    more, or none where another driver has taken over, which has a follower of its own. ``say`` is
    told the first of a row of failures, and its end; raises ``MirrorError`` where the last pass
    fails.
    """
    news = _News(say)
    delay = pause
    while True:
        at_work, last, began = True, ended.is_set(), time.monotonic()
        try:
            at_work = live()
            if at_work and last:
                return
            report = passes.run(live=at_work, afresh=not at_work)
        except Exception as error:  # noqa: BLE001 - it goes on, whatever a pass may raise
            reason = str(error) if isinstance(error, StudyError) else repr(error)
            if last or not at_work:
                raise MirrorError(reason) from None
            news.failed(reason)
            delay = min(LONGEST, 2 * delay)
        else:
            news.passed(report)
            if not at_work:
                return
            delay = min(LONGEST, max(pause, 2 * (time.monotonic() - began)))
        ended.wait(delay)


class _News:
    """Tells the beginning and the end of an outage, and of models that cannot be sent."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._outage = False
        self._missing = False

    def failed(self, reason: str) -> None:
        if not self._outage:
            self._say(f"MLflow: {reason}; the study goes on, and what is missing is sent later")
        self._outage = True

    def passed(self, report: Report) -> None:
        if self._outage:
            self._say("MLflow: the server is back")
        if report.problems and not self._missing:
            more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
            self._say(f"MLflow: {report.problems[0]}{more}; the study goes on")
        if self._missing and not report.problems:
            self._say("MLflow: what was missing has been sent")
        self._outage = False
        self._missing = bool(report.problems)
