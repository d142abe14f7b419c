"""The statistics of a study for anybody's results: is a configuration better than another one?

Scores of the same repeat are compared in pairs (a paired t-test); without shared repeats by Welch's
test. All tests of a table are at 95 % together (Bonferroni). Differences without any spread decide
nothing: of two repeats of 100 images they are often equal by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from study.errors import DataError
from study.plan.statistics import CONFIDENCE, sample_variance

LARGEST = 1e100
"""Of a score: squares of larger numbers are infinite."""

MOST_REPEATS = 10_000
POWER = 0.8
"""The probability with which the stated number of repeats shows a difference of this size."""

Results = dict[str, dict[str, float]]
"""Scores by configuration and repeat."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A configuration against the baseline.

    ``repeats`` are those compared: the shared ones if ``paired``, else those of the configuration;
    ``mean`` is over all of its repeats.
    ``difference`` is by how much it is better (in the score's unit), with its interval (None if the
    scores have no spread); ``more`` how many more repeats would probably decide a tie (None: over
    10,000, or unknown).
    """

    configuration: str
    repeats: int
    mean: float
    verdict: Literal["better", "tie", "worse"]
    difference: float
    interval: tuple[float, float] | None
    paired: bool
    more: int | None


def read(
    rows: Iterable[tuple[str, Mapping[str, str]]], columns: tuple[str, str | None, str]
) -> Results:
    """The scores of rows, each with where it is; ``columns``: configuration, repeat, score.

    Raises ``DataError`` for a score that is not a number and for a repeated row, and says where.
    """
    configuration, repeat, score = columns
    found: Results = {}
    for where, row in rows:
        name, text = row[configuration], row[score]
        held = found.setdefault(name, {})
        key = row[repeat] if repeat else where
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) < LARGEST:
            cure = f"give a number of less than {LARGEST:g}, with a decimal point"
            raise DataError(f"{where}: {score}: {text!r} is not a number; {cure}")
        if key in held:
            raise DataError(f"{where}: {name!r} has repeat {key!r} twice; give each repeat one row")
        held[key] = value
    return found


def judge(
    results: Results, baseline: str, *, minimize: bool = False, tests: int = 1
) -> list[Judgement]:
    """Every other configuration against the ``baseline``, the best difference first.

    ``tests`` divides the probability of an error further.

    Raises ``DataError`` for an unknown baseline, and for fewer than two configurations or repeats.
    """
    if baseline not in results:
        raise DataError(f"has no configuration {baseline!r}; it has {', '.join(results) or 'none'}")
    if len(results) < 2:
        raise DataError("holds one configuration; a comparison needs at least two")
    for name, scores in results.items():
        if len(scores) < 2:
            raise DataError(f"{name!r} has a single repeat; give at least 2 of each configuration")
    level = 1 - (1 - CONFIDENCE) / (len(results) - 1) / tests
    sign = -1 if minimize else 1
    others = [name for name in results if name != baseline]
    found = [_against(results, name, baseline, sign, level) for name in others]
    return sorted(found, key=lambda one: -one.difference)


def _against(results: Results, name: str, baseline: str, sign: int, level: float) -> Judgement:
    own, base = results[name], results[baseline]
    shared = [repeat for repeat in own if repeat in base]
    paired = len(shared) >= 2
    groups = [[*own.values()], [*base.values()]]
    if paired:
        groups = [[own[repeat] - base[repeat] for repeat in shared]]
    difference = sign * (_mean(groups[0]) - (0.0 if paired else _mean(groups[1])))
    repeats = len(shared) if paired else min(len(own), len(base))
    half = _half(groups, level)
    interval = None if half is None else (difference - half, difference + half)
    verdict: Literal["better", "tie", "worse"] = "tie"
    if half is not None and abs(difference) > half:
        verdict = "better" if difference > 0 else "worse"
    more: int | None = 0
    if verdict == "tie":
        more = None if half is None else _more(difference, half, repeats, level)
    compared, mean = len(shared) if paired else len(own), _mean([*own.values()])
    return Judgement(name, compared, mean, verdict, difference, interval, paired, more)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _half(groups: Sequence[Sequence[float]], level: float) -> float | None:
    """Half of the interval of a mean, or of the difference of two (Welch's); None: no spread."""
    from scipy.special import stdtrit

    errors = [sample_variance(values) / len(values) for values in groups]
    if not (total := sum(errors)):
        return None
    parts = [part**2 / (len(values) - 1) for part, values in zip(errors, groups, strict=True)]
    return float(stdtrit(total**2 / sum(parts), (1 + level) / 2)) * math.sqrt(total)


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
