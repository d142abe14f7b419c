"""The final models in the tracker: a run each, and a version of a registered model with an alias.

A server that has no registry, or one without aliases, gets tags in their place. What is there
already is not sent again, so it may be called after every finalize.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import MirrorError
from study.final.measure import BEST
from study.final.records import FinalModel
from study.mirror.desired import MODEL, Artifact, Content, DesiredRun, Point, origin
from study.mirror.sync import Report, Sync
from study.mirror.tracker import Refused, StudyFacts, Target, redact, secrets
from study.space.settings import Settings
from study.storage import models as kept

if TYPE_CHECKING:
    from optuna import Study

SENT = "kept"
"""The mark of a final model: it never changes."""


def register(
    study: Study,
    settings: Settings,
    folder: Path,
    models: Sequence[FinalModel],
    target: Target,
    tables: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Send the models of an opening; returns what went wrong, in lines, and raises nothing.

    ``tables`` are files about the last model, by name: confusion matrix and classes.
    """
    report = Report()
    try:
        facts = StudyFacts(study.study_name, kept.identity(study), settings)
        tracker = target.tracker.connect(target, facts)
        sync = Sync(tracker)
        runs = [_run(settings, model, folder) for model in models]
        before = {run.key for run in runs if run.key in sync.runs}
        sync.send_runs(runs, report)
        last = sync.runs.get(runs[-1].key)
        if last is not None and last.files != SENT:  # its model, sent last, says that all is there
            for file, content in (tables or {}).items():
                tracker.upload(last, Artifact("test", file, SENT, partial(bytes, content)), content)
        sync.send_artifacts(runs, report, live=False)
        if not report.problems:
            for model, run in zip(models, runs, strict=True):
                if name := alias(model.model):
                    try:
                        tracker.register(sync.runs[run.key], study.study_name, name)
                    except Refused as error:  # said once
                        report.problems += [] if run.key in before else [str(error)]
    except Exception as error:  # noqa: BLE001 - a tracker must not be able to stop this
        why = str(error) if isinstance(error, MirrorError) else f"{type(error).__name__}: {error}"
        report.problems = [f"{why}; the models are saved, and finalize sends what is missing"]
    hidden = secrets(target, environ=os.environ)
    return [f"MLflow: {redact(problem, hidden)}" for problem in report.problems]


def alias(model: str) -> str | None:
    """The alias of a model: the best one's and the average's; a single member has none."""
    return "best" if model == BEST else "average" if model.startswith("average") else None


def _run(settings: Settings, model: FinalModel, folder: Path) -> DesiredRun:
    now, file = int(time.time() * 1000), folder / model.file
    return DesiredRun(
        key=f"final {model.opening} {model.model}",
        parent=None,
        name=f"final: {model.model}",
        state="complete",
        mark="complete",
        started=now,
        ended=now,
        make_content=partial(_content, settings, model, now),
        artifact=Artifact(MODEL, file.name, SENT, file.read_bytes, pixels=255),
    )


def _content(settings: Settings, model: FinalModel, now: int) -> Content:
    measure = model.measure
    values = {
        f"test_{measure}": model.value,
        f"test_{measure}_low": model.low,
        f"test_{measure}_high": model.high,
        "test_images": model.images,
    }
    if model.validation is not None:
        values[f"val_{measure}"] = model.validation
    if own := model.own:
        found = {f"test_{own.name}": own.value, f"val_{own.name}": own.validation}
        values |= {name: value for name, value in found.items() if value is not None}
    tags = {
        **origin(settings),
        "final": model.model,
        "opened": model.opened,
        "members": ", ".join(model.members),
    }
    points = [Point(name, float(v), now, 1) for name, v in values.items()]
    return Content(_params(model), tags, points)


def _params(model: FinalModel) -> dict[str, str]:
    """The configuration; of an average, what all its members have in common."""
    first, *others = model.configurations or ({},)
    return {
        name: str(value)
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
