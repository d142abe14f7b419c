"""The tutorial's sweep as a plan: one hyperparameter at a time, every option with all its repeats.

Stage by stage, every option of one hyperparameter is trained with all its repeats while the others
stay at the incumbent's values; the incumbent's own runs are reused. The option with the best mean
is *noted*. The option *carried* on is the incumbent if it ties with the best, else the cheapest
option that does. At the end the configuration of all noted values, where it differs from the
carried one, is trained too and replaces it only if it is better by more than a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from study.plan import Book, Option, Stage, Standing, compared
from study.results import Configuration, Row, Score, Spread, configuration
from study.space import Hyperparameter, SearchSpace, Value

NOTED = "noted"
"""The name of the last stage, which trains the configuration of all noted values."""


class OneAtATime:
    """The plan of the tutorial's sweep.

    ``images`` is the number of validation images of a repeat; it bounds standard errors from
    below. Raises ``SpaceError`` where a hyperparameter is a range: a sweep needs options.
    """

    def __init__(
        self, space: SearchSpace, repeats: int | None = None, images: int | None = None
    ) -> None:
        space.require_options()
        self.space = space
        self.repeats = space.repeats if repeats is None else repeats
        self.images = images

    def standing(self, rows: Sequence[Row]) -> Standing:
        """Fold the stages over the stored rows."""
        book = Book(rows)
        spread = Spread(self.images)
        incumbent = configuration(self.space.start)
        stages: list[Stage] = []
        noted = self.space.start
        for parameter in self.space.hyperparameters:
            stage = self._stage(parameter, incumbent, book, spread, first=not stages)
            stages.append(stage)
            if stage.carried is None or stage.noted is None:
                return self._open(stages, book)
            incumbent = stage.carried.configuration
            noted = noted | {parameter.name: stage.noted.value}
        if configuration(noted) != incumbent:
            stages.append(self._last_stage(configuration(noted), stages[-1], book, spread))
            if stages[-1].carried is None:
                return self._open(stages, book)
        return self._closed(stages)

    def _stage(
        self,
        parameter: Hyperparameter,
        incumbent: Configuration,
        book: Book,
        spread: Spread,
        *,
        first: bool,
    ) -> Stage:
        options = []
        for value in parameter.options:
            candidate = _with(incumbent, parameter.name, value)
            reference = None if candidate == incumbent else incumbent
            options.append(book.option(value, candidate, reference, self.repeats))
        stage = Stage(parameter.name, incumbent, tuple(options))
        held = next(option for option in options if option.configuration == incumbent)
        if any(option.state == "open" for option in options):
            return stage
        for option in options:
            if option.state == "complete" and (first or option is not held):
                spread.learn(option.values, None if option is held else held.values)
        return self._decide(stage, spread)

    def _decide(self, stage: Stage, spread: Spread) -> Stage:
        """Name the noted and the carried option of a stage whose options are all known."""
        options = compared(stage.options, spread, prefer=stage.incumbent)
        noted = next(option for option in options if option.score and option.lead is None)
        held = next(option for option in options if option.configuration == stage.incumbent)
        if self.space.tie == "best":
            carried = noted
        elif held.tied:
            carried = held
        else:
            carried = next(option for option in options if option.tied)
        return replace(stage, options=options, noted=noted, carried=carried)

    def _last_stage(self, noted: Configuration, last: Stage, book: Book, spread: Spread) -> Stage:
        """Train the noted values together; they replace the carried ones if clearly better."""
        assert last.carried is not None
        carried = replace(last.carried, value="carried", lead=None)
        challenger = book.option(NOTED, noted, None, self.repeats)
        stage = Stage(NOTED, carried.configuration, (carried, challenger))
        if challenger.state == "open":
            return stage
        spread.learn(challenger.values, carried.values)
        options = compared(stage.options, spread, prefer=carried.configuration)
        best = next(option for option in options if option.lead is None)
        other = next(option for option in options if option.lead is not None)
        wins = best.configuration == noted and not other.tied
        return replace(stage, options=options, noted=best, carried=best if wins else options[0])

    def _open(self, stages: list[Stage], book: Book) -> Standing:
        """The standing of a sweep whose last named stage still has work."""
        stage = stages[-1]
        slots, failed = book.slots(stage, self.repeats)
        previous = stages[-2].carried if len(stages) > 1 else None
        held = previous or next(o for o in stage.options if o.configuration == stage.incumbent)
        runs = len({row.number for s in stages for o in s.options for row in o.rows})
        ahead = sum(
            (self.repeats if option.state == "open" else len(option.rows)) - len(option.rows)
            for option in stage.options
        )
        later = self.space.hyperparameters[len(stages) :] if stage.name != NOTED else ()
        ahead += sum((len(parameter.options) - 1) * self.repeats for parameter in later)
        ahead += self.repeats if stage.name != NOTED else 0
        return Standing(
            stages=tuple(stages),
            incumbent=held.configuration if held.score or held.rows else None,
            score=held.score or _score(held, self.images),
            slots=tuple(slots),
            complete=False,
            runs=runs,
            runs_expected=runs + ahead,
            failed=failed,
            failure=book.reason(failed) if failed else None,
        )

    def _closed(self, stages: list[Stage]) -> Standing:
        answer = stages[-1].carried
        assert answer is not None
        runs = len({row.number for s in stages for o in s.options for row in o.rows})
        return Standing(tuple(stages), answer.configuration, answer.score, (), True, runs, runs)


def _score(option: Option, images: int | None) -> Score | None:
    return Spread(images).score(option.values) if option.values else None


def _with(base: Configuration, name: str, value: Value) -> Configuration:
    """``base`` with one parameter changed."""
    return tuple((key, value if key == name else held) for key, held in base)
