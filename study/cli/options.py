"""The options that several commands share, each declared once: name, variable, panel and help.

`takes` adds them to a command, which reads them from ``context.params``. An option of one command
alone is declared in that command's signature. Options that take a value may be set by an
environment variable: ``STUDY_EPOCHS=3`` for ``--epochs 3``. `execution_options` makes of them how a
study is driven, and `resume_options` the options of the next command.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.errors import SettingsError
from study.files import absolute
from study.storage import models
from study.storage.location import DEFAULT as DEFAULT_STORAGE

if TYPE_CHECKING:
    from study.running.launch import ExecutionOptions
    from study.storage.location import Database

Panel = dict[str, inspect.Parameter]
"""Options by the name of their parameter."""


def _option(kind: Any, metavar: str, said: str, default: Any = None, **more: Any) -> Any:
    """Declare an option of a panel: ``metavar`` is its value in the help, ``said`` the help."""
    return kind, default, {"metavar": metavar, "help": said, **more}


def not_empty(value: str | None) -> str | None:
    """Refuse an empty text: it comes from a variable of a shell that is not set."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty; give a value, or leave it out")
    return value


def _panel(title: str, **options: Any) -> Panel:
    """The options of a panel of the help, as parameters of a command."""
    found = {}
    for name, (kind, default, given) in options.items():
        flags = given.pop("flags", (f"--{name.replace('_', '-')}",))
        variable = None if kind is bool else f"STUDY_{name.upper()}"
        option = typer.Option(
            *flags,
            envvar=variable,
            show_envvar=False,
            show_default=False,
            rich_help_panel=title or None,
            callback=not_empty if kind is str else None,
            **given,
        )
        value: Any = kind if default is not None else kind | None
        annotation: Any = Annotated[value, option]
        found[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
    return found


def takes(*panels: Panel) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of these panels to a command, which finds them in ``context.params``."""
    added = {name: option for panel in panels for name, option in panel.items()}

    def declared(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            command(**{name: given[name] for name in own})

        vars(wrapper)["__signature__"] = inspect.Signature([*own.values(), *added.values()])
        return wrapper

    return declared


def only(panel: Panel, *names: str) -> Panel:
    """Some options of a panel."""
    return {name: panel[name] for name in names}


def values(context: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """The options of these names with their values."""
    return {name: context.params[name] for name in names}


STUDY = _panel(
    "Study",
    name=_option(str, "NAME", "Name of the study (default: that of the space)."),
    data=_option(
        str,
        "DATA",
        "digits, mnist, fashion_mnist, cifar10, cifar100, or a path: .npz, CSV, or a folder of "
        "class folders.",
    ),
    storage=_option(
        str, "URL", f"Database of the study (default: {DEFAULT_STORAGE}).", DEFAULT_STORAGE
    ),
    accept_changed_model=_option(
        bool, "", "Continue although the file of the custom model has changed.", False
    ),
    yes=_option(bool, "", "Accept that the space of a stored study changes.", False),
)
SEARCH = _panel(
    "Search",
    sampler=_option(str, "NAME", "sweep, grid, halving, race, tpe, random or gp."),
    pruner=_option(str, "NAME", "none, sweep or median."),
    repeats=_option(int, "N", "Runs of each configuration.", min=1, max=10_000),
    configurations=_option(int, "N", "Configurations that tpe, random or gp try.", min=1),
    tolerance=_option(float, "POINTS", "Distance to the best at which a race ends: 0.2."),
    budget=_option(str, "N|TIME", "Budget of halving or race: epochs, or a time (90s, 2h)."),
    confirm=_option(int, "N", "Fresh repeats of answer and start (3; halving, grid: 0).", min=0),
    seed=_option(int, "N", "Seed of splits, weights and order (default: 1).", min=0),
)
TRAINING = _panel(
    "Training",
    epochs=_option(int, "N", "Epochs of each run.", min=1),
    threads=_option(
        int, "N", "Threads per run (default: 1). Results depend on it bit for bit.", min=1
    ),
    training=_option(
        str,
        "HOW",
        "fast (default), stock (Keras alone), or grouped (with JAX, runs of one network as one "
        "program; default if JAX has a GPU).",
    ),
    device=_option(
        str,
        "cpu|gpu",
        "Device to train on (default: GPU if available). Fixed for a study.",
    ),
)
WHERE = _panel(
    "Where it runs",
    jobs=_option(int, "N", "Runs trained at once (default: one per core or GPU).", min=1),
    scheduler=_option(str, "ADDRESS", "Dask cluster to train on, as in tcp://host:8786."),
    resources=_option(str, "NAME=N", "Resource of the cluster that each run takes, as in GPU=1."),
    checkpoints=_option(
        str, "PLACE", "Folder or s3://BUCKET/PREFIX of checkpoints (default: beside study.db)."
    ),
)
LIMITS = _panel(
    "Where it runs",
    timeout=_option(float, "SECONDS", "Stop after this time; resume continues.", min=0),
)
MIRROR = _panel(
    "Output",
    mlflow=_option(
        str,
        "URI|none",
        "MLflow server that shows every run (default: MFLUX_TOKEN, MLFLOW_TRACKING_URI, else "
        "mlflow.db beside the database).",
    ),
)
OUTPUT = _panel(
    "Output",
    keep_models=_option(
        str, "WHICH", "Models to keep: all, none or best (default: of each configuration)."
    ),
    verbose=_option(bool, "", "Print a line per epoch.", False, flags=("-v", "--verbose")),
    quiet=_option(bool, "", "Print only the answer.", False),
)
JSON = _panel("", json=_option(bool, "", "Print JSON for a program to read.", False))
STORAGE = only(STUDY, "storage")
STUDY_NAME = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The study (default: the newest).", callback=not_empty),
]


# --- where and how a command trains ---------------------------------------------------------------


def execution_options(
    database: Database,
    *,
    mlflow: str | None = None,
    scheduler: str | None = None,
    resources: str | None = None,
    checkpoints: str | None = None,
    keep_models: str | None = None,
    **given: Any,
) -> ExecutionOptions:
    """How to drive a study, on the devices of this machine or cluster, and where to mirror it.

    Raises the ``StudyError`` that names an option which cannot be used.
    """
    from study.mirror.tracker import resolve
    from study.running.launch import ExecutionOptions
    from study.workers.devices import available_devices
    from study.workers.engines import SCHEDULERS

    if keep_models is not None:
        models.parse(keep_models)
    _check_address("--checkpoints", checkpoints, r"(s3://[^/]+(/.*)?)|((?!.*://).*)", "s3://BUCKET")
    schemes = "|".join(SCHEDULERS)
    _check_address("--scheduler", scheduler, rf"({schemes})://\S+:\d+/?", "tcp://HOST:PORT")
    wanted = amounts(resources)
    if wanted is not None and scheduler is None:
        raise SettingsError(f"--resources {resources}: only a cluster has any; give --scheduler")
    return ExecutionOptions(
        scheduler=scheduler,
        resources=wanted,
        checkpoints=checkpoints,
        keep_models=keep_models,
        mirror=resolve(mlflow, os.environ, database),
        devices=available_devices(os.environ, scheduler, wanted),
        **given,
    )


def resume_options(execution: ExecutionOptions) -> list[str]:
    """The options with which a command trains where ``execution`` does, and mirrors there too."""
    found: dict[str, object] = {"--jobs": execution.jobs, "--scheduler": execution.scheduler}
    for name, amount in (execution.resources or {}).items():
        found["--resources"] = f"{name}={amount:g}"
    place = execution.checkpoints
    if place is not None:
        found["--checkpoints"] = place if "://" in place else absolute(place)
    words = [word for option, value in found.items() if value for word in (option, str(value))]
    return [*words, *(execution.mirror.options if execution.mirror else ("--mlflow", "none"))]


def amounts(given: str | None) -> dict[str, float] | None:
    """The resources of Dask that ``--resources GPU=1`` names."""
    if given is None:
        return None
    name, _, amount = given.partition("=")
    with suppress(ValueError):
        if name and 0 < (number := float(amount)) < math.inf:
            return {name: number}
    raise SettingsError(f"--resources {given}: write NAME=NUMBER, as in GPU=1")


def _check_address(option: str, address: str | None, pattern: str, wanted: str) -> None:
    """Refuse an address of another form, or one with keys: hints repeat it, others may see it."""
    if address is None:
        return
    if "://" in address and "@" in address:
        instead = "boto3 and Dask read them from the environment or their own files"
        raise SettingsError(f"{option}: keys do not belong in an address; {instead}")
    if not re.fullmatch(pattern, address):
        raise SettingsError(f"{option} {address}: is not an address of this kind; write {wanted}")
