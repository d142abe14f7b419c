"""What a plan is: (search space, stored rows) -> what is decided, and which slots are next.

A plan is a pure function of its arguments: no counter, no random state, no memory. That is why a
study can be killed and resumed, and why two workers never get the same slot. Each strategy has a
file of its own beside this one, and an entry in `strategies`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from study.plan.results import Configuration, StoredTrial
from study.plan.statistics import Difference, Score
from study.space.metric import ACCURACY, Metric
from study.space.search_space import SearchSpace, Value

if TYPE_CHECKING:
    from study.plan.verdict import Verdict

ATTEMPTS = 3
"""How often one slot may fail before the study ends."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One training run that the plan wants: a repeat of a configuration within a stage.

    ``configuration`` is None where the plan is still to suggest one. ``reference`` is the
    configuration that a pruner may compare the run with; empty: there is none, a pruner sees to
    it by itself; None: the run is never pruned. ``epochs`` is the number of epochs after which the
    run is paused (None: it trains to its end); a later slot of the same configuration and repeat
    goes on with it.
    """

    stage: str
    option: Value
    configuration: Configuration | None
    repeat: int
    reference: Configuration | None
    epochs: int | None = None


OptionState = Literal["open", "complete", "eliminated"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a stage: its counted rows and, once all repeats are there, its score.

    ``gap`` is how much better the best option's mean is, in pairs; None for the best itself and
    where there is no mean.
    """

    value: Value
    configuration: Configuration
    reference: Configuration | None
    rows: tuple[StoredTrial, ...]
    state: OptionState
    score: Score | None = None
    gap: Difference | None = None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple([row.value for row in self.rows if row.value is not None])

    @property
    def pruned(self) -> StoredTrial | None:
        """The pruned row that eliminates this option, once its earlier repeats are known too."""
        return self.rows[-1] if self.rows and self.rows[-1].state == "pruned" else None

    def missing(self, repeats: int) -> list[int]:
        """The repeats that are still to be trained: none after a pruned one."""
        known = {row.repeat for row in self.rows}
        end = repeats if self.pruned is None else self.pruned.repeat
        return [repeat for repeat in range(end) if repeat not in known]

    @property
    def tied(self) -> bool:
        """Whether this option is the best, or within one standard error of it."""
        return self.score is not None and (self.gap is None or self.gap.tie)


StageKind = Literal["hyperparameter", "combined", "configurations"]
"""What the options of a stage are: values of one hyperparameter, two whole configurations of a
sweep (the selected values, the best means), or any number of configurations."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Options that are compared with each other, and what was decided once all are known.

    ``best`` has the best mean of the ``metric``; ``selected`` is what the study goes on with.
    """

    name: str
    kind: StageKind
    incumbent: Configuration
    options: tuple[Option, ...]
    best: Option | None = None
    selected: Option | None = None
    metric: Metric = ACCURACY

    @property
    def decided(self) -> bool:
        return self.selected is not None


@dataclass(frozen=True, slots=True)
class PlanState:
    """What the stored rows say: the stages so far, the answer so far, and the work that is left.

    ``slots`` are those that can be trained now, in order; ``speculative`` those that the plan will
    probably want once the open stage is decided; ``runs_expected`` is an upper bound. ``verdict``
    is what a race says of its leader.
    """

    stages: tuple[Stage, ...]
    incumbent: Configuration | None
    score: Score | None
    slots: tuple[RunSpec, ...]
    complete: bool
    runs: int
    runs_expected: int
    failed: RunSpec | None = None
    failure: str | None = None
    speculative: tuple[RunSpec, ...] = ()
    verdict: Verdict | None = None

    @property
    def metric(self) -> Metric:
        """What configurations are compared by."""
        return self.stages[0].metric

    def why_failed(self) -> str:
        """Which slot failed three times, and why, in one line."""
        slot = self.failed
        assert slot is not None
        assert slot.configuration is not None
        params = ", ".join(f"{name}={value}" for name, value in slot.configuration)
        untold = "it raised, or gave no number (Optuna's log says which)"
        return (
            f"repeat {slot.repeat + 1} of {params} failed three times, the last time because: "
            f"{self.failure or untold}"
        )

    def outdated(self, slot: RunSpec) -> bool:
        """Whether a run of this slot cannot count any more.

        An earlier repeat was pruned, or the slot was a guess that its stage does not want.
        """
        stage = next((stage for stage in self.stages if stage.name == slot.stage), None)
        if stage is None:
            return self.complete
        for option in stage.options:
            if (option.configuration, option.reference) == (slot.configuration, slot.reference):
                return option.pruned is not None and option.pruned.repeat < slot.repeat
        return True


class Plan(ABC):
    """What a study is to train, as a pure function of its rows.

    ``images`` is the number of validation images of a repeat (None: not known, or what is measured
    is no share of images): it bounds standard errors from below. ``compares`` says whether the
    pruner compares a run with its reference's same repeat: a slot then waits for that; whoever
    knows the pruner sets it. ``metric`` is the space's, until somebody sets one whose direction is
    an Optuna study's.
    """

    compares: bool = True
    _metric: Metric | None = None

    def __init__(
        self, space: SearchSpace, repeats: int | None = None, images: int | None = None
    ) -> None:
        self.space, self.images = space, images
        self.repeats = space.repeats if repeats is None else repeats

    @property
    def metric(self) -> Metric:
        return self._metric or self.space.metric

    @metric.setter
    def metric(self, metric: Metric) -> None:
        self._metric = metric

    @abstractmethod
    def state(self, rows: Sequence[StoredTrial]) -> PlanState:
        """What is decided and which slots are next; the same for the same rows in any order."""

    def scored(self, row: StoredTrial) -> StoredTrial:
        """The row with the value that configurations are compared by; here its own."""
        return row

    def suggest(self, slot: RunSpec, rows: Sequence[StoredTrial]) -> Configuration:
        """The configuration of a slot; only plans that leave it open have to think."""
        assert slot.configuration is not None
        return slot.configuration


class RunIndex:
    """Stored rows by configuration and repeat, and which of them a slot can be counted with."""

    def __init__(self, rows: Iterable[StoredTrial]) -> None:
        self._rows: dict[Configuration, list[StoredTrial]] = defaultdict(list)
        for row in rows:
            if row.cancelled is None:
                self._rows[row.configuration].append(row)

    def changed(self, gone: Iterable[StoredTrial], come: Iterable[StoredTrial]) -> RunIndex:
        """This index without the rows ``gone`` and with those that have ``come``, at their end."""
        index = RunIndex(())
        index._rows.update(self._rows)
        for row in gone:
            index._rows[row.configuration] = [
                r for r in index._rows[row.configuration] if r.number != row.number
            ]
        for configuration, rows in RunIndex(come)._rows.items():
            index._rows[configuration] = [*index._rows[configuration], *rows]
        return index

    def counted(
        self, configuration: Configuration, reference: Configuration | None
    ) -> dict[int, StoredTrial]:
        """The finished row that fills each repeat: complete, or pruned for the same reason."""
        counted: dict[int, StoredTrial] = {}
        for row in self._rows.get(configuration, ()):
            pruned = row.state == "pruned" and reference is not None and row.reference == reference
            if row.state == "complete" or pruned:
                counted.setdefault(row.repeat, row)
        return counted

    def option(
        self,
        value: Value,
        candidate: Configuration,
        reference: Configuration | None,
        repeats: int,
    ) -> Option:
        """Count an option's repeats in order, up to the first pruned one, which eliminates it.

        Later repeats of an eliminated option do not count, even where they had begun: which of
        them had depends on how many workers there were.
        """
        counted = self.counted(candidate, reference)
        stop = min((r for r, row in counted.items() if row.state == "pruned"), default=repeats)
        wanted = range(min(stop + 1, repeats))
        rows = tuple([counted[repeat] for repeat in wanted if repeat in counted])
        state: OptionState = "eliminated" if stop < repeats else "complete"
        return Option(
            value, candidate, reference, rows, state if len(rows) == len(wanted) else "open"
        )

    def reason(self, slot: RunSpec) -> str | None:
        """Why the slot failed the last time."""
        rows = reversed(self._of(slot))
        return next((row.failure for row in rows if row.state == "failed"), None)

    def _of(self, slot: RunSpec) -> list[StoredTrial]:
        assert slot.configuration is not None
        rows = self._rows.get(slot.configuration, ())
        return [row for row in rows if row.repeat == slot.repeat]

    def slots(
        self, missing: Iterable[RunSpec], *, compares: bool = True
    ) -> tuple[list[RunSpec], RunSpec | None]:
        """Those of the ``missing`` slots that can be trained now, and the one that failed for good.

        Where a pruner ``compares``, a slot waits until its reference's same repeat is complete. A
        slot has failed for good once nothing can make it superfluous any more: a pruned earlier
        repeat would.
        """
        complete = functools.cache(lambda reference: self.counted(reference, None))
        slots = []
        doubtful = set()
        for slot in missing:
            states = [row.state for row in self._of(slot)]
            if states.count("failed") >= ATTEMPTS:
                if slot.configuration not in doubtful:
                    return [], slot
            elif "running" not in states and (
                not compares or not slot.reference or slot.repeat in complete(slot.reference)
            ):
                slots.append(slot)
            doubtful.add(slot.configuration)
        return slots, None
