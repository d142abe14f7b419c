"""What every contender of the yardstick is given, and how its work is counted.

Light on purpose: a contender's time begins with its first import.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Params = dict[str, Any]
ONE_EACH = "a run a core, one thread each"
TICK = 2.0  # seconds between two writings of a tally: what a kill may lose


@dataclass(frozen=True)
class Task:
    """The same search for everybody: space, data and network, epochs and repeats.

    ``held_out`` is the share of the images that a run validates on; the sweep's three folds are a
    third. ``configurations`` is the most that the sweep tries, and so the others' budget.
    """

    space: str
    data: str
    images: int | None
    epochs: int
    batch_size: int
    repeats: int
    held_out: float
    options: Mapping[str, Sequence[Any]]
    start: Params
    fixed: Params

    @property
    def configurations(self) -> int:
        """The start, every other option once, and the noted values together."""
        return 2 + sum(len(options) - 1 for options in self.options.values())


@dataclass(frozen=True)
class Job:
    """One contender's part in one round; ``uri`` is the MLflow server it logs to, if any."""

    task: Task
    contender: str
    seed: int
    data: str
    folder: str
    uri: str | None = None
    stages: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**fields | {"task": Task(**fields["task"])})

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The training part; nobody searches with the test part."""
        with np.load(self.data) as file:
            return file["x_train"], file["y_train"]

    def split(self, count: int, *position: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices to train on and to validate on, drawn afresh for each ``position``."""
        order = np.random.default_rng((self.seed, *position)).permutation(count)
        held = round(count * self.task.held_out)
        return order[held:], order[:held]

    def network(self, params: Params, images: NDArray[np.float32]) -> Any:
        """The study's network for these images, compiled."""
        from study.training.network import build_cnn

        classes = 10  # MNIST's and the digits'
        return build_cnn({**self.task.fixed, **params}, images.shape[1:], classes)


@dataclass
class Tally:
    """Seconds and image-passes of a contender over all its sessions, kept in a file.

    A contender that was killed goes on; what it then trains again counts, and so does the time,
    but not the time between two sessions.
    """

    path: Path
    began: float
    seconds: float = 0.0
    passes: int = 0
    runs: int = 0
    sessions: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, path: Path, began: float) -> Self:
        """Go on where a session before this one ended; this one began at ``began``."""
        tally = cls(path, began)
        if path.exists():
            before = json.loads(path.read_text())
            tally.seconds, tally.passes = before["seconds"], before["passes"]
            tally.runs, tally.sessions = before["runs"], before["sessions"] + 1
        threading.Thread(target=tally._tick, daemon=True).start()
        return tally

    def add(self, images: int, runs: int = 0) -> None:
        """Count an epoch over ``images`` and the start of ``runs``."""
        self.passes += images
        self.runs += runs

    def told(self) -> dict[str, Any]:
        seconds = self.seconds + time.time() - self.began
        counts = {"passes": self.passes, "runs": self.runs, "sessions": self.sessions}
        return {"seconds": round(seconds, 2), **counts}

    def save(self) -> None:
        with self._lock:
            aside = self.path.with_suffix(".new")
            aside.write_text(json.dumps(self.told()))
            aside.replace(self.path)

    def callback(self, images: int) -> Any:
        """A Keras callback that counts the epochs of runs over ``images`` images."""
        import keras

        tally = self

        class Counting(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                tally.add(0, runs=1)

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                tally.add(images)

            def __deepcopy__(self, memo: Any) -> Self:  # KerasTuner copies what it is given
                return self

        return Counting()

    def _tick(self) -> None:
        parent = os.getppid()
        while True:
            time.sleep(TICK)
            self.save()
            if os.getppid() != parent:  # killed: its next session must not find this one at work
                os.killpg(0, signal.SIGKILL)
