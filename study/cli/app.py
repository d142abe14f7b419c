"""The commands: declare options, call one function, print.

Nothing here imports TensorFlow, MLflow, Dask or Optuna before a command needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from study.cli import final as commands
from study.cli.exits import Commands, interruptible, opened, print_json, reported
from study.cli.options import (
    AcceptChangedModel,
    Budget,
    CheckpointsAt,
    Confidence,
    Configurations,
    Data,
    Epochs,
    Follow,
    Jobs,
    Json,
    KeepModels,
    Mlflow,
    Name,
    Output,
    Pruner,
    Quiet,
    Repeats,
    Resources,
    Sampler,
    Scheduler,
    Seed,
    Speculate,
    Storage,
    StudyName,
    Threads,
    Timeout,
    Tolerance,
    Training,
    Verbose,
    again,
    amounts,
)
from study.cli.reading import told
from study.storage import models
from study.storage.location import DEFAULT as DEFAULT_STORAGE

if TYPE_CHECKING:
    from study.plan.plan import PlanState
    from study.running.launch import ExecutionOptions
    from study.running.prepare import Prepared
    from study.space.settings import Chosen, Settings
    from study.storage.location import Database

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="A hyperparameter study for small image classifiers: start it with one command, kill it "
    "at any moment, watch it live, and believe it in the end.",
)


@app.command()
def run(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="SPACE",
            help="A search-space file, or a shipped space: digits (default), mnist, modern, smoke.",
        ),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    name: Name = None,
    data: Data = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    repeats: Repeats = None,
    epochs: Epochs = None,
    seed: Seed = None,
    configurations: Configurations = None,
    tolerance: Tolerance = None,
    confidence: Confidence = None,
    budget: Budget = None,
    threads: Threads = None,
    training: Training = None,
    accept_changed_model: AcceptChangedModel = False,
    timeout: Timeout = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    resources: Resources = None,
    checkpoints: CheckpointsAt = None,
    speculate: Speculate = True,
    mlflow: Mlflow = None,
    keep_models: KeepModels = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a study; one of the same name and settings is continued.

    Examples:
    - `python -m study run`
    - `python -m study run mnist --name first`
    - `python -m study run my.toml --data my.npz --repeats 5`
    - `python -m study run digits --sampler race --tolerance 0.2`
    """
    with opened(storage) as database:
        from study.running.launch import ahead
        from study.running.prepare import prepare

        given = _given(
            context,
            data=data,
            sampler=sampler,
            pruner=pruner,
            repeats=repeats,
            epochs=epochs,
            seed=seed,
            configurations=configurations,
            tolerance=tolerance,
            confidence=confidence,
            budget=budget,
            threads=threads,
            training=training,
        )
        execution = _execution(
            database,
            mlflow,
            jobs=jobs,
            scheduler=scheduler,
            resources=amounts(resources),
            timeout=timeout,
            checkpoints=checkpoints,
            speculate=speculate,
            keep_models=keep_models,
        )
        with told(Console(stderr=quiet)) as reading:
            prepared = prepare(
                space,
                name,
                database,
                given,
                ahead(execution),
                reading,
                accept_changed_model=accept_changed_model,
            )
        _drive(prepared, execution, verbose=verbose, quiet=quiet)


@app.command()
def resume(
    name: StudyName = None,
    storage: Storage = DEFAULT_STORAGE,
    repeats: Repeats = None,
    accept_changed_model: AcceptChangedModel = False,
    timeout: Timeout = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    resources: Resources = None,
    checkpoints: CheckpointsAt = None,
    speculate: Speculate = True,
    mlflow: Mlflow = None,
    keep_models: KeepModels = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Continue a study with everything it recorded; more repeats are allowed.

    Examples:
    - `python -m study resume`
    - `python -m study resume digits --repeats 5`
    """
    with opened(storage) as database:
        from study.running.prepare import prepare_again

        with told(Console(stderr=quiet)) as reading:
            prepared = prepare_again(
                name, database, repeats, reading, accept_changed_model=accept_changed_model
            )
        execution = _execution(
            database,
            mlflow,
            jobs=jobs,
            scheduler=scheduler,
            resources=amounts(resources),
            timeout=timeout,
            checkpoints=checkpoints,
            speculate=speculate,
            keep_models=keep_models,
        )
        _drive(prepared, execution, verbose=verbose, quiet=quiet)


@app.command()
def status(
    name: StudyName = None, storage: Storage = DEFAULT_STORAGE, as_json: Json = False
) -> None:
    """Show how a study stands: settings, every stage, the answer so far.

    Examples:
    - `python -m study status`
    - `python -m study status digits --json`
    """
    with opened(storage) as database:
        title, settings, standing, state = _stand(database, name)
        from study.cli import summary

        if as_json:
            print_json(summary.status(title, settings, standing, state))
        else:
            summary.print_status(Console(), title, settings, standing, state)


@app.command()
def best(name: StudyName = None, storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """Name the configuration to use, with its mean and standard error.

    Examples:
    - `python -m study best`
    - `python -m study best digits --json`
    """
    with opened(storage) as database:
        title, settings, standing, state = _stand(database, name)
        from study.cli import summary

        if as_json:
            print_json(summary.best(title, settings, standing, state))
        else:
            summary.print_best(Console(), title, standing, state)


@app.command("list")
def list_studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a database.

    Examples:
    - `python -m study list`
    - `python -m study list --json --storage sqlite:///other.db`
    """
    with opened(storage) as database:
        from study.cli import summary
        from study.errors import StudyError
        from study.storage.database import names

        found = []
        for name in names(database.open()):
            try:
                found.append(summary.best(*_stand(database, name)))
            except StudyError as error:
                typer.echo(f"study: {error}", err=True)
        if as_json:
            print_json(found)
        else:
            summary.print_list(Console(), found)


@app.command()
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


@app.command()
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
            follow_study(database.study(title), target, parent_ended(), _say(Console(stderr=True)))
            return
        with console.status(escape(f"Sending {title!r} to {target.shown}")):
            report = mirror_once(database.study(title), target)
        for problem in report.problems:
            _say(console)(problem)
        but = ", but for what is said above" if report.problems else ""
        _say(console)(f"Study {title!r} is mirrored to {target.shown}{but}")


@app.command()
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


@app.command()
def doctor(
    storage: Storage = DEFAULT_STORAGE,
    data: Data = None,
    mlflow: Mlflow = None,
    as_json: Json = False,
) -> None:
    """Probe everything a study needs, and say in plain words what is wrong.

    Examples:
    - `python -m study doctor`
    - `python -m study doctor --data my.npz --mlflow http://127.0.0.1:5000`
    """
    from dataclasses import asdict

    from study.cli import summary
    from study.cli.doctor import examine

    console, found = Console(), []
    with console.status("Probing") if not as_json else nullcontext():
        for finding in examine(storage, data or "digits", mlflow, os.environ):
            found.append(finding)
            if not as_json:
                summary.print_finding(console, finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if any(finding.fine is False for finding in found):
        raise typer.Exit(2)


commands.add_to(app)


def _drive(prepared: Prepared, execution: ExecutionOptions, *, verbose: bool, quiet: bool) -> None:
    """Drive a study with the view that fits the terminal, then print tables and answer."""
    from study.cli import live, summary
    from study.errors import SlotFailed
    from study.running.launch import jobs_of, launch

    console = Console()
    settings, location = prepared.settings, prepared.location
    resume = location.command(
        "resume", *again(execution), needs=execution.mirror.needs if execution.mirror else ()
    )
    with interruptible(resume):
        if not quiet:
            summary.print_header(console, location.name, settings, new=prepared.new)
            summary.print_execution(console, jobs_of(settings, execution), execution)
        watch: Any = live.Silent()
        if not quiet:
            watch = live.Lines(console, settings["epochs"], each_epoch=verbose)
            if console.is_terminal and not verbose:
                watch = live.Screen(console, settings["epochs"], settings.repeats)
        with watch if isinstance(watch, live.Screen) else nullcontext():
            try:
                standing = launch(
                    prepared, watch, execution, _say(Console(stderr=True) if quiet else console)
                )
            except SlotFailed:  # an unfinished study has a report too, which shows what failed
                reported(location)
                raise
        summary.print_end(console, settings, standing, resume, quiet=quiet)
        with console.status("Writing the report") if not quiet else nullcontext():
            written = reported(location)
        if not quiet:
            _say(console)(written)


def _stand(database: Database, name: str | None) -> tuple[str, Settings, PlanState, str]:
    """A study's name, settings, standing and state, from the database alone."""
    from study.storage.database import load
    from study.storage.progress import standing_of, state_of

    study, settings = load(database.open(), name)
    standing = standing_of(study, settings)
    state = state_of(standing, database.study(study.study_name))
    return study.study_name, settings, standing, state


def _given(context: typer.Context, **options: Any) -> dict[str, Chosen]:
    """The options that the command line or the environment gave, and which of the two it was."""
    from study.space.settings import Chosen, Source

    sources: dict[str, Source] = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}
    found = {}
    for name, value in options.items():
        origin = context.get_parameter_source(name)
        if value is not None and origin is not None and origin.name in sources:
            found[name] = Chosen(value, sources[origin.name])
    return found


def _say(console: Console) -> Callable[[str], None]:
    """Print a line above the live view, or between the plain ones."""
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


def _execution(database: Database, mlflow: str | None, **execution: Any) -> ExecutionOptions:
    """How to drive, with the MLflow server that is to follow."""
    from study.mirror.target import resolve
    from study.running.launch import ExecutionOptions

    if execution["keep_models"] is not None:
        models.parse(execution["keep_models"])
    return ExecutionOptions(**execution, mirror=resolve(mlflow, os.environ, database))
