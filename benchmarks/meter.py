"""A table of curves in place of training: what a simulated study draws, sees and pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import blas_threads  # noqa: F401 - before NumPy
import numpy as np
from tables import Table

from study.plan.results import Configuration
from study.space.search_space import SearchSpace


@dataclass(frozen=True)
class Draw:
    """What one simulated study draws: start (in ``space``), seed, the table's repeats in order.

    ``images`` validation images of a repeat are drawn from a pool of ``pool`` images.
    """

    space: SearchSpace
    start: Configuration
    seed: int
    order: tuple[int, ...]
    images: int | None
    pool: int | None = None

    @property
    def rng(self) -> np.random.Generator:
        """For procedures that draw more."""
        return np.random.default_rng(self.seed)


class Spent(Exception):
    """The last limit is reached: nothing more is trained."""


class Meter:
    """A table in place of training, for one study; ``answer`` is what it would say now."""

    def __init__(self, table: Table, draw: Draw, limits: Sequence[int] = ()) -> None:
        self.table = table
        self.draw = draw
        self.answer = table.index[draw.start]
        self.epochs = 0
        self.seconds = 0.0
        self.used = 0
        self._limits = tuple(limits)
        self._at: list[int] = []

    def pay(self, epochs: int = 1) -> None:
        """Count new epochs; raises ``Spent`` where the last limit does not allow them all."""
        for limit in self._limits[len(self._at) :]:
            if self.epochs + epochs > limit:
                self._at.append(self.answer)
        if self._limits and len(self._at) == len(self._limits):
            self.epochs = self._limits[-1]
            raise Spent
        self.epochs += epochs

    def curve(self, place: int, repeat: int, epochs: int | None = None) -> list[float]:
        """Validation accuracies of a configuration's repeat, as this study counts them."""
        self.used = max(self.used, repeat + 1)
        curve: list[float] = self.table.val_acc[place, self.draw.order[repeat], :epochs].tolist()
        return curve

    @property
    def unused(self) -> tuple[int, ...]:
        """The table's repeats that this study has not seen: the truth is their mean."""
        return self.draw.order[self.used :]

    def train(self, place: int, repeat: int, epochs: int | None = None) -> list[float]:
        """Train a run anew, to its end or for some epochs."""
        curve = self.curve(place, repeat, epochs)
        self.pay(len(curve))
        return curve

    @property
    def at(self) -> tuple[int, ...]:
        """The answers at the limits; at those never reached it is the last one."""
        return (*self._at, *[self.answer] * (len(self._limits) - len(self._at)))
