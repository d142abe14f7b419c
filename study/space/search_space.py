"""The search space: a frozen, strictly checked value.

Nothing else knows which hyperparameters and options there are. A key of a file is a field here:
Pydantic checks its type, and its description is what a message says of it. The dataclasses check
what the values mean together, so a space built in code is held to the same rules. Every mistake is
a `SpaceError` of one line.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    with_config,
)

from study.errors import SpaceError
from study.space.keys import Number, Scalar, Value, dotted, hint, shown
from study.space.keys import key as _key

__all__ = ["Hyperparameter", "SearchSpace", "Validation", "Value"]

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


def _named(value: object) -> object:
    """The tables of a file by their names, each with its name inside."""
    if not isinstance(value, Mapping):
        return value
    tables = value.items()
    return tuple({**t, _PLACE: name} if isinstance(t, Mapping) else t for name, t in tables)


def _one_way(value: object) -> object:
    """A file's way to validate, its only key, as the kind."""
    if not isinstance(value, Mapping):
        return value
    if len(value) != 1:
        raise SpaceError(f"validation: give {_WAYS}")
    return {**value, _PLACE: next(iter(value))}


_PLACE = "\0"
"""The key of what a file says by the place of a table, and by no key of its own."""

_FRACTION = "a fraction above 0 and below 1"
_NAME = "a text of one line and at most 512 characters"  # Optuna's database has no more
_SEED = "a whole number from 0 to 4294967295"
_FIXED = "NAME = VALUE, each value a number, a text, true or false"
_OPTIONS = "a list of numbers, of texts or of true and false"
_WAYS = "{ holdout = FRACTION } or { folds = NUMBER }"
_FITS = "'pad', 'crop' or 'stretch'"
_COUNT = _key("a whole number of at least 1", ge=1)
_NUMBER = _key("a number")

_Side = Annotated[StrictInt, Field(ge=1, le=10_000)]
_closed = with_config(ConfigDict(extra="forbid"))


@_closed
@dataclass(frozen=True)
class Hyperparameter:
    """One dimension of the search: options (cheapest first) with a start, or a range.

    Its numbers have one type: where one of the options, or of low, high and step, is a float,
    all of them are. Raises `SpaceError` where the values contradict each other.
    """

    name: Annotated[str, Field(validation_alias=_PLACE)]
    options: Annotated[tuple[Scalar, ...], _key(_OPTIONS, exclude_if=operator.not_)] = ()
    low: Annotated[Number | None, _NUMBER] = None
    high: Annotated[Number | None, _NUMBER] = None
    log: Annotated[StrictBool | None, _key("true or false")] = None
    step: Annotated[Number | None, _NUMBER] = None
    start: Annotated[Scalar | None, _key("a number, a text, true or false")] = None

    def __post_init__(self) -> None:
        self._give_numbers_one_type()
        mistakes = self._mistaken_options() if self.options else self._mistaken_range()
        for key, problem in mistakes:
            raise SpaceError(f"{dotted('hyperparameters', self.name, key)}: {problem}")

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna stores beside a trial's value (imports Optuna)."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.options:
            return CategoricalDistribution(self.options)
        low, high, log = self.low, self.high, bool(self.log)
        assert low is not None  # _mistaken_range saw to both
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log, int(self.step or 1))
        return FloatDistribution(low, high, log, self.step)

    def suggest(self, trial: BaseTrial) -> Value:
        """Ask an Optuna trial for this hyperparameter's value."""
        if self.options:
            return cast(Value, trial.suggest_categorical(self.name, self.options))
        ask: Callable[..., int | float]
        ask = trial.suggest_int if isinstance(self.low, int) else trial.suggest_float
        held: Any = self.distribution
        return ask(self.name, held.low, held.high, step=held.step, log=held.log)

    def _give_numbers_one_type(self) -> None:
        def real(value: Any) -> Any:
            return float(value) if type(value) is int else value

        if float in map(type, (*self.options, self.low, self.high, self.step)):
            object.__setattr__(self, "options", tuple(map(real, self.options)))
            for key in ("low", "high", "step", "start"):
                object.__setattr__(self, key, real(getattr(self, key)))

    def _mistaken_options(self) -> Iterator[tuple[str, str]]:
        for key in ("low", "high", "log", "step"):
            if getattr(self, key) is not None:
                yield key, "does not go with options; give either options, or low and high"
        allowed = ", ".join(map(shown, self.options))
        kinds = {type(option) for option in self.options}
        if len(kinds) > 1:
            yield "options", f"{allowed} mix types; give {_OPTIONS}"
        for option in self.options:
            if self.options.count(option) > 1:
                yield "options", f"{shown(option)} is listed twice; keep one of them"
        if self.start is None:
            yield "start", f"is missing; allowed: {allowed}"
        if kinds == {str} and not isinstance(self.start, str):
            both = "write both with quotes or both without"
            yield "options", f"{allowed} are texts, but start = {shown(self.start)} is none; {both}"
        if type(self.start) not in kinds or self.start not in self.options:
            yield "start", f"{shown(self.start)} is not among the options; allowed: {allowed}"

    def _mistaken_range(self) -> Iterator[tuple[str, str]]:
        low, high, step, start = self.low, self.high, self.step, self.start
        if low is None and high is None:
            yield "options", "is missing or empty; give options and a start, or low and high"
        if low is None or high is None:
            yield "low" if low is None else "high", "is missing; a range has low and high"
            return
        if low >= high:
            yield "low", f"{low} is not allowed; give a number below high = {high}"
        if self.log and low <= 0:
            yield "low", f"{low} is not allowed with log = true; give a number above 0"
        if self.log and step is not None:
            yield "step", "does not go with log = true; leave one of them out"
        if step is not None and step <= 0:
            yield "step", f"{step} is not allowed; give a number above 0"
        if not self._on_grid(high):
            yield "high", f"{high} is not low = {low} and a whole number of steps of {step}"
        if start is None:
            return
        fits = not isinstance(start, str) and type(start) is type(low) and low <= start <= high
        if not fits or not self._on_grid(start):
            grid = "" if step is None else f" in steps of {step}"
            kind = "a whole number" if isinstance(low, int) else "a number"
            yield "start", f"{shown(start)} is not allowed; give {kind} from {low} to {high}{grid}"

    def _on_grid(self, value: Value) -> bool:
        """Whether `value` is low and whole steps, as the decimals are written: 0.3 is 3 x 0.1."""
        if self.step is None:
            return True
        exact, low, step = (Fraction(str(number)) for number in (value, self.low, self.step))
        return (exact - low) % step == 0


@_closed
@dataclass(frozen=True)
class Validation:
    """How a run's validation images are chosen: a drawn fraction, or the repeat's fold.

    With a ``seed`` of its own it is the same part for runs of any seed and repeat. ``none``: every
    image is trained on. Files give neither; both are for models that are trained in the end.
    """

    kind: Annotated[Literal["holdout", "folds", "none"], Field(validation_alias=_PLACE)]
    fraction: Annotated[StrictFloat, _key(_FRACTION, gt=0, lt=1, validation_alias="holdout")] = 0.1
    folds: Annotated[StrictInt, _key("a whole number of at least 2", ge=2)] = 3
    seed: Annotated[int | None, Field(validation_alias=f"{_PLACE}seed")] = None


@_closed
@dataclass(frozen=True)
class SearchSpace:
    """What a study searches, and the settings its file gives; None where the file gives none.

    `hyperparameters` are in the order of the file, which is the order of the sweep; `fixed` holds
    the parameters that every run shares. Raises `SpaceError` where the two contradict each other.
    """

    name: Annotated[str, _key(_NAME, max_length=512, pattern=r"^\S[^\x00-\x1f\x7f]*$")]
    epochs: Annotated[StrictInt, _COUNT]
    batch_size: Annotated[StrictInt, _COUNT]
    repeats: Annotated[StrictInt, _COUNT]
    hyperparameters: Annotated[
        tuple[Hyperparameter, ...],
        _key("a [hyperparameters.NAME] table for each", strict=True),
        BeforeValidator(_named),
    ]
    data: Annotated[str | None, _key("'digits', 'mnist' or a path", min_length=1)] = None
    size: Annotated[tuple[_Side, _Side] | None, _key("[HEIGHT, WIDTH], in pixels")] = None
    fit: Annotated[Literal["pad", "crop", "stretch"] | None, _key(_FITS)] = None
    model: Annotated[str | None, _key("'FILE.py:FUNCTION', in quotes", min_length=1)] = None
    validation: Annotated[Validation | None, _key(_WAYS), BeforeValidator(_one_way)] = None
    tie: Annotated[Literal["cheapest", "best"], _key("'cheapest' or 'best'")] = "cheapest"
    passes: Annotated[StrictInt, _COUNT] = 1
    score: Annotated[Literal["last", "mean of last 3"], _key("'last' or 'mean of last 3'")] = "last"
    seed: Annotated[StrictInt | None, _key(_SEED, ge=0, lt=2**32)] = None
    sampler: Annotated[str | None, _key("the name of a sampler, in quotes", min_length=1)] = None
    pruner: Annotated[str | None, _key("the name of a pruner, in quotes", min_length=1)] = None
    configurations: Annotated[StrictInt | None, _COUNT] = None
    fixed: Annotated[dict[str, Scalar], _key(_FIXED)] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        searched = [parameter.name for parameter in self.hyperparameters]
        if not searched:
            raise SpaceError("hyperparameters: there is none; give [hyperparameters.NAME] tables")
        for name in [*searched, *self.fixed]:
            table = "hyperparameters" if name in searched else "fixed"
            if not name.isidentifier():
                problem = "is no name; give letters, digits and underscores, no digit first"
                raise SpaceError(f"{dotted(table, name)}: {problem}")
            if searched.count(name) > 1:
                raise SpaceError(f"hyperparameters.{name}: is given twice; keep one of them")
            if name in searched and name in self.fixed:
                raise SpaceError(f"fixed.{name}: is also in hyperparameters; keep one of them")

    @property
    def start(self) -> dict[str, Value]:
        """The parameters a study starts from: like `suggest`, less the ranges without a start."""
        starts = {p.name: p.start for p in self.hyperparameters if p.start is not None}
        return self.fixed | starts

    def suggest(self, trial: BaseTrial) -> dict[str, Value]:
        """Every parameter of a run: the fixed ones, then what `trial` suggests, in file order."""
        return self.fixed | {p.name: p.suggest(trial) for p in self.hyperparameters}

    def require_options(self) -> None:
        """Raise `SpaceError` where a hyperparameter is a range: a sweep needs options."""
        for parameter in self.hyperparameters:
            if not parameter.options:
                raise SpaceError(
                    f"hyperparameters.{parameter.name}: is a range, and the one-at-a-time sweep "
                    "needs options and a start among them; list options or choose another sampler"
                )

    def to_dict(self) -> dict[str, Any]:
        """What the file says, ready for JSON; the order of its keys is part of the space."""
        table: dict[str, Any] = _FILE.dump_python(self, mode="json", exclude_none=True)
        table["hyperparameters"] = {p.pop("name"): p for p in table["hyperparameters"]}
        if way := self.validation:
            folds = way.kind == "folds"
            table["validation"] = {"folds": way.folds} if folds else {"holdout": way.fraction}
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: str = "search space") -> SearchSpace:
        """Check what a file says, or `to_dict` gave; a `SpaceError` begins with `source`."""
        try:
            return _FILE.validate_python(table)
        except ValidationError as error:
            raise SpaceError(f"{source}: {_first(error, table)}") from None


_FILE = TypeAdapter(SearchSpace)


def _keys(kind: type) -> dict[str, str]:
    """The keys that a file may give of a value of this kind, with what each may be."""
    schema = TypeAdapter(kind).json_schema()["properties"]
    return {key: said["description"] for key, said in schema.items() if "description" in said}


def _first(error: ValidationError, table: Mapping[str, Any]) -> str:
    """The first mistake in a line; of all that there are, a key that is unknown explains most."""
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
