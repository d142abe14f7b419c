"""Brings a tracker up to date: creates missing runs, sends what has changed, ends runs that ended.

Parents are made before their children and ended after them. The final state of a run is sent last:
a run that has it, with the right mark, is complete, and any other one is sent again, which changes
nothing where it had arrived. That is why a pass may be killed between any two steps, and why what
is known of the tracker may be forgotten at any time: it only saves requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from study.errors import MirrorError
from study.mirror.desired import Artifact, DesiredRun
from study.mirror.tracker import Refused, RemoteRun, Tracker

_GONE = "gone"
"""The mark of an artifact that was deleted before it was sent."""


@dataclass
class Report:
    """What a pass did: runs made, points and artifacts sent; ``problems`` says what is missing."""

    trials: int = 0
    made: int = 0
    points: int = 0
    artifacts: int = 0
    problems: list[str] = field(default_factory=list)


class Sync:
    """Brings one tracker up to date, pass after pass."""

    def __init__(self, tracker: Tracker) -> None:
        """Look at what the tracker has.

        Of two runs of one key, which a lost answer or a second mirror can cause, the first is kept.
        """
        self.runs: dict[str, RemoteRun] = {}
        self._tracker = tracker
        self._sent: dict[str, int] = {}
        self._settled: set[tuple[str, str]] = set()
        for remote in sorted(tracker.find(), key=lambda run: run.id):
            if remote.key in self.runs:
                tracker.delete(remote)
            else:
                self.runs[remote.key] = remote

    def send_runs(self, desired: Sequence[DesiredRun], report: Report) -> None:
        """Bring every run up to date; a run that is refused does not keep the others waiting."""
        by_key = {run.key: run for run in desired}
        for run in desired:
            if (run.key, run.mark) in self._settled:
                continue
            try:
                self._send(run, self._existing(run, by_key, report), report)
            except Refused as error:
                report.problems.append(f"{run.key}: {error}")

    def _existing(
        self, run: DesiredRun, by_key: dict[str, DesiredRun], report: Report
    ) -> RemoteRun:
        """The run as the tracker has it, made where it is missing, under its parent."""
        parent = None if run.parent is None else self._existing(by_key[run.parent], by_key, report)
        remote = self.runs.get(run.key)
        if remote is None:
            remote = self.runs[run.key] = self._tracker.create(run, parent)
            report.made += 1
        elif parent is not None and remote.parent != parent.id:  # the parent was made again
            remote.parent = parent.id
            self._tracker.save(remote)
        return remote

    def _send(self, run: DesiredRun, remote: RemoteRun, report: Report) -> None:
        arrived = remote.mark == run.mark and (remote.state == "running") is run.running
        if run.running or not arrived:
            content, sent = run.make_content(), self._sent.get(run.key)
            new = replace(content, points=content.points[sent or 0 :])
            if not arrived or sent is None or new.points:
                self._tracker.update(remote, run, replace(new, params={}) if sent else new)
                self._sent[run.key] = len(content.points)
                report.points += len(new.points)
        if not run.running:
            self._settled.add((run.key, run.mark))

    def send_artifacts(self, desired: Sequence[DesiredRun], report: Report, *, live: bool) -> None:
        """Send the files of runs, up to the first that cannot be sent now."""
        for run in desired:
            artifact, remote = run.artifact, self.runs.get(run.key)
            if artifact is None or remote is None or remote.files == artifact.mark:
                continue
            what = f"the {artifact.name} of {run.key}"
            try:
                self._send_artifact(remote, artifact)
                report.artifacts += 1
            except FileNotFoundError as error:
                if not live:  # a driver may be about to write it
                    self._mark_gone(remote)
                    report.problems.append(f"{what} is gone: there is no {error.filename}")
            except (MirrorError, OSError) as error:
                report.problems.append(f"{what} is not sent: {error}")
                return

    def _send_artifact(self, remote: RemoteRun, artifact: Artifact) -> None:
        self._tracker.upload(remote, artifact, artifact.read())
        remote.files = artifact.mark
        self._tracker.save(remote)

    def _mark_gone(self, remote: RemoteRun) -> None:
        if remote.files != _GONE:
            remote.files = _GONE
            self._tracker.save(remote)
