"""The steps of one pass of the mirror: make what is missing, send what has changed, end what ended.

Parents are made before their children and ended after them. A run's final status is set last: a run
that has it, with the right mark, is complete, and any other one is sent again, which changes
nothing where it had arrived. That is why a pass may be killed between any two steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from study.mirror import artifact, projection
from study.mirror import parent_runs as parents
from study.mirror.projection import Content, Status, Subject, Wanted
from study.mirror.requests import Refused, Unreachable
from study.mirror.tracking import MODEL, PARENT, Found
from study.plan.plan import PlanState
from study.plan.results import Configuration, StoredTrial, by_configuration
from study.storage import models


class Tracking(Protocol):
    """What a pass needs of a server; `tracking.Server` has it."""

    def experiment(self, name: str) -> str: ...
    def runs(self, experiment: str, uuid: str) -> list[Found]: ...
    def create(self, experiment: str, started: int, tags: Mapping[str, str]) -> Found: ...
    def log(self, run_id: str, content: Content, sent: int) -> None: ...
    def tag(self, run_id: str, name: str, value: str) -> None: ...
    def end(self, run_id: str, status: Status, ended: int) -> str: ...
    def reopen(self, run_id: str) -> None: ...
    def delete(self, run_id: str) -> None: ...
    def upload(self, run: Found, folder: Path, name: str) -> None: ...
    def link(self, experiment: str, run_id: str) -> str: ...


@dataclass
class Report:
    """What a pass did: runs made, points and models sent; ``problems`` says what is missing."""

    trials: int = 0
    made: int = 0
    points: int = 0
    models: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Known:
    """What this process knows of the server.

    ``runs`` by slot; ``sent``: how many points of a run this process has sent; ``settled``: slots,
    with their marks, that need no further look.
    """

    experiment: str
    runs: dict[str, Found]
    sent: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)


class Transfer:
    """One pass over a study's rows; ``refused`` and ``models_failed`` say what went wrong."""

    def __init__(self, subject: Subject, known: Known, server: Tracking, report: Report) -> None:
        self.refused = False
        self.models_failed = False
        self._known = known
        self._subject = subject
        self._server = server
        self._report = report

    def bring_runs(self, rows: Sequence[StoredTrial], plan_state: PlanState) -> None:
        """Bring every trial, then every configuration, then the study, up to date.

        What has nothing to show is left out: a run that waits for its first epoch, or was
        cancelled before it.
        """
        subject = self._subject
        groups = {
            key: group
            for key, group in by_configuration(rows).items()
            if any(map(projection.visible, group))
        }
        whole = parents.study(subject, rows, plan_state)
        above = {key: parents.configuration(subject, group) for key, group in groups.items()}
        for row in filter(projection.visible, rows):
            self._bring_trial(row, whole, above)
        for key, group in groups.items():
            self._bring(above[key], partial(parents.configuration_content, subject, group))
        self._bring(whole, partial(parents.study_content, subject, rows, plan_state))

    def _bring_trial(
        self, row: StoredTrial, whole: Wanted, above: Mapping[Configuration, Wanted]
    ) -> None:
        wanted = projection.trial(self._subject, row)
        if _key(wanted) in self._known.settled:
            return
        self._exist(whole)
        self._exist(above[row.configuration])
        self._bring(wanted, partial(projection.trial_content, self._subject, row))

    def _bring(self, wanted: Wanted, content: Callable[[], Content]) -> None:
        """Send what a run lacks; what one run is refused does not keep the others waiting."""
        if _key(wanted) in self._known.settled:
            return
        try:
            run = self._exist(wanted)
            shown = _shown(run, wanted)
            if run.ended and not shown:
                self._server.reopen(run.run_id)
                run.status = "RUNNING"
            if not shown or wanted.state == "running":
                self._send(run, wanted, content())
        except Refused as error:
            self.refused = True
            self._report.problems.append(f"{wanted.slot}: {error}")
            return
        if wanted.state != "running":
            self._known.settled.add(_key(wanted))

    def _send(self, run: Found, wanted: Wanted, content: Content) -> None:
        sent = self._known.sent.get(wanted.slot)
        if sent is None or run.mark != wanted.mark or sent < len(content.points):
            self._server.log(run.run_id, content, sent or 0)
            self._known.sent[wanted.slot] = len(content.points)
            self._report.points += len(content.points) - (sent or 0)
            run.mark = wanted.mark
        if wanted.status != "RUNNING":
            run.status = self._server.end(run.run_id, wanted.status, wanted.ended)

    def _exist(self, wanted: Wanted) -> Found:
        """The run of a slot, made where it is not there, under its parent."""
        runs = self._known.runs
        parent = runs[wanted.parent].run_id if wanted.parent else None
        run = runs.get(wanted.slot)
        if run is None:
            tags = projection.identity(self._subject, wanted, parent)
            run = self._server.create(self._known.experiment, wanted.started, tags)
            runs[wanted.slot] = run
            self._report.made += 1
        elif parent is not None and run.parent != parent:  # the parent was made again
            self._server.tag(run.run_id, PARENT, parent)
            run.parent = parent
        return run

    def bring_network(self) -> None:
        """Send the text of a network of one's own, beside the study's run."""
        source, run = self._subject.settings.model, self._known.runs.get(projection.STUDY)
        if source is None or run is None or run.model == source.fingerprint:
            return
        try:
            with tempfile.TemporaryDirectory(prefix="study-") as folder:
                Path(folder, Path(source.path).name).write_text(source.text, "utf-8")
                self._server.upload(run, Path(folder), "network")
            self._server.tag(run.run_id, MODEL, source.fingerprint)
        except (Refused, Unreachable, OSError) as error:
            self.models_failed = True
            self._report.problems.append(f"the text of {source.name} is not sent: {error}")
            return
        run.model = source.fingerprint

    def bring_models(
        self, rows: Sequence[StoredTrial], policy: models.Policy, folder: Path
    ) -> None:
        """Send the models worth keeping of the configurations that are decided."""
        numbers = models.wanted(policy, rows, self._subject.settings.metric)
        for group in by_configuration(rows).values():
            if parents.configuration(self._subject, group).state == "running":
                continue
            for row in group:
                run = self._known.runs.get(projection.trial_slot(row.number))
                if row.number in numbers and run is not None and run.model != "kept":
                    self._bring_model(run, models.file(folder, row.number))
            if self.models_failed:
                return

    def _bring_model(self, run: Found, file: Path) -> None:
        try:
            model = file.read_bytes()
        except FileNotFoundError:
            self._miss_model(run, file)
            return
        try:
            with tempfile.TemporaryDirectory(prefix="study-") as folder:
                artifact.write_model(Path(folder), model, run.run_id, self._subject.settings)
                self._server.upload(run, Path(folder), artifact.NAME)
            self._server.tag(run.run_id, MODEL, "kept")
        except (Refused, Unreachable, OSError) as error:
            self.models_failed = True
            self._report.problems.append(f"the model of {run.slot} is not sent: {error}")
            return
        run.model = "kept"
        self._report.models += 1

    def _miss_model(self, run: Found, file: Path) -> None:
        """A model is only said to be gone once nobody can be about to write it."""
        if self._subject.live:
            return
        if run.model != "gone":
            self._server.tag(run.run_id, MODEL, "gone")
            run.model = "gone"
        self._report.problems.append(f"the model of {run.slot} is gone: there is no {file}")


def _key(wanted: Wanted) -> str:
    return f"{wanted.slot}: {wanted.mark}"


def _shown(run: Found, wanted: Wanted) -> bool:
    """Whether all of a run has arrived; an old server calls a killed run failed."""
    as_killed = wanted.status == "KILLED" and run.status == "FAILED"
    return run.mark == wanted.mark and (run.status == wanted.status or as_killed)
