"""What a plan is: (search space, stored rows) -> what is decided, and which slots are next.

A plan is a pure function of its arguments: no counter, no random state, no memory. That is why a
study can be killed and resumed, and why two workers never get the same slot. `sweep` is the
one-at-a-time plan, `search` the one for Optuna's own samplers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from study.results import Configuration, Difference, Row, Score, Spread
from study.space import SearchSpace, Value

ATTEMPTS = 3
"""How often one slot may fail before the study ends."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One training run that the plan wants: a repeat of a configuration within a stage.

    ``configuration`` is None where a sampler is still to suggest one. ``reference`` is the
    configuration that a pruner may compare the run with; None: the run is never pruned.
    """

    stage: str
    option: Value
    configuration: Configuration | None
    repeat: int
    reference: Configuration | None


OptionState = Literal["open", "complete", "eliminated"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a stage: its counted rows and, once all repeats are there, its score.

    ``lead`` is the best option's mean minus this one's, in pairs; None for the best itself and
    where there is no mean.
    """

    value: Value
    configuration: Configuration
    reference: Configuration | None
    rows: tuple[Row, ...]
    state: OptionState
    score: Score | None = None
    lead: Difference | None = None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(row.value for row in self.rows if row.value is not None)

    @property
    def tied(self) -> bool:
        """Whether this option is the best, or within one standard error of it."""
        return self.score is not None and (self.lead is None or self.lead.tie)


@dataclass(frozen=True, slots=True)
class Stage:
    """One hyperparameter's options, and what was decided once all of them are known."""

    name: str
    incumbent: Configuration
    options: tuple[Option, ...]
    noted: Option | None = None
    carried: Option | None = None

    @property
    def decided(self) -> bool:
        return self.carried is not None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the stored rows say: the stages so far, the answer so far, and the work that is left.

    ``slots`` are those that can be trained now, in order; ``runs_expected`` is an upper bound.
    """

    stages: tuple[Stage, ...]
    incumbent: Configuration | None
    score: Score | None
    slots: tuple[Slot, ...]
    complete: bool
    runs: int
    runs_expected: int
    failed: Slot | None = None
    failure: str | None = None

    def outdated(self, slot: Slot) -> bool:
        """Whether a run of this slot cannot count any more: an earlier repeat was pruned."""
        return any(
            option.configuration == slot.configuration
            and any(row.state == "pruned" and row.repeat < slot.repeat for row in option.rows)
            for option in self.stages[-1].options
        )


class Plan(Protocol):
    """What a study is to train, as a pure function of its rows."""

    space: SearchSpace
    repeats: int

    def standing(self, rows: Sequence[Row]) -> Standing: ...


class Book:
    """Stored rows by configuration and repeat, and which of them a slot can be counted with."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[tuple[Configuration, int], list[Row]] = defaultdict(list)
        for row in rows:
            if row.given_up is None:
                self._rows[row.configuration, row.repeat].append(row)

    def counted(self, slot: Slot) -> Row | None:
        """The finished row that fills ``slot``: a complete one, or one pruned for the same reason."""
        assert slot.configuration is not None
        for row in self._rows.get((slot.configuration, slot.repeat), ()):
            if row.state == "complete":
                return row
            if row.state == "pruned" and row.reference == slot.reference:
                return row
        return None

    def running(self, slot: Slot) -> bool:
        return "running" in self._states(slot)

    def failures(self, slot: Slot) -> int:
        return self._states(slot).count("failed")

    def reason(self, slot: Slot) -> str | None:
        """Why the slot failed the last time."""
        assert slot.configuration is not None
        rows = self._rows[slot.configuration, slot.repeat]
        return next((row.failure for row in reversed(rows) if row.state == "failed"), None)

    def _states(self, slot: Slot) -> list[str]:
        assert slot.configuration is not None
        return [row.state for row in self._rows.get((slot.configuration, slot.repeat), ())]

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
        rows = []
        missing = False
        state: OptionState
        for repeat in range(repeats):
            row = self.counted(Slot("", value, candidate, repeat, reference))
            missing = missing or row is None
            if row is None:
                continue
            rows.append(row)
            if row.state == "pruned":
                state = "open" if missing else "eliminated"
                return Option(value, candidate, reference, tuple(rows), state)
        state = "open" if missing else "complete"
        return Option(value, candidate, reference, tuple(rows), state)

    def slots(self, stage: Stage, repeats: int) -> tuple[list[Slot], Slot | None]:
        """The slots of an open stage that can be trained now, and the one that failed for good.

        The incumbent's repeats come first; a repeat of another option waits until the incumbent's
        same repeat is complete, because that is what a pruner compares it with.
        """
        slots = []
        for slot in _wanted(stage, repeats):
            if self.counted(slot) or self.running(slot):
                continue
            if self.failures(slot) >= ATTEMPTS:
                return [], slot
            reference = slot.reference
            if reference and not self.counted(replace(slot, configuration=reference)):
                continue
            slots.append(slot)
        return slots, None


def _wanted(stage: Stage, repeats: int) -> list[Slot]:
    """Every slot of a stage in its order: the incumbent's repeats, then repeat by repeat."""
    held = [option for option in stage.options if option.configuration == stage.incumbent]
    others = [option for option in stage.options if option.configuration != stage.incumbent]
    slots = [
        Slot(stage.name, option.value, option.configuration, repeat, None)
        for option in held
        for repeat in range(repeats)
    ]
    for repeat in range(repeats):
        for option in others:
            pruned = [row.repeat for row in option.rows if row.state == "pruned"]
            if not pruned or repeat < pruned[0]:
                slots.append(
                    Slot(stage.name, option.value, option.configuration, repeat, option.reference)
                )
    return slots


def compared(
    options: Sequence[Option], spread: Spread, prefer: Configuration | None = None
) -> tuple[Option, ...]:
    """Options with their scores, and with their distances from the best mean.

    Of equal means the preferred configuration's is the best, then the cheapest option's.
    """
    scored = [
        replace(o, score=spread.score(o.values) if o.state == "complete" else None) for o in options
    ]
    best = max(
        (option for option in scored if option.score is not None),
        key=lambda o: (o.score.mean if o.score else 0.0, o.configuration == prefer),
    )
    return tuple(
        replace(o, lead=spread.difference(best.values, o.values))
        if o.score is not None and o is not best
        else o
        for o in scored
    )
