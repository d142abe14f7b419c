"""The commands of final models: finalize, gallery, export and predict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.cli import options
from study.cli.exits import explained, interruptible, opened, reported
from study.cli.options import (
    JSON,
    MIRROR,
    STORAGE,
    STUDY_NAME,
    WHERE,
    execution_options,
    only,
    resume_options,
    takes,
)
from study.cli.terminal import SafeConsole, print_json, progress_bar, say
from study.errors import ModelError, Unfinished
from study.files import printable

if TYPE_CHECKING:
    from optuna import Study

    from study.final.confusion import Knowledge
    from study.final.finalize import FinalModels, FinalOptions
    from study.final.records import FinalModel
    from study.mirror.tracker import Target
    from study.running.launch import ExecutionOptions
    from study.running.prepare import Prepared
    from study.space.settings import Settings
    from study.storage.location import Database


def add_to(app: typer.Typer) -> None:
    """Add the commands, in the order in which the help lists them."""
    for command in (finalize, gallery, export, predict):
        app.command()(command)


@takes(only(options.STUDY, "storage", "data"), WHERE, MIRROR, only(options.OUTPUT, "verbose"), JSON)
def finalize(
    context: typer.Context,
    name: STUDY_NAME = None,
    members: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=99,
            metavar="N",
            help="Trainings of each configuration with fresh seeds (default: 3, or 1 with --top).",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Train the K best configurations, not one."),
    ] = None,
    holdout: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            metavar="FRACTION",
            help="Images held out to choose the best epoch and model; 0: train on every image.",
        ),
    ] = 0.1,
    fine_tune: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="With features: then train the last N layers of the backbone too.",
        ),
    ] = 0,
    fine_tune_rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Its learning rate (default: a tenth of the head's)."),
    ] = None,
) -> None:
    """Train the chosen configuration anew, save the models, and open the test set, once.

    Examples:
    - `study finalize`
    - `study finalize digits --members 5`
    - `study finalize digits --top 3 --holdout 0`
    """
    given = context.params
    console = SafeConsole(stderr=given["json"])
    with opened(context) as database:
        from study.final.finalize import FinalOptions
        from study.running.prepare import prepare_again

        execution = execution_options(database, **options.values(context, (*WHERE, "mlflow")))
        with progress_bar(console) as callbacks:
            prepared = prepare_again(
                name, database, None, callbacks, execution.devices, data=given["data"]
            )
        asked = {"--members": members, "--top": top, "--holdout": holdout}
        asked |= {"--fine-tune": fine_tune or None, "--fine-tune-rate": fine_tune_rate}
        pairs = {option: str(value) for option, value in asked.items() if value is not None}
        words = [word for pair in pairs.items() for word in pair]
        target = execution.mirror
        needs = target.needs if target else ()
        with interruptible(
            prepared.location.command("finalize", *words, *resume_options(execution), needs=needs)
        ):
            wanted = FinalOptions(members, top, holdout, fine_tune, fine_tune_rate)
            made = _finalize(console, prepared, wanted, execution, verbose=given["verbose"])
            known = _known(prepared, made)
            if given["json"]:
                print_json(
                    {
                        "folder": str(made.folder),
                        "models": [model.to_json() for model in made.models],
                    }
                )
            else:
                _print_models(console, made, known)
            with _waiting(console, "Writing the report"):
                written = reported(prepared.location)
            say(console, written)
            if target is not None:
                _register(console, prepared, made, known, target)


@takes(STORAGE)
def gallery(
    context: typer.Context,
    name: STUDY_NAME = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write (default: beside the models)."),
    ] = None,
    grad_cam: Annotated[
        bool,
        typer.Option(
            "--grad-cam", metavar="", help="Draw where the network looked for the wrong class."
        ),
    ] = False,
) -> None:
    """Show the test images that the final model gets wrong, as a picture and as a table.

    Examples:
    - `study gallery`
    - `study gallery digits --output wrong --grad-cam`
    """
    with opened(context) as database:
        from study.final import gallery as wrong
        from study.final import records

        console = SafeConsole()
        study, settings, place = _finalized(database, name)
        with progress_bar(console) as callbacks:
            dataset = wrong.dataset_of(settings, database, callbacks)
        with _waiting(console, "Collecting what is wrong"):
            found = wrong.collect(study, place, dataset)
            heat = wrong.heat_of(study, settings, place, found, dataset) if grad_cam else None
            picture, table = wrong.write(found, dataset, output or place, heat)
        say(
            console,
            f"{found.model}: {len(found.mistakes)} of {found.images} test images wrong"
            f"{records.latest(study)[-1].own_words()}; "
            f"candidates for a wrong label among them: {found.candidates}",
        )
        say(console, f"Written: {picture} and {table}")


@takes(STORAGE, JSON)
def export(
    context: typer.Context,
    name: STUDY_NAME = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="tflite (LiteRT), onnx or keras.")
    ] = "tflite",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="best, average or another one of finalize (default: the last)."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", metavar="", help="Numbers of 8 bits, for tflite.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write (default: beside the models)."),
    ] = None,
) -> None:
    """Write a final model for LiteRT or ONNX, and measure what the conversion costs.

    Examples:
    - `study export digits --to tflite --int8 --model best`
    - `study export digits --to onnx --output digits.onnx`
    """
    with opened(context) as database:
        from study.final import export as exporting
        from study.final import records
        from study.final.gallery import dataset_of

        given = context.params["json"]
        console = SafeConsole(stderr=given)
        wanted = exporting.ExportOptions(to, model, int8, output)
        exporting.check(wanted)
        study, settings, place = _finalized(database, name)
        final = exporting.picked(records.latest(study), model)
        path = exporting.target(place, final, wanted)
        with progress_bar(console) as callbacks:
            data = partial(dataset_of, settings, database, callbacks)
            made = exporting.export(settings, place, final, wanted, path, data)
        if given:
            print_json(made.to_json())
            return
        say(console, f"{made.model} as {path.suffix}: {made.words}")
        if len(final.members) > 1:
            count = len(final.members)
            say(console, f"It has {count} networks; one alone is smaller: --model best")
        say(console, f"Written: {made.file}")


@takes(JSON)
def predict(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A file that finalize or export has written."),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Pictures, folders of pictures, CSV or npz files."),
    ],
    submission: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write ImageId,Label as Kaggle wants it.")
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", metavar="", help="Swap dark and bright: ink on paper.")
    ] = False,
    center: Annotated[
        bool,
        typer.Option("--center", metavar="", help="Crop to the ink and centre it, as MNIST does."),
    ] = False,
    network: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py",
            help="The file of the custom model, if the model uses classes from it. It is run.",
        ),
    ] = None,
) -> None:
    """Classify images: files or folders, or the rows of a CSV or npz file.

    Examples:
    - `study predict digits-models/average-of-3.keras my.png`
    - `study predict digits-models/average-of-3.keras photos/ --invert --center`
    - `study predict digits-models/seed-1.keras test.csv --submission submission.csv`
    """
    with explained():
        from study.final import archive
        from study.final import predict as final

        console = SafeConsole(stderr=True)
        if submission and os.path.realpath(submission) in map(os.path.realpath, files):
            raise ModelError(f"{submission}: holds the images; name another file to write")
        card = archive.read_card(model)
        source = archive.source_of(model, card, network)
        with _waiting(console, "Reading the images") as status:

            def load() -> final.Classifier:
                status("Loading the model, and looking at the images")
                return final.Classifier.load(model, source)

            strict = submission is not None  # its lines are counted
            found = final.of_files(files, card, load, invert=invert, center=center, strict=strict)
        notes = list(found.skipped)
        if submission is not None:
            final.submission(submission, found.predictions)
            notes += dict.fromkeys(note for one in found.predictions for note in one.notes)
        for note in notes:
            say(console, f"Note: {note}")
        if context.params["json"]:
            print_json([asdict(prediction) for prediction in found.predictions])
        elif submission is not None:
            typer.echo(printable(f"Written: {submission} with {len(found.predictions)} labels"))
        else:
            for prediction in found.predictions:
                typer.echo(printable(final.line(prediction)))
        for reason in found.left_out:
            say(console, f"Left out: {reason}")
        if found.left_out:
            raise Unfinished(f"{len(found.left_out)} of the files could not be read")


def _finalized(database: Database, name: str | None) -> tuple[Study, Settings, Path]:
    """A study with final models, its settings, and the folder of the models' files."""
    from study.final import records
    from study.storage.database import load

    study, settings = load(database.open(), name)
    location = database.study(study.study_name)
    if not records.finals(study):
        raise ModelError(
            f"study {location.name!r} has no final model yet: make one with: "
            f"{location.command('finalize')}"
        )
    return study, settings, records.folder(location, study)


def _finalize(
    console: Console,
    prepared: Prepared,
    options: FinalOptions,
    execution: ExecutionOptions,
    *,
    verbose: bool,
) -> FinalModels:
    from study.cli import live
    from study.final.finalize import finalize as make

    epochs, seeds = prepared.settings["epochs"], options.seeds or 3
    with live.watching(console, epochs, seeds, verbose=verbose) as watch:
        return make(prepared, options, execution, watch, partial(say, console))


def _known(prepared: Prepared, made: FinalModels) -> Knowledge | None:
    """What the stored predictions say of the last model; None for numbers."""
    from study.final import confusion

    facts = prepared.settings.data
    return confusion.read(made.folder, made.models[-1], facts.label_names if facts else ())


def _print_models(console: Console, made: FinalModels, known: Knowledge | None) -> None:
    """The models with their intervals; how often the test set was opened; where the files are."""
    table = Table("model", "held out", "test (95 % interval)", "file")
    for model in made.models:
        held_out = model.validation
        shown = "" if held_out is None else model.metric.text(held_out)
        shown += model.own_words("validation")
        table.add_row(model.model, shown, _measured(model), model.file)
    console.print(table)
    if not made.new:
        say(console, "All of it was recorded before; the test set was not opened for it again.")
    _print_known(console, known)
    times = "once" if made.openings == 1 else f"{made.openings} times"
    say(console, f"The test set has been opened {times} in this study.")
    say(console, f"Files: {made.folder}")


def _print_known(console: Console, known: Knowledge | None) -> None:
    """What is confused most and how far probabilities can be trusted; the report has all of it."""
    from study.final.calibration import around_90

    if known is None:
        return
    if pairs := known.confusion.pairs(3):
        named = [f"{one.first} and {one.second} ({one.images})" for one in pairs]
        say(console, f"{known.model.model} confuses most: {', '.join(named)}")
    if (found := known.model.calibration) is not None:
        says = around_90(known.says)
        near = "" if says is None else f" Calibrated, it {says.words}."
        say(console, f"{found.words}{near}")


def _measured(model: FinalModel) -> str:
    number = model.metric.number
    low, high = number(model.low), number(model.high)
    unit = model.metric.unit or " mae"
    return f"{number(model.value)} ({low}-{high}){unit}{model.own_words()}"


def _register(
    console: Console,
    prepared: Prepared,
    made: FinalModels,
    known: Knowledge | None,
    target: Target,
) -> None:
    from study.final.registry import register
    from study.report.classes import known_files
    from study.storage.database import load

    study, settings = load(prepared.location.database.open(), prepared.location.name)
    tables = known_files(known) if known is not None else {}
    with _waiting(console, f"Sending the models to {target.shown}"):
        problems = register(study, settings, made.folder, made.models, target, tables)
    for problem in problems:
        say(console, problem)
    if not problems:
        say(console, f"Registered as {prepared.location.name!r} in MLflow at {target.shown}")


@contextmanager
def _waiting(console: Console, what: str) -> Iterator[Any]:
    """A line that says what is done now, in a terminal; gives the function that changes it."""
    with console.status(escape(what)) if console.is_terminal else nullcontext() as status:
        yield (lambda line: status.update(escape(line))) if status is not None else lambda _: None
