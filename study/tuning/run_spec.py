"""The run spec of a trial: which slot it is, written before anything else of it exists."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import psutil
from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, Trial

from study.plan.plan import RunSpec
from study.plan.results import configuration
from study.storage.trials import RUN_SPEC


def slot(trial: Trial | FrozenTrial) -> RunSpec:
    """The slot of a trial that a plan's sampler made.

    Raises ``TrialPruned`` for the trial of a thread that asked when the plan was complete.
    """
    if isinstance(trial, FrozenTrial):
        attributes = trial.system_attrs
    else:
        attributes = trial.storage.get_trial_system_attrs(trial._trial_id)
    if RUN_SPEC not in attributes:
        raise superfluous()
    spec = attributes[RUN_SPEC]
    reference = spec["reference"]
    return RunSpec(
        spec["stage"],
        spec["option"],
        configuration(spec["params"]),
        spec["repeat"],
        None if reference is None else configuration(reference),
        spec.get("epochs"),
    )


def superfluous() -> TrialPruned:
    """What ends the trial of a thread that asked when the plan was complete."""
    return TrialPruned("the plan was completed while this trial was asked for")


def prunable(spec: Mapping[str, Any]) -> bool:
    """Whether a run may be pruned: never the incumbent of a sweep."""
    return spec["reference"] is not None


def this_process() -> list[Any]:
    """This process, as others know it: host and number."""
    return [socket.gethostname(), os.getpid()]


def lives_elsewhere(spec: Mapping[str, Any]) -> bool:
    """Whether another process asked for the run, and is alive as far as can be known."""
    (host, number), here = spec["asked_by"], this_process()
    return [host, number] != here and (host != here[0] or psutil.pid_exists(number))
