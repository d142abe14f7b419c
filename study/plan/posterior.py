"""What curves say about every configuration: a Gaussian process over (configuration, repeat, rung).

The logarithm of the validation error at a *rung* (an epoch at which runs may pause) is modelled as

    level(rung) + (1 + slope * u) * final(configuration) + u * early(configuration)
        + offset(repeat) + u * early offset(repeat) + drift(repeat, configuration) + run + noise

where ``u`` is 0 at the last rung and 1 at the first one. ``final`` is a sum of an effect of each
hyperparameter, of effects of pairs and of a rest, ``early`` has effects and a rest of its own: what
leads early need not lead at the end.
``offset`` and ``drift`` are shared by the runs of a repeat and cancel in comparisons within it.
The variances are fitted anew from the rows: a few steps of average-information scoring (Gilmour,
Thompson and Cullis 1995) towards the mode under a weak prior.
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

_KNOWN = ((1.0, 1.5), (0.5, 0.5), (0.5, 0.5), (0.15, 0.0))
"""How well the logarithms of variances are known beforehand, as standard deviations: of each by
itself and of all together, for `final`, `early` and repeats; and the slope."""
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
    """Covariances between cells, linear in the variances ``theta`` but for the slope.

    ``effects`` holds the correlation of configurations through each hyperparameter, of shape
    (hyperparameters, configurations, configurations); ``early`` is ``u`` of each rung. ``noise``
    and ``offset`` are what to expect of the variance of a run within its repeat, and of a repeat.
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
        # Chosen for what races say to come true, on recorded and on made-up tables (docs/log.md).
        final = [*[0.09] * self.count, 0.1, 0.04]
        fading = [*[0.1] * self.count, 0.14]
        shares = (offset, 0.3 * offset, 0.2 * noise, 0.3 * noise, 0.5 * noise)
        repeats = [math.sqrt(share) for share in shares]
        self.start = np.array([*2 * np.log([*final, *fading, *repeats]), 0.8])
        # Variances are larger or smaller each by itself, and those of a group together.
        sizes = [len(final), len(fading), len(repeats), 1]
        own, together = np.repeat(_KNOWN, sizes, axis=0).T
        group = np.repeat(range(len(sizes)), sizes)
        shared = (group[:, None] == group) * together**2
        self.precision = np.linalg.inv(np.diag(own**2) + shared)

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
    split, precision = len(final), kernel.precision
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


class Posterior:
    """What observations ``z`` of ``cells`` say about the final level of every configuration.

    ``mean`` and ``spread`` (their covariance) are over all configurations of the kernel. Cells that
    are ``pending``, their value still to come, narrow but do not move.
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
        variance, split = np.exp(theta[:-1]), kernel.count
        self._final: Array = np.tensordot(variance[:split], kernel.effects, 1)
        self._final += variance[split] * kernel.pairs
        self._final[np.diag_indices(len(self._final))] += variance[split + 1]
        self._early: Array = np.tensordot(variance[split + 2 : 2 * split + 2], kernel.effects, 1)
        self._early[np.diag_indices(len(self._early))] += variance[2 * split + 2]
        self._repeats = variance[2 * split + 3 :]
        self._level = _LEVEL + len(kernel.early) - 1
        whole = self._covariance(cells, cells)
        alpha = np.linalg.solve(whole, z - z.mean())
        target = self._target(cells)
        self.mean: Array = target @ alpha + z.mean()
        self._cells = cells
        if pending is not None and len(pending):
            self._cells = cells.join(pending)
            whole, target = self._covariance(self._cells, self._cells), self._target(self._cells)
        self._factor = np.linalg.inv(np.linalg.cholesky(whole))
        self._shown = self._factor @ target.T
        self.spread: Array = self._final + self._level - self._shown.T @ self._shown

    @property
    def deviations(self) -> Array:
        """The standard deviation of each final level."""
        deviations: Array = np.sqrt(np.maximum(np.diag(self.spread), 1e-12))
        return deviations

    def shares(self, places: Places, leader: int, actions: Cells) -> Array:
        """How much of the variance of each place's lag behind the leader an action would remove.

        Of shape (places, actions).
        """
        shown = self._factor @ self._covariance(self._cells, actions)
        own = self._own(actions) - (shown**2).sum(0)
        behind = self._final[places] - self._final[leader]
        lag = behind[:, actions.configuration] * self.kernel.growth(self.theta, actions)
        lag -= (self._shown[:, places].T - self._shown[:, leader]) @ shown
        spread = self.spread
        width = np.diag(spread)[places] + spread[leader, leader] - 2 * spread[leader, places]
        share: Array = lag**2 / np.maximum(own, 1e-12) / np.maximum(width, 1e-12)[:, None]
        return share

    def _covariance(self, a: Cells, b: Cells) -> Array:
        """The prior covariance of observations."""
        kernel, where = self.kernel, np.ix_(a.configuration, b.configuration)
        offset, drawn, drift, run, noise = self._repeats
        u = np.outer(kernel.early[a.rung], kernel.early[b.rung])
        repeat = a.repeat[:, None] == b.repeat[None]
        mean, rung = kernel.mean[where], a.rung[:, None] == b.rung[None]
        whole: Array = self._final[where] * np.outer(
            kernel.growth(self.theta, a), kernel.growth(self.theta, b)
        )
        whole += u * self._early[where] + repeat * (offset + drawn * u + drift * mean)
        whole += (a.run[:, None] == b.run[None]) * (run + noise * rung) + kernel.level(a, b)
        return whole

    def _own(self, a: Cells) -> Array:
        """The prior variance of each observation."""
        kernel, place, u = self.kernel, a.configuration, self.kernel.early[a.rung] ** 2
        offset, drawn, drift, run, noise = self._repeats
        mean = kernel.mean[place, place]
        whole: Array = self._final[place, place] * kernel.growth(self.theta, a) ** 2
        whole += u * (self._early[place, place] + drawn) + offset + drift * mean + run + noise
        whole += _LEVEL + a.rung
        return whole

    def _target(self, cells: Cells) -> Array:
        """The prior covariance of every final level with observations."""
        target: Array = self._final[:, cells.configuration] * self.kernel.growth(self.theta, cells)
        target += _LEVEL + cells.rung
        return target
