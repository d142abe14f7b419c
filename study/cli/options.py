"""The options that several commands share, each declared once: name, variable, panel and help.

`takes` adds them to a command, which reads them from ``context.params``. An option of one command
alone is declared in that command's signature. Options that take a value may be set by an
environment variable: ``STUDY_EPOCHS=3`` for ``--epochs 3``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from study.storage.location import DEFAULT as DEFAULT_STORAGE

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
)
SEARCH = _panel(
    "Search",
    sampler=_option(str, "NAME", "sweep, grid, halving, race, tpe, random or gp."),
    pruner=_option(str, "NAME", "none, sweep or median."),
    repeats=_option(int, "N", "Runs of each configuration.", min=1, max=10_000),
    configurations=_option(int, "N", "Configurations that tpe, random or gp try.", min=1),
    tolerance=_option(float, "POINTS", "Distance to the best at which a race ends: 0.2."),
    budget=_option(int, "N", "Maximum epochs of halving or a race.", min=1),
    confirm=_option(
        int,
        "N",
        "Fresh repeats of answer and start (3; of halving, grid: 0).",
        min=0,
    ),
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
