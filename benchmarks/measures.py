"""What simulated studies come to, with standard errors, and whether what they stated is true.

The truth is the table's: a configuration's mean test accuracy over all repeats. It is uncertain
itself; ``known`` holds draws of what it may be, of shape (draws, configurations), and what is held
against it is a mean over them. Regret and distances are in points (1/100 of an accuracy).
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


def measured(
    table: Table, outcomes: Sequence[Outcome], limit: int | None = None, known: Floats | None = None
) -> dict[str, Any]:
    """Epochs and regret, at the end or where the limit of this place was reached."""
    answers = [one.answer if limit is None else one.at[limit] for one in outcomes]
    missed = regrets(table, answers)
    ranked = np.sort(np.random.default_rng(0).choice(missed, (_RESAMPLES, len(missed))), axis=1)
    tail = ranked[:, math.ceil(0.95 * len(missed)) - 1]
    found = {
        "studies": len(outcomes),
        "epochs": mean([one.epochs for one in outcomes]),
        "seconds": mean([one.seconds for one in outcomes]),
        "regret": mean(missed),
        "95th percentile": Estimate(float(np.quantile(missed, 0.95)), float(tail.std())),
        **{f"within {near}": share(_near(table, answers, near)) for near in NEAR},
    }
    if known is not None:
        behind = _behind(known, answers)
        found["known regret"] = mean(behind.mean(axis=0))
        found |= {f"known within {near}": mean((behind <= near).mean(axis=0)) for near in NEAR}
    return found


def judged(
    table: Table, outcomes: Sequence[Outcome], tolerance: float, known: Floats | None = None
) -> dict[str, Any]:
    """How often what was stated is true; ``tolerance`` in points is what probabilities are of.

    An interval of the accuracy is held against the validation accuracy at the end of training,
    averaged over all repeats of the table, and against the test accuracy.
    """
    said = [(one.answer, one.stated) for one in outcomes if one.stated is not None]
    if not said:
        return {}
    validation = table.val_acc[:, :, -1].mean(axis=1)
    truths = {"validation": validation[None], "test": table.truth[None]}
    truths |= {} if known is None else {"known": known}
    found: dict[str, Any] = {"stated": share(np.arange(len(outcomes)) < len(said))}
    for name, truth in truths.items():
        distance = truth.max(axis=1, keepdims=True) - truth
        for what, held in (("accuracy", truth), ("distance", distance)):
            pairs = [(held[:, answer], getattr(one, what)) for answer, one in said]
            hits = [
                np.mean((low <= values) & (values <= high + 1e-12))
                for values, (low, high) in _given(pairs)
            ]
            if hits:
                found[f"{what} interval holds the {name} truth"] = mean(hits)
    pairs = [(answer, one.within) for answer, one in said]
    sure = [(answer, within) for answer, within in pairs if within is not None]
    if sure:
        stated = np.array([within for _, within in sure])
        found["probability"] = by_fifths(stated, _right(table, known, sure, tolerance))
    found["ended"] = {
        reason: {"studies": len(answers)}
        | {name: mean(right) for name, right in _right(table, known, answers, tolerance).items()}
        for reason in sorted({one.reason for _, one in said if one.reason})
        if (answers := [pair for pair in said if pair[1].reason == reason])
    }
    return found


def _near(table: Table, answers: Sequence[int], points: float) -> Any:
    """Whether each answer is within so many points of the best."""
    return regrets(table, answers) <= points + 1e-9


def _right(
    table: Table, known: Floats | None, said: Sequence[tuple[int, Any]], tolerance: float
) -> dict[str, Any]:
    """Whether each answer is close enough by the test images; and how probably, as is known."""
    answers = [answer for answer, _ in said]
    right = {"came true": _near(table, answers, tolerance)}
    if known is not None:
        right["known"] = (_behind(known, answers) <= tolerance).mean(axis=0)
    return right


def _behind(known: Floats, answers: Sequence[int]) -> Floats:
    """How far each answer is from the best of each draw, in points: (draws, answers)."""
    behind: Floats = 100 * (known.max(axis=1, keepdims=True) - known[:, list(answers)])
    return behind


def _given(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, tuple[float, float]]]:
    return [(value, interval) for value, interval in pairs if interval is not None]


def by_fifths(stated: Floats, right: dict[str, Any]) -> list[dict[str, Any]]:
    """Stated probability beside what came true, in each fifth of the range."""
    place = np.minimum((stated * FIFTHS).astype(int), FIFTHS - 1)
    return [
        {
            "from": fifth / FIFTHS,
            "studies": int((place == fifth).sum()),
            "stated": float(stated[place == fifth].mean()),
            **{name: mean(held[place == fifth]) for name, held in right.items()},
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
