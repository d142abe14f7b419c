"""The record of an option of a stage, made once for all that show it.

Terminal, report and dashboard show its ``cells``; JSON, CSV and DataFrame have its ``record``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.plan.plan import Option, Stage
from study.plan.results import Configuration, StoredTrial
from study.plan.statistics import Difference, Score, mean_gap
from study.space.architecture import OUT
from study.space.metric import Metric
from study.space.search_space import Value
from study.text import units

Kind = Literal["selected", "best", "other"]

COLUMNS = ("option", "runs", "mean ± error", "gap to best", "verdict")
"""The columns of ``OptionView.cells`` that terminal and dashboard show; a report shows all."""

INTERVAL = "95 % interval of the mean on new images"
"""What every interval of a mean is about."""


@dataclass(frozen=True, slots=True)
class OptionView:
    """An option of a stage with all that is shown of it; accuracies are fractions.

    ``values`` are those of its complete repeats, ``stopped`` the last ones of repeats that were
    stopped early. ``mean`` is that of an open option's repeats so far too. ``interval`` is the
    `INTERVAL`. ``gap`` is the best option's mean minus this one's, in
    pairs.
    """

    label: str
    option: Option
    kind: Kind
    best: bool
    metric: Metric
    stopped: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    verdict: str

    @property
    def values(self) -> tuple[float, ...]:
        return self.option.values

    @property
    def gap(self) -> Difference | None:
        return self.option.gap

    @property
    def score(self) -> str:
        """The mean with its standard error; of an open option the mean so far."""
        if self.option.score is not None:
            return units.score(self.option.score, self.metric)
        return "" if self.mean is None else f"{self.metric.text(self.mean)} so far"

    def cells(self, repeats: int) -> dict[str, str]:
        """The option as text, by column; accuracies in per cent, their gaps in points."""
        number, runs = self.metric.number, len(self.option.rows)
        return {
            "option": self.label,
            "runs": f"{runs}/{max(repeats, runs)}",
            "values": "; ".join(map(number, self.values)),
            "stopped at": "; ".join(map(number, self.stopped)),
            "mean ± error": self.score,
            "95 % interval": " to ".join(map(number, self.interval or ())),
            "gap to best": units.gap(self.gap, self.metric),
            "verdict": self.verdict,
        }

    def record(self) -> dict[str, Any]:
        """The option for a program; ``failure`` is why its run failed, in one line."""
        low, high = self.interval or (None, None)
        score, gap = self.option.score, self.gap
        return {
            "option": self.option.value,
            "state": self.option.state,
            "runs": len(self.option.rows),
            "mean": score and score.mean,
            "standard_error": score and score.standard_error,
            "low": low,
            "high": high,
            "gap_to_best": gap and gap.mean,
            "gap_to_best_standard_error": gap and gap.standard_error,
            "best_mean": self.best,
            "selected": self.kind == "selected",
            "verdict": self.verdict,
            "failure": self.option.failure,
            "values": list(self.values),
            "configuration": dict(self.option.configuration),
        }


def records(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """The record of every option of every stage, with the name of its ``stage`` before it."""
    return [{"stage": stage.name} | view.record() for stage in stages for view in views(stage)]


def views(stage: Stage) -> tuple[OptionView, ...]:
    """The options of a stage, in their own order."""
    return tuple(_views(stage, stage.options))


def leading(stage: Stage, most: int) -> list[OptionView]:
    """At most ``most`` options: configurations, and more options than that, the best first."""
    options = list(stage.options)
    if stage.kind == "configurations" or len(options) > most:
        sign = stage.metric.sign
        options.sort(key=lambda one: -sign * one.score.mean if one.score else math.inf)
    return _views(stage, options[:most])


def _views(stage: Stage, options: Iterable[Option]) -> list[OptionView]:
    called = labels(stage)
    return [_view(option, stage, called[option.configuration]) for option in options]


def _view(option: Option, stage: Stage, label: str) -> OptionView:
    score = option.score
    return OptionView(
        label=label,
        option=option,
        kind=kind(option, stage),
        best=_is_best(option, stage),
        metric=stage.metric,
        stopped=tuple(
            row.reported[-1] for row in option.rows if row.value is None and row.reported
        ),
        mean=score.mean if score else _so_far(option),
        interval=interval(score, stage.metric) if score else None,
        verdict=verdict(option, stage),
    )


def _so_far(option: Option) -> float | None:
    """The mean of an option's repeats before its stage is decided; an eliminated one gets none."""
    if option.state == "eliminated" or not option.values:
        return None
    return math.fsum(option.values) / len(option.values)


def kind(option: Option, stage: Stage) -> Kind:
    """Whether an option is the one selected, else the one with the best mean."""
    if stage.selected is not None and option.configuration == stage.selected.configuration:
        return "selected"
    return "best" if _is_best(option, stage) else "other"


def _is_best(option: Option, stage: Stage) -> bool:
    return stage.best is not None and option.configuration == stage.best.configuration


def verdict(option: Option, stage: Stage) -> str:
    """The state of an option in words, with its rank once the stage is decided."""
    if option.state == "open":
        return "open"
    if option.state == "eliminated":
        return behind(option, stage) if option.failure else f"eliminated: {behind(option, stage)}"
    whole = stage.kind == "configurations"
    said = []
    beaten = any(one.gap is not None and one.gap.mean < 0 for one in stage.options)  # by the start
    if _is_best(option, stage) and not beaten:
        said.append("best" if whole else "best mean")
    if kind(option, stage) == "selected":
        said += [] if whole else ["selected"]
    elif stage.decided and option.gap is not None:
        said.append(_standing(option.gap))
    return ", ".join(said)


def _standing(gap: Difference) -> str:
    """A tie, or whether an option is worse than the best (a claim) or only behind it."""
    if gap.tie:
        return "tie"
    claim, mean = ("worse", "behind") if gap.mean > 0 else ("better", "ahead")
    return claim if gap.clear else mean


def behind(option: Option, stage: Stage) -> str:
    """Why an option was eliminated: its failure, or how far it was behind and at which epoch."""
    if option.failure is not None:
        return option.failure if option.failure.startswith(OUT) else f"failed, {option.failure}"
    pruned = option.rows[-1]
    reference = _reference(pruned, stage)
    epochs = f"at epoch {len(pruned.reported)}"
    if reference is None:
        return f"stopped {epochs}"
    metric = stage.metric
    gap = metric.sign * mean_gap(pruned.reported, reference.reported)
    shown = f"{100 * gap:.1f}" if metric.is_accuracy else metric.number(gap)
    return f"behind by {shown}{metric.points} {epochs}"


def _reference(pruned: StoredTrial, stage: Stage) -> StoredTrial | None:
    for option in stage.options:
        if option.configuration == pruned.reference:
            return next((row for row in option.rows if row.repeat == pruned.repeat), None)
    return None


def labels(stage: Stage) -> dict[Configuration, str]:
    """The label of each option of a stage: its value, or what differs between configurations."""
    if stage.kind != "configurations":
        return {option.configuration: str(option.value) for option in stage.options}
    return differing([option.configuration for option in stage.options])


def differing(configurations: Sequence[Configuration]) -> dict[Configuration, str]:
    """Labels of configurations with only the parameters in which they differ."""
    seen: dict[str, set[Value]] = {}
    for configuration in configurations:
        for name, value in configuration:
            seen.setdefault(name, set()).add(value)
    return {one: _differing(one, seen) for one in configurations}


def _differing(configuration: Configuration, seen: Mapping[str, set[Value]]) -> str:
    """The parameters that have more than one value; reals to four digits."""
    shown = {
        name: units.value(value)
        for name, value in configuration
        if len(seen[name]) > 1 or len(seen) == 1
    }
    return units.params(shown or dict(configuration))


def interval(score: Score, metric: Metric) -> tuple[float, float] | None:
    """The 95 % interval of a mean on new images; None if its error is unknown."""
    return None if score.interval is None else metric.bounded(*score.interval)
