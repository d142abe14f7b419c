"""The command that compares anybody's results: better, tie or worse."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from study.cli.exits import explained
from study.cli.options import JSON, takes
from study.cli.terminal import SafeConsole, print_json, say
from study.errors import DataError

_CONFIGURATION = ("configuration", "config", "option", "model", "method", "name")
_REPEAT = ("repeat", "seed", "fold", "split", "run")
_SCORE = ("score", "value", "accuracy", "val_accuracy", "metric", "loss")


@takes(JSON)
def judge(
    context: typer.Context,
    results: Annotated[Path, typer.Argument(metavar="RESULTS.csv", help="A row for each run.")],
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Columns: configuration,repeat,score (found by name)."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Compare with this one (default: the first row's)."),
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Less is better.")] = False,
) -> None:
    """Compare configurations of any tuner by their repeats: better, tie or worse.

    Exit code 0: one is better than the baseline; 1: none is; 2: the file cannot be used.

    Examples:
    - `study judge results.csv`
    - `study judge results.csv --columns lr,seed,val_loss --minimize --json`
    """
    with explained():
        from study.plan.judge import judge as judged
        from study.plan.judge import read

        try:
            with results.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                found = read(rows, _columns(rows.fieldnames or [], columns))
            first = next(iter(found), "") if baseline is None else baseline
            judgements = judged(found, first, minimize=minimize)
        except (DataError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{results}: {error}") from None
        if context.params["json"]:
            print_json({"baseline": first, "judgements": [asdict(one) for one in judgements]})
        for one in [] if context.params["json"] else judgements:
            said = {"better": "better than", "worse": "worse than", "tie": "a tie with"}
            low, high = one.interval
            need = "more than 10,000" if one.more is None else f"about {one.more}"
            tie = f"; {need} more repeats would decide a difference of this size"
            say(
                SafeConsole(),
                f"{one.configuration}: {said[one.verdict]} {first} by {one.difference:+.4g} "
                f"(95 %: {low:+.4g} to {high:+.4g}, {'in pairs' if one.paired else 'unpaired'}, "
                f"{one.repeats} repeats){tie if one.verdict == 'tie' else ''}",
            )
    if not any(one.verdict == "better" for one in judgements):
        raise typer.Exit(1)


def _columns(header: Sequence[str], given: str | None) -> tuple[str, str | None, str]:
    """The columns of configuration, repeat and score."""
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        if len(names) != 3:
            raise DataError(f"--columns {given}: give three: configuration,repeat,score")
        if missing := [name for name in names if name not in header]:
            raise DataError(f"has no column {missing[0]!r}; it has {', '.join(header)}")
        return names[0], names[1], names[2]
    lower = {name.strip().lower(): name for name in header}
    first, repeat, score = (
        next((lower[name] for name in known if name in lower), None)
        for known in (_CONFIGURATION, _REPEAT, _SCORE)
    )
    if first is None or score is None:
        raise DataError("has no columns configuration and score; name them with --columns")
    return first, repeat, score
