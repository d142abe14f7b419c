"""The final models in MLflow: a run each, and a version of a registered model with an alias.

A server that has no registry, or one without aliases, gets tags in their place. What is there
already is not sent again, so it may be called after every finalize.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import MirrorError
from study.final import records
from study.final.measure import BEST
from study.mirror import artifact
from study.mirror.projection import SLOT, UUID, Content, Point, origin
from study.mirror.requests import Missing, Refused
from study.mirror.target import Target, redact, secrets
from study.mirror.tracking import MODEL, PATIENCE, Found, Server
from study.space.settings import Settings
from study.storage import models

if TYPE_CHECKING:
    from optuna import Study

    from study.mirror.target import Access

ALIAS = "alias"
"""The tag that says which model a run has, where a server has no registry."""


def register(
    study: Study,
    settings: Settings,
    folder: Path,
    models: Sequence[Mapping[str, Any]],
    target: Target,
) -> list[str]:
    """Send the models of an opening; returns what went wrong, in lines, and raises nothing."""
    access: Access | None = None

    def plain(problem: str) -> str:
        return f"MLflow: {redact(problem, secrets(os.environ, target, access))}"

    try:
        access = target.access(PATIENCE)
        sender = _Sender(study, settings, Server(access, PATIENCE))
        for model in models:
            sender.send(model, (folder / model["file"]).read_bytes())
    except Exception as error:  # noqa: BLE001 - MLflow must not be able to stop this
        why = str(error) if isinstance(error, MirrorError) else f"{type(error).__name__}: {error}"
        return [plain(f"{why}; the models are saved, and finalize sends what is missing")]
    return [plain(problem) for problem in sender.problems]


def alias(model: str) -> str | None:
    """The alias of a model: the best one's and the average's; a single member has none."""
    return "best" if model == BEST else "average" if model.startswith("average") else None


class _Sender:
    def __init__(self, study: Study, settings: Settings, server: Server) -> None:
        self.problems: list[str] = []
        self._study = study
        self._settings = settings
        self._server = server
        self._experiment = server.experiment(study.study_name)
        self._runs = {
            run.slot: run for run in server.runs(self._experiment, models.identity(study))
        }

    def send(self, model: Mapping[str, Any], file: bytes) -> None:
        """A run with parameters, accuracies and the model, registered if it has an alias."""
        slot = f"final {model['opening']} {model['model']}"
        run = self._runs.get(slot)
        name = alias(model["model"])
        if run is not None and run.status == "FINISHED":
            if name is not None:  # which models of other members may have been given since
                self._server.name_again(run, self._study.study_name, name)
            return
        now = int(time.time() * 1000)
        if run is None:
            tags = {
                "mlflow.runName": f"final: {model['model']}",
                "mlflow.source.name": "study finalize",
                "mlflow.source.type": "LOCAL",
                UUID: models.identity(self._study),
                SLOT: slot,
            }
            run = self._server.create(self._experiment, now, tags)
        self._server.log(run.run_id, self._content(model, now), 0)
        with tempfile.TemporaryDirectory(prefix="study-") as folder:
            artifact.write_model(Path(folder), file, run.run_id, self._settings, 255)
            self._server.upload(run, Path(folder), artifact.NAME)
        self._server.tag(run.run_id, MODEL, "kept")
        if name is not None:
            self._register(run, name)
        self._server.end(run.run_id, "FINISHED", now)

    def _content(self, model: Mapping[str, Any], now: int) -> Content:
        metric, value = records.measured(model)
        values = {
            f"test_{metric.name}": value,
            f"test_{metric.name}_low": model["low"],
            f"test_{metric.name}_high": model["high"],
            "test_images": model["images"],
        }
        if model["validation"] is not None:
            values[f"val_{metric.name}"] = model["validation"]
        if own := records.own_metric(model):
            measured = model["metric"]
            found = {
                f"test_{own.name}": measured["value"],
                f"val_{own.name}": measured["validation"],
            }
            values |= {name: value for name, value in found.items() if value is not None}
        tags = {
            **origin(self._settings),
            "final": model["model"],
            "opened": model["opened"],
            "members": ", ".join(model["members"])[:250],
        }
        return Content(
            self._params(model), tags, [Point(name, float(v), now, 1) for name, v in values.items()]
        )

    def _params(self, model: Mapping[str, Any]) -> dict[str, str]:
        """The configuration; of an average, what all its members have in common."""
        each = records.configurations(self._study.user_attrs, model["members"])
        first, *others = each or [{}]
        return {
            name: str(value)
            for name, value in first.items()
            if all(name in other and other[name] == value for other in others)
        }

    def _register(self, run: Found, name: str) -> None:
        """A version with an alias; where the server has none, the version or the run is tagged."""
        try:
            version = self._server.register(run, self._study.study_name, artifact.NAME)
        except Refused as error:
            self._server.tag(run.run_id, ALIAS, name)
            why = "has no registry" if isinstance(error, Missing) else f"refuses it ({error})"
            self.problems.append(f"the server {why}; the run is tagged {name}")
            return
        self._server.name_version(self._study.study_name, version, name)
