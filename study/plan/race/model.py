"""What the runs of a study say of every configuration: a Gaussian process over configurations.

An observation is a run's last rung (an epoch at which runs may pause), as the logarithm of its
validation error, brought to the end of training: how ends follow from rungs is learnt from those
runs of the study that have gone further (`Growth`). Configurations are alike through effects of
each hyperparameter and of pairs. All variances are fitted to the study's own observations, by a few
steps of average-information scoring (Gilmour, Thompson and Cullis 1995) under a wide prior: no
scale is assumed.

The model says where epochs go, and how probable it is that something better was missed. What a
study says of a configuration's accuracy comes from its complete runs alone (`result`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from study.plan.race.candidates import Candidates

Array = NDArray[np.float64]
Places = NDArray[np.intp]
Cells = NDArray[np.intp]
"""Where observations lie, of shape (3, observations): configurations, repeats and rungs."""

LEVEL = 25.0
"""The variance of the mean of all observations: next to nothing is known of it."""

_JITTER = 1e-7
"""Added to the variance of each observation, so that matrices stay positive definite."""

_WIDE = 1.5
"""The prior standard deviation of each log variance, and of all together."""

_PAIRS_OF, _LEFT = 2.0, 0.1
"""The prior of a growth: how many pairs of rungs it counts as, and the share of the variance of
first rungs that it leaves open from rung to rung."""

_FITTED = 80
"""Observations that variances are fitted to; of more, every second, third and so on."""


class Growth:
    """How the end of a run follows from each rung, as far as runs of the study have shown it.

    From rung to rung a linear regression over the runs that have reached both, shrunk to a slope of
    1. Continuing runs were chosen by the earlier rung, which does not bias a regression on it.
    ``variance`` holds the variance of the end given each rung.
    """

    def __init__(self, curves: Sequence[Sequence[float]], rungs: int) -> None:
        first = np.array([curve[0] for curve in curves])
        spread = max(float(np.var(first)), 1e-4)
        self.slope, self.shift = np.ones(rungs), np.zeros(rungs)
        self.variance, self.pairs = np.zeros(rungs), np.zeros(rungs, dtype=int)
        for rung in range(rungs - 2, -1, -1):
            pairs = [curve[rung : rung + 2] for curve in curves if len(curve) > rung + 1]
            slope, shift, left = 1.0, 0.0, _LEFT * spread
            if pairs:
                x, y = np.array(pairs).T
                own, other = x - x.mean(), y - y.mean()
                prior = spread
                slope = float((own @ other + prior) / (own @ own + prior))
                shift = float(y.mean() - slope * x.mean())
                squares = float(((other - slope * own) ** 2).sum())
                freedom = max(len(x) - 2, 0)
                left = (squares + _PAIRS_OF * left) / (freedom + _PAIRS_OF)
            after = rung + 1
            self.pairs[rung] = len(pairs)
            self.slope[rung] = slope * self.slope[after]
            self.shift[rung] = shift * self.slope[after] + self.shift[after]
            self.variance[rung] = left * self.slope[after] ** 2 + self.variance[after]

    def end(self, rung: int, value: float) -> float:
        """The expected value at the end of a run with this one at a rung."""
        return float(self.slope[rung] * value + self.shift[rung])


class Kernel:
    """Covariances of observations, linear in the variances ``exp(theta)``.

    They are those of each hyperparameter's effects, of pairs, of a rest of each configuration, of a
    repeat, of a repeat's rung, and of a run at its end. Half of what a rung leaves open is shared
    by the runs of a configuration.
    """

    def __init__(self, candidates: Candidates, growth: Growth, noise: float, scale: float) -> None:
        self.effects, self.growth = candidates.effects, growth
        self.count = len(self.effects)
        self.pairs = candidates.pairs / max(1, self.count * (self.count - 1) // 2)
        several = self.count > 1
        shares = [0.7 / self.count] * self.count + [0.15 if several else 1e-6, 0.15]
        repeats = [0.5 * noise, 0.2 * noise, noise]
        self.start = np.log([*(scale * share for share in shares), *repeats])
        sizes = [len(shares), len(repeats)]
        group = np.repeat(range(2), sizes)
        alike = (group[:, None] == group) * 1.0
        deviations = np.array([_WIDE, 0.7])
        prior = (np.eye(len(group)) + alike) * deviations[group][:, None] * deviations[group]
        self.precision = np.linalg.inv(prior)

    def parts(self, a: Cells, b: Cells) -> Array:
        """The factors of the variances, of shape (variances, a, b)."""
        same, repeat, rung = (one[:, None] == other for one, other in zip(a, b, strict=True))
        rung = repeat & rung
        where = np.ix_(a[0], b[0])
        factors = [*(effect[where] for effect in self.effects), self.pairs[where]]
        return np.stack([*factors, same * 1.0, repeat * 1.0, rung * 1.0, (same & rung) * 1.0])

    def known(self, a: Cells, b: Cells) -> Array:
        """The part that is not fitted: the level, and what rungs leave open of the end."""
        same, repeat, _ = (one[:, None] == other for one, other in zip(a, b, strict=True))
        left = np.sqrt(np.outer(self.growth.variance[a[2]], self.growth.variance[b[2]]))
        run = same & repeat
        same_cell = run & (a[2][:, None] == b[2])
        known: Array = LEVEL + 0.5 * left * (same * 1.0 + run * 1.0) + _JITTER * same_cell
        return known

    def covariance(self, theta: Array, a: Cells, b: Cells) -> Array:
        """The prior covariance of observations, of shape (a, b)."""
        whole: Array = np.tensordot(np.exp(theta), self.parts(a, b), 1) + self.known(a, b)
        return whole

    def final(self, theta: Array) -> Array:
        """The prior covariance of configurations at the end, without the level."""
        variance = np.exp(theta[: self.count + 2])
        final: Array = np.tensordot(variance[: self.count], self.effects, 1)
        final += variance[self.count] * self.pairs
        final[np.diag_indices(len(final))] += variance[self.count + 1]
        return final

    def fit(self, cells: Cells, z: Array, steps: int = 6) -> Array:
        """The log variances that explain ``z`` best, under the prior."""
        theta = self.start.copy()
        parts, known = self.parts(cells, cells), self.known(cells, cells)
        for _ in range(steps):
            variance = np.exp(theta)
            inverse = _inverse(np.tensordot(variance, parts, 1) + known)
            alpha = inverse @ z
            moved = (parts @ alpha) * variance[:, None]
            traces = variance * np.tensordot(parts, inverse, 2)
            gradient = 0.5 * (moved @ alpha - traces) - self.precision @ (theta - self.start)
            information = 0.5 * moved @ inverse @ moved.T + self.precision
            theta = theta + np.clip(np.linalg.solve(information, gradient), -1.5, 1.5)
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
    """The posterior of every configuration at the end of training, given observations ``z``.

    ``mean`` and ``spread`` (their covariance) are over all configurations of the kernel. Cells that
    are ``pending``, their value still to come, narrow the spread but do not move the mean.
    """

    def __init__(
        self, kernel: Kernel, theta: Array, cells: Cells, z: Array, pending: Cells
    ) -> None:
        self.kernel, self.theta = kernel, theta
        self._final = kernel.final(theta)
        self.inverse = _inverse(kernel.covariance(theta, cells, cells))
        self.alpha: Array = self.inverse @ z
        self.mean: Array = self._target(cells) @ self.alpha
        self.surprise: Array = self.alpha / np.sqrt(np.diag(self.inverse))
        """Each observation's distance from what the others predict, in standard deviations."""
        self._cells = np.hstack([cells, pending])
        whole = kernel.covariance(theta, self._cells, self._cells)
        self._factor = np.linalg.inv(np.linalg.cholesky(whole))
        self._shown = self._factor @ self._target(self._cells).T
        self.spread: Array = self._final + LEVEL - self._shown.T @ self._shown

    def _target(self, cells: Cells) -> Array:
        """The prior covariance of every final level with observations."""
        target: Array = self._final[:, cells[0]] + LEVEL
        return target

    @property
    def deviations(self) -> Array:
        """The standard deviation of each final level."""
        deviations: Array = np.sqrt(np.maximum(np.diag(self.spread), 1e-12))
        return deviations

    def variance_reduction(self, places: Places, leader: int, steps: Cells) -> Array:
        """The share of the variance of each place's lag behind the leader that a step removes.

        Of shape (places, steps).
        """
        shown = self._factor @ self.kernel.covariance(self.theta, self._cells, steps)
        own = np.diag(self.kernel.covariance(self.theta, steps, steps)) - (shown**2).sum(0)
        lag = (self._final[places] - self._final[leader])[:, steps[0]]
        lag = lag - (self._shown[:, places].T - self._shown[:, leader]) @ shown
        spread = self.spread
        width = np.diag(spread)[places] + spread[leader, leader] - 2 * spread[leader, places]
        share: Array = lag**2 / np.maximum(own, 1e-12) / np.maximum(width, 1e-12)[:, None]
        return np.minimum(share, 1.0)


def fitted(kernel: Kernel, cells: Cells, z: Array, pending: Cells) -> FinalLevels:
    """The posterior with the variances that explain the observations best."""
    every = max(1, math.ceil(len(z) / _FITTED))
    theta = kernel.fit(cells[:, ::every], z[::every])
    return FinalLevels(kernel, theta, cells, z, pending)
