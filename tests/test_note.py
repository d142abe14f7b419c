"""The study's note in the dashboard is kept up to date and disturbs nobody."""

from typing import Any

import pytest
from fakes import IMAGES, drive, space
from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna_dashboard import get_note
from plan_fakes import new_study

from study.dashboard.note import FIRST, LAST, Note, note_text, replaced
from study.plan.budget import Budget
from study.plan.plan import PlanState
from study.plan.race import Race
from study.plan.sweep import OneAtATime


@pytest.fixture(scope="module")
def plan_state() -> PlanState:
    return drive(InMemoryStorage())


# Its text ---------------------------------------------------------------------------------------


def test_the_text_is_replaced_where_it_stands_and_what_a_person_wrote_stays() -> None:
    first = replaced("mine", f"{FIRST}\n\n1\n{LAST}x")
    again = replaced(f"{first}\n\nmine too", f"{FIRST}\n\n2\n{LAST}y")
    assert again == f"mine\n\n{FIRST}\n\n2\n{LAST}y\n\nmine too"


def test_a_text_that_was_torn_is_written_anew() -> None:
    whole = f"{FIRST}\n\n2\n{LAST}y"
    assert replaced(replaced(f"{FIRST}\nhalf of it", whole), whole) == whole


def test_the_note_leads_to_mlflow_where_it_is_known(plan_state: PlanState) -> None:
    assert "[http://here](http://here)" in note_text(plan_state, 2, "http://here")
    assert "MLflow" not in note_text(plan_state, 2)


def test_the_note_has_the_answer_and_a_table_a_stage(plan_state: PlanState) -> None:
    text = note_text(plan_state, 2)
    assert text.startswith(FIRST)
    assert text.splitlines()[-1].startswith(LAST)
    assert "Use width=2" in text
    assert text.count("| --- | --- | --- | --- | --- |") == len(plan_state.stages)
    assert "| 2/2 |" in text


def test_the_note_says_what_of_a_run_enters_means(study: Study, plan_state: PlanState) -> None:
    Note(study, 2, print, "A run counts with its best epoch").see(plan_state, {}, None)
    assert "A run counts with its best epoch.\n" in get_note(study)


def test_a_name_means_nothing_in_markdown_or_html() -> None:
    odd = space(hyperparameters={"kind": {"options": ["a|<b>*", "c"], "start": "c"}})
    text = note_text(drive(InMemoryStorage(), plan=OneAtATime(odd, images=IMAGES)), 2)
    assert "<b>" not in text
    assert "| a\\|&lt;b>\\* |" in text


# Writing ---------------------------------------------------------------------------------------


@pytest.fixture
def study() -> Study:
    storage = InMemoryStorage()
    drive(storage)
    return new_study(storage)


class Counting(Note):
    """Counts how often it writes."""

    written = 0

    def _write(self, plan_state: PlanState) -> None:
        self.written += 1
        super()._write(plan_state)


def test_it_is_written_at_the_start_when_a_stage_is_decided_and_not_in_between() -> None:
    storage, seen = InMemoryStorage(), []

    class Watching:
        def see(self, plan_state: PlanState, active: Any, event: Any) -> None:
            note.see(plan_state, active, event)
            seen.append(sum(stage.decided for stage in plan_state.stages))

    note = Counting(new_study(storage), 2, print)
    drive(storage, watch=Watching())
    assert len(seen) > 20
    assert note.written == len(set(seen))
    assert get_note(new_study(storage)).startswith(FIRST)


def test_an_address_that_comes_with_the_last_pass_is_written_too(
    study: Study, plan_state: PlanState
) -> None:
    addresses: list[str | None] = [None, "http://here"]
    note = Note(study, 2, print, address=lambda: addresses.pop(0))
    note.rewrite()
    assert get_note(study) == ""
    note.see(plan_state, {}, None)
    note.rewrite()
    assert "http://here" in get_note(study)


class Failing(Note):
    def __init__(self, study: Study, error: Exception, said: list[str]) -> None:
        super().__init__(study, 2, said.append)
        self._error = error

    def _write(self, plan_state: PlanState) -> None:
        raise self._error


def test_whatever_goes_wrong_with_it_is_one_line(study: Study, plan_state: PlanState) -> None:
    said: list[str] = []
    Failing(study, KeyError("colour"), said).see(plan_state, {}, None)
    assert said == ["Dashboard: its note cannot be written ('colour'); the study continues"]


def test_a_database_that_cannot_be_written_is_the_study_s_own_line(
    study: Study, plan_state: PlanState
) -> None:
    said: list[str] = []
    with pytest.raises(StorageInternalError):
        Failing(study, StorageInternalError("invalid data in the commit"), said).see(
            plan_state, {}, None
        )
    assert said == []


def test_the_note_of_a_race_says_who_leads_and_how_sure_it_is() -> None:
    plan = Race(space(repeats=3), images=IMAGES, budget=Budget(28))
    plan_state = drive(InMemoryStorage(), plan=plan)
    assert plan_state.race is not None
    note = note_text(plan_state, 3)
    assert "the leader is within 0.20 points of the best" in note
    table = [line for line in note.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 1 + len(plan_state.race.contenders)
