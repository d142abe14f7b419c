"""Changes a study from outside while it runs: it ends in one line, or as if nothing had happened.

    python tests/outside.py --rounds 36                  with a fake trainer: part of make torture
    python tests/outside.py --rounds 12 --tensorflow     with TensorFlow

A round starts `study run` with one job or two, waits a drawn time and makes one of `CHANGES`. Then:
no traceback; exit code 0 or 2 with one line; never two drivers at once; the study can still be
read; and resumed, or run again, it gives the answer of a study that nobody disturbed, unless the
change was of a result.
"""

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
from fake_trainer import __file__ as fake_commands
from torture import SPACE, counted, url_of

from study.errors import StudyError
from study.storage.location import Database

NAME, NEW = "torture", "renamed"
AGAIN, ANEW = ["resume", NAME], ["run", "space.toml"]
FAKE, REAL = [sys.executable, fake_commands], [sys.executable, "-m", "study"]
PAUSE = "0.05"  # seconds an epoch of the fake trainer

Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Change:
    """``make`` it in a study's folder, False where it is too early; then the driver ``says`` it.

    ``stops``: with exit code 2. ``undo`` makes the study resumable, and returns the words of the
    command that completes it. ``answer``: which is that of the undisturbed study. ``name``: of the
    study after it.
    """

    make: Callable[[Path, random.Random], bool]
    says: str = ""
    stops: bool = True
    undo: Callable[[Path], list[str]] = lambda _: AGAIN
    answer: bool = True
    name: str = NAME


def _study(folder: Path) -> "optuna.Study | None":
    with suppress(KeyError):
        return optuna.load_study(study_name=NAME, storage=Database.at(url_of(folder)).open())
    return None


def _files(folder: Path) -> list[Path]:
    """The database with its log."""
    return [
        path for path in folder.glob("study.db*") if path.name.endswith((".db", "-wal", "-shm"))
    ]


def _deleted(folder: Path, _: random.Random) -> bool:
    study = _study(folder)
    if study is not None:
        optuna.delete_study(study_name=NAME, storage=study._storage)
    return study is not None


def _renamed(folder: Path, _: random.Random) -> bool:
    with closing(sqlite3.connect(folder / "study.db", timeout=30)) as opened, opened:
        rename = "UPDATE studies SET study_name = ? WHERE study_name = ?"
        return opened.execute(rename, (NEW, NAME)).rowcount == 1


def _told(folder: Path, draw: random.Random) -> bool:
    study = _study(folder)
    trials = study.get_trials(deepcopy=False) if study else []
    running = [trial.number for trial in trials if not trial.state.is_finished()]
    if study is None or not running:
        return False
    value, state = draw.choice([(0.5, None), (None, "FAIL"), (None, "PRUNED")])
    with suppress(ValueError, RuntimeError):  # it has just ended
        study.tell(draw.choice(running), value, state and optuna.trial.TrialState[state])
        return True
    return False


def _asked(folder: Path, _: random.Random) -> bool:
    study = _study(folder)
    if study is not None:
        study.ask()
    return study is not None


def _unlocked(folder: Path, _: random.Random) -> bool:
    locks = [*folder.glob("*.lock")]
    for path in locks:
        path.unlink()
    return bool(locks)


def _moved(folder: Path, _: random.Random) -> bool:
    (folder / "study.db").rename(folder / "away.db")
    return True


def _moved_back(folder: Path) -> list[str]:
    """The log of a file that was moved stays behind: the study's own copy is the whole of it."""
    return _from_saved(folder) if [*folder.glob("*.saved-*")] else _from(folder / "away.db")


def _from(path: Path) -> list[str]:
    for file in _files(path.parent):
        file.unlink()
    path.rename(path.with_name("study.db"))
    return AGAIN


def _removed(folder: Path, _: random.Random) -> bool:
    for path in _files(folder):
        path.unlink(missing_ok=True)
    return True


def _from_saved(folder: Path) -> list[str]:
    saved = [*folder.glob("study.db.saved-*")]
    return _from(saved[0]) if saved else ANEW


def _replaced(folder: Path, _: random.Random) -> bool:
    with (
        closing(sqlite3.connect(folder / "study.db", timeout=30)) as source,
        closing(sqlite3.connect(folder / "copy.db")) as copy,
    ):
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    for name in ("-wal", "-shm"):
        (folder / f"study.db{name}").unlink(missing_ok=True)
    (folder / "copy.db").replace(folder / "study.db")
    return True


def _log_removed(folder: Path, _: random.Random) -> bool:
    log = folder / "study.db-wal"
    if there := log.exists():
        log.unlink()
    return there


def _checkpoints_removed(folder: Path, _: random.Random) -> bool:
    there = (folder / "study.db.checkpoints").exists()
    shutil.rmtree(folder / "study.db.checkpoints", ignore_errors=True)
    return there


def _locked(folder: Path, _: random.Random) -> bool:
    with closing(sqlite3.connect(folder / "study.db", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(6)
    return True


CHANGES = {
    "deleted": Change(_deleted, "was deleted while it ran", undo=lambda _: ANEW),
    "renamed": Change(
        _renamed, "was renamed to 'renamed'", undo=lambda _: ["resume", NEW], name=NEW
    ),
    "told": Change(_told, "by another program", stops=False, answer=False),
    "asked": Change(_asked, stops=False),
    "lock file removed": Change(_unlocked, stops=False),
    "file moved": Change(_moved, "was deleted, moved or replaced", undo=_moved_back),
    "file removed": Change(_removed, "was deleted, moved or replaced", undo=_from_saved),
    "file replaced": Change(_replaced, "was deleted", undo=_from_saved),
    "log removed": Change(_log_removed, "was deleted, moved or replaced", undo=_from_saved),
    "checkpoints removed": Change(_checkpoints_removed, stops=False),
    "locked": Change(_locked, stops=False),
}


@dataclass(frozen=True)
class Round:
    """A study in ``folder`` that the command ``program`` runs."""

    folder: Path
    program: list[str]
    jobs: int = 1

    def start(self, *words: str) -> Process:
        """A command; every epoch that it trains is a line of the file ``trace-COMMAND``."""
        (self.folder / "space.toml").write_text(SPACE)
        trace = self.folder / f"trace-{words[0]}"
        environ = {"STUDY_MLFLOW": "none", "FAKE_PAUSE": PAUSE, "FAKE_TRACE": str(trace)}
        with (self.folder / f"{words[0]}.err").open("w") as err:
            return subprocess.Popen(
                [*self.program, *words, "--jobs", str(self.jobs)],
                cwd=self.folder,
                env=os.environ | environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                stdout=subprocess.DEVNULL,
                stderr=err,
                text=True,
            )

    def end(self, process: Process, word: str) -> tuple[int, str]:
        """Wait for a command; its exit code, and what it said on standard error."""
        return process.wait(timeout=900), (self.folder / f"{word}.err").read_text()

    def started(self) -> Process:
        """A driver whose database is there."""
        driver = self.start("run", "space.toml")
        while not (self.folder / "study.db").exists() and driver.poll() is None:
            time.sleep(0.02)
        return driver

    def calm(self) -> tuple[float, Any]:
        """How many seconds a study takes that nobody disturbs, and what it finds."""
        driver, began = self.started(), time.monotonic()
        code, said = self.end(driver, "run")
        if code != 0:
            raise RuntimeError(said)
        return time.monotonic() - began, counted(self.folder)

    def second_driver(self, driver: Process, name: str) -> str:
        """Start one; what is wrong if it trains before the first has ended, or does not say why."""
        second = self.start("resume", name)
        while second.poll() is None:
            if (self.folder / "trace-resume").exists() and driver.poll() is None:
                second.kill()
                return "two drivers at once"
            time.sleep(0.01)
        return problem(*self.end(second, "resume"), (0, 2))


def problem(code: int, said: str, codes: tuple[int, ...], words: str = "") -> str:
    """What is wrong with the end of a command: its exit code, or what it said; "" for nothing."""
    mistaken = code == 2 and (said.count("\n") != 1 or words not in said)
    if code not in codes or mistaken or "Traceback" in said:
        return f"ended with {code} and {said!r}"
    return ""


def disturbed(
    one: Round, change: Change, draw: random.Random, length: float, expected: Any
) -> tuple[str, list[str]]:
    """Run a study, change it, complete it; how it went, and what is not as it should be."""
    driver = one.started()
    time.sleep(draw.uniform(0, length))
    changed = False
    while driver.poll() is None and not changed:
        with suppress(FileNotFoundError):
            changed = change.make(one.folder, draw)
        time.sleep(0.02)
    second = one.second_driver(driver, change.name)
    code, said = one.end(driver, "run")
    stopped = changed and change.stops and code == 2
    wrong = [second, problem(code, said, (0, 2) if stopped else (0,), change.says)]
    words = change.undo(one.folder) if changed and change.stops else AGAIN
    try:
        counted(one.folder, change.name if changed else NAME)
    except StudyError as error:
        wrong.append("" if words[0] == "run" else f"cannot be read: {error}")
    wrong.append(problem(*one.end(one.start(*words), words[0]), (0,)))
    found = counted(one.folder, words[1] if words[0] == "resume" else NAME)
    if not found["complete"] or (change.answer and found != expected):
        wrong.append(f"found {found} in place of {expected}")
    how = "it stopped" if stopped else "it went on" if changed else "too late"
    return how, [one for one in wrong if one]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=len(CHANGES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[*CHANGES])
    parser.add_argument("--tensorflow", action="store_true")
    given = parser.parse_args()
    program = REAL if given.tensorflow else FAKE
    draw, failed = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        length, expected = Round(Path(folder), program).calm()
    for number in range(given.rounds):
        name = given.only or [*CHANGES][number % len(CHANGES)]
        jobs = 1 + (number // len(CHANGES) + number) % 2
        with tempfile.TemporaryDirectory() as folder:
            one = Round(Path(folder), program, jobs)
            how, wrong = disturbed(one, CHANGES[name], draw, length / jobs, expected)
        failed += bool(wrong)
        sys.stdout.write(f"{number + 1}: {name}, {jobs} jobs: {how}; {'; '.join(wrong) or 'ok'}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{given.rounds} rounds: {failed} failed\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
