"""What simulated studies come to, with standard errors, and whether what they stated is true.

The truth of a study is a configuration's mean test accuracy over the repeats of the table that the
study has not seen (over all, if it has seen all); it is uncertain itself. Regret and distances are
in points (1/100 of an accuracy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from simulation import Outcome, Stated
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


def measured(table: Table, outcomes: Sequence[Outcome], limit: int | None = None) -> dict[str, Any]:
    """Epochs and regret, at the end or where the limit of this place was reached."""
    missed = regrets(table, outcomes, limit)
    ranked = np.sort(np.random.default_rng(0).choice(missed, (_RESAMPLES, len(missed))), axis=1)
    tail = ranked[:, math.ceil(0.95 * len(missed)) - 1]
    started = [place for one in outcomes if (place := one.start) is not None]
    worse = (
        missed > regrets(table, [replace(one, answer=one.start, at=()) for one in outcomes]) + 1e-9
        if len(started) == len(outcomes)
        else np.zeros(len(outcomes), dtype=bool)
    )
    return {
        "studies": len(outcomes),
        "epochs": mean([one.epochs for one in outcomes]),
        "seconds": mean([one.seconds for one in outcomes]),
        "regret": mean(missed),
        "95th percentile": Estimate(float(np.quantile(missed, 0.95)), float(tail.std())),
        **{f"within {near}": share(missed <= near + 1e-9) for near in NEAR},
        "worse than the start": share(worse),
    }


def judged(table: Table, outcomes: Sequence[Outcome], tolerance: float) -> dict[str, Any]:
    """How often what was stated is true; ``tolerance`` in points is what probabilities are of.

    An interval of the accuracy is held against the validation accuracy at the end of training,
    averaged over the repeats of the table that the study has not seen, and against the test
    accuracy. The bias of a stated mean is against the validation accuracy.
    """
    said = [(one, one.stated) for one in outcomes if one.stated is not None]
    if not said:
        return {}
    ends = table.val_acc[:, :, -1]
    truths = {
        "validation": [truth(table, one, ends) for one, _ in said],
        "test": [truth(table, one) for one, _ in said],
    }
    found: dict[str, Any] = {"stated": share(np.arange(len(outcomes)) < len(said))}
    for name, each in truths.items():
        own = [held[one.answer] for held, (one, _) in zip(each, said, strict=True)]
        behind = [_behind(table, held, *pair) for held, pair in zip(each, said, strict=True)]
        for what, values in (("accuracy", own), ("distance", behind)):
            given = [getattr(stated, what) for _, stated in said]
            hits = [
                interval[0] <= value <= interval[1] + 1e-12
                for value, interval in zip(values, given, strict=True)
                if interval is not None
            ]
            if hits:
                found[f"{what} interval holds the {name} truth"] = share(hits)
        off = [
            (100 * (stated.mean - value), 100 * (stated.error or 0.0))
            for value, (_, stated) in zip(own, said, strict=True)
            if stated.mean is not None
        ]
        if off:
            found[f"bias against the {name} truth"] = mean([bias for bias, _ in off])
            found[f"error holds the {name} truth"] = share([abs(b) <= error for b, error in off])
    sure = [pair for pair in said if pair[1].within is not None]
    if sure:
        stated = np.array([one.within for _, one in sure])
        found["probability"] = by_fifths(stated, _right(table, sure, tolerance))
    found["ended"] = {
        reason: {"studies": len(ended)}
        | {name: mean(right) for name, right in _right(table, ended, tolerance).items()}
        for reason in sorted({one.reason for _, one in said if one.reason})
        if (ended := [pair for pair in said if pair[1].reason == reason])
    }
    return found


def _right(
    table: Table, said: Sequence[tuple[Outcome, Stated]], tolerance: float
) -> dict[str, Any]:
    """Whether each answer is close enough by the test images: to the best compared, and of all."""
    behind = [_behind(table, truth(table, one), one, stated) for one, stated in said]
    every = regrets(table, [outcome for outcome, _ in said])
    return {
        "came true": 100 * np.array(behind) <= tolerance + 1e-9,
        "of all": every <= tolerance + 1e-9,
    }


def _behind(table: Table, held: Floats, outcome: Outcome, stated: Stated) -> float:
    """How far an answer is from the best that it is said to have been compared with."""
    among = [table.index[one] for one in stated.compared] or slice(None)
    return float(held[among].max() - held[outcome.answer])


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
