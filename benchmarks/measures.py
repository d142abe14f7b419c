"""What simulated studies come to, with standard errors, and whether what they stated is true.

The truth of a study is a configuration's mean test accuracy over the repeats of the table that the
study has not seen (over all, if it has seen all). It is uncertain itself; ``known`` holds draws of
what it may be by the whole table, of shape (draws, configurations), and stands beside it. Regret
and distances are in points (1/100 of an accuracy).
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


def truth(table: Table, outcome: Outcome, accuracies: Floats | None = None) -> Floats:
    """The mean accuracy of each configuration over the repeats that the study has not seen."""
    held = table.test_acc if accuracies is None else accuracies
    mean: Floats = (
        held[:, list(outcome.unused)].mean(axis=1) if outcome.unused else held.mean(axis=1)
    )
    return mean


def regrets(table: Table, outcomes: Sequence[Outcome], limit: int | None = None) -> Floats:
    """How far each answer is from the best configuration, in points."""
    answers = _answers(outcomes, limit)
    truths = [truth(table, outcome) for outcome in outcomes]
    return np.array(
        [100 * (one.max() - one[answer]) for one, answer in zip(truths, answers, strict=True)]
    )


def _answers(outcomes: Sequence[Outcome], limit: int | None) -> list[int]:
    return [one.answer if limit is None else one.at[limit] for one in outcomes]


def measured(
    table: Table, outcomes: Sequence[Outcome], limit: int | None = None, known: Floats | None = None
) -> dict[str, Any]:
    """Epochs and regret, at the end or where the limit of this place was reached."""
    missed = regrets(table, outcomes, limit)
    ranked = np.sort(np.random.default_rng(0).choice(missed, (_RESAMPLES, len(missed))), axis=1)
    tail = ranked[:, math.ceil(0.95 * len(missed)) - 1]
    found = {
        "studies": len(outcomes),
        "epochs": mean([one.epochs for one in outcomes]),
        "seconds": mean([one.seconds for one in outcomes]),
        "regret": mean(missed),
        "95th percentile": Estimate(float(np.quantile(missed, 0.95)), float(tail.std())),
        **{f"within {near}": share(missed <= near + 1e-9) for near in NEAR},
    }
    if known is not None:
        behind = _behind(known, _answers(outcomes, limit))
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
    said = [(one, one.stated) for one in outcomes if one.stated is not None]
    if not said:
        return {}
    ends = table.val_acc[:, :, -1]
    truths = {
        "validation": [truth(table, one, ends)[None] for one, _ in said],
        "test": [truth(table, one)[None] for one, _ in said],
    }
    truths |= {} if known is None else {"known": [known] * len(said)}
    found: dict[str, Any] = {"stated": share(np.arange(len(outcomes)) < len(said))}
    for name, each in truths.items():
        for what in ("accuracy", "distance"):
            pairs = [
                (
                    (held if what == "accuracy" else held.max(axis=1, keepdims=True) - held)[
                        :, one.answer
                    ],
                    getattr(stated, what),
                )
                for held, (one, stated) in zip(each, said, strict=True)
            ]
            hits = [
                np.mean((low <= values) & (values <= high + 1e-12))
                for values, (low, high) in _given(pairs)
            ]
            if hits:
                found[f"{what} interval holds the {name} truth"] = mean(hits)
    sure = [(one, stated.within) for one, stated in said if stated.within is not None]
    if sure:
        stated = np.array([within for _, within in sure])
        found["probability"] = by_fifths(stated, _right(table, known, sure, tolerance))
    found["ended"] = {
        reason: {"studies": len(ended)}
        | {name: mean(right) for name, right in _right(table, known, ended, tolerance).items()}
        for reason in sorted({one.reason for _, one in said if one.reason})
        if (ended := [pair for pair in said if pair[1].reason == reason])
    }
    return found


def _right(
    table: Table, known: Floats | None, said: Sequence[tuple[Outcome, Any]], tolerance: float
) -> dict[str, Any]:
    """Whether each answer is close enough by the test images; and how probably, as is known."""
    outcomes = [outcome for outcome, _ in said]
    right: dict[str, Any] = {"came true": regrets(table, outcomes) <= tolerance + 1e-9}
    if known is not None:
        right["known"] = (_behind(known, _answers(outcomes, None)) <= tolerance).mean(axis=0)
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
