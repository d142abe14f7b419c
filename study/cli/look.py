"""The commands that train nothing: they show a study, compare results, or probe what is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from study.cli.exits import explained, opened
from study.cli.options import JSON, MIRROR, STORAGE, STUDY, STUDY_NAME, only, takes
from study.cli.terminal import SafeConsole, print_json, say
from study.errors import DataError, MirrorError, StudyError, Unfinished
from study.files import printable

_CONFIGURATION = ("configuration", "config", "option", "model", "method", "name")
_REPEAT = ("repeat", "seed", "fold", "split", "run")
_SCORE = ("score", "value", "accuracy", "val_accuracy", "metric", "loss")
"""Names of the columns of results, in the order of preference."""


def add_to(app: typer.Typer) -> None:
    """Add the commands, in the order in which the help lists them."""
    for command in (status, best, list_studies, report, mirror, dashboard, doctor, judge):
        app.command(command.__name__.partition("_")[0])(command)


@takes(STORAGE, JSON)
def status(context: typer.Context, name: STUDY_NAME = None) -> None:
    """Show the settings of a study, every stage, and the answer so far.

    Examples:
    - `study status`
    - `study status digits --json`
    """
    with opened(context) as database:
        from study.cli import summary
        from study.storage.database import read

        found = read(database, name)
        if context.params["json"]:
            print_json(summary.status(found))
        else:
            summary.print_status(SafeConsole(), found)


@takes(STORAGE, JSON)
def best(context: typer.Context, name: STUDY_NAME = None) -> None:
    """Print the configuration to use, with its mean and standard error.

    Examples:
    - `study best`
    - `study best digits --json`
    """
    with opened(context) as database:
        from study.cli import summary
        from study.storage.database import read

        found = read(database, name)
        if context.params["json"]:
            print_json(summary.best(found))
        else:
            summary.print_best(SafeConsole(), found)


@takes(STORAGE, JSON)
def list_studies(context: typer.Context) -> None:
    """List the studies of a database.

    Examples:
    - `study list`
    - `study list --json --storage sqlite:///other.db`
    """
    with opened(context) as database:
        from study.cli import summary
        from study.storage.database import names, read

        found, left_out = [], []
        for name in names(database.open()):
            try:
                found.append(summary.best(read(database, name)))
            except StudyError as error:
                left_out.append(f"Left out: {error}")
        if context.params["json"]:
            print_json(found)
        else:
            summary.print_list(SafeConsole(), found)
        for line in left_out:
            typer.echo(printable(line), err=True)
        if left_out:
            raise Unfinished(f"{len(left_out)} of the studies could not be read")


@takes(STORAGE)
def report(
    context: typer.Context,
    name: STUDY_NAME = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder to write (default: NAME-report beside study.db; for another database DB "
            "in DB.studies).",
        ),
    ] = None,
) -> None:
    """Write a report of a study: one page to mail, its figures and its tables.

    Examples:
    - `study report`
    - `study report digits --output digits-report`
    """
    with opened(context) as database:
        from study.report.write import report as write

        with SafeConsole(stderr=True).status("Writing the report"):
            page = write(database, name, output)
        typer.echo(printable(f"Report: {page}"))


@takes(STORAGE, MIRROR)
def mirror(
    context: typer.Context,
    name: STUDY_NAME = None,
    follow: Annotated[
        bool, typer.Option("--follow", metavar="", help="Send for as long as the study is driven.")
    ] = False,
) -> None:
    """Send a study to MLflow: whatever is missing there, and nothing twice.

    Examples:
    - `study mirror`
    - `study mirror digits --mlflow http://127.0.0.1:5000`
    - `study mirror digits --follow`
    """
    with opened(context) as database:
        from study.mirror.follow import follow_study, mirror_once, parent_ended
        from study.mirror.tracker import resolve
        from study.storage.database import load

        title = load(database.open(), name)[0].study_name
        target = resolve(context.params["mlflow"], os.environ, database)
        if target is None:
            raise MirrorError("--mlflow none: there is nothing to mirror to; give an address")
        console = SafeConsole()
        if follow:
            warn = partial(say, SafeConsole(stderr=True))
            follow_study(database.study(title), target, parent_ended(), warn)
            return
        with console.status(escape(f"Sending {title!r} to {target.shown}")):
            sent = mirror_once(database.study(title), target)
        for problem in sent.problems:
            say(console, problem)
        if not sent.trials:
            say(console, f"Study {title!r} has no runs yet: there is nothing to mirror")
            return
        but = ", but for what is said above" if sent.problems else ""
        say(console, f"Study {title!r} is mirrored to {target.shown}{but}")


@takes(STORAGE)
def dashboard(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port.")] = 8080,
) -> None:
    """Show the studies of a database in the browser, live, on 127.0.0.1.

    Examples:
    - `study dashboard`
    - `study dashboard --port 9000`
    """
    with opened(context) as database:
        from study.dashboard.serve import serve

        serve(database, port, typer.echo)


@takes(STORAGE, only(STUDY, "data"), MIRROR, JSON)
def doctor(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A search space: its data is read as it says."),
    ] = None,
) -> None:
    """Probe everything a study needs, and say what is wrong.

    Examples:
    - `study doctor`
    - `study doctor my.toml`
    - `study doctor --data my.npz --mlflow http://127.0.0.1:5000`
    """
    from study.cli import summary
    from study.cli.doctor import examine

    given: dict[str, Any] = context.params
    console, found = SafeConsole(), []
    with console.status("Probing") if not given["json"] else nullcontext():
        probes = examine(given["storage"], given["data"], given["mlflow"], os.environ, space)
        for finding in probes:
            found.append(finding)
            if not given["json"]:
                summary.print_finding(console, finding)
    if given["json"]:
        print_json([asdict(finding) for finding in found])
    if any(finding.fine is False for finding in found):
        raise typer.Exit(2)


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

        found = _scores(results, columns)
        first = next(iter(found)) if baseline is None else baseline
        try:
            judgements = judged(found, first, minimize=minimize)
        except DataError as error:
            raise DataError(f"{results}: {error}") from None
        if context.params["json"]:
            print_json({"baseline": first, "judgements": [asdict(one) for one in judgements]})
        for one in [] if context.params["json"] else judgements:
            said = {"better": "better than", "worse": "worse than", "tie": "a tie with"}
            need = "more than 10,000" if one.more is None else f"about {one.more}"
            tie = f"; {need} more repeats would decide a difference of this size"
            if one.interval is None:
                interval, tie = "no interval", "; the repeats have no spread, so nothing is decided"
            else:
                interval = "95 %: {:+.4g} to {:+.4g}".format(*one.interval)
            say(
                SafeConsole(),
                f"{one.configuration}: {said[one.verdict]} {first}, {one.difference:+.4g} "
                f"({interval}, {'in pairs' if one.paired else 'unpaired'}, "
                f"{one.repeats} repeats){tie if one.verdict == 'tie' else ''}",
            )
    if not any(one.verdict == "better" for one in judgements):
        raise typer.Exit(1)


def _scores(results: Path, columns: str | None) -> dict[str, dict[str, float]]:
    """The scores of a CSV by configuration and repeat; one name for what is written in two ways."""
    from study.data.listing import class_names
    from study.data.table import rows
    from study.plan.judge import read

    found = [*rows(results)]
    if not found:
        raise DataError(f"{results}: no row below a header; give a row for each run")
    try:
        chosen = _columns([*found[0][1]], columns)
    except DataError as error:
        raise DataError(f"{results}: {error}") from None
    for column in filter(None, chosen[:2]):
        names = class_names({row[column] for _, row in found})
        for _, row in found:
            row[column] = names[row[column]]
    scores = read(found, chosen)
    if len({score for held in scores.values() for score in held.values()}) == 1:
        raise DataError(f"{results}: all scores are the same; there is nothing to compare")
    return scores


def _columns(header: Sequence[str], given: str | None) -> tuple[str, str | None, str]:
    """The columns of configuration, repeat and score."""
    if given is not None:
        names = [name.strip().lower() for name in given.split(",")]
        if len(names) != 3:
            raise DataError(f"--columns {given}: give three: configuration,repeat,score")
        if missing := [name for name in names if name not in header]:
            raise DataError(f"has no column {missing[0]!r}; it has {', '.join(header)}")
        return names[0], names[1], names[2]
    first, repeat, score = (
        next((name for name in known if name in header), None)
        for known in (_CONFIGURATION, _REPEAT, _SCORE)
    )
    if first is None or score is None:
        raise DataError("has no columns configuration and score; name them with --columns")
    return first, repeat, score
