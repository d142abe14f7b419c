"""Kills a driver again and again, resumes it, and compares with a study that was never disturbed.

With worker processes every second kill is of one of them: the driver is to replace it.

    python tests/torture.py --kills 45 --jobs 1              with a fake trainer
    python tests/torture.py --kills 5 --jobs 2 --tensorflow  with TensorFlow
    python tests/torture.py --kills 20 --sampler race        of a race, whose runs pause and go on
    python tests/torture.py --kills 6 --jobs 4 --grouped     of runs in groups
    python tests/torture.py --whole                          126 kills of all kinds: make torture

Every study runs while optuna-dashboard has its database open and is asked for it. What must agree
are the counted slots, their values and their learning curves, bit for bit. With several workers a
race goes its own way each time: then curves must be the same as far as both studies trained them.
Those of runs in groups of several may differ by rounding.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import fake_trainer
import psutil

from study.running import launch, prepare
from study.running.driver import Observers
from study.space.settings import Setting
from study.storage import database as storage
from study.storage.database import plan_state_of
from study.storage.location import Database
from study.storage.trials import StoredTrials
from study.training.train import train as tensorflow_train

SPACE = """\
name = "torture"
data = "digits"
epochs = 6
batch_size = 100
repeats = 2
[hyperparameters.filters]
options = [2, 4, 8]
start = 4
[hyperparameters.dropout]
options = [0.1, 0.3]
start = 0.1
[fixed]
k1 = 3
k2 = 3
dense = 8
"""
COMPARED = ("accuracy", "loss", "val_accuracy", "val_loss")


@dataclass(frozen=True)
class Kind:
    """What is killed: the number of workers of a study, its strategy, and its trainer."""

    jobs: int
    sampler: str = "sweep"
    tensorflow: bool = False
    grouped: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether every study of a seed trains the same runs."""
        return self.jobs == 1 or (self.sampler != "race" and not self.grouped)

    @property
    def words(self) -> list[str]:
        """As the child is told."""
        words = ["--jobs", str(self.jobs), "--sampler", self.sampler]
        return words + [f"--{name}" for name in ("tensorflow", "grouped") if getattr(self, name)]


def drive(folder: Path, seed: int, kind: Kind) -> None:
    """The child: run, or go on with, the study in ``folder``."""
    chosen = {"seed": seed, "sampler": kind.sampler}
    if kind.grouped:
        chosen["training"] = "grouped"
    given = {name: Setting(value, "command line") for name, value in chosen.items()}
    prepared = prepare.prepare(str(folder / "space.toml"), None, Database.at(url_of(folder)), given)
    trainer = tensorflow_train if kind.tensorflow else fake_trainer.train
    options = launch.ExecutionOptions(jobs=kind.jobs)
    launch.launch(prepared, Observers(), options, sys.stdout.write, trainer)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def start(folder: Path, seed: int, kind: Kind) -> "subprocess.Popen[bytes]":
    """A driver in a process, and a session, of its own."""
    (folder / "space.toml").write_text(SPACE)
    command = [sys.executable, __file__, "--drive", str(folder), "--seed", str(seed), *kind.words]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(folder: Path, seed: int, kind: Kind) -> None:
    process = start(folder, seed, kind)
    if process.wait(timeout=600) != 0:
        raise RuntimeError((folder / "log").read_text()[-3000:])


def counted(folder: Path, name: str | None = None) -> dict[str, Any]:
    """The runs that count, of a race all: state, value and curves by configuration and repeat."""
    opened = Database.at(url_of(folder)).open()
    study, settings = storage.load(opened, name)
    plan_state = plan_state_of(study, settings)
    counts = {row.number for s in plan_state.stages for o in s.options for row in o.rows}
    if plan_state.race is not None:
        counts |= {row.number for row in StoredTrials()(study) if row.left_paused}
    curves = {
        f"{row.configuration} {row.repeat}": [
            row.state,
            row.value,
            {name: list(row.curve.get(name, ())) for name in COMPARED},
        ]
        for row in StoredTrials()(study)
        if row.number in counts
    }
    return {"complete": plan_state.complete, "answer": plan_state.incumbent, "slots": curves}


def same(one: dict[str, Any], other: dict[str, Any], kind: Kind) -> bool:
    """Whether two studies agree: of runs that both have, as far as both have trained them."""
    if kind.repeatable:
        return one == other
    shared = one["slots"].keys() & other["slots"].keys()
    pairs = [
        (curve, other["slots"][slot][2][name])
        for slot in shared
        for name, curve in one["slots"][slot][2].items()
    ]
    error = 0.01 if kind.grouped else 0.0
    alike = all(
        math.isclose(a, b, rel_tol=0, abs_tol=error)
        for pair in pairs
        for a, b in zip(*pair, strict=False)
    )
    return one["complete"] and other["complete"] and len(shared) > 1 and alike


def running(folder: Path) -> int:
    """Trials that are still marked as running."""
    study, _ = storage.load(Database.at(url_of(folder)).open())
    return sum(not trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """optuna-dashboard on the same database, asked for the study all the time."""
    command = [sys.executable, "-m", "study", "dashboard", "--port", "0", "--storage"]
    process = subprocess.Popen(
        [*command, url_of(folder)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    answers: list[int] = []
    over = threading.Event()

    def look() -> None:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        if not said:  # the study was over before the dashboard had begun
            return
        address = said[2]
        while not over.wait(0.1):
            for page in ("studies", "studies/1"):
                with (
                    suppress(urllib.error.HTTPError),  # no study yet
                    urllib.request.urlopen(f"{address}/api/{page}", timeout=60) as answer,
                ):
                    answers.append(answer.status)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join(timeout=5)
        process.kill()
        process.communicate()


def torture(folder: Path, kills: int, seed: int, kind: Kind) -> dict[str, Any]:
    """Kill a study up to ``kills`` times at drawn moments, let it end, compare; what was seen."""
    calm, killed = folder / "calm", folder / "killed"
    calm.mkdir()
    killed.mkdir()
    began = time.monotonic()
    finish(calm, seed, replace(kind, jobs=1))
    length = time.monotonic() - began
    moments = random.Random(seed)
    done = 0
    process = start(killed, seed, kind)
    while not (killed / "study.db").exists() and process.poll() is None:
        time.sleep(0.05)
    with watched(killed) as answers:
        while done < kills:
            try:
                if process.wait(timeout=moments.uniform(0.2, length)) == 0:
                    break
                raise RuntimeError((killed / "log").read_text()[-3000:])
            except subprocess.TimeoutExpired:
                done += 1
                workers = psutil.Process(process.pid).children(recursive=True)
                if workers and done % 2:  # of a pool also the process that workers are forked from
                    with suppress(psutil.NoSuchProcess):
                        moments.choice(workers).kill()
                    continue
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                process = start(killed, seed, kind)
        process.wait(timeout=600)
    finish(killed, seed, kind)
    expected, found = counted(calm), counted(killed)
    return {
        **asdict(kind),
        "kills": done,
        "slots": len(expected["slots"]),
        "same": same(expected, found, kind),
        "left running": running(killed),
        "left checkpoints": len(list((killed / "study.db.checkpoints").glob("*"))),
        "dashboard answers": len(answers),
    }


def rounds(kills: int, seed: int, kind: Kind) -> tuple[int, int]:
    """Studies until there were ``kills`` kills, a line each; the kills, and studies that differ."""
    done = differing = 0
    while done < kills:
        with tempfile.TemporaryDirectory() as folder:
            seen = torture(Path(folder), kills - done, seed, kind)
        done += seen["kills"]
        lost = not seen["same"] or seen["left running"] or seen["left checkpoints"]
        differing += bool(lost)
        sys.stdout.write(f"{done} of {kills} kills: {json.dumps(seen)}\n")
        sys.stdout.flush()
        seed += 1
    return done, differing


def whole(seed: int) -> tuple[int, int]:
    """What `make torture` does: 126 kills, 20 of a race, 12 with TensorFlow, 6 of groups."""
    kinds = {
        Kind(1): 45,
        Kind(2): 45,
        Kind(1, tensorflow=True): 5,
        Kind(2, tensorflow=True): 5,
        Kind(1, "race"): 9,
        Kind(2, "race"): 9,
        Kind(1, "race", tensorflow=True): 2,
        Kind(4, grouped=True): 6,
    }
    kills = differing = 0
    for kind, number in kinds.items():
        done, wrong = rounds(number, seed + 1000 * kills, kind)
        kills, differing = kills + done, differing + wrong
    return kills, differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sampler", choices=("sweep", "race"), default="sweep")
    parser.add_argument("--tensorflow", action="store_true")
    parser.add_argument("--grouped", action="store_true")
    parser.add_argument("--whole", action="store_true", help="126 kills, of all kinds")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kind = Kind(arguments.jobs, arguments.sampler, arguments.tensorflow, arguments.grouped)
    seed = arguments.seed
    if arguments.drive:
        drive(arguments.drive, seed, kind)
        return
    if arguments.whole:
        kills, differing = whole(seed)
    else:
        kills, differing = rounds(arguments.kills, seed, kind)
    lost = f"{differing} studies differ" if differing else "nothing was lost"
    sys.stdout.write(f"{kills} kills: {lost}\n")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
