"""Record a table of curves: every configuration of a space with shared repeats, and test accuracy.

    python benchmarks/record_table.py digits --repeats 8
    python benchmarks/record_table.py benchmarks/tables/mnist-3000.toml --data mnist --images 7000

The program itself trains, as a study of the strategy `grid` that keeps every model; then each model
is judged once on the test images. Killed and started again it goes on where it was; with more
`--repeats` it records those that are new. What is done is in the folder `--work`; the table is
written once it is whole.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import recorded
from tables import Table

from study.data import dataset as datasets
from study.data.dataset import Dataset
from study.data.pixels import to_float01
from study.errors import StudyError
from study.plan.results import StoredTrial
from study.space import file as space_file
from study.storage import database as storage
from study.storage import models
from study.storage.location import Database
from study.storage.trials import StoredTrials

PASSED_ON = ("epochs", "seed", "jobs", "threads")
AT_ONCE = 500  # test images
FORGET_EVERY = 50  # models loaded until Keras forgets them all


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("space", help="a shipped space or a TOML file")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--data", help="other data than the space's: mnist, or a path")
    parser.add_argument("--images", type=int, help="train on the first N images only")
    for name in PASSED_ON:
        parser.add_argument(f"--{name}", type=int, help="as of a study")
    parser.add_argument("--work", type=Path, default=Path(".bench"), help="a folder (.bench)")
    parser.add_argument("--out", type=Path, help="the table; WORK/NAME.jsonl.gz")
    return parser.parse_args()


def record(options: argparse.Namespace) -> Path:
    """Train, judge and write; returns where the table is. Raises ``StudyError``."""
    space = space_file.load(options.space)
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    data = options.data or space.data or "digits"
    if options.images:
        data = str(_first(datasets.load(data), options.images, work / f"{space.name}.npz"))
    url = f"sqlite:///{work / f'{space.name}.table.db'}"
    words = ["--sampler", "grid", "--keep-models", "all", "--mlflow", "none", "--quiet"]
    words += ["--storage", url, "--data", data, "--repeats", str(options.repeats)]
    for name in PASSED_ON:
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    command = [sys.executable, "-m", "study", "run", options.space, *words]
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(code)
    lines = work / f"{space.name}.jsonl"
    judge(url, datasets.load(data), lines)
    path = options.out or lines.with_suffix(".jsonl.gz")
    write(path, list(recorded.read(lines)), space.name)
    return path


def judge(url: str, dataset: Dataset, path: Path) -> None:
    """Append a line for every complete run that has none yet."""
    database = Database.at(url)
    study, _ = storage.load(database.open())
    folder = database.study(study.study_name).models(models.identity(study))
    done = {_key(line["params"], line["repeat"]) for line in recorded.read(path)}
    rows = [row for row in StoredTrials()(study) if row.state == "complete"]
    missing = [row for row in rows if _key(row.params, row.repeat) not in done]
    for row, accuracy in zip(missing, _accuracies(missing, folder, dataset), strict=True):
        line = {"params": row.params, "repeat": row.repeat, "test_acc": accuracy}
        line["pool"] = len(dataset.labels)
        line["val_acc"] = list(row.curve["val_accuracy"])
        line |= {name: list(row.curve[name]) for name in ("val_loss", "seconds")}
        recorded.append(path, line)


def _accuracies(rows: Sequence[StoredTrial], folder: Path, dataset: Dataset) -> Iterator[float]:
    """Test accuracy of each run's kept model."""
    if not rows:
        return
    from study.training.train import start_tensorflow

    start_tensorflow(1)
    import keras

    from study.final import classifier

    for number, row in enumerate(rows):
        member = classifier.load_member(models.file(folder, row.number))
        said = [
            np.asarray(
                member(to_float01(dataset.test_images[first : first + AT_ONCE]), training=False)
            )
            for first in range(0, len(dataset.test_labels), AT_ONCE)
        ]
        right = np.concatenate(said).argmax(axis=1) == dataset.test_labels
        yield float(right.mean())
        if number % FORGET_EVERY == 0:
            keras.backend.clear_session()


def write(path: Path, lines: list[dict[str, Any]], name: str) -> None:
    """The whole table, in the order of its grid; the same lines give the same bytes."""
    table = Table.of(lines, name)
    names = list(lines[0]["params"])
    places = {tuple(dict(one).values()): place for place, one in enumerate(table.configurations)}

    def order(line: dict[str, Any]) -> tuple[int, int]:
        return places[tuple(line["params"][one] for one in names)], line["repeat"]

    text = "".join(json.dumps(_short(line)) + "\n" for line in sorted(lines, key=order))
    models.write_whole(path, gzip.compress(text.encode(), mtime=0))


def _short(line: dict[str, Any]) -> dict[str, Any]:
    """A line with its keys in one order; losses and seconds to what a replay can see."""
    losses = [float(f"{value:.5g}") for value in line["val_loss"]]
    seconds = [round(value, 4) for value in line["seconds"]]
    keys = ("params", "repeat", "val_acc")
    return (
        {key: line[key] for key in keys}
        | {"val_loss": losses, "test_acc": line["test_acc"]}
        | {"seconds": seconds}
        | ({"pool": line["pool"]} if "pool" in line else {})
    )


def _key(params: dict[str, Any], repeat: int) -> tuple[Any, ...]:
    return (*sorted(params.items()), repeat)


def _first(dataset: Dataset, images: int, path: Path) -> Path:
    """The data with ``images`` training images, as a file that the study reads."""
    if not path.exists():
        aside = path.with_name(f".{path.name}")
        np.savez(
            aside,
            x_train=dataset.images[:images],
            y_train=dataset.labels[:images],
            x_test=dataset.test_images,
            y_test=dataset.test_labels,
        )
        aside.replace(path)
    return path


def main() -> None:
    try:
        path = record(parsed())
    except StudyError as error:
        print(f"record_table: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    print(path)


if __name__ == "__main__":
    main()
