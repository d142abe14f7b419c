"""The options of the commands, each with its one name, its variable and its help."""

from __future__ import annotations

from typing import Annotated

import typer

Storage = Annotated[
    str,
    typer.Option("--storage", envvar="STUDY_STORAGE", metavar="URL", help="Database of the study."),
]
Name = Annotated[
    str | None,
    typer.Option("--name", envvar="STUDY_NAME", metavar="NAME", help="Name of the study."),
]
StudyName = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The study; the one made last if left out.")
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
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        envvar="STUDY_SCHEDULER",
        metavar="ADDRESS",
        help="A Dask cluster that exists, as in tcp://host:8786, instead of this machine.",
    ),
]
Resources = Annotated[
    str | None,
    typer.Option(
        "--resources",
        envvar="STUDY_RESOURCES",
        metavar="NAME=N",
        help="What a run takes from a worker of the cluster, as in GPU=1.",
    ),
]
Speculate = Annotated[
    bool,
    typer.Option(
        "--speculate/--no-speculate",
        help="Let idle workers start what the sweep will probably want next.",
    ),
]
CheckpointsAt = Annotated[
    str | None,
    typer.Option(
        "--checkpoints",
        envvar="STUDY_CHECKPOINTS",
        metavar="FOLDER|s3://BUCKET/PREFIX",
        help="Where unfinished runs are kept; a folder beside the database if left out.",
    ),
]
Mlflow = Annotated[
    str | None,
    typer.Option("--mlflow", envvar="STUDY_MLFLOW", metavar="URI|none", help="MLflow server."),
]
KeepModels = Annotated[
    str | None,
    typer.Option(
        "--keep-models",
        envvar="STUDY_KEEP_MODELS",
        metavar="all|best|none",
        help="Whose models to keep: of each configuration the best run's, if left out.",
    ),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more: a line an epoch.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the answer alone.")]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FOLDER",
        help="Where to write; NAME-report beside the database if left out.",
    ),
]
