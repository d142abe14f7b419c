"""The program and its commands that train: declare options, call one function, print.

Nothing here imports TensorFlow, MLflow, Dask or Optuna before a command needs it.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli import final, look, options
from study.cli.compare import compare
from study.cli.exits import Commands, interruptible, opened, reported
from study.cli.options import STUDY_NAME, execution_options, only, resume_options, takes
from study.cli.terminal import SafeConsole, approve, progress_bar, say

if TYPE_CHECKING:
    from study.running.launch import ExecutionOptions
    from study.running.prepare import Prepared
    from study.space.settings import Setting

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="A hyperparameter study for small image classifiers: start it with one command, kill it "
    "at any moment, watch it live, and rely on its answer.\n\n"
    "Options that take a value may be set in the environment: STUDY_EPOCHS=3 for --epochs 3.",
)

_SETTINGS = ("data", *options.SEARCH, *options.TRAINING)
_EXECUTION = (*options.WHERE, *options.LIMITS, "mlflow", "keep_models")


def _print_version(asked: bool) -> None:  # noqa: FBT001
    if asked:
        from study.cli.summary import versions

        typer.echo(versions())
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Print the versions of this program and its libraries.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take the options of the program itself; `Typer` above has its help."""


@app.command()
@takes(
    options.STUDY,
    options.SEARCH,
    options.TRAINING,
    options.WHERE,
    options.LIMITS,
    options.MIRROR,
    options.OUTPUT,
)
def run(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="SPACE",
            help="A search-space file, or digits (default), mnist, modern or smoke.",
            callback=options.not_empty,
        ),
    ] = None,
) -> None:
    """Run a study; one of the same name is continued, and extended if its space has grown.

    Examples:
    - `study run`
    - `study run my.toml --data my.npz --repeats 5`
    - `study run digits --sampler race --tolerance 0.2`
    """
    with opened(context) as database:
        from study.running.launch import worker_warm_up
        from study.running.prepare import prepare

        given = context.params
        execution = execution_options(database, **options.values(context, _EXECUTION))
        with progress_bar(SafeConsole(stderr=given["quiet"])) as callbacks:
            prepared = prepare(
                space,
                given["name"],
                database,
                _settings(context),
                worker_warm_up(execution),
                callbacks,
                execution.devices,
                accept_changed_model=given["accept_changed_model"],
                approve=partial(approve, yes=given["yes"], quiet=given["quiet"]),
            )
        _drive_and_report(prepared, execution, verbose=given["verbose"], quiet=given["quiet"])


@app.command()
@takes(
    only(options.STUDY, "storage", "data", "accept_changed_model"),
    only(options.SEARCH, "repeats"),
    only(options.TRAINING, "device"),
    options.WHERE,
    options.LIMITS,
    options.MIRROR,
    options.OUTPUT,
)
def resume(context: typer.Context, name: STUDY_NAME = None) -> None:
    """Continue a study with everything it recorded; more repeats are allowed.

    Examples:
    - `study resume`
    - `study resume digits --repeats 5`
    """
    with opened(context) as database:
        from study.running.prepare import prepare_again

        given = context.params
        execution = execution_options(database, **options.values(context, _EXECUTION))
        with progress_bar(SafeConsole(stderr=given["quiet"])) as callbacks:
            prepared = prepare_again(
                name,
                database,
                given["repeats"],
                callbacks,
                execution.devices,
                given["device"],
                data=given["data"],
                accept_changed_model=given["accept_changed_model"],
                approve=partial(approve, yes=False, quiet=given["quiet"]),
            )
        _drive_and_report(prepared, execution, verbose=given["verbose"], quiet=given["quiet"])


look.add_to(app)
final.add_to(app)
app.command()(compare)


def _drive_and_report(
    prepared: Prepared, execution: ExecutionOptions, *, verbose: bool, quiet: bool
) -> None:
    """Drive a study with the view that fits the terminal, then print tables and answer."""
    from study.cli import live, summary
    from study.errors import StudyError
    from study.running.driver import Observers
    from study.running.launch import jobs_of, launch
    from study.storage.database import is_stored

    console = SafeConsole()
    settings, location = prepared.settings, prepared.location
    resume = location.command(
        "resume",
        *resume_options(execution),
        needs=execution.mirror.needs if execution.mirror else (),
    )
    with interruptible(resume, partial(is_stored, location)):
        if not quiet:
            summary.print_header(console, location.name, settings, new=prepared.new)
            jobs = jobs_of(settings, execution)
            summary.print_execution(console, jobs, execution, settings)
        shown = live.watching(console, settings["epochs"], settings.repeats, verbose=verbose)
        with nullcontext(Observers()) if quiet else shown as watch:
            plan_state = launch(
                prepared,
                watch,
                execution,
                partial(say, SafeConsole(stderr=True) if quiet else console),
            )
        summary.print_end(console, settings, plan_state, resume, quiet=quiet)
        with console.status("Writing the report") if not quiet else nullcontext():
            written = reported(location)
        if not quiet:
            say(console, written)
    if plan_state.failure is not None:
        raise StudyError(f"The study has no answer: {plan_state.failure}")


def _settings(context: typer.Context) -> dict[str, Setting]:
    """The settings that the command line or the environment gave, and which of the two it was."""
    from study.space.settings import Setting, Source

    sources: dict[str, Source] = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}
    found = {}
    for name, value in options.values(context, _SETTINGS).items():
        origin = context.get_parameter_source(name)
        if value is not None and origin is not None and origin.name in sources:
            found[name] = Setting(value, sources[origin.name])
    return found
