"""The study's strategies beside what a user would pick instead of them, in the same replays.

    python benchmarks/replay_contenders.py digits --studies 400 [--only tpe] [--json FILE]

Every contender works on the table with the same start and repeats. They are compared where an
eighth, a quarter, half and all of the epochs are spent that three repeats of the sweep's
configurations take. Procedures that have to know their budget beforehand, the study's race and
halving among them, are played once for each. To the end, whatever it takes, are played the
tutorial, which trains every option of every hyperparameter anew, the study's sweep and random
search with fresh repeats of answer and start, and the whole grid.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import blas_threads  # noqa: F401 - before NumPy
import recorded
from measures import measured, plain
from meter import Meter
from replay import make_plan, margin_of
from simulation import Procedure, Stated, play, run
from tables import Table, load

from study.errors import SettingsError
from study.plan.strategies import FRESH
from study.plan.sweep import sweep_epochs

REPEATS = 3
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)


def whole_budget(table: Table) -> int:
    """The epochs that three repeats of the sweep's configurations take."""
    return sweep_epochs(table.space, REPEATS, table.epochs)


def _end(meter: Meter, place: int, repeats: int = REPEATS) -> float:
    """A configuration's mean at the end of its first repeats, trained anew."""
    return statistics.fmean(meter.train(place, repeat)[-1] for repeat in range(repeats))


def tutorial(meter: Meter) -> None:
    """One hyperparameter at a time, every option three times; the best mean is carried on."""
    best = dict(meter.draw.start)
    for parameter in meter.draw.space.hyperparameters:
        tried = [
            meter.table.index[tuple((best | {parameter.name: option}).items())]
            for option in parameter.options
        ]
        means = [_end(meter, place) for place in tried]
        meter.answer = tried[means.index(max(means))]
        best = dict(meter.table.configurations[meter.answer])


def shuffled(meter: Meter) -> list[int]:
    """The configurations in random order, the start first: a user has a guess."""
    order = meter.draw.rng.permutation(len(meter.table.configurations)).tolist()
    start = meter.table.index[meter.draw.start]
    return [start, *(place for place in order if place != start)]


def random_search(meter: Meter) -> None:
    """Random configurations with three repeats each; also the whole grid, where nothing limits."""
    best = -math.inf
    for place in shuffled(meter):
        score = _end(meter, place)
        if score > best:
            best, meter.answer = score, place


def _confirm(meter: Meter, places: Sequence[int], repeats: int = REPEATS) -> None:
    """The best mean once these, which are trained once, have all their repeats."""
    scores = {
        place: statistics.fmean(
            [
                meter.curve(place, 0)[-1],
                *(meter.train(place, repeat)[-1] for repeat in range(1, repeats)),
            ]
        )
        for place in places
    }
    meter.answer = max(scores, key=scores.__getitem__)


def _best(meter: Meter, places: Sequence[int], epochs: int, keep: int) -> list[int]:
    """The best of those that were trained for ``epochs``."""
    return sorted(places, key=lambda place: -meter.curve(place, 0, epochs)[-1])[:keep]


def halving(meter: Meter, configurations: int, confirmed: int) -> None:
    """A third goes on after a twelfth and after a quarter of the epochs; the best are repeated."""
    epochs = meter.table.epochs
    going, done = shuffled(meter)[:configurations], 0
    for rung in (max(1, round(epochs / 12)), max(1, round(epochs / 4)), epochs):
        if done:
            going = _best(meter, going, done, max(1, len(going) // 3))
        meter.pay(len(going) * (rung - done))
        done = rung
        meter.answer = _best(meter, going, done, 1)[0]
    if confirmed:
        _confirm(meter, _best(meter, going, done, confirmed))


def halving_within(meter: Meter, budget: int) -> None:
    """Halving from as many configurations as the budget pays for with three confirmed.

    Where that would be fewer than nine, none is.
    """
    epochs = meter.table.epochs
    rungs = max(1, round(epochs / 12)), max(1, round(epochs / 4)), epochs
    each = rungs[0] + (rungs[1] - rungs[0]) / 3 + (rungs[2] - rungs[1]) / 9
    confirming = 3 * (REPEATS - 1) * epochs
    confirmed = 3 if budget - confirming >= 9 * each else 0
    count = int((budget - confirming * bool(confirmed)) / each)
    halving(meter, max(1, count), confirmed)


def keep_some(meter: Meter, budget: int, first: int, keep: int, confirmed: int) -> None:
    """Train all for ``first`` epochs, ``keep`` some to the end, confirm the best of them.

    As many configurations begin as the budget pays for. With three kept and none confirmed it is
    the procedure of arXiv 2307.15422.
    """
    epochs = meter.table.epochs
    count = (budget - keep * (epochs - first) - confirmed * (REPEATS - 1) * epochs) // first
    going = shuffled(meter)[: max(count, 1)]
    meter.pay(len(going) * first)
    kept = _best(meter, going, first, keep)
    meter.answer = kept[0]
    meter.pay(len(kept) * (epochs - first))
    ranked = _best(meter, kept, epochs, len(kept))
    meter.answer = ranked[0]
    if confirmed:
        _confirm(meter, ranked[:confirmed])


def variants(table: Table, budget: int) -> Iterator[tuple[int, int, int]]:
    """The ways of keeping some that a budget pays for."""
    spans = sorted({max(1, round(table.epochs * share)) for share in (1 / 12, 1 / 6, 1 / 4, 1 / 3)})
    for first, keep, confirmed in itertools.product(spans, (2, 3, 5, 8, 12, 18), (0, 2, 3, 5)):
        cost = keep * table.epochs + confirmed * (REPEATS - 1) * table.epochs
        if confirmed <= keep and cost + (keep + 2) * first <= budget:
            yield first, keep, confirmed


def optuna_search(meter: Meter, sampler: str, pruner: str) -> None:
    """Plain Optuna: a run a trial, always of the same repeat; the best complete trial wins.

    The start is enqueued as the first trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = meter.draw.seed
    samplers: dict[str, Callable[[], Any]] = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
    }
    pruners: dict[str, Callable[[], Any]] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "hyperband": lambda: optuna.pruners.HyperbandPruner(1, meter.table.epochs, 3),
    }
    study = optuna.create_study(
        study_name="replay",  # Hyperband draws a trial's bracket from it
        direction="maximize",
        sampler=samplers[sampler](),
        pruner=pruners[pruner](),
    )
    study.enqueue_trial(dict(meter.draw.start))
    known: dict[int, float] = {}
    while len(known) < len(meter.table.configurations):
        trial = study.ask()
        space = meter.draw.space
        place = meter.table.index[tuple(space.suggest(trial).items())]
        value = None
        for epoch, value in enumerate(meter.curve(place, 0), 1):
            meter.pay()
            trial.report(value, step=epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, value)
            known[place] = value
            meter.answer = max(known, key=known.__getitem__)


def of_the_study(meter: Meter, name: str, **given: Any) -> Stated | None:
    """A strategy of the study, as `replay.py` plays it; ``given`` are settings."""
    draw = meter.draw
    plan = make_plan(name, given)(draw)
    play(meter, plan, margin=margin_of(draw, name, given))
    return None


def contenders() -> dict[str, Procedure]:
    """Those that can be stopped at any time, by name."""
    found: dict[str, Procedure] = {
        "study sweep": partial(of_the_study, name="sweep", confirm=0),
        "tutorial": tutorial,
        "random": random_search,
        "tpe": partial(optuna_search, sampler="tpe", pruner="median"),
        "hyperband": partial(optuna_search, sampler="random", pruner="hyperband"),
        "tpe-hyperband": partial(optuna_search, sampler="tpe", pruner="hyperband"),
    }
    if find_spec("torch"):
        found["gp"] = partial(optuna_search, sampler="gp", pruner="none")
    return found


def budgeted(table: Table, budget: int) -> dict[str, dict[str, Procedure]]:
    """Those that have to know their budget, in their variants."""
    return {
        "study race": {"": partial(of_the_study, name="race", budget=budget)},
        "study halving": {"": partial(of_the_study, name="halving", budget=budget)},
        "halving": {"": partial(halving_within, budget=budget)},
        "one epoch, keep 3": {"": partial(keep_some, budget=budget, first=1, keep=3, confirmed=0)},
        "keep some, best variant": {
            f"{first} epochs, keep {keep}, confirm {confirmed}": partial(
                keep_some, budget=budget, first=first, keep=keep, confirmed=confirmed
            )
            for first, keep, confirmed in variants(table, budget)
        },
    }


def to_the_end(table: Table) -> dict[str, Procedure]:
    """Those that are played without a limit; the confirmed ones have fresh repeats at the end."""
    fresh = min(FRESH, table.repeats - REPEATS - 1)
    runs = whole_budget(table) // table.epochs - 2 * fresh
    confirmed = partial(of_the_study, confirm=fresh)
    return {
        "tutorial, whole": tutorial,
        "study sweep, confirmed": partial(confirmed, name="sweep"),
        "study random, confirmed": partial(
            confirmed, name="random", configurations=runs // REPEATS
        ),
        "whole grid": random_search,
    }


def compare(
    table: Table, studies: int, seed: int, processes: int, only: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A record for each contender and budget; of variants the one that does best in hindsight."""
    limits = [int(share * whole_budget(table)) for share in SHARES]
    options: dict[str, Any] = {"seed": seed, "processes": processes}
    for name, procedure in contenders().items():
        if only and name not in only:
            continue
        outcomes = run(table, procedure, studies, limits=limits, **options)
        for place, limit in enumerate(limits):
            yield {"contender": name, "limit": limit} | measured(table, outcomes, place)
    for limit in limits:
        for name, versions in budgeted(table, limit).items():
            if only and name not in only:
                continue
            yield from _best_variant(table, studies, name, limit, versions, options)
    for name, procedure in to_the_end(table).items():
        if not only or name in only:
            outcomes = run(table, procedure, studies, **options)
            yield {"contender": name, "limit": None} | measured(table, outcomes)


def _best_variant(
    table: Table,
    studies: int,
    name: str,
    limit: int,
    versions: dict[str, Procedure],
    options: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """The record of the one that does best; none where the budget is too small for all of them."""
    found = []
    for version, procedure in versions.items():
        with suppress(SettingsError):
            outcomes = run(table, procedure, studies, **options)
            record = {"contender": name, "limit": limit, "variant": version}
            found.append(record | measured(table, outcomes))
    if found:
        yield min(found, key=lambda record: record["regret"].value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", help="a path, or the name of a table in benchmarks/tables")
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], help="a contender; repeat for more")
    parser.add_argument("--json", type=Path, help="add the records to this file, a line each")
    options = parser.parse_args()
    table = load(options.table)
    print(f"{table.name}: the sweep's configurations take {whole_budget(table)} epochs")
    machine = recorded.machine("optuna", "numpy")
    records = compare(table, options.studies, options.seed, options.processes, options.only)
    for record in records:
        limit = record["limit"] or "all"
        print(
            f"{record['contender']:24} {limit:>5} regret {record['regret']}  "
            f"95 % {record['95th percentile']}  within 0.1 {record['within 0.1']}  "
            f"worse than the start {record['worse than the start']}  {record.get('variant', '')}",
            flush=True,
        )
        if options.json:
            recorded.append(options.json, plain({"table": table.name} | record) | machine)


if __name__ == "__main__":
    main()
