"""The statistics of a study for anybody's results: is a configuration better than another one?

Scores of the same repeat are compared in pairs (a paired t-test); without shared repeats by Welch's
test. All tests of a table are at 95 % together (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from study.errors import DataError
from study.plan.statistics import CONFIDENCE

MOST_REPEATS = 10_000
POWER = 0.8
"""The probability with which the stated number of repeats shows a difference of this size."""

Results = dict[str, dict[str, float]]
"""Scores by configuration and repeat."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A configuration against the baseline.

    ``difference`` is by how much it is better (in the score's unit), with its interval; ``more``
    how many more repeats would probably decide a tie (None: over 10,000).
    """

    configuration: str
    repeats: int
    mean: float
    verdict: Literal["better", "tie", "worse"]
    difference: float
    interval: tuple[float, float]
    paired: bool
    more: int | None


def read(rows: Iterable[Mapping[str, str | None]], columns: tuple[str, str | None, str]) -> Results:
    """The scores of a table; ``columns`` name configuration, repeat (or None) and score.

    Raises ``DataError`` with the line for a score that is no number and for a repeated row.
    """
    configuration, repeat, score = columns
    found: Results = {}
    for line, row in enumerate(rows, 2):
        name, text = (row[configuration] or "").strip(), (row[score] or "").strip()
        held = found.setdefault(name, {})
        key = (row[repeat] or "").strip() if repeat else f"row {line}"
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"line {line}: {score}: {text!r} is no number; give a finite number")
        if key in held:
            raise DataError(
                f"line {line}: {name!r} has repeat {key!r} twice; give each repeat one row"
            )
        held[key] = value
    return found


def judge(
    results: Results, baseline: str, *, minimize: bool = False, tests: int = 1
) -> list[Judgement]:
    """Every other configuration against the ``baseline``, the best difference first.

    ``tests`` divides the probability of an error further.

    Raises ``DataError`` for an unknown baseline, for fewer than two configurations or repeats, and
    for scores that are all the same.
    """
    if baseline not in results:
        raise DataError(f"has no configuration {baseline!r}; it has {', '.join(results) or 'none'}")
    if len(results) < 2:
        raise DataError("holds one configuration; a comparison needs at least two")
    for name, scores in results.items():
        if len(scores) < 2:
            raise DataError(f"{name!r} has a single repeat; give at least 2 of each configuration")
    if len({score for scores in results.values() for score in scores.values()}) == 1:
        raise DataError("all scores are the same; there is nothing to compare")
    level = 1 - (1 - CONFIDENCE) / (len(results) - 1) / tests
    sign = -1 if minimize else 1
    others = [name for name in results if name != baseline]
    found = [_against(results, name, baseline, sign, level) for name in others]
    return sorted(found, key=lambda one: -one.difference)


def _against(results: Results, name: str, baseline: str, sign: int, level: float) -> Judgement:
    from scipy import stats

    own, base = results[name], results[baseline]
    shared = [repeat for repeat in own if repeat in base]
    paired = len(shared) >= 2
    if paired:
        pairs = [sign * (own[repeat] - base[repeat]) for repeat in shared]
        low, high = stats.ttest_1samp(pairs, 0.0).confidence_interval(level)
        difference = math.fsum(pairs) / len(pairs)
    else:
        one, other = ([sign * value for value in scores.values()] for scores in (own, base))
        low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(level)
        difference = math.fsum(one) / len(one) - math.fsum(other) / len(other)
    if math.isnan(low):  # no spread at all
        low = high = difference
    verdict: Literal["better", "tie", "worse"] = "tie"
    if low > 0 or high < 0:
        verdict = "better" if difference > 0 else "worse"
    repeats = len(shared) if paired else min(len(own), len(base))
    more = 0 if verdict != "tie" else _more(difference, (high - low) / 2, repeats, level)
    mean = math.fsum(own.values()) / len(own)
    return Judgement(
        name, len(own), mean, verdict, difference, (float(low), float(high)), paired, more
    )


def _more(difference: float, half: float, repeats: int, level: float) -> int | None:
    """More repeats until a difference of this size is clear with probability ``POWER``."""
    from scipy.special import ndtri, stdtrit

    tail, reserve = (1 + level) / 2, float(ndtri(POWER))
    deviation = half / float(stdtrit(repeats - 1, tail)) * math.sqrt(repeats)
    for number in range(repeats + 1, MOST_REPEATS + 1):
        needed = float(stdtrit(number - 1, tail)) + reserve
        if abs(difference) > needed * deviation / math.sqrt(number):
            return number - repeats
    return None
