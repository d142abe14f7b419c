"""The Python interface: `run` a study, `load` its result, list the `studies` of a database.

    import study

    result = study.run("digits", sampler="halving", budget=200)
    result.params, result.mean, result.standard_error

The functions call what the commands call. Errors are the exceptions of `study.errors`, with the
texts that the commands print.
"""

from __future__ import annotations

import inspect
import os
import textwrap
import types
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study.errors import DataError, SettingsError, SpaceError
from study.files import write_whole
from study.plan.plan import PlanState
from study.space.search_space import SearchSpace
from study.space.settings import Setting, Settings
from study.storage.location import DEFAULT, Database, Location

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from numpy.typing import ArrayLike

    from study.final.records import FinalModel

_SETTINGS = [
    "sampler",
    "pruner",
    "repeats",
    "epochs",
    "batch_size",
    "seed",
    "configurations",
    "tolerance",
    "confidence",
    "budget",
    "threads",
    "training",
    "device",
]


@dataclass(frozen=True)
class FinalResult:
    """The final models of a study: ``models`` with their test values, ``folder`` with the files."""

    models: tuple[FinalModel, ...]
    folder: Path

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy (a fraction) of the last model, the average; None for numbers."""
        final = self.models[-1]
        return final.value if final.measure == "accuracy" else None

    @property
    def model(self) -> keras.Model:
        """The last model, which is the average of several: pixels 0..255 in, probabilities out."""
        import keras

        model: keras.Model = keras.saving.load_model(self.folder / self.models[-1].file)
        return model


@dataclass(frozen=True)
class Result:
    """What a study has found so far. Accuracies are fractions.

    ``state`` is ``running``, ``complete``, ``interrupted`` or ``failed``.
    """

    name: str
    state: str
    settings: Settings = field(repr=False)
    plan: PlanState = field(repr=False)
    _location: Location = field(repr=False)

    @property
    def params(self) -> dict[str, Any] | None:
        """The configuration to use; None while no configuration has finished."""
        return None if self.plan.incumbent is None else dict(self.plan.incumbent)

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the repeats of that configuration."""
        return None if self.plan.score is None else self.plan.score.mean

    @property
    def standard_error(self) -> float | None:
        """Standard error of `mean`; None where it cannot be estimated."""
        return None if self.plan.score is None else self.plan.score.standard_error

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the metric on new images; None where none is known."""
        from study.text.view import interval

        if self.plan.race is not None:
            return self.plan.race.interval
        return interval(self.plan.score, self.plan.metric) if self.plan.score else None

    def trials(self) -> pd.DataFrame:
        """One row for each training run: stage, repeat, state, value, epochs, parameters."""
        import pandas as pd

        from study.storage import database as storage
        from study.storage.progress import trials_of

        with closing(Database.at(self._location.database.url)) as database:
            stored = trials_of(storage.load(database.open(), self.name)[0], self.settings)
        return pd.DataFrame(
            {
                "trial": trial.number,
                "stage": trial.stage,
                "repeat": trial.repeat + 1,
                "state": "cancelled" if trial.cancelled else trial.state,
                "value": trial.value,
                "epochs": len(trial.reported),
                "seconds": trial.attributes.get("seconds"),
                "failure": trial.failure,
                **trial.params,
            }
            for trial in stored
        )

    def stages(self) -> pd.DataFrame:
        """One row for each option of each stage, with its mean, error, gap and verdict."""
        import pandas as pd

        from study.text.view import views

        return pd.DataFrame(
            {"stage": stage.name, **view.record()}
            for stage in self.plan.stages
            for view in views(stage)
        )

    def report(self, output: str | Path | None = None) -> Path:
        """Write the report; returns the path of its page."""
        from study.report.write import report

        with closing(Database.at(self._location.database.url)) as database:
            return report(database, self.name, output)

    def finalize(
        self, *, seeds: int = 3, holdout: float = 0.1, jobs: int | None = None
    ) -> FinalResult:
        """Train the configuration with fresh ``seeds``, measure it once on the test images.

        ``holdout`` is the fraction of the images that chooses the best epoch; 0 trains on all.
        """
        from study.final.finalize import FinalOptions, finalize
        from study.running.driver import Observers
        from study.running.launch import ExecutionOptions
        from study.running.prepare import prepare_again

        with closing(Database.at(self._location.database.url)) as database:
            prepared = prepare_again(self.name, database, None)
            execution, options = ExecutionOptions(jobs=jobs), FinalOptions(seeds, None, holdout)
            made = finalize(prepared, options, execution, Observers(), lambda _: None)
        return FinalResult(tuple(made.models), made.folder)

    def _repr_html_(self) -> str:
        """The stages as tables, and the answer, for a notebook."""
        from html import escape

        from study.text.sentences import answer

        return f"<p>{escape(answer(self.plan))}</p>{self.stages().to_html(index=False)}"


def run(
    space: str | Path | Mapping[str, Any] | SearchSpace = "digits",
    *,
    name: str | None = None,
    data: str | Path | tuple[ArrayLike, ArrayLike] | None = None,
    model: Callable[..., Any] | None = None,
    storage: str = DEFAULT,
    jobs: int | None = None,
    timeout: float | None = None,
    mlflow: str | None = "none",
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Run a study, or continue the one of the same name and settings; returns its result.

    ``space`` is the name of a shipped space, the path of a file, a mapping with the same keys, or a
    `SearchSpace`. ``data`` is a name, a path or (images, labels): arrays (n, height, width) or
    (n, height, width, channels) and (n,), which are kept beside the database. ``model`` is a
    function ``build(params, input_shape, num_classes)`` that returns a Keras model; its source is
    kept beside the database. ``mlflow`` is an address, or None for what the command line takes.
    ``settings`` are those of a space file: sampler, repeats, epochs, ...

    An interrupt (Ctrl-C) leaves the study resumable: run it again. Raises ``StudyError``.
    """
    from study.mirror.tracker import resolve
    from study.running.launch import ExecutionOptions, ahead, launch
    from study.running.prepare import prepare
    from study.workers.devices import available_devices

    if unknown := set(settings) - set(_SETTINGS):
        raise SettingsError(
            f"run: unknown argument {min(unknown)!r}; settings are {', '.join(_SETTINGS)}"
        )
    given = {key: Setting(value, "command line") for key, value in settings.items()}
    if isinstance(space, Mapping):
        space = SearchSpace.from_dict(space, "space")
    with closing(Database.at(storage)) as database:
        if model is not None:
            found = space if isinstance(space, SearchSpace) else _loaded(space)
            space = replace(found, model=_kept_source(model, database, name or found.name))
        if data is not None:
            place = str(data) if isinstance(data, str | Path) else _kept_arrays(data, database)
            given["data"] = Setting(place, "command line")
        execution = ExecutionOptions(
            jobs=jobs,
            timeout=timeout,
            mirror=resolve(mlflow, os.environ, database),
            devices=available_devices(os.environ),
        )
        chosen = str(space) if isinstance(space, Path) else space
        prepared = prepare(chosen, name, database, given, ahead(execution), None, execution.devices)
        with _progress(prepared.settings, shown=progress) as watch:
            launch(prepared, watch, execution, print)
        return _result(database, prepared.location.name)


def load(name: str | None = None, *, storage: str = DEFAULT) -> Result:
    """The result of the study ``name``, or of the one made last; the database is only read."""
    with closing(Database.at(storage)) as database:
        return _result(database, name)


def studies(*, storage: str = DEFAULT) -> list[str]:
    """The names of the studies in a database, oldest first."""
    from study.storage import database as stored

    with closing(Database.at(storage)) as database:
        return stored.names(database.open())


def _result(database: Database, name: str | None) -> Result:
    from study.storage import database as stored
    from study.storage.progress import standing_of, state_of

    study, settings = stored.load(database.open(), name)
    location = database.study(study.study_name)
    plan_state = standing_of(study, settings)
    return Result(study.study_name, state_of(plan_state, location), settings, plan_state, location)


def _loaded(space: str | Path) -> SearchSpace:
    from study.space.file import load as load_space

    return load_space(space)


def _progress(settings: Settings, *, shown: bool) -> Any:
    """The live view of the terminal, one updating table in Jupyter, lines elsewhere, or nothing."""
    from rich.console import Console

    from study.cli import live
    from study.running.driver import Observers

    if not shown:
        return nullcontext(Observers())
    console = Console()
    if console.is_jupyter or console.is_terminal:
        return live.Screen(console, settings["epochs"], settings.repeats)
    return nullcontext(live.Lines(console, settings["epochs"]))


def _kept_arrays(data: tuple[ArrayLike, ArrayLike], database: Database) -> str:
    """Write images and labels to an ``.npz`` file beside the database, once; returns its path."""
    import hashlib
    import io

    if not isinstance(data, tuple) or len(data) != 2:
        raise DataError("data: give a name, a path or a pair (images, labels)")
    images, labels = map(np.asarray, data)
    if images.ndim not in {3, 4} or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"data: images {images.shape} and labels {labels.shape} do not fit; give images "
            "(n, height, width) or (n, height, width, channels) and labels (n,)"
        )
    buffer = io.BytesIO()
    np.savez(buffer, x_train=images, y_train=labels)
    digest = hashlib.sha256()
    for array in (images, labels):
        digest.update(
            f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    path = database.images / f"arrays-{digest.hexdigest()[:16]}.npz"
    if not path.exists():
        write_whole(path, buffer.getvalue())
    return str(path)


def _kept_source(build: Callable[..., Any], database: Database, name: str) -> str:
    """Write the source of a model function beside the database; returns ``FILE.py:FUNCTION``."""
    from study.storage.location import file_name

    path = database.folder / f"{database.label}.networks" / f"{file_name(name)}.py"
    write_whole(path, source_of(build).encode())
    return f"{path}:{build.__name__}"


def source_of(build: Callable[..., Any]) -> str:
    """A Python file with the function and what it uses of its module.

    Modules and what was imported from them become imports; numbers and texts become assignments.
    Raises ``SpaceError`` for a lambda and where the function uses anything else.
    """
    if not isinstance(build, types.FunctionType) or build.__name__ == "<lambda>":
        raise SpaceError("model: a lambda has no source of its own; give a function made by def")
    try:
        text = textwrap.dedent(inspect.getsource(build))
    except (OSError, TypeError):
        raise SpaceError(
            f"model: the source of {build.__name__} cannot be found; write it to a file and give "
            '"FILE.py:FUNCTION" in the space'
        ) from None
    used = inspect.getclosurevars(build)
    if used.nonlocals:
        raise SpaceError(
            f"model: {build.__name__} uses {min(used.nonlocals)!r} of the function around it; "
            "pass it as a hyperparameter or write it inside"
        )
    lines = [_line(name, value, build) for name, value in sorted(used.globals.items())]
    return "\n".join(["from __future__ import annotations", "", *lines, "", "", text])


def _line(name: str, value: object, build: types.FunctionType) -> str:
    """The line that gives a name of the function's module in a file of its own."""
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__} as {name}"
    if isinstance(value, bool | int | float | str | type(None)):
        return f"{name} = {value!r}"
    home = getattr(value, "__module__", None)
    if isinstance(value, types.FunctionType) and home == build.__module__ and value is not build:
        return source_of(value).partition("\n")[2]  # one such import is enough, at the top
    if home and home not in {"__main__", build.__module__} and hasattr(value, "__name__"):
        return f"from {home} import {value.__name__} as {name}"
    raise SpaceError(
        f"model: {build.__name__} uses {name!r}, which cannot travel to the workers; make it "
        "inside the function, or write both to a file and name that in the space"
    )
