"""Make a table of curves with a known truth, in the format of `benchmarks/tables`.

    python benchmarks/synthetic_table.py SPACE --seed 0 --repeats 8 > table.jsonl

Its structure is that of 3,000 images of MNIST (docs/log.md): a standard deviation of 0.9 points
over configurations and of 0.26 within a repeat; 93 % of the variance are effects of single
hyperparameters, 5 % of pairs; the last hyperparameter's low options lead early and lose late. The
`test_acc` of every run is its configuration's true accuracy, that infinitely many repeats would
have: a regret is exact, which it is not on a recorded table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass

import numpy as np

from study.space import file as space_file


@dataclass(frozen=True)
class Recipe:
    """Standard deviations are of the logarithm of the error."""

    error: float = 0.031
    spread: float = 0.27
    pairs: float = 0.05  # share of the variance
    rest: float = 0.02  # share of the variance
    early: float = 0.08
    run: float = 0.05
    drift: float = 0.035
    noise: float = 0.045
    offset: float = 0.05
    images: int = 4000


def curves(
    counts: list[int], epochs: int, repeats: int, seed: int, recipe: Recipe = Recipe()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels (c, h), validation accuracy (c, repeats, epochs) and truth (c)."""
    rng = np.random.default_rng(seed)
    levels = np.array(list(itertools.product(*map(range, counts))))
    effects = _effects(counts, levels, rng)
    main = effects.sum(0)
    pairs = sum(
        _standard(rng.standard_normal((counts[a], counts[b])))[levels[:, a], levels[:, b]]
        for a, b in itertools.combinations(range(len(counts)), 2)
    )
    shares = (1 - recipe.pairs - recipe.rest, recipe.pairs, recipe.rest)
    parts = (main, pairs, rng.standard_normal(len(levels)))
    final = sum(
        math.sqrt(share) * _standard(np.asarray(part))
        for share, part in zip(shares, parts, strict=True)
    )
    final = math.log(recipe.error) + recipe.spread * final

    u = 1 - np.log(np.arange(1, epochs + 1)) / math.log(max(epochs, 2))
    late = np.linspace(-1, 1, counts[-1])[levels[:, -1]] * recipe.early
    early = late + 0.5 * recipe.early * _standard(_effects(counts, levels, rng).sum(0))
    z = final[:, None, None] + u * (1.5 + early)[:, None, None]
    z = z + (recipe.offset * rng.standard_normal(repeats))[:, None] * (1 + 0.5 * u)
    drift = np.stack([_standard(_effects(counts, levels, rng).sum(0)) for _ in range(repeats)], 1)
    run = rng.standard_normal((len(levels), repeats))
    held = recipe.drift * drift + recipe.run * run
    noise = recipe.noise * rng.standard_normal((len(levels), repeats, epochs))
    z = z + held[:, :, None] * (1 + 0.5 * u) + noise * (1 + 0.5 * u)
    variance = recipe.drift**2 + recipe.run**2 + recipe.noise**2 + recipe.offset**2
    truth = 1 - np.exp(final + variance / 2)
    return levels, _rounded(z, recipe.images), truth


def _effects(counts: list[int], levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth effects of each hyperparameter, of very unequal size, of shape (h, c)."""
    found = []
    for place, count in enumerate(counts):
        steps = np.cumsum(rng.standard_normal(count)) + 0.5 * rng.standard_normal(count)
        found.append(_standard(steps)[levels[:, place]] * rng.gamma(1.0))
    return np.stack(found)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)


def _rounded(log_error: np.ndarray, images: int) -> np.ndarray:
    return 1 - np.round(np.clip(np.exp(log_error), 0, 0.9) * images) / images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("space")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    space = space_file.load(args.space)
    space.require_options()
    options = [parameter.options for parameter in space.hyperparameters]
    levels, val, truth = curves(
        [len(held) for held in options], space.epochs, args.repeats, args.seed
    )
    for c, repeat in np.ndindex(val.shape[:2]):
        params = {
            p.name: held[level]
            for p, held, level in zip(space.hyperparameters, options, levels[c], strict=True)
        }
        table = {
            "params": space.fixed | params,
            "repeat": repeat,
            "val_acc": val[c, repeat].tolist(),
            "val_loss": (1 - val[c, repeat]).tolist(),
            "test_acc": float(truth[c]),
            "seconds": [1.0] * space.epochs,
        }
        print(json.dumps(table))


if __name__ == "__main__":
    main()
