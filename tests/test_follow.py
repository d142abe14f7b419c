"""The thread that follows a study says little, gives up nothing, and never disturbs a driver."""

import threading
from collections import deque

from study.errors import MirrorError
from study.mirror.follow import Follower
from study.mirror.transfer import Report


class Passes:
    """Passes that go as they are told to, one poking for the next; the last outcome stays."""

    def __init__(self, *outcomes):
        self._outcomes = deque(outcomes)
        self.made = []
        self.closed = False
        self.enough = threading.Event()

    def run(self, *, live, afresh=False):
        self.made.append((live, afresh))
        outcome = self._outcomes.popleft() if len(self._outcomes) > 1 else self._outcomes[0]
        if len(self._outcomes) == 1:
            self.enough.set()
        else:
            self.follower.poke()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self):
        self.closed = True


DOWN = MirrorError("the server is not there")


def follow(*outcomes, pause=0.001):
    said = []
    passes = Passes(*outcomes)
    follower = passes.follower = Follower("study mirror digits", passes, said.append, pause)
    follower.start()
    return follower, passes, said


def test_a_poke_is_followed_by_a_pass_and_the_close_by_a_last_one_with_nothing_running():
    follower, passes, said = follow(Report())
    follower.poke()
    assert passes.enough.wait(10)
    follower.close(10)
    assert (passes.made[0], passes.made[-1]) == ((True, False), (False, True))
    assert passes.closed
    assert said == []


def test_without_a_poke_nothing_is_imported_or_contacted():
    follower, passes, said = follow(Report())
    follower.close(10)
    assert (passes.made, said) == ([], [])


def test_an_outage_is_one_line_and_its_end_another():
    follower, passes, said = follow(DOWN, DOWN, DOWN, Report())
    follower.poke()
    assert passes.enough.wait(10)
    follower.close(10)
    assert said == [
        "MLflow: the server is not there; the study goes on, and what is missing is sent later",
        "MLflow: the server is back",
    ]


def test_after_an_outage_it_tries_again_without_being_poked():
    follower, passes, _ = follow(DOWN, Report())
    follower.poke()
    assert passes.enough.wait(10)
    follower.close(10)


def test_whatever_a_pass_raises_the_thread_lives_on():
    follower, passes, said = follow(KeyError("what"), ZeroDivisionError(), Report())
    follower.poke()
    assert passes.enough.wait(10)
    follower.close(10)
    assert said[-1] == "MLflow: the server is back"


def test_models_that_are_missing_are_named_once_and_their_arrival_too():
    missing = Report(problems=["the model of trial 1 is not sent: ExpiredToken", "another"])
    follower, passes, said = follow(missing, missing, Report())
    follower.poke()
    assert passes.enough.wait(10)
    follower.close(10)
    assert said == [
        "MLflow: the model of trial 1 is not sent: ExpiredToken (and 1 more); the study goes on",
        "MLflow: what was missing has been sent",
    ]


def test_a_server_that_stays_away_is_named_with_the_command_that_sends_the_rest():
    follower, passes, said = follow(DOWN)
    follower.poke()
    assert passes.enough.wait(10)
    follower.close(10)
    assert said[-1] == (
        "MLflow does not have everything yet (the server is not there); "
        "send the rest with: study mirror digits"
    )


def test_a_pass_that_hangs_does_not_keep_the_program_from_ending():
    class Hanging(Passes):
        def run(self, *, live, afresh=False):
            self.enough.set()
            released.wait()
            return Report()

    released = threading.Event()
    passes, said = Hanging(Report()), []
    follower = Follower("study mirror digits", passes, said.append, 0.001)
    follower.start()
    follower.poke()
    assert passes.enough.wait(10)
    follower.poke()  # returns at once, whatever the thread is doing
    follower.close(0.05)
    assert passes.closed
    assert "does not have everything yet" in said[-1]
    released.set()


def test_without_a_target_nothing_is_done():
    before = threading.enumerate()
    follower = Follower("study mirror digits", None, print)
    follower.start()
    follower.poke()
    assert set(threading.enumerate()) <= set(before)
    follower.close(1)
