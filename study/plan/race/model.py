"""The model of curves: a Gaussian process over (configuration, repeat, rung).

The logarithm of the validation error at a *rung* (an epoch at which runs may pause) is modelled as

    level(rung) + (1 + slope * u) * final(configuration) + u * early(configuration)
        + offset(repeat) + u * early offset(repeat) + drift(repeat, configuration) + run + noise

where ``u`` is 0 at the last rung and 1 at the first one. ``final`` is a sum of an effect of each
hyperparameter, of effects of pairs and of a rest, ``early`` has effects and a rest of its own: what
leads early need not lead at the end. ``offset`` and ``drift`` are shared by the runs of a repeat
and cancel in comparisons within it. The variances are fitted to the observations: a few steps of
average-information scoring (Gilmour, Thompson and Cullis 1995) towards the mode under a weak prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.intp]

_LEVEL = 4.0
"""The variance of the first rung's level: next to nothing is known of it."""

_PRIOR_DEVIATIONS = ((1.0, 1.5), (0.5, 0.5), (0.5, 0.5), (0.15, 0.0))
"""Prior standard deviations of the log variances: of each by itself and of all together, for
`final`, `early` and repeats; and of the slope."""
_SLOPES = (-0.5, 1.5)


@dataclass(frozen=True)
class Cells:
    """Where observations lie, an entry each: configuration, repeat, rung and run as numbers."""

    configuration: Places
    repeat: Places
    rung: Places
    run: Places

    def __len__(self) -> int:
        return len(self.rung)

    def join(self, other: Cells) -> Cells:
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Cells(*(np.concatenate(pair) for pair in pairs))

    def _parts(self) -> tuple[Places, ...]:
        return self.configuration, self.repeat, self.rung, self.run


class Kernel:
    """Covariances between cells, linear in the variances ``exp(theta)`` but for the slope.

    ``effects`` holds the correlation of configurations through each hyperparameter, of shape
    (hyperparameters, configurations, configurations); ``early`` is ``u`` of each rung. ``noise``
    and ``offset`` are the expected variance of a run within its repeat, and of a repeat.
    """

    def __init__(
        self, effects: Array, early: Array, noise: float = 0.012, offset: float = 0.01
    ) -> None:
        self.effects, self.early = effects, early
        self.count = len(effects)
        total = effects.sum(0)
        pairs = max(1, self.count * (self.count - 1) // 2)
        self.pairs = (total**2 - (effects**2).sum(0)) / 2 / pairs
        self.mean = total / self.count
        # Chosen so that a race's statements come true on recorded and on synthetic tables.
        final = [*[0.09] * self.count, 0.1, 0.04]
        fading = [*[0.1] * self.count, 0.14]
        shares = (offset, 0.3 * offset, 0.2 * noise, 0.3 * noise, 0.5 * noise)
        repeats = [math.sqrt(share) for share in shares]
        self.start = np.array([*2 * np.log([*final, *fading, *repeats]), 0.8])
        # Variances are larger or smaller each by itself, and those of a group together.
        sizes = [len(final), len(fading), len(repeats), 1]
        own, together = np.repeat(_PRIOR_DEVIATIONS, sizes, axis=0).T
        group = np.repeat(range(len(sizes)), sizes)
        shared = (group[:, None] == group) * together**2
        self.precision = np.linalg.inv(np.diag(own**2) + shared)

    @property
    def split(self) -> int:
        """How many of the variances belong to `final`: effects, pairs and the rest."""
        return self.count + 2

    def parts(self, a: Cells, b: Cells) -> tuple[Array, Array]:
        """The factors of the variances of `final` and of the others, each (variances, a, b)."""
        where = np.ix_(a.configuration, b.configuration)
        same = (a.configuration[:, None] == b.configuration[None]).astype(float)
        repeat = (a.repeat[:, None] == b.repeat[None]).astype(float)
        run = (a.run[:, None] == b.run[None]).astype(float)
        mean = self.mean[where]
        u = np.outer(self.early[a.rung], self.early[b.rung])
        noise = run * (a.rung[:, None] == b.rung[None])
        final = np.stack([*(effect[where] for effect in self.effects), self.pairs[where], same])
        early = [*(u * effect[where] for effect in self.effects), u * same]
        others = [repeat, u * repeat, repeat * mean, run, noise]
        return final, np.stack([*early, *others])

    def covariance(self, theta: Array, a: Cells, b: Cells) -> Array:
        """The prior covariance of observations, of shape (a, b)."""
        variance, (final, others) = np.exp(theta[:-1]), self.parts(a, b)
        growth = np.outer(self.growth(theta, a), self.growth(theta, b))
        whole: Array = np.tensordot(variance[: self.split], final, 1) * growth
        return whole + np.tensordot(variance[self.split :], others, 1) + self.level(a, b)

    def final(self, theta: Array) -> Array:
        """The prior covariance of `final`, of shape (configurations, configurations)."""
        variance = np.exp(theta[: self.split])
        final: Array = np.tensordot(variance[: self.count], self.effects, 1)
        final += variance[self.count] * self.pairs
        final[np.diag_indices(len(final))] += variance[self.count + 1]
        return final

    def growth(self, theta: Array, cells: Cells) -> Array:
        """By how much more `final` shows at the rungs of these cells than at the last one."""
        growth: Array = 1 + theta[-1] * self.early[cells.rung]
        return growth

    def level(self, a: Cells, b: Cells) -> Array:
        """The covariance of the levels of rungs: a wide random walk."""
        level: Array = _LEVEL + np.minimum.outer(a.rung, b.rung)
        return level

    def within(self, theta: Array) -> float:
        """The variance over repeats of a configuration at the last rung."""
        offset, _, drift, run, noise = np.exp(theta[:-1])[-5:]
        return float(offset + drift * self.mean.diagonal().mean() + run + noise)


def fit(kernel: Kernel, cells: Cells, z: Array, steps: int = 6) -> Array:
    """The variances (as logarithms) and the slope that explain ``z`` best, under the prior."""
    theta = kernel.start.copy()
    final, others = kernel.parts(cells, cells)
    level, early = kernel.level(cells, cells), kernel.early[cells.rung]
    split, precision = kernel.split, kernel.precision
    for _ in range(steps):
        variance, growth = np.exp(theta[:-1]), kernel.growth(theta, cells)
        shape = np.outer(growth, growth)
        held = np.tensordot(variance[:split], final, 1)
        whole = held * shape + np.tensordot(variance[split:], others, 1) + level
        inverse = _inverse(whole)
        alpha = inverse @ z
        # d(whole) / d(theta), applied to alpha, and its trace with the inverse
        scaled, tilted = alpha * growth, inverse * shape
        first = (final @ scaled) * growth * variance[:split, None]
        second = (others @ alpha) * variance[split:, None]
        third = held @ scaled * early + held @ (alpha * early) * growth
        traces = np.concatenate(
            [
                variance[:split] * np.tensordot(final, tilted, 2),
                variance[split:] * np.tensordot(others, inverse, 2),
                [2 * (inverse * held * np.outer(early, growth)).sum()],
            ]
        )
        moved = np.vstack([first, second, third])
        gradient = 0.5 * (moved @ alpha - traces) - precision @ (theta - kernel.start)
        information = 0.5 * moved @ inverse @ moved.T + precision
        theta = theta + np.clip(np.linalg.solve(information, gradient), -1.0, 1.0)
        theta[-1] = np.clip(theta[-1], *_SLOPES)
    return theta


def _inverse(whole: Array) -> Array:
    """The inverse of a symmetric positive definite matrix, by Cholesky: a third of the work."""
    from scipy.linalg import lapack

    lower, failed = lapack.dpotrf(whole, lower=1)
    if failed:
        raise np.linalg.LinAlgError("not positive definite")
    inverse: Array = lapack.dpotri(lower, lower=1)[0]
    return np.tril(inverse) + np.tril(inverse, -1).T


class FinalLevels:
    """The posterior of every configuration's final level, given observations ``z`` of ``cells``.

    ``mean`` and ``spread`` (their covariance) are over all configurations of the kernel. Cells that
    are ``pending``, their value still to come, narrow the spread but do not move the mean.
    """

    def __init__(
        self,
        kernel: Kernel,
        theta: Array,
        cells: Cells,
        z: Array,
        pending: Cells | None = None,
    ) -> None:
        self.kernel, self.theta = kernel, theta
        self._final = kernel.final(theta)
        whole = kernel.covariance(theta, cells, cells)
        alpha = np.linalg.solve(whole, z - z.mean())
        target = self._target(cells)
        self.mean: Array = target @ alpha + z.mean()
        self._cells = cells
        if pending is not None and len(pending):
            self._cells = cells.join(pending)
            whole = kernel.covariance(theta, self._cells, self._cells)
            target = self._target(self._cells)
        self._factor = np.linalg.inv(np.linalg.cholesky(whole))
        self._shown = self._factor @ target.T
        level = _LEVEL + len(kernel.early) - 1
        self.spread: Array = self._final + level - self._shown.T @ self._shown

    @property
    def deviations(self) -> Array:
        """The standard deviation of each final level."""
        deviations: Array = np.sqrt(np.maximum(np.diag(self.spread), 1e-12))
        return deviations

    def variance_reduction(self, places: Places, leader: int, actions: Cells) -> Array:
        """The share of the variance of each place's lag behind the leader that an action removes.

        Of shape (places, actions).
        """
        kernel, theta = self.kernel, self.theta
        shown = self._factor @ kernel.covariance(theta, self._cells, actions)
        own = np.diag(kernel.covariance(theta, actions, actions)) - (shown**2).sum(0)
        behind = self._final[places] - self._final[leader]
        lag = behind[:, actions.configuration] * kernel.growth(theta, actions)
        lag -= (self._shown[:, places].T - self._shown[:, leader]) @ shown
        spread = self.spread
        width = np.diag(spread)[places] + spread[leader, leader] - 2 * spread[leader, places]
        share: Array = lag**2 / np.maximum(own, 1e-12) / np.maximum(width, 1e-12)[:, None]
        return share

    def _target(self, cells: Cells) -> Array:
        """The prior covariance of every final level with observations."""
        growth = self.kernel.growth(self.theta, cells)
        target: Array = self._final[:, cells.configuration] * growth
        target += _LEVEL + cells.rung
        return target
