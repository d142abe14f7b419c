"""A pass of the mirror over a study, and the process that makes passes while the study runs.

That process is ``study mirror NAME --follow``, a child of the driver at low priority: MLflow takes
seconds to import, and its local store works in Python, so in the driver's process either would hold
the interpreter lock that training needs. The child reads the database by itself and writes nothing
to it; its standard input, a pipe, ends with its driver. Its messages go to standard error. Secrets
are in its environment, never in its command line.

Every failure becomes one line; missing runs are sent once the server is back.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from study.errors import MirrorError, StudyError
from study.files import write_whole
from study.mirror.desired import STUDY, Snapshot, desired_runs, digest_of
from study.mirror.sync import Report, Sync
from study.mirror.tracker import (
    PATIENCE,
    Refused,
    StudyFacts,
    Target,
    TimedOut,
    Tracker,
    redact,
    secrets,
)
from study.plan.strategies import plan_of
from study.storage import database as storage
from study.storage import models
from study.storage.connection import explained
from study.storage.location import Location
from study.storage.lock import driven
from study.storage.trials import StoredTrials, inside

LAST_PASS = 60.0
"""Seconds that the last pass may take once the driver has ended."""

PAUSE = 2.0
"""Seconds between two passes while a study runs; more where a pass takes long."""

_LONGEST_PAUSE = 60.0  # seconds between two tries while the server cannot be used
_TRIES = 3  # of the command that mirrors a study once
_NICE = 10


# --- one pass ------------------------------------------------------------------------------------


class Mirror:
    """Makes passes over the study at ``location``; what they raise and report shows no secret."""

    def __init__(self, location: Location, target: Target, patience: float = PATIENCE) -> None:
        self._location = location
        self._target = target
        self._patience = patience
        self._trials = StoredTrials()
        self._tracker: Tracker | None = None
        self._sync: Sync | None = None

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Make one pass; ``live``: a driver is running, and so are its running trials.

        ``afresh`` looks at the tracker again instead of trusting what is known of it. Raises
        ``MirrorError``, in one line, for every failure; what was sent stays sent.
        """
        if afresh:
            self._sync = None
        try:
            report = self._pass(live=live)
        except BaseException as error:
            self._tracker = self._sync = None
            if not isinstance(error, Exception):
                raise
            own = isinstance(error, StudyError)
            kind = type(error) if isinstance(error, MirrorError) else MirrorError
            message = str(error) if own else f"{type(error).__name__}: {error}"
            raise kind(self._clean(message)) from None
        report.problems = [self._clean(problem) for problem in report.problems]
        return report

    def _pass(self, *, live: bool) -> Report:
        study, settings = storage.load(self._location.database.open(), self._location.name)
        found, plan = self._trials.all(study), plan_of(settings)
        report, uuid = Report(trials=len(found)), models.identity(study)
        if not found:
            return report
        snapshot = Snapshot(
            name=study.study_name,
            settings=settings,
            trials=found,
            plan_state=plan.state(inside(self._trials.counted(study, found), settings.space)),
            live=live,
            model_folder=self._location.models(uuid),
            policy=models.policy_of(study),
        )
        desired = desired_runs(snapshot)
        if not desired:
            return report
        if self._tracker is None:
            facts = StudyFacts(study.study_name, uuid, settings)
            self._tracker = self._target.tracker.connect(self._target, facts, self._patience)
        digest = None if live else digest_of(desired)
        if self._sync is None and digest is not None and self._tracker.synced() == digest:
            return report
        sync = self._sync or Sync(self._tracker)
        sync.send_runs(desired, report)
        sync.send_artifacts(desired, report, live=live)
        if STUDY in sync.runs:
            _write_address(self._location, uuid, self._tracker.address(sync.runs[STUDY]))
        if report.problems:  # a run was deleted on the server, or a key has expired: look again
            self._tracker = self._sync = None
            return report
        if report.made and not live:  # another mirror may have made the same ones
            sync = Sync(self._tracker)
        if digest is not None and STUDY in sync.runs:
            self._tracker.set_synced(sync.runs[STUDY], digest)
        self._sync = sync
        return report

    def _clean(self, message: str) -> str:
        return redact(message, secrets(self._target))


def mirror_once(location: Location, target: Target) -> Report:
    """Mirror a study now; only what is missing is sent.

    Raises ``MirrorError`` where the server cannot be used after a few tries, or refuses.
    """
    mirror = Mirror(location, target)
    for attempt in range(1, _TRIES + 1):
        try:
            return mirror.run(live=driven(location), afresh=True)
        except MirrorError as error:
            if attempt == _TRIES or isinstance(error, Refused | TimedOut):
                raise
            time.sleep(attempt)
    raise AssertionError


def shown_at(location: Location, uuid: str) -> str | None:
    """The address at which the mirror last showed a study; None if it never did."""
    try:
        found = json.loads(location.mirror(uuid).read_text("utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _write_address(location: Location, uuid: str, address: str) -> None:
    """Note it beside the database, which only a driver writes to."""
    if shown_at(location, uuid) != address:
        with suppress(OSError):  # it is for information only
            write_whole(location.mirror(uuid), json.dumps({"address": address}).encode())


# --- pass after pass -----------------------------------------------------------------------------


def follow_study(
    location: Location, target: Target, ended: threading.Event, say: Callable[[str], None]
) -> None:
    """Mirror a study while it is driven, and once more when it is not; see `follow`."""

    def live() -> bool:
        with explained(location.database.shown):
            return driven(location)

    follow(Mirror(location, target).run, live, ended, say)


def follow(
    mirror: Callable[..., Report],
    live: Callable[[], bool],
    ended: threading.Event,
    say: Callable[[str], None],
    pause: float = PAUSE,
) -> None:
    """Make passes (`Mirror.run`) while ``live`` says that a driver is running, and a last one.

    ``ended`` is set once the driver that this process belongs to has ended: there is one pass
    more, or none where another driver has taken over: it has its own follower. ``say``
    gets a line when passes begin to fail, twice in a row, and when they succeed again; the pauses
    between them grow. Raises ``MirrorError`` where the last pass fails.
    """
    delay, failures = pause, 0
    while True:
        at_work, last, began = True, ended.is_set(), time.monotonic()
        try:
            at_work = live()
            if at_work and last:
                return
            problems = mirror(live=at_work, afresh=not at_work).problems
        except Exception as error:  # noqa: BLE001 - no failure of a pass ends the mirror
            reason = str(error) if isinstance(error, StudyError) else repr(error)
            if last or not at_work:
                raise MirrorError(reason) from None
            problems = [reason]
        if not at_work:
            if problems:
                raise MirrorError(_first(problems))
            return
        if not problems and failures > 1:
            say("MLflow: what was missing has been sent")
        failures = failures + 1 if problems else 0
        if failures == 2:
            say(f"MLflow: {_first(problems)}; the study continues, missing runs are sent later")
        slow = 2 * delay if problems else 2 * (time.monotonic() - began)
        delay = min(_LONGEST_PAUSE, max(pause, slow))
        ended.wait(delay)


def _first(problems: Sequence[str]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else "")


# --- the child process ---------------------------------------------------------------------------


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
        """Start the child; it contacts no server before the first epoch is stored."""
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
        """Let the child make a last pass; end it after ``seconds``, and print what sends the rest.

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
