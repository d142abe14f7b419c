"""The run spec of a trial: which run of the plan it is, and which process trains it."""

from __future__ import annotations

import os
import socket
from typing import Any

import psutil
from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, Trial

from study.plan.plan import RunSpec
from study.storage import trials

ASKED_BY = "study:asked_by"
"""The system attribute of a trial of plain Optuna code: host, process number, its start time."""


def run_spec(trial: Trial | FrozenTrial) -> RunSpec:
    """Which stage, option and repeat a trial of a plan's sampler is.

    Raises ``TrialPruned`` for the trial of a thread that asked when the plan was complete.
    """
    if isinstance(trial, FrozenTrial):
        attributes = trial.system_attrs
    else:
        attributes = trial.storage.get_trial_system_attrs(trial._trial_id)
    found = trials.run_spec(attributes)
    if found is None:
        raise superfluous()
    return found


def superfluous() -> TrialPruned:
    """What ends the trial of a thread that asked when the plan was complete."""
    return TrialPruned("the plan was completed while this trial was asked for")


def this_process() -> list[Any]:
    """This process, as others know it: host, number, and start time in Unix seconds."""
    return [socket.gethostname(), os.getpid(), psutil.Process().create_time()]


def is_gone(process: list[Any]) -> bool | None:
    """Whether a process has ended; None if it is one of another host.

    The start time tells it from a later process of the same number.
    """
    host, number, started = process
    if host != socket.gethostname():
        return None
    try:
        return bool(abs(psutil.Process(number).create_time() - started) > 2)  # clocks are adjusted
    except psutil.NoSuchProcess:
        return True
