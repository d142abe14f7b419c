"""Stored trials as frozen rows.

Everything that decides, draws or reports reads these rows, never the trials themselves, so that a
decision depends on stored curves alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from study.space.search_space import Value

if TYPE_CHECKING:
    from datetime import datetime

    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

Configuration = tuple[tuple[str, Value], ...]
"""Names and values of one configuration, in the order of the search space; hashable."""

State = Literal["running", "paused", "complete", "pruned", "failed"]

RUN_SPEC = "study:run"
"""The system attribute of a trial that holds its slot; it is written before anything else."""

IGNORE_FAILURES_BEFORE = "ignore_failures_before"
"""The study attribute that holds the number of the first trial whose failure counts."""

LEFT_PAUSED = "paused"
"""The trial attribute that tells a run that nobody went on with from one that a pruner stopped."""


def configuration(params: Mapping[str, Value]) -> Configuration:
    """The hashable form of ``params``, in their own order."""
    return tuple(params.items())


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """One trial: one training run of one repeat of one configuration.

    ``reported`` holds the study's metric after each epoch (of accuracies fractions); ``curve``
    every stored series by name, each as long as the run got. ``value`` is the metric of a complete
    run, of its last epoch or, where it keeps its best epoch's weights, of that one. ``reference``
    is the configuration that a pruner may compare the run with, repeat by repeat; empty where there
    is no such one, None for a run that is never pruned. ``until`` is the epoch at which it pauses
    (None: its end). A ``paused`` run has trained as far as its slot asked, and a later slot can go
    on with it.
    """

    number: int
    trial_id: int
    state: State
    stage: str
    option: Value | None
    configuration: Configuration
    repeat: int
    reference: Configuration | None
    value: float | None
    reported: tuple[float, ...] = ()
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None
    until: int | None = None

    @property
    def params(self) -> dict[str, Value]:
        return dict(self.configuration)

    @property
    def failure(self) -> str | None:
        """Why the run failed, in one line."""
        return self.attributes.get("failure")

    @property
    def cancelled(self) -> str | None:
        """Why the run was stopped although nothing was wrong with it; such a run never counts."""
        return self.attributes.get("cancelled")

    @property
    def device(self) -> str | None:
        """The kind that trained the run; None: not said yet. Once none was, but the processor."""
        said: str | None = self.attributes.get("device")
        return said or (None if self.state == "running" else "cpu")

    @property
    def left_paused(self) -> bool:
        """Whether the study ended while the run was paused; it is stored as a pruned one."""
        return LEFT_PAUSED in self.attributes


def row(trial: FrozenTrial) -> StoredTrial | None:
    """The row of a stored trial; None for a trial that never received a slot."""
    spec = trial.system_attrs.get(RUN_SPEC)
    if spec is None:
        return None
    reference = spec["reference"]
    steps = trial.intermediate_values
    state = STATES[trial.state.name]
    if state == "running" and len(steps) >= (spec.get("epochs") or math.inf):
        state = "paused"
    return StoredTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=state,
        stage=spec["stage"],
        option=spec["option"],
        configuration=configuration(spec["params"]),
        repeat=spec["repeat"],
        reference=None if reference is None else configuration(reference),
        until=spec.get("epochs"),
        value=trial.value if trial.state.name == "COMPLETE" else None,
        reported=tuple(steps[step] for step in sorted(steps)),
        curve=trial.user_attrs.get("curve", {}),
        attributes=_attributes(trial),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def _attributes(trial: FrozenTrial) -> Mapping[str, Any]:
    """The user's attributes; of a trial whose objective raised, with what Optuna says of that."""
    reason = trial.system_attrs.get("fail_reason")
    if reason is None or "failure" in trial.user_attrs:
        return trial.user_attrs
    return {**trial.user_attrs, "failure": " ".join(reason.split())}


STATES: dict[str, State] = {
    "WAITING": "running",
    "RUNNING": "running",
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}


class StoredTrials:
    """The rows of a study, read again at each call; a trial that is the same is converted once.

    Failures from before a study was resumed after three of them (``IGNORE_FAILURES_BEFORE``) are
    left out, and runs of another kind of device than the first one's: they are no pairs.
    """

    def __init__(self) -> None:
        self._source: tuple[BaseStorage, int] | None = None
        self._finished: dict[int, StoredTrial] = {}
        self._running: dict[int, tuple[FrozenTrial, StoredTrial | None]] = {}
        self._configurations: dict[Configuration, Configuration] = {}

    def __call__(self, study: Study) -> list[StoredTrial]:
        return self.counted(study, self.all(study))

    def counted(self, study: Study, rows: Sequence[StoredTrial]) -> list[StoredTrial]:
        """Of all ``rows`` of a study those that count."""
        attributes = study._storage.get_study_user_attrs(study._study_id)
        first = attributes.get(IGNORE_FAILURES_BEFORE, 0)
        kinds = {None, next((row.device for row in rows if row.device), None)}
        return [
            r for r in rows if r.device in kinds and not (r.state == "failed" and r.number < first)
        ]

    def all(self, study: Study) -> list[StoredTrial]:
        """Every trial that was a run, earlier failures among them."""
        # From the storage: Hyperband hands samplers a study that hides other brackets' trials.
        storage, study_id = source = (study._storage, study._study_id)
        if source != self._source:
            self._source, self._finished, self._running = source, {}, {}
        trials = storage.get_all_trials(study_id, deepcopy=False)
        rows = [self._finished.get(trial._trial_id) or self._row(trial) for trial in trials]
        return [row for row in rows if row]

    def _row(self, trial: FrozenTrial) -> StoredTrial | None:
        before, current = self._running.pop(trial._trial_id, (None, None))
        if before is not trial:
            current = row(trial)
            if current:
                # Equal configurations as one object: looking one up compares them all the time.
                one = self._configurations.setdefault(current.configuration, current.configuration)
                current = replace(current, configuration=one)
        if current and trial.state.is_finished():
            self._finished[trial._trial_id] = current
        else:
            self._running[trial._trial_id] = trial, current
        return current


def by_configuration(rows: Sequence[StoredTrial]) -> dict[Configuration, list[StoredTrial]]:
    """Trials by configuration, both in the order in which they were first asked for."""
    found: dict[Configuration, list[StoredTrial]] = defaultdict(list)
    for row in rows:
        found[row.configuration].append(row)
    return dict(found)
