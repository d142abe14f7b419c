"""A strategy of the study, its own code, on a table of recorded curves in place of training.

    python benchmarks/replay.py digits --strategy sweep --studies 400
    python benchmarks/replay.py TABLE.jsonl.gz --strategy race --budget 270 --confidence 0.95

Each simulated study draws its start, its seed, and which of the table's repeats come in which
order. Printed are epochs spent (a resumed run pays only what is new), the regret of the answer in
points against the truth (mean test accuracy over the table's repeats that the study has not seen),
the seconds that the table says its epochs took, how often the answer is worse than the start, and
how often what the strategy states is true. Each number has its standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import blas_threads  # noqa: F401 - before NumPy
import recorded
from measures import judged, measured, plain
from meter import Draw
from simulation import Outcome, Stated, drawn, simulate
from tables import Table, load

from study.errors import SettingsError, StudyError
from study.plan.plan import Plan, PlanState
from study.plan.race import Race
from study.plan.strategies import CONFIRM, completed, plan_of, strategy_of
from study.space.settings import DataFacts, Setting, Settings, resolve
from study.tuning.pruning import Margin

STRATEGY_OPTIONS = ("budget", "tolerance", "confidence", "pruner", "configurations", "confirm")
"""Options that are settings of a study; those that are not given have the study's defaults."""

TRUTH = 2
"""Repeats of a table that a race is not given, as far as there are enough."""

SPACE_KEYS = ("tie", "passes", "score")
"""Options that are keys of a search space, for the sweep."""


def settings_of(draw: Draw, name: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a simulated study, as `study run` would settle them; confirmed if asked."""
    own = {"sampler": name, "seed": draw.seed, **given}
    chosen = {key: Setting(value, "command line") for key, value in own.items()}
    images = draw.images or 0
    facts = DataFacts("table", (1, 1, 1), 2, draw.pool or images, 0, images)
    settings = resolve(draw.space, "table", chosen).with_data(facts, {})
    if CONFIRM in strategy_of(settings).own:
        settings = settings.with_default(CONFIRM, 0)
    return completed(settings)


def make_plan(name: str, given: Mapping[str, Any], **space: Any) -> Callable[[Draw], Plan]:
    """How each study's plan is made; ``space`` holds other keys of its search space."""

    def made(draw: Draw) -> Plan:
        changed = replace(draw, space=replace(draw.space, **space))
        plan = plan_of(settings_of(changed, name, given))
        if isinstance(plan, Race):  # some repeats measure the winner, and two are the truth
            plan.choosing = min(plan.choosing, max(1, len(draw.order) - plan.repeats - TRUTH))
        return plan

    return made


def margin_of(draw: Draw, name: str, given: Mapping[str, Any]) -> Margin | None:
    """The pruner that the study would have; of those only the sweep's works on a table."""
    settings = settings_of(draw, name, given)
    pruner = settings["pruner"]
    if pruner not in ("none", "sweep"):
        raise SettingsError(f"--pruner {pruner}: a replay has none or sweep")
    return Margin() if pruner == "sweep" else None


def stated(plan_state: PlanState) -> Stated | None:
    """What a plan_state says of its answer."""
    race, score = plan_state.race, plan_state.score
    if score is None:
        return None
    own = Stated(accuracy=score.interval, mean=score.mean, error=score.standard_error)
    if race is None:
        return own
    return replace(
        own,
        within=race.probability,
        distance=race.distance,
        reason=race.reason,
        compared=race.compared,
    )


def replayed(
    table: Table, name: str, options: argparse.Namespace, given: Mapping[str, Any]
) -> list[Outcome]:
    """The outcomes of all studies; raises ``StudyError`` for settings that the strategy refuses."""
    space = {key: getattr(options, key) for key in SPACE_KEYS}
    made = make_plan(name, given, **space)
    sample = drawn(table, 0, options.seed, options.repeats)
    made(sample)
    return simulate(
        table,
        made,
        options.studies,
        seed=options.seed,
        repeats=options.repeats,
        workers=options.jobs_in_study,
        margin=margin_of(sample, name, given),
        stated=stated,
        processes=options.processes,
    )


def lines(record: Mapping[str, Any], tolerance: float) -> Iterator[str]:
    """What a person reads."""
    for name, value in record.items():
        if name == "probability":
            yield f"{f'within {tolerance:g} points, stated':46} came true, of all"
            for fifth in value:
                true = f"{fifth['came true']}  {fifth['of all']}  of {fifth['studies']}"
                yield f"  {fifth['stated']:44.3f} {true}"
        elif name == "ended":
            for reason, ended in value.items():
                said = f"ended {reason}: {ended['studies']}, within the tolerance"
                yield f"{said:46} {ended['came true']}"
        else:
            yield f"{name:46} {value}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", help="a path, or the name of a table in benchmarks/tables")
    parser.add_argument("--strategy", default="sweep", help="what --sampler of a study takes")
    parser.add_argument("--studies", type=_count, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=_count, default=3, help="of a configuration (3)")
    parser.add_argument("--jobs-in-study", type=_count, default=1, help="simulated workers (1)")
    parser.add_argument("--processes", type=_count, default=2)
    parser.add_argument("--budget", help="epochs or a time, for a strategy that has a budget")
    parser.add_argument("--confirm", type=int, help="fresh repeats of answer and start")
    parser.add_argument("--tolerance", type=float, help="points, for one that stops when sure")
    parser.add_argument("--confidence", type=float, help="the probability at which it stops")
    parser.add_argument("--configurations", type=_count, help="how many a search tries")
    parser.add_argument("--pruner", help="sweep or none (the strategy's own)")
    parser.add_argument("--tie", choices=["cheapest", "best"], default="best")
    parser.add_argument("--passes", type=_count, default=1)
    parser.add_argument("--score", choices=["last", "mean of last 3"], default="mean of last 3")
    parser.add_argument("--json", type=Path, help="add the record to this file, as a line")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return number


def main() -> None:
    options = parsed()
    given = {name: getattr(options, name) for name in STRATEGY_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    tolerance = given.get("tolerance", 0.2)
    try:
        table = load(options.table)
        outcomes = replayed(table, options.strategy, options, given)
    except StudyError as error:
        print(f"replay: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    record = measured(table, outcomes) | judged(table, outcomes, tolerance)
    print(f"{options.strategy} on {table.name}, from {options.studies} starts")
    print(*lines(record, tolerance), sep="\n")
    if options.json:
        what = {"table": table.name, "strategy": options.strategy, **given}
        names = (*SPACE_KEYS, "repeats", "jobs_in_study", "seed")
        what |= {name: getattr(options, name) for name in names}
        recorded.append(options.json, what | plain(record) | recorded.machine("numpy"))


if __name__ == "__main__":
    main()
