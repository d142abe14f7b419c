"""The search space: a frozen, strictly checked value.

A key of a file is a field here: Pydantic checks its type, and messages use its description. The
dataclasses check the values together, so that the same rules hold for a space built in code. Every
mistake is a `SpaceError` of one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)

from study.errors import SpaceError
from study.space.architecture import Limits
from study.space.hyperparameter import Hyperparameter, check_conditions
from study.space.keys import PLACE, Scalar, Value, closed, dotted, hint, shown
from study.space.keys import key as _key
from study.space.metric import VAL_ACCURACY, Direction, Metric

__all__ = ["Hyperparameter", "SearchSpace", "Validation", "Value"]

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


def _named(value: object) -> object:
    """The named tables of a file as a sequence, each with its name inside."""
    if not isinstance(value, Mapping):
        return value
    tables = value.items()
    return tuple({**t, PLACE: name} if isinstance(t, Mapping) else t for name, t in tables)


def _one_way(value: object) -> object:
    """The table ``validation`` of a file, with its only key as the kind."""
    if not isinstance(value, Mapping):
        return value
    if len(value) != 1:
        raise SpaceError(f"validation: give {_WAYS}")
    return {**value, PLACE: next(iter(value))}


_FILES = "a list of files that the model reads, as in ['start.weights.h5']"
_BACKBONE = "'FILE.py:FUNCTION', in quotes: the function that returns a frozen backbone"
_FRACTION = "a fraction above 0 and below 1"
_NAME = "a text of one line and at most 512 characters"  # Optuna's database has no more
_SEED = "a whole number from 0 to 4294967295"
_FIXED = "NAME = VALUE, each value a number, a text, true or false"
_WAYS = "{ holdout = FRACTION } or { folds = NUMBER }"
_FITS = "'pad', 'crop' or 'stretch'"
_METRIC = "the name of a metric of the validation images, as 'val_accuracy' or 'val_loss'"
_TASK = "'classification' or 'regression', where labels are numbers"
_DIRECTION = "'maximize' or 'minimize'"
_REPEATS = "a whole number from 1 to 10000"
_LIMITS = "{ parameters = NUMBER, size = '100 kB', milliseconds = NUMBER }, or some of them"
_COUNT = _key("a whole number of at least 1", ge=1)

_Side = Annotated[StrictInt, Field(ge=1, le=10_000)]

NAMED = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
"""Data sets with a name; any other ``data`` is a path."""

Score = Literal["last", "mean of last 3"]
"""The epochs of a run that its score is the mean of: the last one or the last three."""


@closed
@dataclass(frozen=True)
class Validation:
    """How the validation images of a run are chosen: a random fraction, or the repeat's fold.

    With a ``seed`` the images are the same for runs of any seed and repeat. ``none``: a run trains
    on every image. Both are for final models; files give neither.
    """

    kind: Annotated[Literal["holdout", "folds", "none"], Field(validation_alias=PLACE)]
    fraction: Annotated[StrictFloat, _key(_FRACTION, gt=0, lt=1, validation_alias="holdout")] = 0.1
    folds: Annotated[StrictInt, _key("a whole number of at least 2", ge=2)] = 3
    seed: Annotated[int | None, Field(validation_alias=f"{PLACE}seed")] = None


@closed
@dataclass(frozen=True)
class SearchSpace:
    """The hyperparameters that a study searches, and the settings of its file; None if not given.

    `hyperparameters` are in the order of the file, which is the order of the sweep; `fixed` holds
    the parameters that are equal in every run. Raises `SpaceError` for contradictions.
    """

    name: Annotated[str, _key(_NAME, max_length=512, pattern=r"^\S[^\x00-\x1f\x7f]*$")]
    epochs: Annotated[StrictInt, _COUNT]
    batch_size: Annotated[StrictInt | None, _COUNT]
    repeats: Annotated[StrictInt, _key(_REPEATS, ge=1, le=10_000)]
    hyperparameters: Annotated[
        tuple[Hyperparameter, ...],
        _key("a [hyperparameters.NAME] table for each", strict=True),
        BeforeValidator(_named),
    ]
    data: Annotated[str | None, _key("'digits', 'mnist' or a path", min_length=1)] = None
    size: Annotated[tuple[_Side, _Side] | None, _key("[HEIGHT, WIDTH], in pixels")] = None
    fit: Annotated[Literal["pad", "crop", "stretch"] | None, _key(_FITS)] = None
    model: Annotated[str | None, _key("'FILE.py:FUNCTION', in quotes", min_length=1)] = None
    features: Annotated[str | None, _key(_BACKBONE, min_length=1)] = None
    files: Annotated[tuple[str, ...] | None, _key(_FILES, min_length=1)] = None
    task: Annotated[Literal["classification", "regression"], _key(_TASK)] = "classification"
    metric_name: Annotated[str, _key(_METRIC, pattern=r"^val_[\w/.-]{1,60}$", alias="metric")] = (
        VAL_ACCURACY
    )
    direction: Annotated[Direction | None, _key(_DIRECTION)] = None
    validation: Annotated[Validation | None, _key(_WAYS), BeforeValidator(_one_way)] = None
    limits: Annotated[Limits | None, _key(_LIMITS)] = None
    tie: Annotated[Literal["cheapest", "best"], _key("'cheapest' or 'best'")] = "best"
    passes: Annotated[StrictInt, _COUNT] = 1
    score: Annotated[Score, _key("'last' or 'mean of last 3'")] = "mean of last 3"
    seed: Annotated[StrictInt | None, _key(_SEED, ge=0, lt=2**32)] = None
    sampler: Annotated[str | None, _key("the name of a sampler, in quotes", min_length=1)] = None
    pruner: Annotated[str | None, _key("the name of a pruner, in quotes", min_length=1)] = None
    configurations: Annotated[StrictInt | None, _COUNT] = None
    fixed: Annotated[dict[str, Scalar], _key(_FIXED)] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.hyperparameters:
            raise SpaceError("hyperparameters: are missing; give [hyperparameters.NAME] tables")
        self._check_names()
        check_conditions(self.hyperparameters, self.fixed)
        own = "batch_size" in (*self.fixed, *(one.name for one in self.hyperparameters))
        if own and self.batch_size is not None:
            raise SpaceError("batch_size: is a hyperparameter too; keep one of them")
        if not own and self.batch_size is None:
            raise SpaceError("batch_size: is missing; give a whole number of at least 1")
        if self.files and self.model is None:
            raise SpaceError(
                "files: are those that a model reads; give model too, or leave them out"
            )
        if self.features and self.model is None:
            raise SpaceError(
                "features: is the backbone that a model is the head of; give model too, or leave "
                "it out"
            )
        if self.features and self.limits is not None:
            raise SpaceError(
                "limits: are those of whole networks, and with features runs train heads; leave "
                "one of them out"
            )
        if self.direction is None and not self.metric.is_accuracy:
            raise SpaceError(f"direction: is missing; {self.metric_name} needs {_DIRECTION}")

    def _check_names(self) -> None:
        searched = [parameter.name for parameter in self.hyperparameters]
        for name in [*searched, *self.fixed]:
            table = "hyperparameters" if name in searched else "fixed"
            if not str(name).isidentifier():
                problem = "is not a name; give letters, digits and underscores, no digit first"
                raise SpaceError(f"{dotted(table, name)}: {problem}")
            if searched.count(name) > 1:
                raise SpaceError(f"hyperparameters.{name}: is given twice; keep one of them")
            if name in searched and name in self.fixed:
                raise SpaceError(f"fixed.{name}: is also in hyperparameters; keep one of them")

    @property
    def metric(self) -> Metric:
        """The metric that configurations are compared by; accuracies are maximized by default."""
        return Metric(self.metric_name, self.direction or "maximize")

    @property
    def start(self) -> dict[str, Value]:
        """The parameters that a study starts from; a range without a start has none."""
        return self.completed({})

    def completed(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """The parameters of a configuration, in order: those that apply, and no others.

        One that applies and is not among ``params`` has its start, if there is one.
        """
        found = dict(self.fixed)
        for one in self.hyperparameters:
            value = params.get(one.name, one.start)
            if value is not None and one.applies(found):
                found[one.name] = value
        return found

    def is_whole(self, params: Mapping[str, Value]) -> bool:
        """Whether each hyperparameter that applies has a value."""
        return all(one.name in params for one in self.hyperparameters if one.applies(params))

    def having(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """``params`` with the conditions under which all of them apply."""
        found = dict(params)
        for one in reversed(self.hyperparameters):  # conditions are of hyperparameters above
            if one.name in found:
                found = one.only_if | found
        return found

    def each_alone(self) -> list[dict[str, Value]]:
        """The start, then the start with one parameter at another option or an end of its range."""
        ends: dict[str, tuple[Any, ...]] = {
            p.name: p.options or (p.low, p.high) for p in self.hyperparameters
        }
        base = {name: values[0] for name, values in ends.items()}
        base |= {p.name: p.start for p in self.hyperparameters if p.start is not None}
        changed = [{name: value} for name, values in ends.items() for value in values]
        alone = [self.completed(base | self.having(one)) for one in ({}, *changed)]
        return [one for place, one in enumerate(alone) if one not in alone[:place]]

    def suggest(self, trial: BaseTrial) -> dict[str, Value]:
        """The parameters of a run: the fixed ones, then those that `trial` suggests, in order."""
        found = dict(self.fixed)
        for one in self.hyperparameters:
            if one.applies(found):
                found[one.name] = one.suggest(trial)
        return found

    def require_options(self, search: str) -> None:
        """Raise `SpaceError` if a hyperparameter is a range, which ``search`` cannot use."""
        for parameter in self.hyperparameters:
            if not parameter.options:
                raise SpaceError(
                    f"hyperparameters.{parameter.name}: is a range, and {search} needs options and "
                    "a start among them; list options or choose another sampler"
                )

    def to_dict(self) -> dict[str, Any]:
        """The contents of the file, as JSON takes them; the order of keys is part of the space."""
        table: dict[str, Any] = _FILE.dump_python(
            self, mode="json", by_alias=True, exclude_none=True
        )
        table["hyperparameters"] = {p.pop("name"): p for p in table["hyperparameters"]}
        if way := self.validation:
            folds = way.kind == "folds"
            table["validation"] = {"folds": way.folds} if folds else {"holdout": way.fraction}
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: str = "search space") -> SearchSpace:
        """The space of a file's contents or of `to_dict`; a `SpaceError` begins with `source`."""
        given = {"batch_size": None, **table} if isinstance(table, Mapping) else table
        try:
            return _FILE.validate_python(given)
        except ValidationError as error:
            raise SpaceError(f"{source}: {_first(error, table)}") from None


_FILE = TypeAdapter(SearchSpace)


def _keys(kind: type) -> dict[str, str]:
    """The keys of a table of this kind, each with a description of its values."""
    schema = TypeAdapter(kind).json_schema()["properties"]
    return {key: said["description"] for key, said in schema.items() if "description" in said}


def _first(error: ValidationError, table: Mapping[str, Any]) -> str:
    """One mistake in one line: an unknown key if there is one, as it often explains the others."""
    unknown = "unexpected_keyword_argument"
    mistake = min(error.errors(), key=lambda one: one["type"] != unknown)
    reason = mistake.get("ctx", {}).get("error")
    if isinstance(reason, SpaceError):
        return str(reason)
    kind: type
    match mistake["loc"]:
        case ["hyperparameters", int(place), *path]:
            kind, above = Hyperparameter, ["hyperparameters", list(table["hyperparameters"])[place]]
        case ["validation", _, *_]:
            kind, above, path = Validation, ["validation"], list(mistake["loc"][1:])
        case ["limits", *path] if path:
            kind, above = Limits, ["limits"]
        case [*path]:
            kind, above = SearchSpace, []
    keys = _keys(kind)
    where = dotted(*above, *(key for key in path if isinstance(key, str))) or "contents"
    if mistake["type"] == unknown:
        return f"{where}: unknown key; {hint(str(path[-1]), keys)}"
    allowed = keys[str(path[0])] if path else "a table of " + ", ".join(keys)
    missing = mistake["type"] == "missing"
    problem = "is missing" if missing else f"{shown(mistake['input'])} is not allowed"
    return f"{where}: {problem}; give {allowed}"
