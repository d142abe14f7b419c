"""The table of strategies: how each name makes a plan of a study's settings.

A new strategy is a file beside this one and an entry here; nothing else knows its name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from study.errors import SettingsError
from study.plan.grid import Grid
from study.plan.plan import Plan
from study.plan.race import Race
from study.plan.search import Search
from study.plan.sweep import OneAtATime
from study.space.settings import Settings


@dataclass(frozen=True)
class Strategy:
    """How to make a plan, which pruner it has where none is named, and what it does in a sentence.

    ``make`` raises a ``StudyError`` for settings that do not fit. ``compares``: its runs have
    references, which the pruner ``sweep`` needs.
    """

    make: Callable[[Settings], Plan]
    says: str
    pruner: str = "none"
    compares: bool = False


def _sweep(settings: Settings) -> Plan:
    return OneAtATime(settings.space, settings.repeats, settings.images)


def _grid(settings: Settings) -> Plan:
    return Grid(settings.space, settings.repeats, settings.images)


def _search(sampler: str, settings: Settings) -> Plan:
    return Search(
        settings.space,
        sampler,
        settings["configurations"],
        settings["seed"],
        settings.repeats,
        settings.images,
    )


def _race(settings: Settings) -> Plan:
    chosen = {name: settings.chosen.get(name) for name in ("tolerance", "confidence", "budget")}
    given = {name: one.value for name, one in chosen.items() if one and one.value is not None}
    return Race(
        settings.space,
        settings.repeats,
        settings.images,
        seed=settings["seed"],
        epochs=settings["epochs"],
        **given,
    )


def _optuna(sampler: str, title: str) -> Strategy:
    says = f"Configurations are suggested by Optuna's {title}; the best mean wins"
    return Strategy(functools.partial(_search, sampler), says)


STRATEGIES: dict[str, Strategy] = {
    "sweep": Strategy(
        _sweep,
        "One hyperparameter is changed at a time, the others stay at what was selected",
        pruner="sweep",
        compares=True,
    ),
    "grid": Strategy(_grid, "Every configuration is trained; the best mean wins"),
    "race": Strategy(
        _race, "Epochs go where they decide the most, until the leader is surely good enough"
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


def plan_of(settings: Settings) -> Plan:
    """The plan that the settings ask for; raises the ``StudyError`` that says what does not fit."""
    strategy = strategy_of(settings)
    if settings["pruner"] == "sweep" and not strategy.compares:
        raise SettingsError(
            f"--pruner sweep compares with the incumbent of a sweep, which --sampler "
            f"{settings['sampler']} does not have: choose none or median"
        )
    return strategy.make(settings)
