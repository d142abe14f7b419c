"""The options of the commands, each with its one name, its variable and its help."""

from __future__ import annotations

from pathlib import Path
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
        help="digits, mnist, fashion_mnist, cifar10, cifar100, or a path: .npz, CSV, a folder of "
        "IDX files, or one with a folder of pictures for each class.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        envvar="STUDY_SAMPLER",
        help="sweep (one at a time), grid, race, tpe, random or gp.",
    ),
]
Pruner = Annotated[
    str | None,
    typer.Option("--pruner", envvar="STUDY_PRUNER", help="none, sweep or median."),
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
        help="How many configurations tpe, random or gp try.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        envvar="STUDY_TOLERANCE",
        metavar="POINTS",
        help="A race ends once its leader is this close to the best: 0.2 points of accuracy; of "
        "another metric, its own unit.",
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        envvar="STUDY_CONFIDENCE",
        metavar="PROBABILITY",
        help="How sure a race has to be of that: 0.95.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        envvar="STUDY_BUDGET",
        min=1,
        metavar="EPOCHS",
        help="Epochs that a race may train; what the sweep needs at most, if left out.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", envvar="STUDY_THREADS", min=1, help="Threads of a run; they decide its bits."
    ),
]
Training = Annotated[
    str | None,
    typer.Option(
        "--training",
        envvar="STUDY_TRAINING",
        metavar="fast|stock|grouped",
        help="How a step is computed: fast where it can be, or by Keras alone; grouped: runs of "
        "one network as one program, with JAX, which is the default where that has a GPU.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        envvar="STUDY_PRECISION",
        metavar="float32|fast",
        help="Of products where runs are trained in groups; fast: of bfloat16, summed in float32.",
    ),
]
AcceptChangedModel = Annotated[
    bool,
    typer.Option(
        "--accept-changed-model",
        help="Go on although the file of the space's own model has changed; runs are then mixed.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="Stop, resumable, after this time."),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", envvar="STUDY_JOBS", min=1, help="Runs trained at once.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        envvar="STUDY_DEVICE",
        metavar="cpu|gpu",
        help="What trains; a GPU where there is one, if left out. A study keeps to its kind.",
    ),
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
    typer.Option(
        "--mlflow",
        envvar="STUDY_MLFLOW",
        metavar="URI|none",
        help="MLflow server that shows every run. If left out MFLUX_TOKEN or MLFLOW_TRACKING_URI "
        "say which, else mlflow.db and mlflow-artifacts/ are made beside the database; none: "
        "nothing is sent and nothing made.",
    ),
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Go on sending for as long as the study is driven.")
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
        help="Where to write; NAME-report beside study.db if left out (for another database DB: "
        "in DB.studies).",
    ),
]
FinalMembers = Annotated[
    int | None,
    typer.Option(
        "--members",
        min=1,
        max=99,
        metavar="N",
        help="Trainings of each configuration with fresh seeds: 3, or 1 with --top.",
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", min=1, metavar="K", help="Members of the K best configurations, not of one."
    ),
]
Holdout = Annotated[
    float,
    typer.Option(
        "--holdout",
        min=0,
        max=0.9,
        metavar="FRACTION",
        help="Images left out to choose the best epoch and model by; 0: every image is trained on.",
    ),
]
OutputFolder = Annotated[
    Path | None,
    typer.Option("--output", metavar="FOLDER", help="Where to write; beside the models if not."),
]
ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A .keras file that finalize has written.")
]
Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILES", help="Pictures, folders of pictures, CSV or npz files."),
]
Network = Annotated[
    Path | None,
    typer.Option(
        "--network",
        metavar="FILE.py",
        help="The file of a network of one's own, where the model has classes of it; it is run.",
    ),
]
Submission = Annotated[
    Path | None,
    typer.Option("--submission", metavar="FILE", help="Write ImageId,Label as Kaggle wants it."),
]
Invert = Annotated[bool, typer.Option("--invert", help="Swap dark and bright: ink on paper.")]
Center = Annotated[
    bool, typer.Option("--center", help="Crop to the ink and centre it, as MNIST's digits are.")
]
