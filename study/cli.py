"""The commands: declare options, call one function, print. The one place that exits.

Nothing here imports TensorFlow, MLflow, Dask or Optuna before a command needs it.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from study.errors import StudyError

if TYPE_CHECKING:
    from types import FrameType

    from study.launch import Prepared
    from study.plan import Standing
    from study.settings import Chosen, Settings

DEFAULT_STORAGE = "sqlite:///study.db"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="A hyperparameter study for small image classifiers: start it with one command, kill it "
    "at any moment, watch it live, and believe it in the end.",
)

Storage = Annotated[
    str,
    typer.Option("--storage", envvar="STUDY_STORAGE", metavar="URL", help="Database of the study."),
]
Name = Annotated[
    str | None,
    typer.Option("--name", envvar="STUDY_NAME", metavar="NAME", help="Name of the study."),
]
StudyName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The study; the one made last if left out.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        envvar="STUDY_DATA",
        metavar="DATA",
        help="digits, mnist, or a path: .npz, a folder of IDX files, a digit CSV.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        envvar="STUDY_SAMPLER",
        help="sweep (one at a time), tpe, random, qmc, cmaes or gp.",
    ),
]
Pruner = Annotated[
    str | None,
    typer.Option(
        "--pruner", envvar="STUDY_PRUNER", help="none, sweep, median, hyperband or patient."
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option("--repeats", envvar="STUDY_REPEATS", min=1, help="Runs of each configuration."),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", envvar="STUDY_EPOCHS", min=1, help="Epochs of a run.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", envvar="STUDY_SEED", min=0, help="Seed of splits, weights and order."),
]
Configurations = Annotated[
    int | None,
    typer.Option(
        "--configurations",
        envvar="STUDY_CONFIGURATIONS",
        min=1,
        help="Budget of configurations of the samplers other than sweep.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", envvar="STUDY_THREADS", min=1, help="Threads of a run; they decide its bits."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="Stop, resumable, after this time."),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", envvar="STUDY_JOBS", min=1, help="Runs trained at once.")
]
Mlflow = Annotated[
    str | None,
    typer.Option("--mlflow", envvar="STUDY_MLFLOW", metavar="URI|none", help="MLflow server."),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more: a line an epoch.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the answer alone.")]


@app.command()
def run(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="[SPACE]",
            help="A search-space file, or a shipped space: digits (default), mnist, smoke.",
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
    threads: Threads = None,
    timeout: Timeout = None,
    jobs: Jobs = None,
    mlflow: Mlflow = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a study; one of the same name and settings is continued.

    Examples: `study run`, `study run mnist`, `study run my.toml --data digits.csv --name mine`
    """
    with _explained():
        from study.launch import prepare

        given = _given(
            context,
            data=data,
            sampler=sampler,
            pruner=pruner,
            repeats=repeats,
            epochs=epochs,
            seed=seed,
            configurations=configurations,
            threads=threads,
        )
        prepared = prepare(space, name, storage, given)
    _drive(prepared, timeout, verbose=verbose, quiet=quiet)


@app.command()
def resume(
    name: StudyName = None,
    storage: Storage = DEFAULT_STORAGE,
    repeats: Repeats = None,
    timeout: Timeout = None,
    jobs: Jobs = None,
    mlflow: Mlflow = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Continue a study with everything it recorded; more repeats are allowed.

    Examples: `study resume`, `study resume digits --repeats 5`
    """
    with _explained():
        from study.launch import prepare_again

        prepared = prepare_again(name, storage, repeats)
    _drive(prepared, timeout, verbose=verbose, quiet=quiet)


@app.command()
def status(
    name: StudyName = None, storage: Storage = DEFAULT_STORAGE, as_json: Json = False
) -> None:
    """Show how a study stands: settings, every stage, the answer so far.

    Examples: `study status`, `study status digits --json`
    """
    with _explained():
        title, settings, standing, state = _read(name, storage)
        from study import summary

        if as_json:
            _print_json(summary.status(title, settings, standing, state))
        else:
            summary.print_status(Console(), title, settings, standing, state)


@app.command()
def best(name: StudyName = None, storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """Name the configuration to use, with its mean and standard error.

    Examples: `study best`, `study best digits --json`
    """
    with _explained():
        title, settings, standing, state = _read(name, storage)
        from study import summary

        if as_json:
            _print_json(summary.best(title, settings, standing, state))
        else:
            summary.print_best(Console(), title, standing, state)


@app.command("list")
def list_studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a database.

    Examples: `study list`, `study list --json`
    """
    with _explained():
        from study import storage as database
        from study import summary

        names = database.names(database.open_storage(storage))
        found = [summary.best(*_read(name, storage)) for name in names]
        if as_json:
            _print_json(found)
        else:
            summary.print_list(Console(), found)


@app.command()
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port.")] = 8080,
) -> None:
    """Show the studies of a database in the browser, live, on 127.0.0.1.

    Examples: `study dashboard`, `study dashboard --port 9000`
    """
    with _explained():
        from study.dashboard import serve

        serve(storage, port, lambda line: typer.echo(line))


class Terminated(KeyboardInterrupt):
    """SIGTERM, to be answered as Ctrl-C is."""


def _drive(prepared: Prepared, timeout: float | None, *, verbose: bool, quiet: bool) -> None:
    """Drive a study with the view that fits the terminal, then print tables and answer."""
    from study import live, summary
    from study.launch import launch

    console = Console()
    settings = prepared.settings
    with _explained(), _interruptible(prepared.name):
        if not quiet:
            summary.print_header(console, prepared.name, settings, new=prepared.new)
        watch: Any = live.Silent()
        if not quiet:
            watch = live.Lines(console, settings["epochs"], each_epoch=verbose)
            if console.is_terminal and not verbose:
                watch = live.Screen(console, settings["epochs"], settings.repeats)
        with watch if isinstance(watch, live.Screen) else nullcontext():
            _, standing = launch(prepared, watch, timeout)
        summary.print_end(console, prepared.name, settings, standing, quiet=quiet)


@contextmanager
def _interruptible(name: str) -> Iterator[None]:
    """Answer Ctrl-C with exit code 130 and SIGTERM with 143, and say how to go on."""

    def terminate(_: int, __: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        typer.echo(
            f"\nStopped; nothing is lost. Continue with: python -m study resume {_quoted(name)}"
        )
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None


@contextmanager
def _explained() -> Iterator[None]:
    """Turn a mistake that has a message into one line and exit code 2."""
    try:
        yield
    except StudyError as error:
        message = " ".join(str(error).split())
        typer.echo(f"study: {message}", err=True)
        raise typer.Exit(2) from None


def _read(name: str | None, url: str) -> tuple[str, Settings, Standing, str]:
    """A study's name, settings, standing and state, from the database alone."""
    from study import storage
    from study.launch import standing_of, state_of

    study, settings = storage.load(storage.open_storage(url), name)
    standing = standing_of(study, settings)
    return study.study_name, settings, standing, state_of(standing, url, study.study_name)


def _given(context: typer.Context, **options: Any) -> dict[str, Chosen]:
    """The options that the command line or the environment gave, and which of the two it was."""
    from study.settings import Chosen, Source

    sources: dict[str, Source] = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}
    found = {}
    for name, value in options.items():
        origin = context.get_parameter_source(name)
        if value is not None and origin is not None and origin.name in sources:
            found[name] = Chosen(value, sources[origin.name])
    return found


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
