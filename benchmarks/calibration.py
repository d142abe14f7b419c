"""Whether what a race says is true: studies on tables whose truth is known, a table each.

    python benchmarks/calibration.py digits --studies 1000 --budget 270 [--space digits]

A recorded table is one draw: all studies share its luck. Here each meets other effects,
another pool of validation images and other runs, after the structure of a recorded table
(`synthetic_table.RECIPES`; ``misleading`` is one where early epochs mislead). Printed are epochs,
regret, how often stated intervals hold the truth, and stated probability against what came true.
"""

from __future__ import annotations

import argparse
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import blas_threads  # noqa: F401 - before NumPy
import numpy as np
import recorded
from measures import by_fifths, mean, plain
from replay import make_plan, stated
from simulation import Outcome, simulate
from synthetic_table import RECIPES, table
from tables import Floats

from study.space import file as space_file
from study.space.search_space import SearchSpace


def study(
    number: int, like: str, space: SearchSpace, seed: int, given: dict[str, Any]
) -> tuple[Outcome, Floats]:
    """How a study on its own table ended, and that table's truth."""
    held = table(space, seed + number, like)
    [outcome] = simulate(held, make_plan("race", given), 1, seed=seed + number, stated=stated)
    return outcome, held.truth


def judged(found: list[tuple[Outcome, Floats]], tolerance: float) -> dict[str, Any]:
    """Regret in points, coverage, and probabilities; each with its standard error."""
    said = [(truth, one.answer, one.stated) for one, truth in found if one.stated is not None]
    behind = np.array([100 * (truth.max() - truth[one.answer]) for one, truth in found])
    right = np.array([truth.max() - truth[at] <= tolerance / 100 for truth, at, _ in said])
    sure = np.array([one.reason == "sure" for *_, one in said])
    accuracy = [a.accuracy and a.accuracy[0] <= t[at] <= a.accuracy[1] for t, at, a in said]
    distance = [a.distance and t.max() - t[at] <= a.distance[1] for t, at, a in said]
    return {
        "studies": len(found),
        "epochs": mean([one.epochs for one, _ in found]),
        "regret": mean(behind),
        "95th percentile": float(np.quantile(behind, 0.95)),
        "within 0.1": mean(behind <= 0.1),
        "within 0.2": mean(behind <= 0.2),
        "accuracy interval holds": mean(accuracy),
        "distance interval holds": mean(distance),
        "ended sure": mean(sure),
        "of these right": mean(right[sure]) if sure.any() else None,
        "probability": by_fifths(np.array([one.within for *_, one in said]), {"true": right}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("like", choices=RECIPES)
    parser.add_argument("--space", default="digits", help="hyperparameters and epochs (digits)")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=10_000, help="of the first study's table")
    parser.add_argument("--budget", type=int)
    parser.add_argument("--tolerance", type=float, default=0.2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="add the record to this file, as a line")
    options = parser.parse_args()
    given = {"tolerance": options.tolerance}
    given |= {"budget": options.budget} if options.budget else {}
    one = partial(
        study,
        like=options.like,
        space=space_file.load(options.space),
        seed=options.seed,
        given=given,
    )
    with get_context("fork").Pool(options.processes) as pool:
        record = judged(pool.map(one, range(options.studies), chunksize=1), options.tolerance)
    for name, value in record.items():
        for line in value if isinstance(value, list) else [value]:
            print(f"{name:26} {line}")
    if options.json:
        about = {"like": options.like, "seed": options.seed, **given}
        recorded.append(options.json, about | plain(record) | recorded.machine("numpy"))


if __name__ == "__main__":
    main()
