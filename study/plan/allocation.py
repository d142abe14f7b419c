"""Where the next epochs tell the most about which configuration is the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from study.plan.posterior import Array, Cells, Places, Posterior

_LAST = 3
"""How many times the epochs of each other rung the last one has."""


class Progress:
    """How far each run of a race is, in arrays of (configurations, repeats)."""

    def __init__(self, configurations: int, repeats: int) -> None:
        self.epochs = np.zeros((configurations, repeats), dtype=np.intp)
        self.promised = np.zeros_like(self.epochs)
        self.run: Places = -1 - np.arange(configurations * repeats).reshape(self.epochs.shape)
        self.busy = np.zeros(self.epochs.shape, dtype=bool)

    def actions(self, places: Places, rungs: Sequence[int], spare: int) -> Cells | None:
        """The next step of every run: to its next rung, or to the first one.

        Only those to the rung whose share of the epochs is the least spent yet, of no more than
        ``spare`` epochs; None where there is none. What would tell the most an epoch is no guide
        from rung to rung: to a model that has seen early epochs alone they seem to say all.
        """
        steps = np.diff([0, *rungs])
        reached = np.searchsorted(rungs, self.epochs, side="right")
        here = reached[places]
        # Of the repeats not begun the first two are enough: more of them would say the same.
        fresh = self.run[places] < 0
        allowed = ~self.busy[places] & (~fresh | (fresh.cumsum(1) <= 2)) & (here < len(steps))
        spent = [
            (self.promised >= epochs).sum() * step
            for epochs, step in zip(rungs, steps, strict=True)
        ]
        spent[-1] = spent[-1] / _LAST
        for rung in np.argsort(spent, kind="stable"):
            if steps[rung] <= spare and (allowed & (here == rung)).any():
                which, repeat = np.nonzero(allowed & (here == rung))
                place = places[which]
                return Cells(place, repeat, np.full_like(place, rung), self.run[place, repeat])
        return None


def regrets(mean: Array, spread: Array) -> Array:
    """The expected regret of staying with the first configuration, for each of the others.

    ``mean`` and ``spread`` are of the logarithm of the error: less is better.
    """
    gap = mean - mean[0]
    width = np.sqrt(np.maximum(np.diag(spread) + spread[0, 0] - 2 * spread[0], 1e-12))
    ratio = gap / width
    density = np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)
    regret: Array = width * density - gap * _tail(ratio)
    regret[0] = 0.0
    return np.maximum(regret, 0.0)


def _tail(ratio: Array) -> Array:
    """The probability that a standard normal number is above ``ratio``."""
    from scipy.special import ndtr

    tail: Array = ndtr(-ratio)
    return tail


def best(posterior: Posterior, rivals: Places, cells: Cells) -> int:
    """The action that takes away the most expected regret; the leader is rival 0."""
    regret = regrets(posterior.mean[rivals], posterior.spread[np.ix_(rivals, rivals)])
    return int(np.argmax(regret @ posterior.shares(rivals, int(rivals[0]), cells)))
