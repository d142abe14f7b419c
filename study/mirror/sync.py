"""The mirror: MLflow made to show what the study's database holds, once, however often it is run.

A pass compares what should be there (`projection`) with what is there (one search by the study's
UUID) and sends the difference (`transfer`). The truth is the database and the server; what is kept
in memory between two passes only saves requests, and is looked up again after anything went wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from study.mirror import projection
from study.mirror.projection import Subject
from study.mirror.tracking import Found
from study.mirror.transfer import Known, Report, Tracking, Transfer
from study.plan.plan import Plan
from study.plan.results import StoredTrial
from study.space.settings import Settings
from study.storage import models
from study.storage.database import MLFLOW
from study.storage.trials import StoredTrials

if TYPE_CHECKING:
    from optuna import Study

MANY = 50
"""More trials than this get no note of where they are shown."""

HOLD = 30.0
"""Seconds between two tries to send models that could not be sent."""


class Mirror:
    """Mirrors one study to the server that ``connect`` gets in to.

    ``models`` is the folder of kept models. While models cannot be sent (an expired key), metrics
    still are; the models are tried again, with a new connection, every ``HOLD`` seconds.
    """

    def __init__(
        self,
        study: Study,
        settings: Settings,
        plan: Plan,
        models: Path,
        connect: Callable[[], Tracking],
    ) -> None:
        self._study = study
        self._settings = settings
        self._plan = plan
        self._models = models
        self._connect = connect
        self._server: Tracking | None = None
        self._known: Known | None = None
        self._noted: set[int] = set()
        self._rows = StoredTrials()
        self._models_from = 0.0
        self._models_problems: list[str] = []

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        """Make one pass; ``live``: a driver is at work, and its running trials are shown running.

        ``afresh`` looks at the server again instead of trusting what is known of it. Raises
        ``MirrorError`` where the server cannot be used; what was sent stays sent.
        """
        if afresh:
            self._known = None
        trusted = self._known is not None
        try:
            report, refused = self._pass(live=live)
            if refused and trusted:  # a run that is known may have been deleted on the server
                self._known = None
                report, refused = self._pass(live=live)
        except BaseException:
            self._known = self._server = None
            raise
        if refused:
            self._known = None
        return report

    def _pass(self, *, live: bool) -> tuple[Report, bool]:
        report = Report()
        rows = self._rows.all(self._study)
        if not any(map(projection.visible, rows)):
            return report, False
        name, uuid = self._study.study_name, models.identity(self._study)
        plan_state = self._plan.state(self._rows.counted(self._study, rows))
        subject = Subject(name, uuid, self._settings, live=live, complete=plan_state.complete)
        server = self._reached()
        known = self._look(subject, server)
        transfer = Transfer(subject, known, server, report)
        transfer.bring_runs(rows, plan_state)
        self._bring_models(transfer, rows, report, live=live)
        report.trials = len(rows)
        self._link(server, known, rows)
        return report, transfer.refused

    def _reached(self) -> Tracking:
        if self._server is None:
            self._server = self._connect()
        return self._server

    def _look(self, subject: Subject, server: Tracking) -> Known:
        """What the server has; of doubles, which a lost answer can cause, the first is kept."""
        if self._known is not None:
            return self._known
        experiment = server.experiment(subject.name)
        runs: dict[str, Found] = {}
        for run in sorted(server.runs(experiment, subject.uuid), key=lambda run: run.run_id):
            if run.slot in runs:
                server.delete(run.run_id)
            else:
                runs[run.slot] = run
        self._known = Known(experiment, runs)
        return self._known

    def _bring_models(
        self, transfer: Transfer, rows: Sequence[StoredTrial], report: Report, *, live: bool
    ) -> None:
        if live and time.monotonic() < self._models_from:
            report.problems += self._models_problems
            return
        before = len(report.problems)
        transfer.bring_network()
        transfer.bring_models(rows, models.policy_of(self._study), self._models)
        self._models_problems = report.problems[before:]
        if transfer.models_failed:
            self._models_from = time.monotonic() + HOLD
            self._server = None  # the next pass asks for new keys, where keys are handed out

    def _link(self, server: Tracking, known: Known, rows: Sequence[StoredTrial]) -> None:
        """Write down, once, where study and trials are shown: for the dashboard and the report."""
        run = known.runs.get(projection.STUDY)
        if run is None:
            return
        address = server.link(known.experiment, run.run_id)
        link = {"experiment": known.experiment, "run": run.run_id, "address": address}
        if self._study.user_attrs.get(MLFLOW) != link:
            self._study.set_user_attr(MLFLOW, link)
        too_late: dict[int, str] = {}
        for row in rows:
            run = known.runs.get(projection.trial_slot(row.number))
            if run is None:
                continue
            address = server.link(known.experiment, run.run_id)
            if row.state not in projection.UNFINISHED:
                if MLFLOW not in row.attributes:
                    too_late[row.trial_id] = address
            elif row.attributes.get(MLFLOW) != address:
                with suppress(UpdateFinishedTrialError):  # since it was read
                    Trial(self._study, row.trial_id).set_user_attr(MLFLOW, address)
        self._note(too_late)

    def _note(self, addresses: Mapping[int, str]) -> None:
        """Write addresses of trials into their notes: a finished trial takes no attribute.

        These are the runs that ended before MLflow was reached. Where they are many, the study was
        mirrored only afterwards, and its own address will do: a note costs as much as a pass.
        """
        new = {trial: address for trial, address in addresses.items() if trial not in self._noted}
        if not new or len(addresses) > MANY:
            return
        from optuna_dashboard import get_note, save_note

        for trial_id, address in new.items():
            trial = Trial(self._study, trial_id)
            if not get_note(trial):
                save_note(trial, f"MLflow shows this run: [{address}]({address})")
            self._noted.add(trial_id)
