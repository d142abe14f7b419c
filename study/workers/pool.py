"""Worker processes of this machine, each at the end of a pipe; nothing listens on a port.

A process that dies is replaced, and its runs continue from their checkpoints. A process that is
silent for too long is killed, which is the same. The images lie in memory that all processes share.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

import psutil

from study.errors import StudyError
from study.training.train import train
from study.workers import processes
from study.workers.child import Answer, Done, OneByOne, Order, Ready, Start, Stop, Worker
from study.workers.engine import EpochReported, Event, Notice, RunFailed, RunFinished, Trainer
from study.workers.machine import affinity, memory
from study.workers.processes import Fresh, Process, Starter, description, share

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.training.run import Run

_DEATHS = 3  # of a run's process in the same epoch, then the run has failed
_TICK = 0.5  # seconds between two looks at the processes; Ctrl-C is heard in between
SILENCE = 600.0  # seconds that a process may be silent at least
_EPOCHS = 20  # and as many of its longest epochs


@dataclass(frozen=True)
class Place:
    """What a process has of the machine: cores to run on (none: any), and its environment."""

    cores: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def local_pool(
    dataset: Dataset,
    jobs: int,
    threads: int = 1,
    checkpoints: Checkpoints | None = None,
    trainer: Trainer = train,
    gpus: Sequence[str] = (),
) -> Pool:
    """A pool of ``jobs`` processes that train one run each, on cores or on ``gpus`` (UUIDs).

    Processes on cores are forked where the system allows it; CUDA cannot be used after a fork.
    """
    worker = OneByOne(dataset.without_test(), checkpoints, trainer)
    if gpus:
        return Pool(worker, on_gpus(jobs, gpus), checkpoints)
    starter = processes.fork_server() if processes.FORKS else None
    return Pool(worker, on_cores(jobs, threads), checkpoints, starter)


def on_cores(jobs: int, threads: int) -> list[Place]:
    """A place for each of ``jobs`` processes; pinned where together they use all the cores.

    If they do not, another study may have pinned its processes to the first cores too.
    """
    every = affinity()
    if jobs * threads != len(every) or not hasattr(os, "sched_setaffinity"):
        return [Place()] * jobs
    return [Place(every[first : first + threads]) for first in range(0, len(every), threads)]


def on_gpus(jobs: int, uuids: Sequence[str]) -> list[Place]:
    """A place for each of ``jobs`` processes, which see one GPU each, in turn."""
    return [Place(environ={"CUDA_VISIBLE_DEVICES": uuids[n % len(uuids)]}) for n in range(jobs)]


@dataclass(eq=False)
class _Task:
    """A run that was submitted: how many of its epochs were reported, and the deaths since."""

    number: int
    key: int
    run: Run
    reported: int = 0
    deaths: int = 0
    stopped: bool = False
    over: bool = False
    said: bool = False


@dataclass(eq=False)
class _Member:
    """A process of the pool, the runs it has, and when it was last heard."""

    place: Place
    process: Process
    pipe: Connection
    tasks: dict[int, _Task] = field(default_factory=dict)
    ready: bool = False
    retired: bool = False
    silent: float = 0.0
    longest: float = 0.0
    working: float | None = None  # seconds of processor time at the last message
    size: int = 0

    @property
    def wanted(self) -> list[_Task]:
        """Its runs that were not stopped and are not over."""
        return [task for task in self.tasks.values() if not (task.stopped or task.over)]


class Pool:
    """An engine with a process for each of ``places``, each of which does ``worker``.

    A process is started when a run waits for it, by ``starter``. It trains up to ``capacity`` runs
    at once. If it dies with several, its successor is given half as many, until the run that kills
    it is alone. ``checkpoints`` are those of the worker.
    """

    def __init__(
        self,
        worker: Worker,
        places: Sequence[Place],
        checkpoints: Checkpoints | None,
        starter: Starter | None = None,
        capacity: int = 1,
    ) -> None:
        self.workers = len(places) * capacity
        self._checkpoints, self._capacity = checkpoints, capacity
        self._starter = starter or Fresh()
        self._shared, self._file = share(worker)
        self._vacant = list(places)
        self._members: list[_Member] = []
        self._waiting: deque[_Task] = deque()
        self._events: deque[Event] = deque()
        self._submitted = 0
        self._false_starts = 0
        self._looked = time.monotonic()
        self._longest = 0.0  # seconds of an epoch of any run

    def submit(self, key: int, run: Run) -> None:
        """Take a run; it is sent to a process with the next call of `next_event`."""
        self._submitted += 1
        self._waiting.append(_Task(self._submitted, key, run))

    def stop(self, key: int) -> None:
        left = [one for one in self._events if one.key != key or isinstance(one, Notice)]
        self._events = deque(left)  # of two processes that answered together, one may be stopped
        for task in [task for task in self._waiting if task.key == key]:
            self._waiting.remove(task)
            self._delete(task)
        for member in self._members:
            for task in member.wanted:
                if task.key == key:
                    task.stopped = True
                    self._send(member, [Stop(task.number)])

    def next_event(self) -> Event:
        """Wait for the next event; raises StudyError if no run can be trained here."""
        while not self._events:
            self._fill()
            by_pipe = {member.pipe: member for member in self._members}
            for pipe in wait(list(by_pipe), _TICK):
                assert isinstance(pipe, Connection)
                self._receive(by_pipe[pipe])
            self._look()
        return self._events.popleft()

    def close(self) -> None:
        """End all processes at once: what they train has a checkpoint, or was stopped."""
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.wait()
            member.pipe.close()
            self._delete_stopped(member)
        self._members.clear()
        self._starter.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _fill(self) -> None:
        """Give waiting runs to processes, which are started where there is a place for one."""
        for member in list(self._members):
            if member.retired and not member.tasks:
                self._remove(member)
        while self._vacant and len(self._waiting) > sum(map(self._free, self._members)):
            self._members.append(self._started(self._vacant.pop(0)))
        for member in self._members:
            orders: list[Order] = []
            for task in list(self._waiting):
                if self._free(member) and not self._is_held(task):
                    self._waiting.remove(task)
                    member.tasks[task.number] = task
                    member.silent = 0.0
                    orders.append(Start(task.number, task.run))
            if orders:
                self._send(member, orders)

    def _free(self, member: _Member) -> int:
        """How many more runs a process can be given."""
        return 0 if member.retired else max(0, self._capacity - len(member.tasks))

    def _is_held(self, task: _Task) -> bool:
        """Whether a process that has yet to stop this run could delete its checkpoint."""
        return any(
            one.stopped and one.run.key == task.run.key
            for member in self._members
            for one in member.tasks.values()
        )

    def _started(self, place: Place) -> _Member:
        ours, theirs = Pipe()
        process = self._starter.start(theirs.fileno(), self._file, place.environ)
        theirs.close()
        member = _Member(place, process, ours)
        with suppress(OSError):  # it has died, which is found when it is to answer
            ours.send((self._shared, place.cores))
        return member

    def _send(self, member: _Member, orders: list[Order]) -> None:
        with suppress(OSError):  # it has died, which is found when it is to answer
            member.pipe.send(orders)

    def _receive(self, member: _Member) -> None:
        try:
            answer: Answer = member.pipe.recv()
        except (EOFError, OSError):
            self._died(member)
            return
        if isinstance(answer, StudyError):
            raise answer
        if isinstance(answer, Ready):
            member.ready, self._false_starts = True, 0
        elif isinstance(answer, Done):
            task = member.tasks.pop(answer.number)
            task.over = True
            member.retired |= answer.replace
        else:
            self._take(member, answer)
        member.silent, member.working = 0.0, None

    def _take(self, member: _Member, event: Event) -> None:
        """Pass on an event of a run that was not stopped; a run that continues repeats epochs."""
        task = member.tasks[event.key]
        if isinstance(event, EpochReported):
            member.longest = max(member.longest, member.silent)
            self._longest = max(self._longest, member.silent)
            if event.epoch.number != task.reported:
                return
            task.reported += 1
            task.deaths = 0
        elif isinstance(event, RunFinished | RunFailed):
            task.over = True
        if not task.stopped:
            self._events.append(replace(event, key=task.key))

    def _look(self) -> None:
        """Note how large and how silent the processes are; kill those that hang."""
        now = time.monotonic()
        passed = min(now - self._looked, 2 * _TICK)  # the driver itself may have been suspended
        self._looked = now
        for member in list(self._members):
            if not member.wanted:
                continue
            member.silent += passed
            try:
                process = psutil.Process(member.process.pid)
                member.size = process.memory_info().rss
                working = sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
            if member.working is None:
                member.working = working
            if self._hangs(member, working - member.working):
                self._died(member, hung=True)
            elif member.ready and member.silent > max(SILENCE, _EPOCHS * self._longest):
                self._say_first_epoch(member)

    def _hangs(self, member: _Member, worked: float) -> bool:
        """Whether a process is silent for longer than its epochs explain.

        It hangs after `SILENCE` and `_EPOCHS` times its longest epoch, as long as all of its runs
        have reported one; else, as the first epoch may take any time, only if it also does nothing.
        """
        if member.silent <= SILENCE:
            return False
        if worked < 0.001 * member.silent:
            return True
        measured = member.longest and all(task.reported for task in member.wanted)
        return bool(measured) and member.silent > _EPOCHS * member.longest

    def _say_first_epoch(self, member: _Member) -> None:
        """Say once per run that its first epoch takes long; it may never end."""
        usual = f"; an epoch of others took at most {self._longest:.0f} s" if self._longest else ""
        text = f"the first epoch of a run takes longer than {SILENCE / 60:.0f} minutes{usual}"
        for task in member.wanted:
            if not (task.reported or task.said):
                task.said = True
                self._events.append(Notice(task.key, f"{text}; Ctrl-C ends the study, resumable"))

    def _died(self, member: _Member, *, hung: bool = False) -> None:
        """Replace a process; its runs wait again, but for one that has killed it too often."""
        member.process.kill()
        how = description(member.process.wait())
        if hung:
            how = f"was silent for {member.silent / 60:.0f} minutes and did not seem to work"
        words = self._starter.last_words()
        detail = f"{how} ({words})" if words else how
        tasks = member.wanted
        self._remove(member)
        self._waiting.extendleft(reversed(tasks))
        if not member.ready:
            self._false_starts += 1
            if self._false_starts == _DEATHS:
                raise StudyError(
                    "the worker processes of this machine cannot be started: the last one "
                    f"{detail}; nothing is lost: resume, or give --jobs 1"
                )
        elif len(tasks) > 1:
            self._capacity = max(1, len(tasks) // 2)
            self._events.append(
                Notice(
                    tasks[0].key,
                    f"a worker process {how} with {len(tasks)} runs; they continue from their "
                    f"checkpoints, {self._capacity} at once",
                )
            )
        elif tasks:
            self._count_death(tasks[0], member, how, detail)

    def _count_death(self, task: _Task, member: _Member, how: str, detail: str) -> None:
        task.deaths += 1
        if task.deaths < _DEATHS:
            text = f"a worker process {how}; its run continues from its checkpoint"
            self._events.append(Notice(task.key, text))
            return
        self._waiting.remove(task)
        self._events.append(
            RunFailed(
                task.key,
                f"its process has ended {_DEATHS} times in epoch {task.reported + 1}: the last one "
                f"{detail}; it had {member.size / 2**30:.1f} GiB of memory, of "
                f"{memory() / 2**30:.1f} GiB that may be used here",
            )
        )

    def _remove(self, member: _Member) -> None:
        """End a process; its place can be taken."""
        member.process.kill()
        member.process.wait()
        member.pipe.close()
        self._members.remove(member)
        self._vacant.append(member.place)
        self._delete_stopped(member)

    def _delete_stopped(self, member: _Member) -> None:
        for task in member.tasks.values():
            if task.stopped:
                self._delete(task)

    def _delete(self, task: _Task) -> None:
        if self._checkpoints is not None:
            self._checkpoints.delete(task.run.key)
