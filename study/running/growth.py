"""A study that grows: the change of its space, the runs that are kept, the runs to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optuna.trial import Trial, TrialState

from study.errors import SettingsError
from study.plan.budget import Budget, parse
from study.plan.strategies import plan_of
from study.space.growth import changes as space_changes
from study.space.growth import names, translated
from study.space.settings import FREE, GROWING, SPACE, Setting, Settings
from study.storage import database as storage
from study.storage.change import change
from study.storage.database import trials_of
from study.storage.trials import StoredTrials
from study.text.units import counted
from study.training import network

if TYPE_CHECKING:
    from optuna import Study

    from study.plan.results import StoredTrial
    from study.space.search_space import SearchSpace
    from study.storage.location import Location


@dataclass(frozen=True)
class Growth:
    """What is new in a study; how many complete runs it keeps, leaves out and has to train.

    ``asks``: its space changes, which the user has to accept.
    """

    name: str
    changes: tuple[str, ...]
    kept: int
    left_out: int
    at_most: int
    asks: bool

    def __str__(self) -> str:
        left = f", {self.left_out} no longer count" if self.left_out else ""
        return (
            f"{', '.join(self.changes)}: at most {counted(self.at_most, 'run')} to train, "
            f"{self.kept} are kept{left}"
        )


Approve = Callable[[Growth], None]
"""Called before a study is changed; raises what ends the command where that is not wanted."""


def accept(_: Growth) -> None:
    """Approve every change."""


def refuse(growth: Growth) -> None:
    """Approve more repeats, epochs or budget, but not another space."""
    if growth.asks:
        raise SettingsError(
            f"study {growth.name!r} exists with another space ({growth}): accept this with --yes, "
            "or start another study with --name"
        )


def grown(existing: Settings, asked: Settings) -> Settings:
    """The recorded settings with what ``asked`` has of a larger study.

    Raises ``SettingsError`` for a smaller number of what can only grow.
    """
    settings = existing
    if any(getattr(existing.space, key) != getattr(asked.space, key) for key in SPACE):
        changed = {key: getattr(asked.space, key) for key in SPACE}
        if _sized(existing.space) or _sized(asked.space):
            changed["batch_size"] = asked.space.batch_size
            settings = settings.with_setting("batch_size", asked.chosen["batch_size"])
        settings = replace(settings, space=replace(existing.space, **changed), origin=asked.origin)
    for key in (*GROWING, *FREE):
        setting = asked.chosen.get(key)
        if setting is None or setting.value is None or setting.source == "default":
            continue
        least = _recorded(existing, key)
        more = 0.0 if key in FREE or least is None else _more(key, setting.value, least)
        if key in FREE or least is None or more > 0:
            settings = settings.with_setting(key, setting) if setting.value != least else settings
        elif more < 0 and setting.source != "file" and key != "repeats":
            raise SettingsError(
                f"--{key} {setting.value}: the study has {least}; give a larger number"
            )
    return paid(existing, settings)


def _more(key: str, value: Any, least: Any) -> float:
    """By how much a value is larger than the recorded one; of a budget, in the same unit."""
    if key != "budget":
        return float(value - least)
    new, old = parse(value), parse(least)
    if new.seconds != old.seconds:
        raise SettingsError(
            f"--budget {value}: the study has a budget of {old}; give a larger one of that unit"
        )
    return new.amount - old.amount


def paid(before: Settings, after: Settings) -> Settings:
    """The settings with a budget that pays for the repeats that a race measures its answer on.

    Such a race trains those repeats, and decides nothing else anew.
    """
    budget = after.chosen.get("budget")
    more = after.repeats - before.repeats
    if more <= 0 or after["sampler"] != "race" or budget is None or budget.value is None:
        return after
    # One that was given with the repeats stays, and a time, which buys what it pays for.
    if before.chosen["budget"] != budget or parse(budget.value).seconds:
        return after
    epochs = after["epochs"]
    needed = max(budget.value + more * epochs, 2 * after.repeats * epochs)
    return after.with_setting("budget", Setting(needed, budget.source))


def _sized(space: SearchSpace) -> bool:
    """Whether the batch size is a hyperparameter."""
    return "batch_size" in names(space)


def _recorded(existing: Settings, key: str) -> Any:
    """The recorded value; the plan's own budget if none was given."""
    setting = existing.chosen.get(key)
    if setting is not None and setting.value is not None:
        return setting.value
    plan = plan_of(existing) if key == "budget" else None
    found = getattr(getattr(plan, "plan", plan), key, None)
    return int(found.amount) if isinstance(found, Budget) else found


def changes(before: Settings, after: Settings) -> list[str]:
    """What is new in the settings ``after``, each in a few words."""
    said = space_changes(before.space, after.space)
    for key in (*GROWING, *FREE):
        old, new = (one.chosen[key].value if key in one.chosen else None for one in (before, after))
        if old != new:
            said.append(f"{key} {new}" if old is None else f"{key} {new}, not {old}")
    return said


def _known(before: Settings, after: Settings) -> Mapping[str, Any]:
    """The values that a run has of hyperparameters which its space does not name."""
    batch_size = before["batch_size"] if after["batch_size"] is None else after["batch_size"]
    return network.implied(after.model, batch_size)


def preview(location: Location, before: Settings, after: Settings) -> Growth:
    """What a change of the stored study means.

    Raises ``SettingsError`` where the stored runs have no place in the new space.
    """
    study = storage.load(location.database.open(), location.name)[0]
    counting = [one for one in trials_of(study, before) if one.state == "complete"]
    stored = StoredTrials()(study)
    known = _known(before, after)
    found = [one for trial in stored if (one := _translated(trial, after.space, known))]
    kept = sum(one.state == "complete" and one.cancelled is None for one in found)
    if stored and not found:
        _require_known(before, after)
    if counting and not kept:
        raise SettingsError(
            f"{after.origin}: none of the {len(counting)} complete runs of study "
            f"{location.name!r} is in this space ({', '.join(changes(before, after))}): keep an "
            "option of each hyperparameter, or start another study with --name"
        )
    state = plan_of(after).state(found)
    return Growth(
        name=location.name,
        changes=tuple(changes(before, after)),
        kept=kept,
        left_out=sum(_translated(one, after.space, known) is None for one in counting),
        at_most=state.runs_expected - state.runs,
        asks=before.space != after.space,
    )


def _translated(
    trial: StoredTrial, space: SearchSpace, known: Mapping[str, Any]
) -> StoredTrial | None:
    """A stored trial as one of the changed space."""
    params = translated(trial.params, space, known)
    if params is None:
        return None
    reference = trial.reference and translated(dict(trial.reference), space, known)
    return replace(
        trial,
        configuration=tuple(params.items()),
        reference=tuple(reference.items()) if reference else trial.reference,
    )


def _require_known(before: Settings, after: Settings) -> None:
    """Raise ``SettingsError`` for a name whose value the stored runs, or the new ones, lack."""
    known, old, new = _known(before, after), names(before.space), names(after.space)
    for name in new:
        if name not in old and name not in known:
            raise SettingsError(
                f"{after.origin}: {name} is new, and the value that the stored runs had is not "
                "known (a renamed hyperparameter is a new one): keep the old names, or start "
                "another study with --name"
            )
    for name in old:
        if name not in new and name not in known:
            raise SettingsError(
                f"{after.origin}: {name} is gone, and the model has no other value of it: give "
                "one in [fixed], or start another study with --name"
            )


def record(location: Location, prepared: Settings, expected: Settings | None) -> Study:
    """Open a stored study to drive it and store its settings; its history has what is new in them.

    Unfinished runs of another custom model than that of ``prepared`` are ended. ``expected`` are
    the recorded settings that the change was made for. Raises ``SettingsError`` where another
    process has changed the study since.
    """
    opened = location.database.open()
    study, before = storage.load(opened, location.name)
    if expected is not None and before != expected:
        raise SettingsError(
            f"study {location.name!r} was changed by another process meanwhile: run this again"
        )
    if before.model and before.model != prepared.model:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            Trial(study, trial._trial_id).set_user_attr("cancelled", "its network has changed")
            study.tell(trial.number, state=TrialState.PRUNED)
    said = changes(before, prepared)
    if not said:
        storage.record(study, prepared)
        return study
    known = _known(before, prepared)
    return change(
        opened,
        study,
        before,
        prepared,
        said,
        trials_of(study, before),
        lambda params: translated(params, prepared.space, known),
    )
