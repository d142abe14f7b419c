"""The task that a command line of the yardstick asks for, and its data, written once for all."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from job import Job, Task

from study.data import dataset as datasets
from study.data.pixels import to_float01
from study.space import file as space_file
from study.space.search_space import Validation


def add_options(parser: argparse.ArgumentParser) -> None:
    """What decides the task."""
    parser.add_argument("--space", default="digits", help="a shipped space or a TOML file (digits)")
    parser.add_argument("--data", help="other data than the space's: mnist, or a path")
    parser.add_argument("--epochs", type=int, help="other than the space's")
    parser.add_argument("--images", type=int, help="train on the first N images only: to try it")
    parser.add_argument(
        "--work", type=Path, default=Path(".bench"), help="where unfinished work is kept (.bench)"
    )


def settled(options: argparse.Namespace) -> Task:
    """The task; raises ``StudyError`` where there is no such space."""
    space = space_file.load(options.space)
    validation = space.validation or Validation("holdout")
    share = validation.fraction if validation.kind == "holdout" else 1 / validation.folds
    return Task(
        space=options.space,
        data=options.data or space.data or "digits",
        images=options.images,
        epochs=options.epochs or space.epochs,
        batch_size=space.batch_size,
        repeats=space.repeats,
        held_out=share,
        options={one.name: list(one.options) for one in space.hyperparameters},
        start={one.name: one.start for one in space.hyperparameters},
        fixed=dict(space.fixed),
    )


def place(task: Task, work: Path) -> Path:
    """The folder of this very task."""
    digest = hashlib.sha256(json.dumps(asdict(task), sort_keys=True).encode()).hexdigest()[:8]
    return work.resolve() / f"{Path(task.space).stem}-{digest}"


def job_of(task: Task, contender: str, work: Path, round_: int, *, logging: bool) -> Job:
    """A contender's job of a round, with its folder made and the data written."""
    home = place(task, work)
    logged = "logged" if logging else "plain"
    folder = home / f"{contender}-{logged}-{round_}"
    folder.mkdir(parents=True, exist_ok=True)
    return Job(task, contender, 1 + round_, str(written(task, home)), str(folder))


def written(task: Task, home: Path) -> Path:
    """The data as an `.npz` file in Keras' layout, which the study reads too."""
    path = home / "data.npz"
    if not path.exists():
        dataset = datasets.load(task.data)
        some = slice(0, task.images)
        aside = path.with_name(".data.npz")
        np.savez(
            aside,
            x_train=to_float01(dataset.images[some]),
            y_train=dataset.labels[some],
            x_test=to_float01(dataset.test_images[some]),
            y_test=dataset.test_labels[some],
        )
        aside.replace(path)
    return path
