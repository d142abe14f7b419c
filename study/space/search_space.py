"""The search space: a frozen, strictly checked value.

Nothing else knows which hyperparameters and options there are. Pydantic checks each value of a
file by itself (type, bounds); the dataclasses check what the values mean together, so a space
built in code is held to the same rules. Every mistake is a `SpaceError` of one line.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

from study.errors import SpaceError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

T = TypeVar("T")
Value = int | float | str | bool


def _number(value: object) -> object:
    """Refuse numbers that TOML, JSON and the database do not all hold unchanged."""
    whole = type(value) is int and -(2**63) <= value < 2**63
    if whole or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError


def _scalar(value: object) -> object:
    return value if isinstance(value, bool | str) else _number(value)


_Scalar = Annotated[Value, PlainValidator(_scalar)]
_Number = Annotated[int | float, PlainValidator(_number)]
_Truth = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=1)]
_Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
_Text = Annotated[str, Field(min_length=1)]
# One line; Optuna's database has 512 characters for the name of a study.
_Name = Annotated[str, Field(max_length=512, pattern=r"^\S[^\x00-\x1f\x7f]*$")]

_ALLOWED = {
    "name": "a text of one line and at most 512 characters",
    "epochs": "a whole number of at least 1",
    "batch_size": "a whole number of at least 1",
    "repeats": "a whole number of at least 1",
    "hyperparameters": "a [hyperparameters.NAME] table for each",
    "data": "'digits', 'mnist' or a path",
    "validation": "{ holdout = FRACTION } or { folds = NUMBER }",
    "holdout": "a fraction above 0 and below 1",
    "folds": "a whole number of at least 2",
    "tie": "'cheapest' or 'best'",
    "seed": "a whole number from 0 to 4294967295",
    "sampler": "the name of a sampler, in quotes",
    "pruner": "the name of a pruner, in quotes",
    "configurations": "a whole number of at least 1",
    "fixed": "NAME = VALUE, each value a number, a text, true or false",
    "options": "a list of numbers, of texts or of true and false",
    "low": "a number",
    "high": "a number",
    "log": "true or false",
    "step": "a number",
    "start": "a number, a text, true or false",
}
"""What a key's value may be, for messages."""


@dataclass(frozen=True)
class Hyperparameter:
    """One dimension of the search: options (cheapest first) with a start, or a range.

    Its numbers have one type: where one of the options, or of low, high and step, is a float,
    all of them are. Raises `SpaceError` where the values contradict each other.
    """

    name: str
    options: tuple[_Scalar, ...] = ()
    low: _Number | None = None
    high: _Number | None = None
    log: _Truth | None = None
    step: _Number | None = None
    start: _Scalar | None = None

    def __post_init__(self) -> None:
        self._give_numbers_one_type()
        mistakes = self._mistaken_options() if self.options else self._mistaken_range()
        for key, problem in mistakes:
            raise SpaceError(f"{_dotted('hyperparameters', self.name, key)}: {problem}")

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
            yield "options", f"{allowed} mix types; give {_ALLOWED['options']}"
        for option in self.options:
            if self.options.count(option) > 1:
                yield "options", f"{shown(option)} is listed twice; keep one of them"
        if self.start is None:
            yield "start", f"is missing; allowed: {allowed}"
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


@dataclass(frozen=True)
class Validation:
    """How a run's validation images are chosen: a drawn fraction, or the repeat's fold.

    With a ``seed`` of its own it is the same part for runs of any seed and repeat. ``none``: every
    image is trained on. Files give neither; both are for models that are trained in the end.
    """

    kind: Literal["holdout", "folds", "none"]
    fraction: Annotated[float, Field(strict=True, gt=0, lt=1, validation_alias="holdout")] = 0.1
    folds: Annotated[int, Field(strict=True, ge=2)] = 3
    seed: int | None = None


@dataclass(frozen=True)
class SearchSpace:
    """What a study searches, and the settings its file gives; None where the file gives none.

    `hyperparameters` are in the order of the file, which is the order of the sweep; `fixed` holds
    the parameters that every run shares. Raises `SpaceError` where the two contradict each other.
    """

    name: _Name
    epochs: _Count
    batch_size: _Count
    repeats: _Count
    hyperparameters: tuple[Hyperparameter, ...]
    data: _Text | None = None
    validation: Validation | None = None
    tie: Literal["cheapest", "best"] = "cheapest"
    seed: _Seed | None = None
    sampler: _Text | None = None
    pruner: _Text | None = None
    configurations: _Count | None = None
    fixed: dict[str, _Scalar] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        searched = [parameter.name for parameter in self.hyperparameters]
        if not searched:
            raise SpaceError("hyperparameters: there is none; give [hyperparameters.NAME] tables")
        for name in [*searched, *self.fixed]:
            table = "hyperparameters" if name in searched else "fixed"
            if not name.isidentifier():
                problem = "is no name; give letters, digits and underscores, no digit first"
                raise SpaceError(f"{_dotted(table, name)}: {problem}")
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
        table = _given(self) | {"fixed": dict(self.fixed)}
        table["hyperparameters"] = {p.name: _given(p, but="name") for p in self.hyperparameters}
        if self.validation:
            fraction, folds = self.validation.fraction, self.validation.folds
            holdout = self.validation.kind == "holdout"
            table["validation"] = {"holdout": fraction} if holdout else {"folds": folds}
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: str = "search space") -> SearchSpace:
        """Check what a file says, or `to_dict` gave; a `SpaceError` begins with `source`."""
        try:
            return _space(table)
        except SpaceError as error:
            raise SpaceError(f"{source}: {error}") from None


def _space(value: object) -> SearchSpace:
    table = _table(value, [f.name for f in fields(SearchSpace)])
    if "hyperparameters" in table:
        keys = [f.name for f in fields(Hyperparameter) if f.name != "name"]
        tables = _table(table["hyperparameters"], None, "hyperparameters")
        table["hyperparameters"] = tuple(
            _checked(
                Hyperparameter,
                _table(entry, keys, "hyperparameters", name) | {"name": name},
                *("hyperparameters", name),
            )
            for name, entry in tables.items()
        )
    if "validation" in table:
        validation = _table(table["validation"], ["holdout", "folds"], "validation")
        if len(validation) != 1:
            raise SpaceError(f"validation: give {_ALLOWED['validation']}")
        kind = {"kind": next(iter(validation))}
        table["validation"] = _checked(Validation, validation | kind, "validation")
    return _checked(SearchSpace, table)


def _table(value: object, keys: Iterable[str] | None, *place: str) -> dict[str, Any]:
    """A table of the file, which may have only these keys (None: any)."""
    if not isinstance(value, Mapping):
        where = _dotted(*(place or ("contents",)))
        allowed = _ALLOWED.get(where, "a table of " + ", ".join(keys or ()))
        raise SpaceError(f"{where}: {shown(value)} is not allowed; give {allowed}")
    for key in value:
        if keys is not None and key not in keys:
            raise SpaceError(f"{_dotted(*place, key)}: unknown key; {hint(key, keys)}")
    return dict(value)


def _checked(kind: type[T], table: dict[str, Any], *place: str) -> T:
    """The table as a `kind`; a `SpaceError` names its first key with a wrong type or bound."""
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        mistake = error.errors()[0]
    key, *inside = (part for part in mistake["loc"] if isinstance(part, str))
    missing = mistake["type"] == "missing"
    problem = "is missing" if missing else f"{shown(mistake['input'])} is not allowed"
    raise SpaceError(f"{_dotted(*place, key, *inside)}: {problem}; give {_ALLOWED[key]}")


def _given(item: Hyperparameter | SearchSpace, but: str = "") -> dict[str, Any]:
    """The fields that have a value, as JSON has them."""
    table = {f.name: getattr(item, f.name) for f in fields(item) if f.name != but}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in table.items()
        if value is not None and value != ()
    }


def hint(key: str, allowed: Iterable[str]) -> str:
    """What is allowed in place of `key`, the likeliest first."""
    close = difflib.get_close_matches(key, allowed, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"allowed: {', '.join(allowed)}"


def _dotted(*keys: str) -> str:
    return ".".join(key if re.fullmatch(r"[\w-]+", key) else shown(key) for key in keys)


def shown(value: object) -> str:
    """A value as TOML writes it, on one line of bearable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
