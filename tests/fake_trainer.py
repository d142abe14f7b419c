"""A trainer without TensorFlow, for whole commands: curves that follow from the run alone.

It leaves checkpoints like the real one. As a program it is `python -m study` with this trainer:

    python tests/fake_trainer.py run space.toml --jobs 2

``FAKE_PAUSE`` is how many seconds an epoch takes; ``FAKE_TRACE`` a file that gets a line for every
epoch that is trained, with the process that trained it; ``FAKE_GROWTH`` how many bytes the process
keeps of every run; ``FAKE_DEATH`` a file: whoever finds it in the middle of a run takes it and dies
of SIGKILL, with all its process group where the file says "group", or stops where it says "hang".

A run whose parameters have a ``trouble`` meets it in the middle, each time: see `_trouble`.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from study.data.dataset import Dataset
from study.errors import SettingsError, TrainingFailed
from study.training.checkpoint import Checkpoint, Checkpoints
from study.training.run import Epoch, Run
from study.workers.child import Orders, Send
from study.workers.jax.engine import InGroups

_kept: list[bytearray] = []


def train(
    run: Run, dataset: Dataset, *, checkpoints: Checkpoints | None = None
) -> Generator[Epoch, None, bytes | None]:
    """Every epoch after what the checkpoint holds; wider is better, repeats differ."""
    pause = float(os.environ.get("FAKE_PAUSE", "0.02"))
    stored = checkpoints.load(run.key) if checkpoints else None
    history = [Epoch(**record) for record in stored.history] if stored else []
    yield from history[: run.until]
    drawn = np.random.default_rng(int(run.key, 16)).random((run.epochs, 2))
    quality = 0.9 + 0.01 * int(dict(run.params).get("filters", 1))
    _kept.append(bytearray(b"x" * int(os.environ.get("FAKE_GROWTH", "0"))))
    end = run.epochs if run.until is None else min(run.until, run.epochs)
    while len(history) < end:
        time.sleep(pause)
        number = len(history)
        if number == run.epochs // 2:
            _die()
            _trouble(dict(run.params).get("trouble"))
        acc, val_acc = (quality - 0.3 / (number + 1) + 0.01 * drawn[number]).tolist()
        history.append(Epoch(number, acc, 1 - acc, val_acc, 1 - val_acc, pause, time.time()))
        if checkpoints:
            _save(checkpoints, Checkpoint(run.key, tuple(map(asdict, history)), (drawn,)))
        _trace(run, number)  # an epoch whose process is killed before it is saved was not trained
        yield history[-1]
    return b"model" if end == run.epochs else None


def _save(checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    """As the real trainer: a checkpoint that cannot be saved does not end a run."""
    try:
        checkpoints.save(checkpoint)
    except OSError as error:
        logging.getLogger("study.training").warning("no checkpoint can be written: %s", error)


def _die() -> None:
    file = Path(os.environ.get("FAKE_DEATH", "/nowhere"))
    try:
        whom = file.read_text()
        file.unlink()
    except FileNotFoundError:
        return
    if whom == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    os.kill(os.getpid() if whom != "group" else -os.getpgid(0), signal.SIGKILL)


def _trouble(kind: object) -> None:
    match kind:
        case "diverges":
            raise TrainingFailed("the loss is NaN in epoch 3")
        case "memory":
            raise MemoryError
        case "error":
            raise ValueError("no such\nlayer")
        case "machine":
            raise SettingsError("no GPU here")
        case "warning":
            logging.getLogger("study.training").warning("no checkpoint can be\nwritten")
        case "death":
            sys.stderr.write("out of luck\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def _trace(run: Run, number: int) -> None:
    file = os.environ.get("FAKE_TRACE")
    if file:
        with Path(file).open("a") as opened:
            opened.write(f"{os.getpid()} {run.key} {number}\n")


@dataclass(frozen=True)
class Together(InGroups):
    """The worker that trains several runs at once, with this trainer in place of JAX."""

    device: str = "cpu"

    def serve(self, orders: Orders, send: Send) -> None:
        self._train(self, orders, send)  # type: ignore[arg-type]

    def add(self, run: Run) -> Run:
        return run

    def train(self, run: Run) -> Any:
        return train(run, self.dataset, checkpoints=self.checkpoints)

    def remove(self, run: Run) -> None:
        """There is no program to release."""


def main() -> None:
    """The commands, with this trainer."""
    import fake_trainer  # by its name, so that other processes find the trainer

    from study.training import train as real

    real.train = fake_trainer.train
    from study.__main__ import main as commands

    commands()


if __name__ == "__main__":
    main()
