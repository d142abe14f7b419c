"""Pruners: when a run is stopped early, decided from stored curves alone.

The sweep's own pruner compares a run with the same repeat of the configuration that was the
incumbent when the stage began: same split, same seeds, complete before the run may start. So what
it decides depends neither on the order in which runs finish nor on how many are trained at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import TrialState

from study.errors import SettingsError
from study.plan.statistics import WINDOW, image_floor, mean_gap
from study.storage.trials import RUN_SPEC

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def unrest(curve: Sequence[float]) -> float:
    """What a curve loses from an epoch to the next, as a root mean square; 0 where it only rises.

    On a plateau that is the standard deviation of an epoch.
    """
    falls = [min(after - before, 0.0) for before, after in itertools.pairwise(curve)]
    return math.sqrt(math.fsum(fall * fall for fall in falls) / max(1, len(falls)))


@dataclass(frozen=True)
class Margin:
    """When a curve is far enough behind its reference to be pruned.

    The gap is the mean difference of validation accuracy over the last ``window`` epochs. It is
    looked at from epoch ``warmup`` on (counted from 1) and has to exceed ``errors`` standard
    errors of such a difference (``image_floor`` or the reference's `unrest`, twice: two runs) and
    ``least`` (fraction). The values are those of docs/log.md, "The margin of the sweep's pruner".
    """

    warmup: int = 4
    window: int = WINDOW
    errors: float = 3.0
    least: float = 0.002

    def behind(
        self, curve: Sequence[float], reference: Sequence[float], images: int | None
    ) -> float | None:
        """The mean gap at the end of ``curve`` (accuracies, one an epoch), if it is too large."""
        epochs = len(curve)
        if epochs < max(self.warmup, self.window) or len(reference) < epochs:
            return None
        recent = slice(epochs - self.window, epochs)
        level = math.fsum(reference[recent]) / self.window
        distance = mean_gap(curve, reference, self.window)
        deviation = max(image_floor(level, images), unrest(reference))
        limit = max(self.least, self.errors * math.sqrt(2) * deviation)
        return distance if distance > limit else None


class SweepPruner(BasePruner):
    """Prunes a run that is too far behind the incumbent's same repeat.

    ``images`` is the number of validation images of a repeat. Trials need the run specs of a
    ``PlanSampler``; the incumbent's own trials are never pruned.
    """

    compares = True
    """Whether a run may start only when the curve it is compared with is complete."""

    def __init__(self, images: int | None = None, margin: Margin | None = None) -> None:
        self.images = images
        self.margin = margin or Margin()
        self._references: dict[tuple[Any, ...], list[float]] = {}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        spec = trial.system_attrs.get(RUN_SPEC)
        if spec is None or not spec["reference"]:
            return False
        reference = self._reference(study, spec)
        if not reference:
            return False
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        reached = _values(trial)
        # Where the reference's patience was over, it keeps its best epoch's weights.
        kept = [sign * max(sign * value for value in reference)] * (len(reached) - len(reference))
        curve, other = ([sign * v for v in one] for one in (reached, [*reference, *kept]))
        return self.margin.behind(curve, other, self.images) is not None

    def _reference(self, study: Study, spec: Mapping[str, Any]) -> list[float] | None:
        """The curve of the reference's same repeat; a complete one never changes."""
        key = (study._storage, study._study_id, spec["repeat"], *spec["reference"].items())
        if key not in self._references:
            found = _same_repeat(study, spec)
            if found is None:
                return None
            self._references[key] = _values(found)
        return self._references[key]


class SparingPruner(BasePruner):
    """One of Optuna's pruners, kept from pruning the incumbent of a sweep."""

    def __init__(self, inner: BasePruner) -> None:
        self.inner = inner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        spec = trial.system_attrs.get(RUN_SPEC)
        if spec is not None and spec["reference"] is None:  # the incumbent of a sweep
            return False
        return self.inner.prune(study, trial)


def _same_repeat(study: Study, spec: Mapping[str, Any]) -> FrozenTrial | None:
    """The complete trial of the spec's reference with the same repeat."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        other = trial.system_attrs.get(RUN_SPEC)
        if (
            other is not None
            and other["repeat"] == spec["repeat"]
            and other["params"] == spec["reference"]
        ):
            return trial
    return None


def _values(trial: FrozenTrial) -> list[float]:
    """The reported values in the order of their steps."""
    return [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]


PRUNERS = ("none", "sweep", "median")


def make_pruner(name: str, epochs: int, images: int | None) -> BasePruner:
    """The pruner of this name for runs of ``epochs`` epochs; ``SettingsError`` if there is none."""
    if name == "none":
        return NopPruner()
    if name == "sweep":
        return SweepPruner(images)
    if name == "median":
        return SparingPruner(MedianPruner(n_startup_trials=3, n_warmup_steps=max(1, epochs // 5)))
    raise SettingsError(f"--pruner {name}: no such pruner; choose one of {', '.join(PRUNERS)}")
