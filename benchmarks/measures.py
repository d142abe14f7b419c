"""What simulated studies come to, with standard errors, and whether what they stated is true.

The truth is the table's: a configuration's mean test accuracy over all repeats. Regret and
distances are in points (1/100 of an accuracy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from simulation import Outcome
from tables import Floats, Table

NEAR = (0.1, 0.2)
"""Regrets, in points, of which the share of studies is given."""

FIFTHS = 5
_RESAMPLES = 300


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


def regrets(table: Table, answers: Sequence[int]) -> Floats:
    """How far each answer is from the best configuration, in points."""
    missed: Floats = 100 * (table.truth.max() - table.truth[list(answers)])
    return missed


def measured(table: Table, outcomes: Sequence[Outcome], limit: int | None = None) -> dict[str, Any]:
    """Epochs and regret, at the end or where the limit of this place was reached."""
    answers = [one.answer if limit is None else one.at[limit] for one in outcomes]
    missed = regrets(table, answers)
    ranked = np.sort(np.random.default_rng(0).choice(missed, (_RESAMPLES, len(missed))), axis=1)
    tail = ranked[:, math.ceil(0.95 * len(missed)) - 1]
    return {
        "studies": len(outcomes),
        "epochs": mean([one.epochs for one in outcomes]),
        "seconds": mean([one.seconds for one in outcomes]),
        "regret": mean(missed),
        "95th percentile": Estimate(float(np.quantile(missed, 0.95)), float(tail.std())),
        **{f"within {near}": share(_near(table, answers, near)) for near in NEAR},
    }


def judged(table: Table, outcomes: Sequence[Outcome], tolerance: float) -> dict[str, Any]:
    """How often what was stated is true; ``tolerance`` in points is what probabilities are of.

    An interval of the accuracy is held against the validation accuracy at the end of training,
    averaged over all repeats of the table, and against the test accuracy.
    """
    said = [(one.answer, one.stated) for one in outcomes if one.stated is not None]
    if not said:
        return {}
    validation = table.val_acc[:, :, -1].mean(axis=1)
    truths = {"validation": validation, "test": table.truth}
    found: dict[str, Any] = {"stated": share(np.arange(len(outcomes)) < len(said))}
    for name, truth in truths.items():
        for what, held in (("accuracy", truth), ("distance", truth.max() - truth)):
            pairs = [(held[answer], getattr(one, what)) for answer, one in said]
            hits = [low <= value <= high for value, (low, high) in _given(pairs)]
            if hits:
                found[f"{what} interval holds the {name} truth"] = share(np.array(hits))
    pairs = [(answer, one.within) for answer, one in said]
    sure = [(answer, within) for answer, within in pairs if within is not None]
    if sure:
        right = _near(table, [answer for answer, _ in sure], tolerance)
        stated = np.array([within for _, within in sure])
        found["probability"] = _fifths(stated, right)
    found["ended"] = {
        reason: {"studies": len(answers), "came true": share(_near(table, answers, tolerance))}
        for reason in sorted({one.reason for _, one in said if one.reason})
        if (answers := [answer for answer, one in said if one.reason == reason])
    }
    return found


def _near(table: Table, answers: Sequence[int], points: float) -> Any:
    """Whether each answer is within so many points of the best."""
    return regrets(table, answers) <= points + 1e-9


def _given(pairs: Sequence[tuple[float, Any]]) -> list[tuple[float, tuple[float, float]]]:
    return [(value, interval) for value, interval in pairs if interval is not None]


def _fifths(stated: Floats, right: Any) -> list[dict[str, Any]]:
    """Stated probability beside what came true, in each fifth of the range."""
    place = np.minimum((stated * FIFTHS).astype(int), FIFTHS - 1)
    return [
        {
            "from": fifth / FIFTHS,
            "studies": int((place == fifth).sum()),
            "stated": float(stated[place == fifth].mean()),
            "came true": share(right[place == fifth]),
        }
        for fifth in range(FIFTHS)
        if (place == fifth).any()
    ]


def mean(values: Any) -> Estimate:
    """The mean of a sample."""
    values = np.asarray(values, dtype=float)
    spread = values.std(ddof=1) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(spread / math.sqrt(len(values))))


def share(hits: Any) -> Estimate:
    """The share of a sample that is true."""
    hit = float(np.mean(hits))
    return Estimate(hit, math.sqrt(hit * (1 - hit) / len(hits)))


def plain(value: Any) -> Any:
    """The same for JSON."""
    if isinstance(value, Estimate):
        return asdict(value)
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value
