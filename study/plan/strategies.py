"""The table of strategies: how each name makes a plan of a study's settings.

A new strategy is a file beside this one and an entry here; nothing else knows its name.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from study.errors import SettingsError
from study.plan import tradeoff
from study.plan.budget import parse
from study.plan.confirm import Confirmed
from study.plan.grid import Grid
from study.plan.halving import Halving
from study.plan.plan import Plan, PlanState
from study.plan.points import Out, fits, fitting_size, points
from study.plan.race import CONFIDENCE, Race
from study.plan.results import Configuration
from study.plan.search import Search
from study.plan.statistics import Looks
from study.plan.sweep import OneAtATime
from study.plan.tradeoff import Rated
from study.space.architecture import cost_of
from study.space.search_space import Score
from study.space.settings import Settings

CONFIRM, FRESH = "confirm", 3
"""The setting for fresh repeats of answer and start, and its usual default."""


@dataclass(frozen=True)
class Strategy:
    """How to make a plan, which pruner it has where none is named, and what it does in a sentence.

    ``make`` raises a ``StudyError`` for settings that do not fit. ``compares``: its runs have
    references, which the pruner ``sweep`` needs. ``scores``: it takes of a run what the space's
    ``score`` says; any other one its value. ``own`` are settings that no other strategy has, with
    their defaults (None: the plan finds one).
    """

    make: Callable[[Settings], Plan]
    says: str
    pruner: str = "none"
    compares: bool = False
    scores: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)


def _search(sampler: str, settings: Settings) -> Plan:
    budget = settings["configurations"]
    return Search(**_common(settings), sampler=sampler, budget=budget, seed=settings["seed"])


def _common(settings: Settings) -> dict[str, Any]:
    """What every plan takes of the settings."""
    return {
        "space": settings.space,
        "repeats": settings.repeats,
        "images": settings.images,
        "metric": settings.metric,
        "pool": pool_of(settings),
        "out": limited(settings),
    }


def pool_of(settings: Settings) -> int | None:
    """The images that validation parts are drawn from; None if the metric is not a share."""
    return settings.data.images if settings.data and settings.images else None


def rated(settings: Settings, state: PlanState) -> tuple[Rated, ...]:
    """Accuracy and cost of the configurations of a study, the best mean first."""
    return tradeoff.rated(state, settings.images, pool_of(settings))


def limited(settings: Settings) -> Out:
    """Which configurations of the built-in network exceed a limit, before any is trained."""
    limits, data = settings.space.limits, settings.data
    if limits is None or data is None or settings.space.model is not None:
        return fits

    @functools.cache
    def out(configuration: Configuration) -> str | None:
        return limits.reason(cost_of(dict(configuration), data.input_shape, data.num_classes))

    return out


@dataclass(frozen=True)
class Outside:
    """How many of a space's configurations exceed a limit, and how many of them each limit."""

    configurations: int
    out: int
    by: Mapping[str, int]


def outside(settings: Settings) -> Outside | None:
    """How many configurations exceed the limits; None without limits, or if the space is too large.

    None for a custom model too, which is measured by its first run.
    """
    limits, data, space = settings.space.limits, settings.data, settings.space
    out = limited(settings)
    if limits is None or data is None or out is fits or fitting_size(space, out) is None:
        return None
    exceeded = [
        limits.exceeded(cost_of(dict(one), data.input_shape, data.num_classes))
        for one in points(space)
    ]
    by = Counter(name for one in exceeded for name in one)
    return Outside(len(exceeded), sum(map(bool, exceeded)), dict(by))


def _halving(settings: Settings) -> Plan:
    return Halving(
        **_common(settings),
        seed=settings["seed"],
        epochs=settings["epochs"],
        budget=_own(settings, "halving").get("budget"),
        reserved=2 * int(settings["confirm"] or 0) if CONFIRM in settings.chosen else 0,
    )


def _own(settings: Settings, name: str) -> dict[str, Any]:
    """The strategy's own settings that were given."""
    own = {key: settings.chosen.get(key) for key in STRATEGIES[name].own}
    given = {key: one.value for key, one in own.items() if one and one.value is not None}
    return given | ({"budget": parse(given["budget"])} if "budget" in given else {})


def _race(settings: Settings) -> Plan:
    asked = settings.chosen["repeats"].source in {"command line", "environment"}
    return Race(
        **_common(settings),
        seed=settings["seed"],
        epochs=settings["epochs"],
        all_repeats=asked,
        **_own(settings, "race"),
    )


def _sweep(settings: Settings) -> Plan:
    return OneAtATime(**_common(settings), compares=settings["pruner"] == "sweep")


def _optuna(sampler: str, title: str) -> Strategy:
    says = f"Configurations are suggested by Optuna's {title}; the best mean wins"
    own = {CONFIRM: FRESH, "configurations": 12}
    return Strategy(functools.partial(_search, sampler), says, own=own)


STRATEGIES: dict[str, Strategy] = {
    "sweep": Strategy(
        _sweep,
        "One hyperparameter is changed at a time, the others stay at what was selected",
        pruner="sweep",
        compares=True,
        scores=True,
        own={CONFIRM: FRESH},
    ),
    "grid": Strategy(
        lambda settings: Grid(**_common(settings)),
        "Every configuration is trained; the best mean wins",
        own={CONFIRM: 0},
    ),
    "halving": Strategy(
        _halving,
        "Many configurations for a few epochs, the better half continues; the best are confirmed",
        own={"budget": None, CONFIRM: 0},
    ),
    "race": Strategy(
        _race,
        "Epochs go where they decide the most, until the leader is surely good enough",
        own={"tolerance": None, "confidence": CONFIDENCE, "budget": None},
    ),
    "tpe": _optuna("tpe", "TPE sampler"),
    "random": _optuna("random", "random sampler"),
    "gp": _optuna("gp", "Gaussian-process sampler"),
}


def strategy_of(settings: Settings) -> Strategy:
    """The strategy that the settings name; ``SettingsError`` if there is none of that name."""
    name = settings["sampler"]
    if name not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise SettingsError(f"--sampler {name}: no such sampler; choose one of {known}")
    return STRATEGIES[name]


def score_of(settings: Settings) -> Score:
    """What the value of a run is: the space's ``score`` if the strategy takes it, else ``last``."""
    return settings.space.score if strategy_of(settings).scores else "last"


def completed(settings: Settings) -> Settings:
    """The settings with the defaults of the strategy: its pruner and its own settings.

    Raises ``SettingsError`` for a setting that only another strategy has.
    """
    strategy = strategy_of(settings)
    others = {key for other in STRATEGIES.values() for key in other.own} - set(strategy.own)
    for key in sorted(others & set(settings.chosen)):
        if settings[key] is not None:
            *rest, last = [name for name, other in STRATEGIES.items() if key in other.own]
            names = f"{', '.join(rest)} and {last} use" if rest else f"{last} uses"
            raise SettingsError(f"--{key} {settings[key]}: only --sampler {names} it; leave it out")
    chosen = {key: one for key, one in settings.chosen.items() if key not in others}
    settings = replace(settings, chosen=chosen)
    given = settings.chosen.get("budget")
    if given is not None and given.value is not None:
        budget = parse(given.value)
        value = str(given.value) if budget.seconds else int(budget.amount)
        settings = replace(
            settings, chosen={**settings.chosen, "budget": replace(given, value=value)}
        )
    settings = settings.with_default(
        "pruner", strategy.pruner if settings.metric.is_accuracy else "none"
    )
    for key, value in strategy.own.items():
        settings = settings if value is None else settings.with_default(key, value)
    return settings


def looks_of(settings: Settings) -> Looks:
    """The changes of a study before which results could be seen."""
    changes = [one for one in settings.history if one.trials]
    return Looks(len(changes), sum(one.removed for one in changes))


def plan_of(settings: Settings) -> Plan:
    """The plan that the settings ask for; raises the ``StudyError`` that says what does not fit."""
    strategy = strategy_of(settings)
    if settings["pruner"] == "sweep" and not strategy.compares:
        raise SettingsError(
            f"--pruner sweep compares with the incumbent of a sweep, which --sampler "
            f"{settings['sampler']} does not have: choose none or median"
        )
    if settings["pruner"] == "sweep" and not settings.metric.is_accuracy:
        raise SettingsError(
            "--pruner sweep knows how far accuracies differ by chance, and nothing of "
            f"{settings.metric.name}: choose none or median"
        )
    plan = strategy.make(settings).after(looks_of(settings))
    fresh = settings.chosen.get(CONFIRM)
    if fresh is None or not fresh.value:
        return plan
    if fresh.value == 1:
        raise SettingsError(
            "--confirm 1: a difference needs at least 2 fresh repeats; give 2 or more, or 0"
        )
    return Confirmed(plan, fresh.value)
