"""The Python interface: `run` a study, `load` its result, list the `studies` of a database.

    import study

    result = study.run("digits", sampler="halving", budget=200)
    result.params, result.mean, result.standard_error, result.gain
    result.plot("stages")

The functions call what the commands call. Errors are the exceptions of `study.errors`, with the
texts that the commands print.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypedDict,
    Unpack,
    get_args,
    get_type_hints,
)

from pydantic import StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from study.errors import ModelError, SettingsError, StorageError
from study.files import of_the_system
from study.plan.plan import PlanState
from study.plan.statistics import Difference
from study.space.keys import hint, key, plain, shown
from study.space.search_space import SearchSpace
from study.space.settings import Setting, Settings
from study.storage.location import DEFAULT, Database, Location

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from numpy.typing import ArrayLike

    from study.final.confusion import Confusion
    from study.final.records import FinalModel
    from study.report.notebook import Plots
    from study.running.driver import Observer
    from study.space.model_source import ModelSource

with warnings.catch_warnings():  # in a notebook tqdm, which Optuna imports, asks for ipywidgets
    warnings.filterwarnings("ignore", "IProgress not found")
    import optuna  # noqa: F401

_TEXT = Annotated[StrictStr, key("a text")]
_BUDGET = Annotated[
    StrictInt | StrictStr, key('a whole number of epochs, or a time such as "10min"')
]
_COUNT = Annotated[StrictInt, key("a whole number of at least 1", ge=1)]
_NATURAL = Annotated[StrictInt, key("a whole number of at least 0", ge=0)]
_NUMBER = Annotated[StrictInt | StrictFloat, key("a number above 0", gt=0, allow_inf_nan=False)]


class RunSettings(TypedDict, total=False):
    """The settings of a study that `run` takes, as the options of ``study run``."""

    sampler: _TEXT
    pruner: _TEXT
    repeats: _COUNT
    epochs: _COUNT
    batch_size: _COUNT
    seed: _NATURAL
    configurations: _COUNT
    tolerance: _NUMBER
    confidence: _NUMBER
    budget: _BUDGET
    confirm: _NATURAL
    threads: _COUNT
    training: _TEXT
    device: _TEXT


class RunOptions(RunSettings, total=False):
    """Settings, and how a study is driven: jobs, a timeout in seconds, a Dask cluster, ..."""

    jobs: _COUNT
    timeout: _NUMBER
    scheduler: _TEXT
    resources: _TEXT
    checkpoints: _TEXT
    keep_models: _TEXT


PlotKind = Literal["stages", "curves", "effects"]


@dataclass(frozen=True)
class FinalResult:
    """The final models of a study: ``models`` with their test values, ``folder`` with the files."""

    models: tuple[FinalModel, ...]
    folder: Path
    _source: ModelSource | None = field(repr=False)

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy (a fraction) of the last model, the average; None for numbers."""
        final = self.models[-1]
        return final.value if final.measure == "accuracy" else None

    def confusion(self) -> pd.DataFrame:
        """Test images of the last model: a row for each label, a column for each prediction."""
        import pandas as pd

        found = self._confusion()
        return pd.DataFrame(found.matrix, index=found.labels, columns=found.labels)

    def classes(self) -> pd.DataFrame:
        """Recall and precision (fractions) of each class with their 95 % intervals, a row each."""
        import io

        import pandas as pd

        return pd.read_csv(io.BytesIO(self._confusion().classes_csv()), index_col="label")

    def _confusion(self) -> Confusion:
        from study.final.archive import read_card
        from study.final.confusion import read

        final = self.models[-1]
        found = read(self.folder, final, read_card(self.folder / final.file).labels)
        if found is None:
            raise ModelError("there are no stored predictions of classes; finalize the study again")
        return found.confusion

    @property
    def model(self) -> keras.Model:
        """The last model, which is the average of several: pixels 0..255 in, probabilities out.

        Raises ``ModelError`` if its file cannot be loaded.
        """
        from study.final import archive

        path = self.folder / self.models[-1].file
        needed = archive.read_card(path).needed
        model: keras.Model = archive.load(path, self._source if needed else None)[0]
        return model


@dataclass(frozen=True)
class Result:
    """What a study has found so far. Accuracies are fractions.

    ``state`` is ``running``, ``complete``, ``interrupted`` or ``failed``. The properties are those
    of the moment of `run` or `load`; the methods read the database again. Methods raise
    ``StudyError``, for example if the database is gone.
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
        """Mean of the metric over the repeats of that configuration; over fresh ones, if any."""
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

    @property
    def gain(self) -> Difference | None:
        """How much better the answer is than the start, in pairs on fresh repeats.

        ``mean`` (above 0: better) and ``standard_error`` are fractions like `mean`; ``clear`` is
        whether a paired test at 95 % supports the difference. None if it was not measured, or the
        answer is the start.
        """
        fresh = self.plan.confirmation
        return None if fresh is None or fresh.found else fresh.difference

    def trials(self) -> pd.DataFrame:
        """One row for each training run: stage, repeat, state, value, epochs, parameters."""
        import pandas as pd

        from study.storage.database import load, trials_of

        with _opened(self._location.database.url) as database:
            stored = trials_of(load(database.open(), self.name)[0], self.settings)
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

        from study.text.view import records

        return pd.DataFrame(records(self.plan.stages))

    def plot(self, what: PlotKind = "stages") -> Plots:
        """Figures of matplotlib, as in the report; a notebook shows them.

        ``stages`` are the options of each stage, ``curves`` the learning curves of all runs, and
        ``effects`` the effect of each hyperparameter: what a sweep measured, or what the model of
        a race estimates from the runs of any other sampler.
        """
        from study.report.contents import read
        from study.report.notebook import KINDS, plots

        if what not in KINDS:
            raise SettingsError(f"plot: {hint(str(what), KINDS)}")
        with _opened(self._location.database.url) as database:
            return plots(read(database, self.name), what)

    @property
    def smallest(self) -> dict[str, Any] | None:
        """The smallest network that is not clearly worse than the best, as a row of `costs`."""
        from study.plan.strategies import rated
        from study.plan.tradeoff import smallest

        found = smallest(rated(self.settings, self.plan))
        return found.record() if found else None

    def costs(self) -> pd.DataFrame:
        """One row for each configuration, the best first: accuracy, parameters, size and time.

        ``size`` is in bytes, ``milliseconds`` are those for a picture, if the space limits them.
        """
        import pandas as pd

        from study.plan.strategies import rated

        return pd.DataFrame(one.record() for one in rated(self.settings, self.plan))

    def report(self, output: str | Path | None = None) -> Path:
        """Write the report into the folder ``output``; returns the path of its page."""
        from study.report.write import report

        with _opened(self._location.database.url) as database:
            return report(database, self.name, output)

    def finalize(
        self,
        *,
        members: int = 3,
        holdout: float = 0.1,
        jobs: int | None = None,
        progress: bool = True,
        fine_tune: int = 0,
    ) -> FinalResult:
        """Train ``members`` models of the configuration, measure them once on the test images.

        ``holdout`` is the fraction of the images that chooses the best epoch; 0 trains on all.
        What was trained and measured before is not trained and measured again.
        ``fine_tune`` is the number of the backbone's last layers to train too, on the images.
        """
        from study.cli.options import execution_options
        from study.final.finalize import FinalOptions, finalize
        from study.running.prepare import prepare_again

        _check("finalize: members", "repeats", members)
        if jobs is not None:
            _check("finalize: jobs", "jobs", jobs)
        if not 0 <= holdout <= 0.9:
            raise SettingsError(f"finalize: holdout {holdout}: give a fraction from 0 to 0.9")
        with _opened(self._location.database.url) as database:
            execution = execution_options(database, mlflow="none", jobs=jobs)
            prepared = prepare_again(self.name, database, None, devices=execution.devices)
            options = FinalOptions(members, None, holdout, fine_tune)
            with _watching(prepared.settings["epochs"], members, shown=progress) as watch:
                made = finalize(prepared, options, execution, watch, print)
        return FinalResult(tuple(made.models), made.folder, prepared.settings.model)

    def _repr_html_(self) -> str:
        """The answer and the stages as tables, for a notebook."""
        from html import escape

        from study.report.notebook import table_html
        from study.text.sentences import answer
        from study.text.tables import stage_tables

        tables = map(table_html, stage_tables(self.plan, self.settings.repeats))
        return f"<p>{escape(answer(self.plan))}</p>{''.join(tables)}"


def Space(  # noqa: N802 - it stands for the class that it makes
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    epochs: int,
    batch_size: int | None = None,
    repeats: int = 3,
    name: str = "study",
    **keys: Any,
) -> SearchSpace:
    """A search space made in Python: the keys are those of a space file, and checked as there.

    ``study.Space({"filters": {"options": [8, 16], "start": 8}}, epochs=10, batch_size=32)``.
    Raises ``SpaceError``.
    """
    table = {"name": name, "epochs": epochs, "batch_size": batch_size, "repeats": repeats}
    return SearchSpace.from_dict({**table, **keys, "hyperparameters": hyperparameters}, "Space")


def run(
    space: str | Path | Mapping[str, Any] | SearchSpace = "digits",
    *,
    name: str | None = None,
    data: str | Path | tuple[ArrayLike, ArrayLike] | None = None,
    model: Callable[..., Any] | None = None,
    storage: str = DEFAULT,
    mlflow: str | None = "none",
    progress: bool = True,
    yes: bool = False,
    **options: Unpack[RunOptions],
) -> Result:
    """Run a study, or continue the one of the same name; returns its result.

    ``space`` is the name of a shipped space, the path of a file, a mapping with the same keys, or a
    `Space`. ``data`` is a name, a path or (images, labels): arrays (n, height, width) or
    (n, height, width, channels) and (n,), which are kept beside the database. ``model`` is a
    function ``build(params, input_shape, num_classes)`` that returns a Keras model; its source is
    kept beside the database. ``mlflow`` is an address, or None for what the command line takes.
    ``yes`` accepts that the space of a stored study changes; runs that are in the new one count.
    ``options`` are those of ``study run``: sampler, repeats, epochs, budget, jobs, timeout, ...

    Progress is a live view in a terminal and one output that is updated in a notebook. An interrupt
    (Ctrl-C) raises ``KeyboardInterrupt`` and leaves the study resumable: run it again. Raises
    ``StudyError``.
    """
    from study.cli.options import execution_options
    from study.running import from_python, growth
    from study.running.launch import launch, worker_warm_up
    from study.running.prepare import prepare
    from study.workers import processes

    if not isinstance(space, str | Path | Mapping | SearchSpace):
        raise SettingsError(f"run: space {space!r}: give a name, a path, a mapping or a Space")
    if mlflow is not None and not isinstance(mlflow, str):
        raise SettingsError(f"run: mlflow {mlflow!r}: give an address, 'none' or None")
    known = RunOptions.__annotations__
    for option, value in options.items():
        if option not in known:
            raise SettingsError(f"run: unknown argument {option!r}; {hint(option, known)}")
        _check(f"run: {option}", option, value)
    settings = {key: value for key, value in options.items() if key in RunSettings.__annotations__}
    execution: dict[str, Any] = {
        key: value for key, value in options.items() if key not in settings
    }
    given = {key: Setting(plain(value), "command line") for key, value in settings.items()}
    if isinstance(space, Mapping):
        space = SearchSpace.from_dict(space, "space")
    chosen = str(space) if isinstance(space, Path) else space
    with _opened(storage) as database, from_python.kept_files(database) as keep:
        if model is not None:
            found = chosen if isinstance(chosen, SearchSpace) else _loaded(chosen)
            path = keep(*from_python.source_file(model, database, name or found.name))
            within = path.relative_to(database.folder)  # a project may be moved
            chosen = replace(found, model=f"{within}:{model.__name__}")
        if data is not None:
            place = (
                data
                if isinstance(data, str | Path)
                else keep(*from_python.array_file(data, database))
            )
            given["data"] = Setting(str(place), "command line")
        how = execution_options(database, mlflow=mlflow, **execution)
        try:
            approve = growth.accept if yes else growth.refuse
            prepared = prepare(
                chosen,
                name,
                database,
                given,
                worker_warm_up(how),
                devices=how.devices,
                approve=approve,
            )
        except BaseException:
            processes.release()  # `worker_warm_up` may have started it, and this program goes on
            raise
        keep.accept()
        recorded = prepared.settings
        try:
            with _watching(recorded["epochs"], recorded.repeats, shown=progress) as watch:
                launch(prepared, watch, how, print)
        except KeyboardInterrupt:
            print("Stopped; nothing is lost. Run it again to continue.")  # noqa: T201
            raise
        return _result(database, prepared.location.name)


def load(name: str | None = None, *, storage: str = DEFAULT) -> Result:
    """The result of the study ``name``, or of the one made last; the database is only read."""
    with _opened(storage) as database:
        return _result(database, name)


def studies(*, storage: str = DEFAULT) -> list[str]:
    """The names of the studies in a database, oldest first."""
    from study.storage import database as stored

    with _opened(storage) as database:
        return stored.names(database.open())


@contextmanager
def _opened(storage: str) -> Iterator[Database]:
    """The database at this address; what it and the file system raise becomes a ``StudyError``."""
    from study.storage.connection import explained

    with closing(Database.at(str(storage))) as database, explained(database.shown):
        try:
            yield database
        except OSError as error:
            raise StorageError(of_the_system(error)) from None


def _check(where: str, name: str, value: object) -> None:
    """Refuse a value of another kind than the option ``name`` has."""
    kind = get_type_hints(RunOptions, include_extras=True)[name]
    try:
        TypeAdapter(kind).validate_python(plain(value))
    except ValidationError:
        (allowed,) = [one.description for one in get_args(kind) if isinstance(one, FieldInfo)]
        raise SettingsError(f"{where}: {shown(value)} is not allowed; give {allowed}") from None


def _result(database: Database, name: str | None) -> Result:
    from study.storage.database import read

    found = read(database, name)
    return Result(found.name, found.state, found.settings, found.plan_state, found.location)


def _loaded(space: str) -> SearchSpace:
    from study.space.file import load as load_space

    return load_space(space)


def _watching(epochs: int, repeats: int, *, shown: bool) -> AbstractContextManager[Observer]:
    """The live view of the terminal, one updating table in Jupyter, lines elsewhere, or nothing."""
    from study.cli import live
    from study.cli.terminal import SafeConsole
    from study.running.driver import Observers

    return live.watching(SafeConsole(), epochs, repeats) if shown else nullcontext(Observers())
