"""What every strategy promises; its own test inherits the class and says how to make the plan.

A strategy is held to this through plans and rows alone, and through an Optuna study whose crew has
several workers, failures and deaths.
"""

import random
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace

import pytest
from plan_fakes import IMAGES, Chance, Crew, new_study, row_of

from study.plan.plan import Plan, PlanState, RunSpec
from study.plan.results import Configuration, StoredTrial
from study.space.metric import Metric

EPOCHS = 3


_HISTORIES: dict[tuple[type, int], list[StoredTrial]] = {}


class PlanContract(ABC):
    """Pure, no slot twice, resumable after every prefix, ends, failed slots, several workers."""

    images = IMAGES

    @abstractmethod
    def plan(self) -> Plan:
        """A new plan, which knows nothing of an earlier one."""

    def curves(self, seed: int) -> Chance:
        return Chance(seed, EPOCHS)

    def history(self, seed: int = 1) -> list[StoredTrial]:
        """The rows of a study played to its end, one run after the other; played once."""
        key = type(self), seed
        if key not in _HISTORIES:
            _HISTORIES[key] = self._played(seed)
        return list(_HISTORIES[key])

    def _played(self, seed: int) -> list[StoredTrial]:
        plan, rows = self.plan(), []
        for _ in range(400):
            slots = plan.state(rows).next
            if not slots:
                return rows
            rows = self.trained(plan, slots[0], rows, seed)
        raise AssertionError("the plan has not ended after 400 slots")

    def trained(
        self, plan: Plan, slot: RunSpec, rows: list[StoredTrial], seed: int
    ) -> list[StoredTrial]:
        """The rows after this slot was trained: with a new row, or with a paused row continued."""
        slot = replace(slot, configuration=plan.suggest(slot, rows))
        assert slot.configuration is not None
        curve = self.curves(seed)(slot.configuration, slot.repeat)
        done = curve if slot.epochs is None else curve[: slot.epochs]
        key = (slot.configuration, slot.repeat)
        paused = [r for r in rows if r.state == "paused" and (r.configuration, r.repeat) == key]
        number = paused[0].number if paused else len(rows)
        if paused:
            assert len(done) > len(paused[0].reported), "a slot that asks for nothing new"
        state = "complete" if len(done) == len(curve) else "paused"
        value = curve[-1] if state == "complete" else None
        new = row_of(slot, number, value, state=state, reported=done)
        return [*(row for row in rows if row.number != number), new]

    def test_it_ends_and_has_an_answer(self) -> None:
        state = self.plan().state(self.history())
        assert state.complete
        assert not state.next
        assert state.incumbent is not None

    def test_the_least_error_is_decided_as_the_highest_accuracy(self) -> None:
        rows, least = self.history(), self.plan()
        least = least.adapted(metric=Metric("val_error", "minimize"), compares=least.compares)
        for end in range(0, len(rows) + 1, 3):
            most, other = self.plan(), [_with_errors(row) for row in rows[:end]]
            assert outcome(least.state(other)) == outcome(most.state(rows[:end]))

    def test_the_same_rows_in_any_order_say_the_same(self) -> None:
        rows = self.history()
        for seed in range(3):
            cut = rows[: random.Random(seed).randrange(len(rows))]
            mixed = random.Random(seed).sample(cut, len(cut))
            assert said(self.plan().state(mixed)) == said(self.plan().state(cut))

    def test_a_plan_that_is_asked_again_says_the_same(self) -> None:
        rows, plan = self.history(), self.plan()
        for end in range(len(rows) + 1):
            assert said(plan.state(rows[:end])) == said(self.plan().state(rows[:end]))

    def test_it_goes_on_after_every_prefix_and_ends_the_same(self) -> None:
        plan, rows, seen = self.plan(), [], 0
        whole = said(self.plan().state(self.history()))
        while slots := self.plan().state(rows).next:  # a new process before every slot
            rows, seen = self.trained(plan, slots[0], rows, 1), seen + 1
        assert said(self.plan().state(rows)) == whole
        assert seen

    def test_no_slot_is_given_twice(self) -> None:
        plan = self.plan()
        rows: list[StoredTrial] = []
        for _ in range(6):  # none of them ends
            slots = plan.state(rows).next
            if not slots:
                break
            slot = replace(slots[0], configuration=plan.suggest(slots[0], rows))
            rows.append(row_of(slot, len(rows)))
        given = Counter((row.configuration, row.repeat) for row in rows)
        assert max(given.values()) == 1

    def test_a_failed_run_eliminates_its_option_and_the_study_continues(self) -> None:
        plan = self.plan()
        first = plan.state([]).next[0]
        first = replace(first, configuration=plan.suggest(first, []))
        rows = [failed(first, 0)]
        for _ in range(400):
            if not (wanted := plan.state(rows).next):
                break
            assert (wanted[0].configuration, wanted[0].repeat) != (first.configuration, 0)
            rows = self.trained(plan, wanted[0], rows, 1)
        state = plan.state(rows)
        options = [o for s in state.stages for o in s.options]
        reasons = {o.failure for o in options if o.configuration == first.configuration}
        assert reasons == {"the loss is NaN"}
        assert state.complete
        assert state.incumbent not in {None, first.configuration}
        assert state.failure is None

    def test_a_study_whose_every_option_fails_is_complete_and_says_why(self) -> None:
        plan, rows = self.plan(), []
        for number in range(400):
            if not (wanted := plan.state(rows).next):
                break
            spec = replace(wanted[0], configuration=plan.suggest(wanted[0], rows))
            rows.append(failed(spec, number))
        state = plan.state(rows)
        assert state.complete
        assert state.incumbent is None
        assert state.score is None
        assert "the loss is NaN" in (state.failure or "")
        assert "\n" not in (state.failure or "")

    @pytest.mark.parametrize("workers", [2, 10])
    def test_several_workers_with_failures_and_deaths_come_to_an_end(self, workers: int) -> None:
        crew = Crew(
            new_study(),
            self.plan,
            self.curves(2),
            random.Random(workers),
            workers=workers,
            fails=lambda configuration, _: hash_of(configuration) % 4 == 0,
            breaks=0.05,
        )
        assert crew.play().complete
        rows = [r for r in crew.rows() if r.state in {"complete", "pruned"} and not r.cancelled]
        assert max(Counter((row.configuration, row.repeat) for row in rows).values()) == 1


def failed(spec: RunSpec, number: int) -> StoredTrial:
    """A run that failed in its first epoch."""
    return row_of(spec, number, state="failed", attributes={"failure": "the loss is NaN"})


def hash_of(configuration: Configuration) -> int:
    """The same number in every process."""
    return sum(map(ord, str(configuration)))


def said(state: PlanState) -> tuple[object, ...]:
    """What a state says, less the numbers of trials."""
    stages = [
        (
            stage.name,
            stage.best and stage.best.configuration,
            stage.selected and stage.selected.configuration,
            [(o.configuration, o.state, o.score, o.gap) for o in stage.options],
        )
        for stage in state.stages
    ]
    return (stages, state.incumbent, state.score, state.next, state.complete, state.runs_expected)


def outcome(state: PlanState) -> tuple[object, ...]:
    """What is decided and which slots are next, without the values."""
    selected = [(s.name, s.selected and s.selected.configuration) for s in state.stages]
    return selected, state.incumbent, state.next, state.complete


def _with_errors(row: StoredTrial) -> StoredTrial:
    """The row with the error in place of the accuracy."""
    value = None if row.value is None else 1 - row.value
    return replace(row, value=value, reported=tuple(1 - one for one in row.reported))
