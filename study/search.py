"""The plan for Optuna's own samplers: a budget of configurations, each with all its repeats.

The sampler sees one finished trial a configuration, its mean, and is seeded by (study seed,
configuration number): its suggestion is a function of stored results and survives a resume.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from study.errors import SettingsError
from study.plan import ATTEMPTS, Book, Option, Slot, Stage, Standing, compared
from study.results import Configuration, Row, Spread, configuration
from study.space import SearchSpace, Value

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

SEARCH = "search"
"""The name of the only stage of a search."""

_RETRIES = 20
_SEQUENTIAL = ("qmc", "cmaes")


class Search:
    """A budget of configurations that a sampler of Optuna's suggests, best mean wins.

    ``budget`` counts configurations; a space that has fewer is tried whole. Raises
    ``SettingsError`` for a sampler that does not exist or whose package is missing.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: str,
        budget: int,
        seed: int,
        repeats: int | None = None,
        images: int | None = None,
    ) -> None:
        self.space = space
        self.repeats = space.repeats if repeats is None else repeats
        self.images = images
        self.seed = seed
        self.budget = min(budget, _size(space) or budget)
        self.sampler = sampler
        self._inner = inner_sampler(sampler)

    def standing(self, rows: Sequence[Row]) -> Standing:
        """Every configuration so far, and the slots that are left of the budget."""
        book = Book(rows)
        options = self._options(rows, book)
        spread = Spread(self.images)
        for option in options:
            if option.state == "complete":
                spread.learn(option.values)
        known = any(option.state == "complete" for option in options)
        options = compared(options, spread) if known else options
        best = next((o for o in options if o.score is not None and o.lead is None), None)
        slots, failed = self._slots(options, book)
        complete = len(options) == self.budget and all(o.state != "open" for o in options)
        incumbent = best.configuration if best else ()
        stage = Stage(SEARCH, incumbent, options, best, best if complete else None)
        runs = sum(len(option.rows) for option in options)
        ahead = sum(self.repeats - len(o.rows) for o in options if o.state == "open")
        return Standing(
            stages=(stage,),
            incumbent=best.configuration if best else None,
            score=best.score if best else None,
            slots=tuple(slots),
            complete=complete,
            runs=runs,
            runs_expected=runs + ahead + (self.budget - len(options)) * self.repeats,
            failed=failed,
            failure=book.reason(failed) if failed else None,
        )

    def _options(self, rows: Sequence[Row], book: Book) -> tuple[Option, ...]:
        found: dict[int, Configuration] = {}
        for row in rows:
            if row.stage == SEARCH:
                found.setdefault(int(row.option or 0), row.configuration)
        return tuple(
            book.option(number, found[number], None, self.repeats) for number in sorted(found)
        )

    def _slots(self, options: Sequence[Option], book: Book) -> tuple[list[Slot], Slot | None]:
        """Missing repeats of the configurations begun, then configurations still to be suggested."""
        slots = []
        for option in options:
            pruned = [row.repeat for row in option.rows if row.state == "pruned"]
            for repeat in range(min(pruned, default=self.repeats)):
                slot = Slot(SEARCH, option.value, option.configuration, repeat, None)
                if book.counted(slot) or book.running(slot):
                    continue
                if book.failures(slot) >= ATTEMPTS:
                    return [], slot
                slots.append(slot)
        new = range(len(options), self.budget)
        return slots + [Slot(SEARCH, number, None, 0, None) for number in new], None

    def suggest(self, number: int, rows: Sequence[Row]) -> Configuration:
        """The configuration with this number, as the sampler suggests it after ``rows``.

        A suggestion that was tried before is drawn again with another seed; where that does not
        help, the first combination of options that is left is taken.
        """
        tried = {row.configuration for row in rows}
        for attempt in range(_RETRIES):
            candidate = self._ask(number, attempt, rows)
            if candidate not in tried:
                return candidate
        return next((c for c in _grid(self.space) if c not in tried), candidate)

    def _ask(self, number: int, attempt: int, rows: Sequence[Row]) -> Configuration:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        told = [option for option in self._options(rows, Book(rows)) if option.state != "open"]
        if self.sampler in _SEQUENTIAL:
            inner = optuna.create_study(direction="maximize", sampler=self._inner(self.seed))
            self._replay(inner, number + attempt, {option.value: option for option in told})
        else:
            sequence = np.random.SeedSequence([self.seed, number, attempt])
            sampler = self._inner(int(sequence.generate_state(1)[0]))
            inner = optuna.create_study(direction="maximize", sampler=sampler)
            inner.add_trials([self._finished(option) for option in told])
        return configuration(self.space.suggest(inner.ask()))

    def _replay(self, inner: optuna.Study, asks: int, told: Mapping[Value, Option]) -> None:
        """Ask again what was asked before: for samplers whose state is the sequence itself."""
        import optuna

        for number in range(asks):
            trial = inner.ask()
            self.space.suggest(trial)
            if number in told:
                inner.tell(trial, _mean(told[number]))
            else:
                inner.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _finished(self, option: Option) -> optuna.trial.FrozenTrial:
        import optuna

        distributions = {p.name: p.distribution for p in self.space.hyperparameters}
        params = dict(option.configuration)
        return optuna.trial.create_trial(
            params={name: params[name] for name in distributions},
            distributions=distributions,
            value=_mean(option),
        )


def _mean(option: Option) -> float:
    """What the sampler is told: the mean over repeats, or where a run was pruned its last report."""
    values = [row.val_acc[-1] if row.value is None else row.value for row in option.rows]
    return float(np.mean(values))


def inner_sampler(name: str) -> Callable[[int], BaseSampler]:
    """How to make Optuna's sampler of this name from a seed."""
    import optuna

    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
        "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    }
    if name not in makers:
        known = ", ".join(["sweep", *makers])
        raise SettingsError(f"--sampler {name}: no such sampler; choose one of {known}")
    package = {"cmaes": "cmaes", "gp": "torch"}.get(name)
    if package and not _installed(package):
        raise SettingsError(
            f"--sampler {name} needs the package {package}: pip install 'mnist-study[samplers]'"
        )
    return makers[name]


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _size(space: SearchSpace) -> int | None:
    """How many configurations the space has; None where a hyperparameter is a range."""
    if any(not parameter.options for parameter in space.hyperparameters):
        return None
    return int(np.prod([len(parameter.options) for parameter in space.hyperparameters]))


def _grid(space: SearchSpace) -> list[Configuration]:
    """Every combination of options; empty where a hyperparameter is a range."""
    if _size(space) is None:
        return []
    names = [parameter.name for parameter in space.hyperparameters]
    combinations = itertools.product(*(p.options for p in space.hyperparameters))
    return [
        configuration(space.fixed | dict(zip(names, values, strict=True)))
        for values in combinations
    ]
