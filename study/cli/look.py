"""The commands that look at a study, show it elsewhere, or probe what it needs; none trains."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from study.cli.exits import opened, print_json, say
from study.cli.options import Data, Follow, Json, Mlflow, Output, Storage, StudyName
from study.storage.location import DEFAULT as DEFAULT_STORAGE

if TYPE_CHECKING:
    from study.plan.plan import PlanState
    from study.space.settings import Settings
    from study.storage.location import Database


def add_to(app: typer.Typer) -> None:
    """Add the commands, in the order in which the help lists them."""
    for command in (status, best, report, mirror, dashboard, doctor):
        app.command()(command)
        if command is best:
            app.command("list")(list_studies)


def status(
    name: StudyName = None, storage: Storage = DEFAULT_STORAGE, as_json: Json = False
) -> None:
    """Show how a study stands: settings, every stage, the answer so far.

    Examples:
    - `python -m study status`
    - `python -m study status digits --json`
    """
    with opened(storage) as database:
        title, settings, plan_state, state = _stand(database, name)
        from study.cli import summary

        if as_json:
            print_json(summary.status(title, settings, plan_state, state))
        else:
            summary.print_status(Console(), title, settings, plan_state, state)


def best(name: StudyName = None, storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """Name the configuration to use, with its mean and standard error.

    Examples:
    - `python -m study best`
    - `python -m study best digits --json`
    """
    with opened(storage) as database:
        title, settings, plan_state, state = _stand(database, name)
        from study.cli import summary

        if as_json:
            print_json(summary.best(title, settings, plan_state, state))
        else:
            summary.print_best(Console(), title, plan_state, state)


def list_studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a database.

    Examples:
    - `python -m study list`
    - `python -m study list --json --storage sqlite:///other.db`
    """
    with opened(storage) as database:
        from study.cli import summary
        from study.errors import StudyError, Unfinished
        from study.storage.database import names

        found, left_out = [], []
        for name in names(database.open()):
            try:
                found.append(summary.best(*_stand(database, name)))
            except StudyError as error:
                left_out.append(f"Left out: {error}")
        if as_json:
            print_json(found)
        else:
            summary.print_list(Console(), found)
        for line in left_out:
            typer.echo(line, err=True)
        if left_out:
            raise Unfinished(f"{len(left_out)} of the studies could not be read")


def report(
    name: StudyName = None, storage: Storage = DEFAULT_STORAGE, output: Output = None
) -> None:
    """Write a report of a study: one page to mail, its figures and its tables.

    Examples:
    - `python -m study report`
    - `python -m study report digits --output digits-report`
    """
    with opened(storage) as database:
        from study.report.write import report as write

        console = Console(stderr=True)
        with console.status("Writing the report"):
            page = write(database, name, output)
        typer.echo(f"Report: {page}")


def mirror(
    name: StudyName = None,
    storage: Storage = DEFAULT_STORAGE,
    mlflow: Mlflow = None,
    follow: Follow = False,
) -> None:
    """Send a study to MLflow: whatever is missing there, and nothing twice.

    Examples:
    - `python -m study mirror`
    - `python -m study mirror digits --mlflow http://127.0.0.1:5000`
    - `python -m study mirror digits --follow`
    """
    with opened(storage) as database:
        from study.errors import MirrorError
        from study.mirror.follow import follow_study, mirror_once
        from study.mirror.subprocess import parent_ended
        from study.mirror.target import resolve
        from study.storage.database import load

        title = load(database.open(), name)[0].study_name
        target = resolve(mlflow, os.environ, database)
        if target is None:
            raise MirrorError("--mlflow none: there is nothing to mirror to; give an address")
        console = Console()
        if follow:
            follow_study(
                database.study(title), target, parent_ended(), partial(say, Console(stderr=True))
            )
            return
        with console.status(escape(f"Sending {title!r} to {target.shown}")):
            report = mirror_once(database.study(title), target)
        for problem in report.problems:
            say(console, problem)
        but = ", but for what is said above" if report.problems else ""
        say(console, f"Study {title!r} is mirrored to {target.shown}{but}")


def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port.")] = 8080,
) -> None:
    """Show the studies of a database in the browser, live, on 127.0.0.1.

    Examples:
    - `python -m study dashboard`
    - `python -m study dashboard --port 9000`
    """
    with opened(storage) as database:
        from study.dashboard.serve import serve

        serve(database, port, typer.echo)


def doctor(
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A search space: its data are read as it says."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    data: Data = None,
    mlflow: Mlflow = None,
    as_json: Json = False,
) -> None:
    """Probe everything a study needs, and say in plain words what is wrong.

    Examples:
    - `python -m study doctor`
    - `python -m study doctor my.toml`
    - `python -m study doctor --data my.npz --mlflow http://127.0.0.1:5000`
    """
    from dataclasses import asdict

    from study.cli import summary
    from study.cli.doctor import examine

    console, found = Console(), []
    with console.status("Probing") if not as_json else nullcontext():
        for finding in examine(storage, data, mlflow, os.environ, space):
            found.append(finding)
            if not as_json:
                summary.print_finding(console, finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if any(finding.fine is False for finding in found):
        raise typer.Exit(2)


def _stand(database: Database, name: str | None) -> tuple[str, Settings, PlanState, str]:
    """A study's name, settings, plan_state and state, from the database alone."""
    from study.storage.database import load
    from study.storage.progress import standing_of, state_of

    study, settings = load(database.open(), name)
    plan_state = standing_of(study, settings)
    state = state_of(plan_state, database.study(study.study_name))
    return study.study_name, settings, plan_state, state
