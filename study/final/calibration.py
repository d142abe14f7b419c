"""Calibration of probabilities by a temperature, and its effect on test images.

The temperature is fitted on held-out images (Guo et al., ICML 2017, arXiv:1706.04599); the test
images, which were not used for that, measure the error before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = NDArray[np.float32]

_BINS = 15  # of equal width, as in the paper
_RESAMPLES = 1000
_RANGE = (-3.0, 3.0)  # natural logarithms of the smallest and the largest temperature
_EDGES = (0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.95, 0.99, 1)


@dataclass(frozen=True)
class Error:
    """Expected calibration error (a fraction) and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """The ``temperature`` fitted on ``images`` held-out images; the error on the test images."""

    temperature: float
    images: int
    before: Error
    after: Error

    @property
    def words(self) -> str:
        """The sentence for terminal and report."""
        before, after = (
            f"{100 * e.value:.2f} % (95 % interval {100 * e.low:.2f} to {100 * e.high:.2f})"
            for e in (self.before, self.after)
        )
        return (
            f"Expected calibration error on the test images: {before} before, {after} after "
            f"temperature {self.temperature:.2f}, which {self.images:,} held-out images gave."
        )


@dataclass(frozen=True)
class Says:
    """Images whose label a model gives about the same probability.

    ``says`` is their mean probability, ``right`` the fraction that is right, ``error`` its standard
    error; ``images`` counts them.
    """

    says: float
    right: float
    error: float
    images: int

    @property
    def words(self) -> str:
        return (
            f"says {100 * self.says:.0f} %: right in {100 * self.right:.1f} ± "
            f"{100 * self.error:.1f} % of {self.images:,} images"
        )


def calibrated(outputs: Outputs, temperature: float | None) -> Outputs:
    """Probabilities (n, classes) at a temperature; as they are where it is None.

    The likeliest class stays the likeliest.
    """
    if temperature is None:
        return outputs
    return np.exp(_log_softmax(_logs(outputs) / temperature)).astype(np.float32)


def fit(outputs: Outputs, labels: NDArray[Any]) -> float:
    """The temperature at which probabilities (n, classes) are likeliest to give these labels.

    Targets are Platt's: of n images a share of 1 / (n + 2) counts for the likeliest other class. A
    model that gets every held-out image right would be made sure of everything otherwise.
    """
    from scipy.optimize import minimize_scalar

    logs, images = _logs(outputs), np.arange(len(outputs))
    others = logs.copy()
    others[images, labels] = -np.inf
    other, rare = others.argmax(axis=1), 1 / (len(outputs) + 2)

    def loss(log_temperature: float) -> float:
        scaled = _log_softmax(logs / np.exp(log_temperature))
        own, rival = scaled[images, labels].mean(), scaled[images, other].mean()
        return float(-(1 - rare) * own - rare * rival)

    return float(np.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded").x))


def measure(temperature: float, images: int, outputs: Outputs, labels: NDArray[Any]) -> Calibration:
    """The calibration error of test outputs (n, classes) before and after a temperature."""
    before, after = (
        expected_error(said, labels) for said in (outputs, calibrated(outputs, temperature))
    )
    return Calibration(temperature, images, before, after)


def expected_error(outputs: Outputs, labels: NDArray[Any]) -> Error:
    """The mean distance of confidence and accuracy over 15 bins, with a bootstrap interval.

    The interval is the basic bootstrap's, because the error of a resample is biased upwards. Its
    seed is fixed: the same outputs have the same interval.
    """
    confidence, right = _confidence(outputs, labels)
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gap, images = confidence - right, len(outputs)
    value = float(np.abs(np.bincount(bins, gap, _BINS)).sum() / images)
    random, drawn = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        some = random.integers(images, size=images)
        drawn.append(np.abs(np.bincount(bins[some], gap[some], _BINS)).sum() / images)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Error(value, max(0.0, float(2 * value - high)), max(value, float(2 * value - low)))


def reliability(outputs: Outputs, labels: NDArray[Any]) -> list[Says]:
    """How often a model is right, in groups by its confidence; empty groups are left out."""
    confidence, right = _confidence(outputs, labels)
    group = np.digitize(confidence, _EDGES[1:-1])
    found = []
    for one in range(len(_EDGES) - 1):
        of = right[group == one]
        if len(of):
            share = float(of.mean())
            # of all right or all wrong the spread is unknown: Laplace's estimate stands for it
            guess = (float(of.sum()) + 1) / (len(of) + 2)
            error = float(np.sqrt(guess * (1 - guess) / len(of)))
            found.append(Says(float(confidence[group == one].mean()), share, error, len(of)))
    return found


def around_90(groups: Sequence[Says]) -> Says | None:
    """The group that says about 90 %; None where no image is in it."""
    return next((one for one in groups if 0.85 <= one.says < 0.95), None)


def _confidence(
    outputs: Outputs, labels: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The probability of the predicted class of each image, and 1 where it is right."""
    right = (outputs.argmax(axis=1) == labels).astype(np.float64)
    return outputs.max(axis=1).astype(np.float64), right


def _logs(outputs: Outputs) -> NDArray[np.float64]:
    """Natural logarithms; a probability of 0 counts as the smallest 32-bit number."""
    smallest = np.finfo(np.float32).tiny
    return np.log(np.maximum(outputs.astype(np.float64), smallest))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
