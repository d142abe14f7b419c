"""A stored trial as a frozen value, as `study.storage.trials` reads it.

Everything that decides, draws or reports reads these, never Optuna's trials, so that a decision
depends on stored results alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from study.space.search_space import Value

if TYPE_CHECKING:
    from datetime import datetime

Configuration = tuple[tuple[str, Value], ...]
"""Names and values of one configuration, in the order of the search space; hashable."""

State = Literal["running", "paused", "complete", "pruned", "failed"]

LEFT_PAUSED = "paused"
"""The trial attribute of a paused run that was never resumed; a pruned run does not have it."""


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

    def continued(self, epochs: int) -> tuple[float, ...]:
        """``reported`` of ``epochs`` epochs, where a complete run has ended before.

        One whose patience was over keeps the weights of its best epoch, and with them its value.
        """
        if self.state != "complete" or self.value is None:
            return self.reported
        return (*self.reported, *[self.value] * (epochs - len(self.reported)))

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
        """The kind of device that trained the run: "cpu" if none is stored; None while it runs."""
        said: str | None = self.attributes.get("device")
        return said or (None if self.state == "running" else "cpu")

    @property
    def left_paused(self) -> bool:
        """Whether the study ended while the run was paused; it is stored as a pruned one."""
        return LEFT_PAUSED in self.attributes


Runs = dict[tuple[Configuration, int], StoredTrial]
"""The trial of each repeat of a configuration."""


def latest(trials: Iterable[StoredTrial]) -> Runs:
    """The last trial of each run that was not cancelled, by number.

    A run that was left paused at the end of a study is paused if the plan continues. It is then
    trained anew, by another trial, which has the epochs of the first until it has more.
    """
    runs: Runs = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.cancelled is not None:
            continue
        run = trial.configuration, trial.repeat
        before = runs.get(run)
        known = before.reported if before and before.state == "paused" else ()
        runs[run] = replace(
            trial,
            state="paused" if trial.left_paused else trial.state,
            reported=max(trial.reported, known, key=len),
        )
    return runs


def by_configuration(rows: Sequence[StoredTrial]) -> dict[Configuration, list[StoredTrial]]:
    """Trials by configuration, both in the order in which they were first asked for."""
    found: dict[Configuration, list[StoredTrial]] = defaultdict(list)
    for row in rows:
        found[row.configuration].append(row)
    return dict(found)
