"""Options compared with each other, and what follows for a plan of whole configurations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from study.plan.plan import Option, PlanState, RunSpec, Stage, all_failed
from study.plan.results import Configuration
from study.plan.statistics import UNCHANGED, Group, Looks, Spread
from study.space.metric import Metric


def compared(
    options: Sequence[Option],
    spread: Spread,
    prefer: Configuration | None = None,
    *,
    metric: Metric,
) -> tuple[Option, ...]:
    """Options with their scores, and with their distances from the best mean, none below 0.

    Of equal means the preferred configuration's is the best, then the cheapest option's.
    """
    values = [option.values for option in options]
    complete = sum(option.state == "complete" for option in options)
    comparisons = spread.looks.comparisons(complete)
    scores = [
        spread.score(own) if option.state == "complete" else None
        for option, own in zip(options, values, strict=True)
    ]
    sign = metric.sign
    means = [-math.inf if score is None else sign * score.mean for score in scores]
    best = max(
        range(len(options)),
        key=lambda place: (means[place], options[place].configuration == prefer),
    )

    def judged(place: int) -> Option:
        option, score = options[place], scores[place]
        if score is None or place == best:
            return replace(option, score=score)
        one, other = (values[best], values[place])[::sign]
        return replace(option, score=score, gap=spread.difference(one, other, comparisons))

    return tuple([judged(place) for place in range(len(options))])


def ranked(
    options: Sequence[Option],
    images: int | None,
    pool: int | None = None,
    *,
    metric: Metric,
    looks: Looks = UNCHANGED,
) -> tuple[tuple[Option, ...], Option | None]:
    """Configurations with scores where any is complete, and the one with the best mean so far."""
    complete = [option for option in options if option.state == "complete"]
    if not complete:
        return tuple(options), None
    spread = Spread(images, pool, looks)
    spread.learn(paired(complete))
    scored = compared(options, spread, metric=metric)
    return scored, next(option for option in scored if option.score and option.gap is None)


def paired(options: Sequence[Option]) -> Iterator[Group]:
    """The repeats of the complete ones of these options, in pairs with those of the first one."""
    complete = [option for option in options if option.state == "complete"]
    for option in complete:
        first = complete[0].values
        alike = option is not complete[0] and len(option.values) == len(first)
        yield option.values, first if alike else None


def chosen_among(
    name: str,
    options: tuple[Option, ...],
    best: Option | None,
    ready: Sequence[RunSpec],
    *,
    complete: bool,
    runs_expected: int,
    metric: Metric,
) -> PlanState:
    """The state of a plan of one stage, which compares configurations: the best mean wins.

    ``ready`` are the runs that can be started now.
    """
    answer = best.configuration if best else None
    selected = best if complete else None
    failure = all_failed(options) if complete else None
    stage = Stage(
        name, "configurations", answer or (), options, best, selected, metric, failure=failure
    )
    return PlanState(
        stages=(stage,),
        incumbent=answer,
        score=best.score if best else None,
        next=tuple(ready),
        complete=complete,
        runs=sum(len(option.rows) for option in options),
        runs_expected=runs_expected,
        failure=failure,
    )
