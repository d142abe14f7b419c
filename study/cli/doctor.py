"""Probes each thing that a study needs, and reports what is wrong.

Each probe is a function that raises nothing and deletes again what it has written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from study.errors import StudyError
from study.files import check_writable
from study.mirror.tracker import Finding, redact, resolve
from study.storage.location import DEFAULT, Database
from study.text import units
from study.workers.devices import HIDDEN, NONE, Devices, devices
from study.workers.machine import cores

_PATIENCE = 10.0  # seconds a probe waits for an answer


def examine(
    storage: str,
    data: str | None,
    option: str | None,
    environ: Mapping[str, str],
    space: str | None = None,
) -> Iterator[Finding]:
    """Probe every link, one after the other: MFlux, MLflow, the bucket, database, data, devices.

    ``option`` is ``--mlflow``; findings show no secret. ``data`` is read as the ``space`` says, if
    there is one; it is its own where None, else the digits.
    """
    try:
        database: Database | None = Database.at(storage)
        wrong = ""
    except StudyError as error:
        database, wrong = None, str(error)
    yield from _mlflow(database or Database.at(DEFAULT), option, environ)
    yield Finding("database", False, wrong) if database is None else _database(database)
    yield _data(data, space)
    yield _probed("devices", _tensorflow)
    yield _gpu(devices(environ))


def _mlflow(
    database: Database, option: str | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    try:
        target = resolve(option, environ, database)
    except StudyError as error:
        yield Finding("MLflow", False, str(error))
        return
    if target is None:
        yield Finding("MLflow", None, "turned off by --mlflow none")
        return
    yield from target.tracker.examine(target, _PATIENCE)


def _database(database: Database) -> Finding:
    """Whether the study's database can be opened, and how many studies it holds."""
    from study.storage.database import names

    def probe() -> str:
        database.check()
        if database.exists:
            held = len(names(database.open()))
            return f"{database.shown} holds {held} {'study' if held == 1 else 'studies'}"
        check_writable(database.folder)
        return f"{database.shown} is made with the first study"

    return _probed("database", probe)


def _data(given: str | None, name_or_path: str | None) -> Finding:
    """Whether the data can be read, as a space has it read."""
    from study.data import dataset as data
    from study.data.reading import ImageOptions
    from study.space import file

    def probe() -> str:
        space = None if name_or_path is None else file.load(name_or_path)
        source = given or (space and space.data) or "digits"
        dataset = data.load(source, ImageOptions.of(space) if space else None)
        shape = "x".join(str(size) for size in dataset.input_shape)
        images = f"{source}: {len(dataset.labels)} images of {shape}"
        more = f", {len(dataset.test_labels)} more to test with"
        if dataset.regression:
            low, high = dataset.labels.min(), dataset.labels.max()
            return f"{images} with numbers from {low:.4g} to {high:.4g}{more}"
        return f"{images} in {dataset.num_classes} classes{more}"

    return _probed("data", probe)


def _tensorflow() -> str:
    """Start TensorFlow, on the processor."""
    from study.training.train import start_tensorflow

    start_tensorflow(1)
    return f"TensorFlow {version('tensorflow')} trains on {units.counted(cores(), 'core')}"


def _gpu(here: Devices) -> Finding:
    """Whether a GPU can be trained on; there need not be one."""
    if not here.cards:
        return Finding("GPU", None if here.problem in (NONE, HIDDEN) else False, here.problem)
    seen = f"seen by {' and '.join(here.libraries)}" if here.libraries else here.problem
    return Finding("GPU", bool(here.libraries), f"{', '.join(map(str, here.cards))}: {seen}")


def _probed(link: str, probe: Callable[[], str]) -> Finding:
    try:
        with contextlib.redirect_stdout(None):  # a download's progress is no finding
            return Finding(link, True, probe())
    except StudyError as error:
        return Finding(link, False, str(error))
    except Exception as error:  # noqa: BLE001 - a doctor reports, whatever it is
        return Finding(link, False, redact(f"{type(error).__name__}: {error}", ()))
