"""What a whole table lets know of the truth: draws of every configuration's true accuracy.

A mean over 8 repeats and 360 test images is uncertain by 0.24 points, more than what the best of
243 configurations differ by; the best of such means is the luckiest. All validation and test
accuracies of a table say more, and more still where configurations share options: the logarithm of
the error is a Gaussian process with effects of hyperparameters, of pairs and a rest, its variances
fitted to the table. The study's own model of curves has no part in it, but its kernel.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from tables import Floats, Table

from study.plan.race.candidates import Candidates

_LEVEL = 4.0  # the variance of the level of all: nothing is known of it


def known(table: Table, draws: int = 400) -> Floats | None:
    """Accuracies that the configurations may truly have, of shape (draws, configurations).

    None where the table cannot tell: a single repeat, or truths that repeats agree on.
    """
    if table.repeats < 2 or not np.ptp(table.test_acc, axis=1).any():
        return None
    errors = 1 - np.stack([table.val_acc[:, :, -1], table.test_acc])  # (2, c, r)
    noise = _noise(errors)
    weight = np.linalg.solve(noise + 1e-12 * np.eye(2), np.ones(2))
    variance = 1 / weight.sum()
    each, levels = errors.mean(axis=2), errors.mean(axis=(1, 2))
    images = np.array([table.pool or table.images or 1000, table.test_images or 1000])
    level = float(levels @ images / images.sum())
    error = level + weight @ (each - levels[:, None]) / weight.sum()
    error = np.maximum(error, 0.1 * level)
    mean, covariance = _posterior(table, np.log(error), variance / (error * level))
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(covariance + 1e-10 * np.eye(len(error)))
    found = mean + rng.standard_normal((draws, len(error))) @ root.T
    # All images of the table are a sample: what is hard or easy in them for all.
    sampled = np.sqrt((1 - level) / (level * images.sum()))
    accuracies: Floats = 1 - np.exp(found + sampled * rng.standard_normal((draws, 1)))
    return accuracies


def _noise(errors: Floats) -> Floats:
    """The covariance of validation and test means that repeats leave, of shape (2, 2)."""
    left = errors - errors.mean(axis=1, keepdims=True) - errors.mean(axis=2, keepdims=True)
    left = (left + errors.mean(axis=(1, 2), keepdims=True)).reshape(2, -1)
    _, configurations, repeats = errors.shape
    noise: Floats = left @ left.T / (configurations - 1) / (repeats - 1) / repeats
    return noise


def _posterior(table: Table, z: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of the configurations' log errors, given ``z`` with this noise."""
    effects = Candidates(table.space, table.configurations).effects
    total, count = effects.sum(0), len(effects)
    pairs = (total**2 - (effects**2).sum(0)) / max(1, count * (count - 1))
    parts = np.stack([*effects, pairs, np.eye(len(z))])
    start = np.log([*[0.02] * count, 0.005, 0.001])

    def prior(theta: Floats) -> Floats:
        kernel: Floats = np.tensordot(np.exp(theta), parts, 1) + _LEVEL
        return kernel

    def misfit(theta: Floats) -> float:
        root = np.linalg.cholesky(prior(theta) + np.diag(noise))
        scaled = np.linalg.solve(root, z - z.mean())
        rough = ((theta - start) / 3) ** 2
        return float(scaled @ scaled / 2 + np.log(np.diag(root)).sum() + rough.sum() / 2)

    kernel = prior(minimize(misfit, start, method="L-BFGS-B").x)
    gain = np.linalg.solve(kernel + np.diag(noise), kernel).T
    return z.mean() + gain @ (z - z.mean()), kernel - gain @ kernel
