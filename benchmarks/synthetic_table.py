"""Make a table of curves with a known truth, in the format of `benchmarks/tables`.

    python benchmarks/synthetic_table.py SPACE --like digits --seed 0 --repeats 8 > table.jsonl

Its structure is that of a recorded table (`RECIPES`; docs/log.md has their figures): effects of
single hyperparameters make most of the spread, pairs and a rest the others; some lead early and
lose late, most of all the low options of the last hyperparameter. ``misleading`` is the digits with
early effects as large as those of the end: the worst that a search by early epochs can meet.

The validation images are a sample: their pool is harder or easier than all images are, and it
favours some configurations. The `test_acc` of every run is its configuration's true accuracy, that
infinitely many repeats on new images would have: a regret is exact, which it is not on a recorded
table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tables import Table

from study.space import file as space_file
from study.space.search_space import SearchSpace


@dataclass(frozen=True)
class Recipe:
    """Standard deviations are of the logarithm of the error; ``early`` ones of the first epochs.

    ``fall`` is that of all, ``slope`` by how much more the differences of the end show in the first
    epoch; what is a run's own (``run``, ``drift``) grows towards the end. Of ``pool``
    images there are ``images`` in the validation part of each repeat; ``favour`` is the variance
    over images of a configuration's own part of the expected error, in errors.
    """

    error: float
    main: float
    pairs: float
    rest: float
    early: float
    early_last: float
    early_rest: float
    slope: float
    fall: float
    run: float
    drift: float
    noise: float
    offset: float
    images: int
    pool: int
    favour: float = 0.005


_DIGITS = Recipe(
    error=0.025,
    main=0.25,
    pairs=0.05,
    rest=0.02,
    early=0.16,
    early_last=0.11,
    early_rest=0.08,
    slope=0.7,
    fall=2.1,
    run=0.105,
    drift=0.095,
    noise=0.14,
    offset=0.12,
    images=479,
    pool=1437,
)
RECIPES = {
    "digits": _DIGITS,
    "mnist-3000": Recipe(
        error=0.032,
        main=0.13,
        pairs=0.04,
        rest=0.02,
        early=0.06,
        early_last=0.09,
        early_rest=0.05,
        slope=1.0,
        fall=1.0,
        run=0.035,
        drift=0.025,
        noise=0.07,
        offset=0.02,
        images=4000,
        pool=7000,
    ),
    "misleading": replace(_DIGITS, early=0.32, early_last=0.22, early_rest=0.16),
}


def curves(
    counts: list[int], epochs: int, repeats: int, seed: int, recipe: Recipe = _DIGITS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels (c, h), validation accuracy (c, repeats, epochs) and truth (c)."""
    rng = np.random.default_rng(seed)
    levels = np.array(list(itertools.product(*map(range, counts))))
    size = len(levels)
    final = recipe.main * _standard(_effects(counts, levels, rng).sum(0))
    final = final + recipe.pairs * _standard(_pairs(counts, levels, rng))
    final = final + recipe.rest * rng.standard_normal(size)
    true = math.log(recipe.error) + final

    late = _standard(np.arange(counts[-1], dtype=float))[levels[:, -1]]
    early = recipe.early_last * late + recipe.slope * (final - final.mean())
    early = early + recipe.early * _standard(_effects(counts, levels, rng).sum(0))
    early = early + recipe.early_rest * rng.standard_normal(size)

    # The pool of validation images: what all find hard there, and what it favours.
    sampled = 1 / (recipe.error * recipe.pool)
    final = true + math.sqrt(sampled) * rng.standard_normal()
    final = final + math.sqrt(recipe.favour * sampled) * rng.standard_normal(size)

    u = 1 - np.log(np.arange(1, epochs + 1)) / math.log(max(epochs, 2))
    z = final[:, None, None] + u * (recipe.fall + early)[:, None, None]
    z = z + (recipe.offset * rng.standard_normal(repeats))[:, None]
    drift = np.stack([_standard(_effects(counts, levels, rng).sum(0)) for _ in range(repeats)], 1)
    held = recipe.drift * drift + recipe.run * rng.standard_normal((size, repeats))
    z = z + held[:, :, None] * (1 - u)
    z = z + recipe.noise * rng.standard_normal((size, repeats, epochs))
    variance = recipe.drift**2 + recipe.run**2 + recipe.noise**2 + recipe.offset**2
    truth = 1 - np.exp(true + variance / 2)
    return levels, _rounded(z, recipe.images), truth


def _effects(counts: list[int], levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth effects of each hyperparameter, of very unequal size, of shape (h, c)."""
    found = []
    for place, count in enumerate(counts):
        steps = np.cumsum(rng.standard_normal(count)) + 0.5 * rng.standard_normal(count)
        found.append(_standard(steps)[levels[:, place]] * rng.gamma(1.0))
    return np.stack(found)


def _pairs(counts: list[int], levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sum of an effect of each pair of options, of shape (c,)."""
    found = np.zeros(len(levels))
    for a, b in itertools.combinations(range(len(counts)), 2):
        effect = _standard(rng.standard_normal((counts[a], counts[b])))
        found += effect[levels[:, a], levels[:, b]]
    return found


def _standard(values: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (values - values.mean()) / (values.std() or 1.0)
    return scaled


def _rounded(log_error: np.ndarray, images: int) -> np.ndarray:
    wrong: np.ndarray = np.round(np.clip(np.exp(log_error), 0, 0.9) * images)
    return 1 - wrong / images


def table(space: SearchSpace, seed: int, like: str, repeats: int = 8) -> Table:
    """A table of this kind; ``space`` has options alone."""
    return Table.of(lines(space, seed, RECIPES[like], repeats), f"{like}-{seed}")


def lines(space: SearchSpace, seed: int, recipe: Recipe, repeats: int) -> Iterator[dict[str, Any]]:
    """The lines of a table's file."""
    space.require_options("a table")
    options = [parameter.options for parameter in space.hyperparameters]
    counts = [len(held) for held in options]
    levels, val, truth = curves(counts, space.epochs, repeats, seed, recipe)
    for c, repeat in np.ndindex(val.shape[:2]):
        params = {
            p.name: held[level]
            for p, held, level in zip(space.hyperparameters, options, levels[c], strict=True)
        }
        yield {
            "params": params,
            "repeat": repeat,
            "val_acc": val[c, repeat].tolist(),
            "test_acc": float(truth[c]),
            "pool": recipe.pool,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("space")
    parser.add_argument("--like", choices=RECIPES, default="digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    space = space_file.load(args.space)
    for line in lines(space, args.seed, RECIPES[args.like], args.repeats):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
