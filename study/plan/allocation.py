"""Where the next epochs tell the most about which configuration is the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from study.plan.posterior import Array, Cells, Places, Posterior


class Progress:
    """How far each run of a race is, in arrays of (configurations, repeats)."""

    def __init__(self, configurations: int, repeats: int) -> None:
        self.epochs = np.zeros((configurations, repeats), dtype=np.intp)
        self.run: Places = -1 - np.arange(configurations * repeats).reshape(self.epochs.shape)
        self.busy = np.zeros(self.epochs.shape, dtype=bool)

    def actions(self, places: Places, rungs: Sequence[int], spare: int) -> tuple[Cells, Places]:
        """Runs that may begin or go on until a rung, each for at most ``spare`` epochs; costs."""
        costs = np.array(rungs) - self.epochs[places][:, :, None]
        # Of the repeats not begun the first two are enough: more of them would say the same.
        fresh = self.run[places] < 0
        allowed = ~self.busy[places] & (~fresh | (fresh.cumsum(1) <= 2))
        possible = (costs > 0) & (costs <= spare) & allowed[:, :, None]
        which, repeat, rung = np.nonzero(possible)
        place = places[which]
        return Cells(place, repeat, rung, self.run[place, repeat]), costs[possible]


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


def best(posterior: Posterior, rivals: Places, cells: Cells, costs: Places) -> int:
    """The action that takes away the most expected regret an epoch; the leader is rival 0."""
    regret = regrets(posterior.mean[rivals], posterior.spread[np.ix_(rivals, rivals)])
    value = regret @ posterior.shares(rivals, int(rivals[0]), cells) / costs
    return int(np.argmax(value))
