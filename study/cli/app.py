"""The commands: declare options, call one function, print.

Nothing here imports TensorFlow, MLflow, Dask or Optuna before a command needs it.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from study.cli import final, look
from study.cli.execution import again, execution_options
from study.cli.exits import Commands, interruptible, opened, reported, say
from study.cli.options import (
    AcceptChangedModel,
    Budget,
    CheckpointsAt,
    Confidence,
    Configurations,
    Data,
    Device,
    Epochs,
    Jobs,
    KeepModels,
    Mlflow,
    Name,
    Precision,
    Pruner,
    Quiet,
    Repeats,
    Resources,
    Sampler,
    Scheduler,
    Seed,
    Storage,
    StudyName,
    Threads,
    Timeout,
    Tolerance,
    Training,
    Verbose,
)
from study.cli.reading import told
from study.storage.location import DEFAULT as DEFAULT_STORAGE

if TYPE_CHECKING:
    from study.running.launch import ExecutionOptions
    from study.running.prepare import Prepared
    from study.space.settings import Chosen

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
    precision: Precision = None,
    device: Device = None,
    accept_changed_model: AcceptChangedModel = False,
    timeout: Timeout = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    resources: Resources = None,
    checkpoints: CheckpointsAt = None,
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
            precision=precision,
            device=device,
        )
        execution = execution_options(
            database,
            mlflow,
            resources,
            jobs=jobs,
            scheduler=scheduler,
            timeout=timeout,
            checkpoints=checkpoints,
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
                execution.devices,
                accept_changed_model=accept_changed_model,
            )
        _drive(prepared, execution, verbose=verbose, quiet=quiet)


@app.command()
def resume(
    name: StudyName = None,
    storage: Storage = DEFAULT_STORAGE,
    repeats: Repeats = None,
    device: Device = None,
    accept_changed_model: AcceptChangedModel = False,
    timeout: Timeout = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    resources: Resources = None,
    checkpoints: CheckpointsAt = None,
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

        execution = execution_options(
            database,
            mlflow,
            resources,
            jobs=jobs,
            scheduler=scheduler,
            timeout=timeout,
            checkpoints=checkpoints,
            keep_models=keep_models,
        )
        with told(Console(stderr=quiet)) as reading:
            prepared = prepare_again(
                name,
                database,
                repeats,
                reading,
                execution.devices,
                device,
                accept_changed_model=accept_changed_model,
            )
        _drive(prepared, execution, verbose=verbose, quiet=quiet)


look.add_to(app)
final.add_to(app)


def _drive(prepared: Prepared, execution: ExecutionOptions, *, verbose: bool, quiet: bool) -> None:
    """Drive a study with the view that fits the terminal, then print tables and answer."""
    from study.cli import live, summary
    from study.errors import StudyError
    from study.running.driver import Observers
    from study.running.launch import jobs_of, launch

    console = Console()
    settings, location = prepared.settings, prepared.location
    resume = location.command(
        "resume", *again(execution), needs=execution.mirror.needs if execution.mirror else ()
    )
    with interruptible(resume):
        if not quiet:
            summary.print_header(console, location.name, settings, new=prepared.new)
            jobs = jobs_of(settings, execution)
            grouped = settings["training"] == "grouped"
            summary.print_execution(console, jobs, execution, settings.device, grouped=grouped)
        watch: Any = Observers()
        if not quiet:
            watch = live.Lines(console, settings["epochs"], each_epoch=verbose)
            if console.is_terminal and not verbose:
                watch = live.Screen(console, settings["epochs"], settings.repeats)
        with watch if isinstance(watch, live.Screen) else nullcontext():
            plan_state = launch(
                prepared,
                watch,
                execution,
                partial(say, Console(stderr=True) if quiet else console),
            )
        summary.print_end(console, settings, plan_state, resume, quiet=quiet)
        with console.status("Writing the report") if not quiet else nullcontext():
            written = reported(location)
        if not quiet:
            say(console, written)
    if plan_state.failure is not None:
        raise StudyError(f"The study has no answer: {plan_state.failure}")


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
