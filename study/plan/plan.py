"""The plan of a study: a pure function (search space, stored trials) -> decisions and next runs.

A plan has no counter, no random state and no memory. That is why a study can be killed and resumed,
and why the answer does not depend on the number of workers. Each strategy is a file (or folder)
beside this one and an entry in `strategies`.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from study.plan.points import Out, fits
from study.plan.results import Configuration, State, StoredTrial
from study.plan.statistics import UNCHANGED, Difference, Looks, Score
from study.space.architecture import OUT
from study.space.metric import ACCURACY, Metric
from study.space.search_space import SearchSpace, Value

if TYPE_CHECKING:
    from study.plan.race.result import RaceResult

_NO_REASON = "it raised an exception or returned no number (Optuna's log says which)"
"""The reason of a failed trial that stores none: one of plain Optuna code."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One training run that the plan wants: a repeat of a configuration within a stage.

    ``configuration`` is None where the plan has still to suggest one (``Plan.suggest``).
    ``reference`` is the configuration that a pruner may compare the run with; ``()`` if the pruner
    needs no reference; None if the run is never pruned. ``epochs`` is the number of epochs after
    which the run is paused (None: it trains to its end); a later spec of the same configuration and
    repeat resumes it.
    """

    stage: str
    option: Value
    configuration: Configuration | None
    repeat: int
    reference: Configuration | None
    epochs: int | None = None


OptionState = Literal["open", "complete", "eliminated"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a stage: the trials that count and, once all repeats are complete, its score.

    An option is ``eliminated`` by the first of its repeats that was pruned or that failed. ``gap``
    is how much better the best option's mean is, in pairs; None for the best itself and for an
    option without a mean. ``out`` is why it is not trained: a limit of the space.
    """

    value: Value
    configuration: Configuration
    reference: Configuration | None
    rows: tuple[StoredTrial, ...]
    state: OptionState
    score: Score | None = None
    gap: Difference | None = None
    out: str | None = None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple([trial.value for trial in self.rows if trial.value is not None])

    @property
    def stopped(self) -> StoredTrial | None:
        """The pruned or failed trial that eliminates this option."""
        last = self.rows[-1] if self.rows else None
        return last if last is not None and last.state in {"pruned", "failed"} else None

    @property
    def failure(self) -> str | None:
        """Why a failed run or a limit eliminates this option, in one line; None if none does."""
        if self.out is not None:
            return self.out
        stopped = self.stopped if self.state == "eliminated" else None
        return None if stopped is None or stopped.state != "failed" else reason(stopped)

    def missing(self, repeats: int) -> list[int]:
        """The repeats that are still to be trained: none after a pruned or failed one."""
        if self.out is not None:
            return []
        known = {trial.repeat for trial in self.rows}
        end = repeats if self.stopped is None else self.stopped.repeat
        return [repeat for repeat in range(end) if repeat not in known]

    @property
    def tied(self) -> bool:
        """Whether this option is the best, or within one standard error of it."""
        return self.score is not None and (self.gap is None or self.gap.tie)


StageKind = Literal["hyperparameter", "combined", "configurations", "confirmed"]
"""What the options of a stage are: values of one hyperparameter, two configurations of a sweep (the
selected values, the best means), any number of configurations, or the answer and the start on fresh
repeats."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Options that are compared with each other, and what was decided once all are known.

    ``best`` has the best mean of the ``metric``; the study continues with ``selected``. ``failure``
    is why a stage has neither: the runs of all its options failed. ``incumbent`` is the
    configuration that the others are compared with.
    """

    name: str
    kind: StageKind
    incumbent: Configuration
    options: tuple[Option, ...]
    best: Option | None = None
    selected: Option | None = None
    metric: Metric = ACCURACY
    failure: str | None = None

    @property
    def decided(self) -> bool:
        return self.selected is not None or self.failure is not None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The answer and the start on repeats that had no part in choosing the answer.

    ``difference`` is by how much what was found is better than the start, in pairs. Where that is
    not enough the start stays the answer, and ``found`` is what it stays in place of. ``start`` is
    the start's score unless it is the answer; it and the difference are None if nothing else was
    found, and if the start is not a whole configuration or failed.
    """

    answer: Score
    start: Score | None = None
    difference: Difference | None = None
    found: Configuration | None = None


@dataclass(frozen=True, slots=True)
class PlanState:
    """The stages so far, the answer so far, and the runs that are left to train.

    ``next`` are the runs that can be started now, in order; ``runs_expected`` is an upper bound.
    ``failure`` is set in a complete study without an answer: why every option failed, in one line.
    ``race`` is how sure a race is of its leader.
    """

    stages: tuple[Stage, ...]
    incumbent: Configuration | None
    score: Score | None
    next: tuple[RunSpec, ...]
    complete: bool
    runs: int
    runs_expected: int
    failure: str | None = None
    race: RaceResult | None = None
    confirmation: Confirmation | None = None

    @property
    def metric(self) -> Metric:
        """The metric that configurations are compared by."""
        return self.stages[0].metric

    def superseded(self, spec: RunSpec) -> bool:
        """Whether a run of this spec cannot count any more.

        True if an earlier repeat of its option was pruned or failed, or if its stage compares with
        another reference now.
        """
        stage = next((stage for stage in self.stages if stage.name == spec.stage), None)
        if stage is None:
            return self.complete
        for option in stage.options:
            if (option.configuration, option.reference) == (spec.configuration, spec.reference):
                return option.stopped is not None and option.stopped.repeat < spec.repeat
        return True


class Plan(ABC):
    """Which runs a study trains, as a pure function of its stored trials.

    ``repeats`` defaults to the space's. ``images`` is the number of validation images of a repeat,
    which bounds standard errors from below; None if it is unknown, or if the metric is not a share
    of images.
    They are drawn from a ``pool`` of that many. ``metric`` defaults to the space's. ``compares``:
    the pruner compares a run with the same repeat of its reference, so that the run waits until
    that repeat is complete. ``out`` returns why a configuration is not trained, or None.
    """

    looks = UNCHANGED

    def __init__(
        self,
        space: SearchSpace,
        repeats: int | None = None,
        images: int | None = None,
        metric: Metric | None = None,
        *,
        compares: bool = True,
        pool: int | None = None,
        out: Out = fits,
    ) -> None:
        self.space, self.images, self.compares, self.pool = space, images, compares, pool
        self.out = out
        self.repeats = space.repeats if repeats is None else repeats
        self.metric = space.metric if metric is None else metric

    def adapted(self, *, metric: Metric, compares: bool) -> Self:
        """A copy of this plan for an Optuna study with this metric and this kind of pruner."""
        plan = copy.copy(self)
        plan.metric, plan.compares = metric, compares
        return plan

    def after(self, looks: Looks) -> Self:
        """A copy of this plan for a study that was changed after its results could be seen."""
        plan = copy.copy(self)
        plan.looks = looks
        return plan

    @abstractmethod
    def state(self, trials: Sequence[StoredTrial]) -> PlanState:
        """The decisions and the next runs; the same for the same trials in any order."""

    def suggest(self, spec: RunSpec, trials: Sequence[StoredTrial]) -> Configuration:
        """The configuration of a spec; overridden by plans that leave it open."""
        assert spec.configuration is not None
        return spec.configuration


def reason(failed: StoredTrial) -> str:
    """Why a trial failed, in one line."""
    return failed.failure or _NO_REASON


def all_failed(options: Iterable[Option]) -> str | None:
    """Why every one of these options failed, in one line; None if one has not."""
    every = list(options)
    if not every or not all(option.failure for option in every):
        return None
    count = "the only configuration" if len(every) == 1 else f"all {len(every)} configurations"
    last = max(every, key=lambda option: option.stopped.number if option.stopped else -1)
    if all((option.failure or "").startswith(OUT) for option in every):
        return f"{count} exceed a limit, the last one: {(last.failure or '').removeprefix(OUT)}"
    return f"{count} failed, the last one because: {last.failure}"


class RunIndex:
    """Stored trials by configuration and repeat, without the cancelled ones.

    ``out`` returns why a configuration is not trained, or None.
    """

    def __init__(self, trials: Iterable[StoredTrial], out: Out = fits) -> None:
        self._out = out
        self._trials: dict[Configuration, list[StoredTrial]] = defaultdict(list)
        # Equal configurations are mostly one object, and hashing one costs more than the rest.
        found: dict[int, list[StoredTrial]] = {}
        for trial in trials:
            if trial.cancelled is None:
                one = trial.configuration
                if id(one) not in found:
                    found[id(one)] = self._trials[one]
                found[id(one)].append(trial)

    def counted(
        self, configuration: Configuration, reference: Configuration | None
    ) -> dict[int, StoredTrial]:
        """The ended trial of each repeat; a pruned one only if pruned against ``reference``."""
        counted: dict[int, StoredTrial] = {}
        for trial in self._trials.get(configuration, ()):
            if trial.state == "pruned":
                ended = reference is not None and trial.reference == reference
            else:
                ended = trial.state in {"complete", "failed"}
            if ended:
                counted.setdefault(trial.repeat, trial)
        return counted

    def failed(self, configuration: Configuration, repeats: int) -> bool:
        """Whether a repeat of the configuration failed, and those before it are known."""
        return self.option(0, configuration, None, repeats).state == "eliminated"

    def option(
        self,
        value: Value,
        candidate: Configuration,
        reference: Configuration | None,
        repeats: int,
    ) -> Option:
        """An option with its repeats, up to the first pruned or failed one, which eliminates it.

        Later repeats of an eliminated option do not count, even if they had begun: which of them
        had depends on the number of workers.
        """
        if (why := self._out(candidate)) is not None:
            return Option(value, candidate, reference, (), "eliminated", out=why)
        counted = self.counted(candidate, reference)
        stop = repeats
        for repeat, trial in counted.items():
            if trial.state != "complete" and repeat < stop:
                stop = repeat
        wanted = range(min(stop + 1, repeats))
        trials = tuple([counted[repeat] for repeat in wanted if repeat in counted])
        state: OptionState = "eliminated" if stop < repeats else "complete"
        return Option(
            value, candidate, reference, trials, state if len(trials) == len(wanted) else "open"
        )

    def ready(self, wanted: Iterable[RunSpec], *, compares: bool = True) -> list[RunSpec]:
        """Those of the ``wanted`` runs that can be started now: not running, and not waiting.

        If the pruner ``compares``, a run waits until its reference's same repeat is complete.
        """
        repeats = functools.cache(self._repeats)
        return [
            spec
            for spec in wanted
            if spec.repeat not in repeats(spec.configuration, "running")
            and not (
                compares
                and spec.reference
                and spec.repeat not in repeats(spec.reference, "complete")
            )
        ]

    def _repeats(self, configuration: Configuration | None, state: State) -> set[int]:
        """The repeats of the configuration that have a trial in this state."""
        trials = self._trials.get(configuration or (), ())
        return {trial.repeat for trial in trials if trial.state == state}
