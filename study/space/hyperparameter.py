"""One dimension of a search space: options or a range, and the conditions of it (`only_if`)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, StrictBool

from study.errors import SpaceError
from study.space.keys import (
    PLACE,
    Number,
    Scalar,
    Value,
    closed,
    dotted,
    hint,
    plain,
    scalar,
    shown,
)
from study.space.keys import key as _key

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

_OPTIONS = "a list of numbers, of texts or of true and false"
_NUMBER = _key("a number")
_ONLY_IF = "{ NAME = VALUE } of hyperparameters above, as in { optimizer = 'sgd' }"


@closed
@dataclass(frozen=True)
class Hyperparameter:
    """One dimension of the search: options (cheapest first) with a start, or a range.

    With ``only_if`` it applies only to configurations that have these values.

    Its numbers have one type: where one of the options, or of low, high and step, is a float,
    all of them are; NumPy's become Python's. Raises `SpaceError` if a value has another type, or
    the values contradict each other.
    """

    name: Annotated[str, Field(validation_alias=PLACE)]
    options: Annotated[tuple[Scalar, ...], _key(_OPTIONS, exclude_if=operator.not_)] = ()
    low: Annotated[Number | None, _NUMBER] = None
    high: Annotated[Number | None, _NUMBER] = None
    log: Annotated[StrictBool | None, _key("true or false")] = None
    step: Annotated[Number | None, _NUMBER] = None
    start: Annotated[Scalar | None, _key("a number, a text, true or false")] = None
    only_if: Annotated[dict[str, Scalar], _key(_ONLY_IF, exclude_if=operator.not_)] = field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        self._take_plain_values()
        self._give_numbers_one_type()
        mistakes = self._mistaken_options() if self.options else self._mistaken_range()
        for key, problem in mistakes:
            raise SpaceError(f"{dotted('hyperparameters', self.name, key)}: {problem}")

    def applies(self, params: Mapping[str, Value]) -> bool:
        """Whether a configuration with these values has this hyperparameter."""
        return all(params.get(name) == value for name, value in self.only_if.items())

    def holds(self, value: Value) -> bool:
        """Whether this is one of the options, or a value within the range."""
        if self.options:
            alike = (
                one for one in self.options if isinstance(one, bool) == isinstance(value, bool)
            )
            return value in alike
        low, high = self.bounds
        return not isinstance(value, bool | str) and low <= value <= high

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution that Optuna stores with a trial's value (imports Optuna)."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.options:
            return CategoricalDistribution(self.options)
        (low, high), log = self.bounds, bool(self.log)
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log, int(self.step or 1))
        return FloatDistribution(low, high, log, self.step)

    @property
    def bounds(self) -> tuple[int | float, int | float]:
        """Low and high of a range."""
        assert self.low is not None  # _mistaken_range saw to both
        assert self.high is not None
        return self.low, self.high

    def suggest(self, trial: BaseTrial) -> Value:
        """Ask an Optuna trial for this hyperparameter's value."""
        if self.options:
            return cast(Value, trial.suggest_categorical(self.name, self.options))
        ask: Callable[..., int | float]
        ask = trial.suggest_int if isinstance(self.low, int) else trial.suggest_float
        within: Any = self.distribution
        return ask(self.name, within.low, within.high, step=within.step, log=within.log)

    def _take_plain_values(self) -> None:
        """Convert what Python code may give: any sequence of options, and NumPy's scalars."""
        options: Any = self.options
        if isinstance(options, str) or not isinstance(options, Iterable):
            raise self._refused("options", options, _OPTIONS)
        object.__setattr__(self, "options", tuple(map(plain, options)))
        for option in self.options:
            self._check("options", option, _OPTIONS)
        for key in ("low", "high", "step", "start"):
            if (value := plain(getattr(self, key))) is not None:
                self._check(key, value, "a number" if key != "start" else "a number or an option")
                object.__setattr__(self, key, value)

    def _check(self, key: str, value: object, allowed: str) -> None:
        try:
            scalar(value)
        except ValueError:
            raise self._refused(key, value, allowed) from None

    def _refused(self, key: str, value: object, allowed: str) -> SpaceError:
        where = dotted("hyperparameters", self.name, key)
        return SpaceError(f"{where}: {shown(value)} is not allowed; give {allowed}")

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
            yield "options", f"{allowed} are texts, but start = {shown(self.start)} is not; {both}"
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
        """Whether `value` is low plus whole steps in decimal arithmetic: 0.3 is 3 x 0.1."""
        if self.step is None:
            return True
        exact, low, step = (Fraction(str(number)) for number in (value, self.low, self.step))
        return (exact - low) % step == 0


def check_conditions(hyperparameters: Sequence[Hyperparameter], fixed: Mapping[str, Value]) -> None:
    """Raise SpaceError for a condition that goes in a circle, or that can never hold.

    A condition is of a hyperparameter that stands above, so that values are chosen in order.
    """
    for one in hyperparameters:
        for name, value in one.only_if.items():
            for problem in _mistakes(one, name, value, hyperparameters, fixed):
                raise SpaceError(f"hyperparameters.{one.name}.only_if: {problem}")


def _mistakes(
    given: Hyperparameter,
    name: str,
    value: Value,
    hyperparameters: Sequence[Hyperparameter],
    fixed: Mapping[str, Value],
) -> Iterator[str]:
    searched = {one.name: one for one in hyperparameters}
    never = f"{name} = {shown(value)} never holds; "
    if name in fixed:
        if fixed[name] != value:
            yield f"{never}fixed.{name} is {shown(fixed[name])}"
        return
    if name not in searched:
        names = [one for one in (*searched, *fixed) if one != given.name]
        yield f"{name} is not in the space; {hint(name, names)}"
        return
    if given.name in _above(name, searched):
        yield f"goes in a circle by way of {name}; take one of the conditions out"
    if [*searched].index(name) > [*searched].index(given.name):
        yield f"{name} comes later in the file; put [hyperparameters.{name}] above this one"
    condition = searched[name]
    if not condition.holds(value):
        options, allowed = condition.options, condition.options or condition.bounds
        kind = "allowed: " if options else "it is a range, "
        yield f"{never}{kind}{(', ' if options else ' to ').join(map(shown, allowed))}"


def _above(name: str, searched: Mapping[str, Hyperparameter]) -> set[str]:
    """A hyperparameter and those that its conditions are of, directly or not."""
    above: set[str] = set()
    left = [name]
    while left:
        above.add(one := left.pop())
        left += [other for other in searched[one].only_if if other in searched.keys() - above]
    return above
