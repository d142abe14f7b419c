"""What it gains that `tpe` knows the order of options: simulated studies, once as categories.

Accuracy is a smooth function of learning rate (16 options over four decades), units (12) and
dropout (10) with its peak drawn for each study, and noise of 0.3 points. Both samplers see the same
studies; what is printed is the regret of their answers, in points, and their paired difference.

    python benchmarks/ordered_options.py --studies 200
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from itertools import product
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from study.plan import suggestion
from study.plan.results import Configuration, StoredTrial
from study.plan.search import SEARCH, Search
from study.space.search_space import SearchSpace

RATES = [10 ** (-5 + 4 * place / 15) for place in range(16)]
UNITS = [4 * 2 ** (place / 2) for place in range(12)]
DROPOUTS = [place / 20 for place in range(10)]
SPACE = SearchSpace.from_dict(
    {
        "name": "ordered",
        "epochs": 3,
        "batch_size": 10,
        "repeats": 1,
        "hyperparameters": {
            "rate": {"options": RATES, "start": RATES[5]},
            "units": {"options": UNITS, "start": UNITS[4]},
            "dropout": {"options": DROPOUTS, "start": DROPOUTS[2]},
        },
    }
)


def regret(seed: int, configurations: int) -> float:
    """Of the answer of one study, in points."""
    drawn = random.Random(seed)
    peak = drawn.uniform(-4.5, -1.5), drawn.uniform(2.5, 7), drawn.uniform(0, 0.45)

    def accuracy(rate: float, units: float, dropout: float) -> float:
        x, y, z = math.log10(rate) - peak[0], math.log2(units) - peak[1], dropout - peak[2]
        return 0.98 - 0.05 * min(4, x * x) - 0.02 * (y / 3) ** 2 - 0.02 * (z / 0.3) ** 2

    def of(configuration: Configuration) -> float:
        return accuracy(**{name: float(value) for name, value in configuration})

    plan = Search(SPACE, "tpe", configurations, seed, 1, 480)
    trials: list[StoredTrial] = []
    while (state := plan.state(trials)).next:
        spec = state.next[0]
        tried = plan.suggest(spec, trials)
        value = of(tried) + random.Random(f"{seed}{tried}").gauss(0, 0.003)
        number = len(trials)
        trials.append(
            StoredTrial(number, number, "complete", SEARCH, spec.option, tried, 0, None, value)
        )
    best = max(accuracy(*one) for one in product(RATES, UNITS, DROPOUTS))
    return 100 * (best - of(state.incumbent or ()))


def shown(values: list[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--configurations", type=int, nargs="*", default=[20, 40])
    given = parser.parse_args()
    for number in given.configurations:
        seeds = range(given.studies)
        with patch.object(suggestion, "_ordered", lambda _: []):
            categories = [regret(seed, number) for seed in seeds]
        ordered = [regret(seed, number) for seed in seeds]
        gained = [one - other for one, other in zip(categories, ordered, strict=True)]
        print(
            f"{number} configurations: categories {shown(categories)}, ordered {shown(ordered)}, "
            f"difference {shown(gained)} points"
        )


if __name__ == "__main__":
    main()
