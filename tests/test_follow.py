"""What follows a study says little, gives up nothing, and ends when the study does."""

import threading
from collections import deque
from typing import Any

import pytest

from study.errors import MirrorError
from study.mirror.follow import follow
from study.mirror.sync import Report


class Passes:
    """Passes that go as they are told to."""

    def __init__(self, outcomes: list[Any]) -> None:
        self._outcomes = deque(outcomes)
        self.made: list[tuple[bool, bool]] = []

    @property
    def driven(self) -> bool:
        """A study is driven until the last outcome but one has been seen."""
        return len(self._outcomes) > 1

    def run(self, *, live: bool, afresh: bool = False) -> Report:
        self.made.append((live, afresh))
        outcome = self._outcomes.popleft()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


DOWN = MirrorError("the server is not there")


def followed(*outcomes: Any) -> tuple[Passes, list[str]]:
    """A study that is driven during all passes but the last, and what was said of it."""
    passes, said = Passes(list(outcomes)), []
    follow(passes.run, lambda: passes.driven, threading.Event(), said.append, pause=0.001)
    return passes, said


def test_passes_are_made_while_a_driver_is_at_work_and_a_last_one_with_nothing_running() -> None:
    passes, said = followed(Report(), Report(), Report())
    assert passes.made == [(True, False), (True, False), (False, True)]
    assert said == []


GONE = Report(problems=["the model of trial 1 is not sent: ExpiredToken", "another"])
SENT = "MLflow: what was missing has been sent"


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([DOWN, DOWN, DOWN, Report()], ["the server is not there", SENT]),
        (
            [GONE, GONE, Report()],
            ["the model of trial 1 is not sent: ExpiredToken (and 1 more)", SENT],
        ),
        ([DOWN, Report(), DOWN, Report()], []),  # one failure is no outage
        ([KeyError("what"), ZeroDivisionError(), Report()], ["ZeroDivisionError()", SENT]),
    ],
)
def test_an_outage_is_one_line_and_its_end_another(outcomes: list[Any], said: list[str]) -> None:
    later = "; the study continues, missing runs are sent later"
    expected = [line if line == SENT else f"MLflow: {line}{later}" for line in said]
    assert followed(*outcomes, Report())[1] == expected


@pytest.mark.parametrize(
    ("last", "says"), [(DOWN, "the server is not there"), (GONE, "trial 1 is not sent.*and 1 more")]
)
def test_what_the_last_pass_cannot_send_is_an_error(last: Any, says: str) -> None:
    with pytest.raises(MirrorError, match=says):
        followed(Report(), last)


def ended_while(*, driven: bool) -> Passes:
    ended = threading.Event()
    ended.set()
    passes = Passes([Report()])
    follow(passes.run, lambda: driven, ended, print, pause=0.001)
    return passes


def test_once_its_driver_has_ended_one_pass_is_made() -> None:
    assert ended_while(driven=False).made == [(False, True)]


def test_a_study_that_another_driver_has_taken_over_is_left_to_its_follower() -> None:
    assert ended_while(driven=True).made == []


def test_a_lock_that_cannot_be_looked_at_ends_nothing_while_the_driver_lives() -> None:
    looks = deque([OSError("the database is away"), False])

    def live() -> bool:
        found = looks.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    passes = Passes([Report()])
    follow(passes.run, live, threading.Event(), print, pause=0.001)
    assert passes.made == [(False, True)]
