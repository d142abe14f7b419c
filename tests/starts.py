"""Starts two and three studies at once in an empty folder: each ends as if it were alone.

    python tests/starts.py --rounds 50      part of make torture

Every third time they have the same name: one of them is driven, and the others are refused in a
line.
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import fake_trainer
from torture import SPACE

from study.errors import StudyError
from study.mirror import tracker
from study.mirror.mlflow import open_store
from study.running import launch, prepare
from study.running.driver import Observers
from study.storage import database as storage
from study.storage.database import plan_state_of
from study.storage.location import Database


def drive(folder: Path, name: str) -> None:
    """The child: run the study ``name`` in ``folder``, and show it in the local MLflow there."""
    database = Database.at(f"sqlite:///{folder / 'study.db'}")
    prepared = prepare.prepare(str(folder / "space.toml"), name, database, {})
    sys.stdin.readline()  # until all children are as far
    options = launch.ExecutionOptions(jobs=1, mirror=tracker.resolve(None, {}, database))
    try:
        launch.launch(prepared, Observers(), options, sys.stderr.write, fake_trainer.train)
    except StudyError as error:
        sys.stderr.write(f"study: {error}\n")
        sys.exit(2)


def wrong(folder: Path, names: list[str]) -> list[str]:
    """Start a study of each name at once; what is not as it should be in the end."""
    (folder / "space.toml").write_text(SPACE)
    command = [sys.executable, __file__, "--drive", str(folder), "--name"]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [subprocess.Popen([*command, name], text=True, **pipes) for name in names]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    said = [child.communicate(timeout=600)[1] for child in children]
    ends = sorted(child.returncode for child in children)
    expected = [0] * len({*names}) + [2] * (len(names) - len({*names}))
    found = [] if ends == expected else [f"ended with {ends}", *said]
    found += [line for line in said if "Traceback" in line or line.count("\n") > 1]
    database = Database.at(f"sqlite:///{folder / 'study.db'}")
    with closing(database):
        opened = database.open()
        if sorted(storage.names(opened)) != sorted({*names}):
            found.append(f"holds {storage.names(opened)}")
        for name in {*names}:
            if not plan_state_of(*storage.load(opened, name)).complete:
                found.append(f"{name} is not complete")
    shown = {one.name for one in open_store(folder / "mlflow.db").search_experiments()}
    if not {*names} <= shown:
        found.append(f"MLflow shows {shown}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.drive, arguments.name)
        return
    failed = 0
    for number in range(arguments.rounds):
        names = ["one", "two", "three"][: 2 + number % 2]
        if number % 3 == 2:
            names = ["one"] * len(names)
        with tempfile.TemporaryDirectory() as folder:
            found = wrong(Path(folder), names)
        failed += bool(found)
        sys.stdout.write(f"{number + 1}: {', '.join(names)}: {'; '.join(found) or 'as alone'}\n")
        sys.stdout.flush()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
