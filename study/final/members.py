"""The members: trainings of the chosen configurations with fresh seeds, each trained only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from study.errors import ModelError
from study.final.records import MEMBERS, write
from study.plan.results import Configuration
from study.space.search_space import Validation
from study.training.run import Epoch, Run
from study.workers.engine import Engine, EpochReported, RunFailed, RunFinished

if TYPE_CHECKING:
    from optuna import Study

    from study.plan.plan import PlanState
    from study.space.settings import Settings

_FRESH = 99  # keeps the seeds of final models apart from everything a study draws


@dataclass(frozen=True)
class Member:
    """One training: its name among the others, and its run."""

    name: str
    run: Run

    @property
    def key(self) -> str:
        return self.run.key


def chosen(plan_state: PlanState, repeats: int, top: int | None) -> list[Configuration]:
    """The configuration that the study chose; or its ``top`` best by mean, the best first.

    There is one already. Raises ``ModelError`` where there are not as many with all their repeats.
    """
    assert plan_state.incumbent is not None
    if top is None:
        return [plan_state.incumbent]
    means = {
        option.configuration: fmean(option.values)
        for stage in plan_state.stages
        for option in stage.options
        if set(range(repeats)) <= {row.repeat for row in option.rows if row.state == "complete"}
    }
    if len(means) < top:
        raise ModelError(
            f"--top {top}: the study has {len(means)} configurations with all their repeats"
        )
    sign = plan_state.metric.sign
    return sorted(means, key=lambda one: -sign * means[one])[:top]


def seed_of(settings: Settings, number: int) -> int:
    """The fresh seed ``number`` (from 1) of a study: the same every time, and never its own."""
    own = int(settings["seed"])
    drawn = int(np.random.SeedSequence((own, _FRESH, number)).generate_state(1)[0])
    return drawn if drawn != own else drawn ^ 1


def plan(
    settings: Settings,
    configurations: Sequence[Configuration],
    seeds: int,
    holdout: float,
    fingerprint: str,
) -> list[Member]:
    """``seeds`` trainings of each configuration.

    With a ``holdout`` (a fraction) all members leave the same images out, and each has the weights
    of the epoch that was best on them; without one every image is trained on.
    """
    validation = Validation("none")
    if holdout:
        validation = Validation("holdout", holdout, seed=seed_of(settings, 0))
    members = []
    for place, configuration in enumerate(configurations, start=1):
        params = {**dict(configuration), "restore_best_weights": bool(holdout)}
        for number in range(1, seeds + 1):
            run = Run.of(settings, fingerprint, tuple(params.items()))
            run = replace(run, seed=seed_of(settings, number), validation=validation)
            which = f"configuration {place}, " if len(configurations) > 1 else ""
            members.append(Member(f"{which}seed {number}", run))
    return members


class MemberTrainer:
    """Trains members on an engine, and keeps what was trained in ``folder`` and in the study.

    ``on_saved`` is called with a run whose model is kept, ``on_epoch`` after every epoch and
    ``on_member`` after every member, with its record.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        on_saved: Callable[[Run], None],
        on_epoch: Callable[[Member, Epoch], None],
        on_member: Callable[[Member, Mapping[str, Any]], None],
    ) -> None:
        self._study = study
        self._folder = folder
        self._on_saved = on_saved
        self._on_epoch = on_epoch
        self._on_member = on_member

    def file(self, member: Member) -> Path:
        """Where a trained member is kept."""
        return self._folder / "members" / f"{member.key}.keras"

    def record(self, member: Member) -> dict[str, Any]:
        """What became of a trained member: its name, curve, seconds and best value."""
        return dict(self._study.user_attrs.get(MEMBERS, {})[member.key])

    def missing(self, members: Sequence[Member]) -> list[Member]:
        """The members that are still to be trained; a lost file is trained again."""
        known = self._study.user_attrs.get(MEMBERS, {})
        return [m for m in members if m.key not in known or not self.file(m).exists()]

    def train(
        self,
        members: Sequence[Member],
        engine: Engine,
        check_lock: Callable[[], None] = lambda: None,
    ) -> None:
        """Train ``members``; raises ``ModelError`` with the reason where one cannot be.

        ``check_lock`` is called before anything is recorded; it raises where the lock is lost.
        """
        waiting = dict(enumerate(members))
        active: dict[int, list[Epoch]] = {}
        while waiting or active:
            while waiting and len(active) < engine.workers:
                number = min(waiting)
                engine.submit(number, waiting.pop(number).run)
                active[number] = []
            event = engine.next_event()
            if event is None:  # there are more or fewer workers
                continue
            member = members[event.key]
            check_lock()
            match event:
                case EpochReported(epoch=epoch):
                    active[event.key].append(epoch)
                    self._on_epoch(member, epoch)
                case RunFinished(model=model):
                    assert model is not None  # no run was to pause
                    self._keep(member, active.pop(event.key), model)
                case RunFailed(reason=reason):
                    raise ModelError(f"{member.name} cannot be trained: {reason}")

    def _keep(self, member: Member, epochs: Sequence[Epoch], model: bytes) -> None:
        """The file first, then the record: killed in between, the member is trained again."""
        held_out, metric = member.run.validation.kind != "none", member.run.metric
        curve = [epoch.logs()[metric.name] for epoch in epochs] if held_out else None
        record = {
            "name": member.name,
            "seed": member.run.seed,
            "params": dict(member.run.params),
            "validation": asdict(member.run.validation),
            metric.name: curve,
            f"best_{metric.name}": curve and curve[metric.best(curve)],
            "epochs": len(epochs),
            "seconds": round(sum(epoch.seconds for epoch in epochs), 3),
        }
        write(self.file(member), model)
        known = self._study.user_attrs.get(MEMBERS, {})
        self._study.set_user_attr(MEMBERS, {**known, member.key: record})
        self._on_saved(member.run)
        self._on_member(member, record)
