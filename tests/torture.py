"""Kills a driver again and again, resumes it, and compares with a study that was never disturbed.

    python tests/torture.py --kills 45 --jobs 1              with a fake trainer
    python tests/torture.py --kills 5 --jobs 2 --tensorflow  with TensorFlow
    python tests/torture.py --whole                          100 kills of all kinds: make torture

Every study runs while optuna-dashboard has its database open and is asked for it. What must agree
are the counted slots, their values and their learning curves, bit for bit.
"""

import argparse
import json
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
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import fake_trainer

from study.cli.live import Silent
from study.running import launch, prepare
from study.space.settings import Chosen
from study.storage import database as storage
from study.storage.location import Database
from study.storage.progress import standing_of
from study.training.run import train as tensorflow_train

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
COMPARED = ("acc", "loss", "val_acc", "val_loss")


def drive(folder: Path, jobs: int, seed: int, *, tensorflow: bool) -> None:
    """The child: run, or go on with, the study in ``folder``."""
    given = {"seed": Chosen(seed, "command line")}
    prepared = prepare.prepare(str(folder / "space.toml"), None, Database.at(url_of(folder)), given)
    trainer = tensorflow_train if tensorflow else fake_trainer.train
    launch.launch(prepared, Silent(), launch.ExecutionOptions(jobs=jobs), sys.stdout.write, trainer)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def start(folder: Path, jobs: int, seed: int, *, tensorflow: bool) -> "subprocess.Popen[bytes]":
    """A driver in a process, and a session, of its own."""
    (folder / "space.toml").write_text(SPACE)
    command = [sys.executable, __file__, "--drive", str(folder)]
    command += ["--jobs", str(jobs), "--seed", str(seed)]
    command += ["--tensorflow"] if tensorflow else []
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(folder: Path, jobs: int, seed: int, *, tensorflow: bool) -> None:
    process = start(folder, jobs, seed, tensorflow=tensorflow)
    if process.wait(timeout=600) != 0:
        raise RuntimeError((folder / "log").read_text()[-3000:])


def counted(folder: Path) -> dict[str, Any]:
    """The counted slots of the study: state, value and curves by configuration and repeat."""
    opened = storage.open_storage(url_of(folder))
    study, settings = storage.load(opened)
    standing = standing_of(study, settings)
    rows = {row.number: row for s in standing.stages for o in s.options for row in o.rows}
    curves = {
        f"{row.configuration} {row.repeat}": [
            row.state,
            row.value,
            {name: list(row.curve[name]) for name in COMPARED},
        ]
        for row in rows.values()
    }
    return {"complete": standing.complete, "answer": standing.incumbent, "slots": curves}


def running(folder: Path) -> int:
    """Trials that are still marked as running."""
    study, _ = storage.load(storage.open_storage(url_of(folder)))
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
        address = process.stdout.readline().split()[2]
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


def torture(folder: Path, kills: int, jobs: int, seed: int, *, tensorflow: bool) -> dict[str, Any]:
    """Kill a study up to ``kills`` times at drawn moments, let it end, compare; what was seen."""
    calm, killed = folder / "calm", folder / "killed"
    calm.mkdir()
    killed.mkdir()
    began = time.monotonic()
    finish(calm, 1, seed, tensorflow=tensorflow)
    length = time.monotonic() - began
    moments = random.Random(seed)
    done = 0
    process = start(killed, jobs, seed, tensorflow=tensorflow)
    while not (killed / "study.db").exists() and process.poll() is None:
        time.sleep(0.05)
    with watched(killed) as answers:
        while done < kills:
            try:
                if process.wait(timeout=moments.uniform(0.2, length)) == 0:
                    break
                raise RuntimeError((killed / "log").read_text()[-3000:])
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                process = start(killed, jobs, seed, tensorflow=tensorflow)
        process.wait(timeout=600)
    finish(killed, jobs, seed, tensorflow=tensorflow)
    expected, found = counted(calm), counted(killed)
    return {
        "jobs": jobs,
        "kills": done,
        "slots": len(expected["slots"]),
        "same": expected == found,
        "left running": running(killed),
        "left checkpoints": len(list((killed / "study.db.checkpoints").glob("*"))),
        "dashboard answers": len(answers),
    }


def rounds(kills: int, jobs: int, seed: int, *, tensorflow: bool) -> tuple[int, int]:
    """Studies until there were so many kills, a line each; kills, and studies that differ."""
    done = differing = 0
    while done < kills:
        with tempfile.TemporaryDirectory() as folder:
            seen = torture(Path(folder), kills - done, jobs, seed, tensorflow=tensorflow)
        done += seen["kills"]
        lost = not seen["same"] or seen["left running"] or seen["left checkpoints"]
        differing += bool(lost)
        what = {"trainer": "TensorFlow" if tensorflow else "fake", **seen}
        sys.stdout.write(f"{done} of {kills} kills: {json.dumps(what)}\n")
        sys.stdout.flush()
        seed += 1
    return done, differing


def whole(seed: int) -> tuple[int, int]:
    """What `make torture` does: 100 kills, 90 with the fake trainer and 10 with TensorFlow."""
    kills = differing = 0
    for number, jobs, tensorflow in ((45, 1, False), (45, 2, False), (5, 1, True), (5, 2, True)):
        done, wrong = rounds(number, jobs, seed + 1000 * kills, tensorflow=tensorflow)
        kills, differing = kills + done, differing + wrong
    return kills, differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tensorflow", action="store_true")
    parser.add_argument("--whole", action="store_true", help="100 kills, of all four kinds")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jobs, seed, tensorflow = arguments.jobs, arguments.seed, arguments.tensorflow
    if arguments.drive:
        drive(arguments.drive, jobs, seed, tensorflow=tensorflow)
        return
    if arguments.whole:
        kills, differing = whole(seed)
    else:
        kills, differing = rounds(arguments.kills, jobs, seed, tensorflow=tensorflow)
    lost = f"{differing} studies differ" if differing else "nothing was lost"
    sys.stdout.write(f"{kills} kills: {lost}\n")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
