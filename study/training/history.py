"""The epochs of a run so far, the weights of its best one, and the checkpoint that holds both.

It is used by every trainer and imports neither TensorFlow nor JAX.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from study.errors import TrainingFailed
from study.space.metric import Metric
from study.training.checkpoint import Checkpoint, Checkpoints
from study.training.run import Epoch, Run

_log = logging.getLogger(__name__)

Arrays = tuple[NDArray[Any], ...]

_EPOCHS = TypeAdapter(list[Epoch])


@dataclass
class History:
    """The epochs of `run` from the first, and the weights of its `best` epoch if it keeps them."""

    run: Run
    checkpoints: Checkpoints | None
    epochs: list[Epoch] = field(default_factory=list)
    best: Arrays = ()

    @property
    def end(self) -> int:
        """After how many epochs the run ends or pauses."""
        return self.run.epochs if self.run.until is None else min(self.run.until, self.run.epochs)

    @property
    def ended(self) -> bool:
        """Whether the run has no epoch left: its patience is over, or it has had all of them."""
        metric = self.run.metric
        over = self.run.recipe.ends(self._curve(), metric)
        return over or len(self.epochs) == self.run.epochs

    def _curve(self) -> list[float]:
        """The run's metric after each epoch; NaN where it is not measured."""
        return [one.logs().get(self.run.metric.name, math.nan) for one in self.epochs]

    def resume(self, restore: Callable[[Arrays], object], own: int) -> Arrays | None:
        """Take up the run's checkpoint; returns its state, or None where the run starts anew.

        The state is the first ``own`` arrays; ``restore`` is called with it once the epochs are
        known, and raises ValueError where the state is not that of this network after them.
        """
        stored = self.checkpoints.load(self.run.key) if self.checkpoints else None
        if stored is None:
            return None
        try:
            self.epochs = _read(stored.history, self.run.epochs)
            restore(stored.arrays[:own])
        except ValueError as error:  # damaged, or written by another version or program
            _log.warning("a checkpoint is ignored, the run starts anew: %s", error)
            self.epochs = []
            return None
        self.best = stored.arrays[own:]
        return stored.arrays[:own]

    def add(self, epoch: Epoch, weights: Callable[[], Arrays]) -> None:
        """Append an epoch; keep its weights if it is the best one and the run keeps the best."""
        self.epochs.append(epoch)
        if not self.run.recipe.keeps_best:
            return
        curve = self._curve()
        if math.isnan(curve[-1]) or self.run.metric.best(curve) == len(curve) - 1:
            self.best = weights()

    def save(self, state: Sequence[NDArray[Any]]) -> None:
        """Write the checkpoint of the last epoch; if that fails, the run continues without it."""
        if self.checkpoints is None:
            return
        records = tuple(asdict(epoch) for epoch in self.epochs)
        try:
            self.checkpoints.save(Checkpoint(self.run.key, records, (*state, *self.best)))
        except OSError as error:
            _log.warning("no checkpoint can be written: %s", error)


def _read(records: Sequence[Mapping[str, Any]], at_most: int) -> list[Epoch]:
    """The epochs of a checkpoint; ValueError if a run of that length cannot have had them."""
    try:
        epochs = _EPOCHS.validate_python(list(records))
    except ValidationError:
        raise ValueError("its epochs are no numbers") from None
    for number, epoch in enumerate(epochs):
        logs = epoch.logs()
        shares = [logs[name] for name in ("accuracy", "val_accuracy")]
        sound = all(map(math.isfinite, (epoch.loss, epoch.seconds, epoch.ended))) and all(
            math.isnan(share) or 0 <= share <= 1 for share in shares
        )
        if epoch.number != number or number >= at_most or not sound:
            raise ValueError(f"this run cannot have had its epoch {number + 1}")
    return epochs


def measured(
    number: int,
    trained: Mapping[str, float],
    validated: Mapping[str, float] | None,
    seconds: float,
    metric: Metric,
) -> Epoch:
    """The epoch of these logs; TrainingFailed if a loss or the ``metric`` is not finite."""
    epoch = Epoch.of(number, trained, validated or {}, seconds, time.time())
    finite = {"loss": epoch.loss}
    if validated is not None:
        finite |= {"validation loss": epoch.val_loss}
        finite[metric.words] = epoch.logs().get(metric.name, math.nan)
    for name, value in finite.items():
        if not math.isfinite(value):
            what = "NaN" if math.isnan(value) else "infinite"
            raise TrainingFailed(f"the {name} is {what} in epoch {number + 1}")
    return epoch
