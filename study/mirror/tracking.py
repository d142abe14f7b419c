"""The part of MLflow's client that servers since 1.3 understand, and the bucket behind them.

Each method is one request, or a few that may be repeated. MLflow's own retries are off: it repeats
what must not be repeated (`runs/create`). Importing MLflow takes seconds, so it happens when a
`Server` is made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from study.mirror import bucket
from study.mirror.projection import MARK, SLOT, UUID, Content, Status
from study.mirror.requests import Missing, Refused, Unreachable, ask, once
from study.mirror.target import Access, shown

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PATIENCE = 20.0
"""Seconds that one request may take."""

MODEL = "model"
"""The tag that says what became of a model that is worth keeping: ``kept`` or ``gone``.

Of the study's run it is the fingerprint of the network of one's own whose text was sent.
"""

PARENT = "mlflow.parentRunId"

_PAGE_OF_LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves a store
_PAGE = 1000  # runs a page of a search


@dataclass(slots=True)
class Found:
    """A run as the server has it."""

    run_id: str
    slot: str
    status: str
    mark: str | None
    model: str | None
    parent: str | None
    artifacts: str

    @property
    def ended(self) -> bool:
        return self.status != "RUNNING"


def prepare(patience: float = PATIENCE) -> None:
    """Bound and quieten MLflow's client in this process; before it is imported."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(patience)))
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


class Server:
    """A tracking server, or a local store, reached by ``access``."""

    def __init__(self, access: Access, patience: float = PATIENCE) -> None:
        prepare(patience)
        if access.token is not None:
            os.environ["MLFLOW_TRACKING_TOKEN"] = access.token
        self._access = access
        self._patience = patience
        self._client = ask(lambda: _client(access.tracking_uri))
        self._s3: Any = None

    @property
    def local(self) -> bool:
        """Whether the store is opened in this process, without a server."""
        return not self._access.tracking_uri.startswith(("http://", "https://"))

    def place(self) -> str | None:
        """Where the experiment every server starts with keeps artifacts; None if it is gone."""
        try:
            found = ask(lambda: self._client.get_experiment("0"))
        except Refused:
            return None
        return self._access.artifacts if self.local else str(found.artifact_location)

    def bucket(self) -> Any:
        """The S3 client for the bucket that artifacts are sent to directly."""
        if self._s3 is None:
            self._s3 = bucket.connect(self._access, self._patience)
        return self._s3

    # --- experiments ---

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name: found, restored if it was deleted, or made."""
        known = self._named(name)
        if known is None:
            try:
                return self._make(name)
            except Refused:  # made by somebody else since, or unseen by an old server's search
                known = self._named(name)
                if known is None:
                    raise
        if known[1] == "deleted":
            identifier = known[0]
            ask(lambda: self._client.restore_experiment(identifier))
        return known[0]

    def _make(self, name: str) -> str:
        place = None
        if self._access.artifacts is not None:
            place = f"{self._access.artifacts}/{quote(name, safe='')}"
        return str(ask(lambda: self._client.create_experiment(name, artifact_location=place)))

    def _named(self, name: str) -> tuple[str, str] | None:
        """Id and stage of an experiment; the first servers could only list them all."""
        try:
            found = ask(lambda: self._client.get_experiment_by_name(name))
        except Missing:
            return self._listed(name)
        return None if found is None else (str(found.experiment_id), str(found.lifecycle_stage))

    def _listed(self, name: str) -> tuple[str, str] | None:
        answer = self._get("/api/2.0/mlflow/experiments/list?view_type=ALL")
        if answer.status_code != 200:
            raise Refused(f"the address is not that of an MLflow server ({answer.status_code})")
        for found in answer.json().get("experiments", []):
            if found.get("name") == name:
                return str(found["experiment_id"]), str(found.get("lifecycle_stage"))
        return None

    # --- runs ---

    def runs(self, experiment: str, uuid: str, slot: str | None = None) -> list[Found]:
        """The runs of a study, or of one of its slots; deleted ones are not among them."""
        wanted = f"tags.{UUID} = '{uuid}'"
        if slot is not None:
            wanted += f" and tags.{SLOT} = '{slot}'"
        found: list[Found] = []
        token: str | None = None
        while True:
            page = ask(
                lambda token=token: self._client.search_runs(  # type: ignore[misc]
                    [experiment], wanted, max_results=_PAGE, page_token=token
                )
            )
            found += [_found(run) for run in page]
            token = page.token
            if not token:
                return found

    def create(self, experiment: str, started: int, tags: Mapping[str, str]) -> Found:
        """Make a run; where the answer is lost, look before making it again."""
        try:
            return self._create(experiment, started, tags)
        except Unreachable:
            made = self.runs(experiment, tags[UUID], tags[SLOT])
            return made[0] if made else self._create(experiment, started, tags)

    def _create(self, experiment: str, started: int, tags: Mapping[str, str]) -> Found:
        run = once(lambda: self._client.create_run(experiment, started, dict(tags)))
        return _found(run)

    def log(self, run_id: str, content: Content, sent: int) -> None:
        """Add params, tags, and the points after the first ``sent``; may be repeated."""
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(p.key, p.value, p.timestamp, p.step) for p in content.points[sent:]]
        params = [] if sent else [Param(name, text) for name, text in content.params.items()]
        tags = [RunTag(name, text) for name, text in content.tags.items()]
        ask(lambda: self._client.log_batch(run_id, points, params, tags))

    def tag(self, run_id: str, name: str, value: str) -> None:
        ask(lambda: self._client.set_tag(run_id, name, value))

    def end(self, run_id: str, status: Status, ended: int) -> str:
        """Give a run its final status; returns the one it has got.

        The SQL store of MLflow 1.3 fails on KILLED; on such a server the run is FAILED, and its
        tag says what it is.
        """
        try:
            ask(lambda: self._client.set_terminated(run_id, status, ended))
        except Unreachable:
            if status != "KILLED" or self.version() is not None:
                raise
            ask(lambda: self._client.set_terminated(run_id, "FAILED", ended))
            return "FAILED"
        return status

    def reopen(self, run_id: str) -> None:
        """Set an ended run RUNNING again."""
        ask(lambda: self._client.update_run(run_id, "RUNNING"))

    def delete(self, run_id: str) -> None:
        ask(lambda: self._client.delete_run(run_id))

    def version(self) -> str | None:
        """The server's version; None where it is too old to say."""
        if self.local:
            from mlflow.version import VERSION

            return str(VERSION)
        answer = self._get("/version")
        return answer.text.strip() if answer.status_code == 200 else None

    def link(self, experiment: str, run_id: str) -> str:
        """Where a browser shows a run; a local store is opened by ``make mlflow``."""
        page = _PAGE_OF_LOCAL if self.local else shown(self._access.tracking_uri).rstrip("/")
        return f"{page}/#/experiments/{experiment}/runs/{run_id}"

    def _get(self, path: str) -> Any:
        from mlflow.utils import credentials, rest_utils

        host = credentials.get_default_host_creds(  # type: ignore[no-untyped-call]
            self._access.tracking_uri
        )
        return ask(lambda: rest_utils.http_request(host, path, "GET"))  # type: ignore[no-untyped-call]

    # --- registry ---

    def register(self, run: Found, name: str, artifact: str) -> str:
        """Make a version of the registered model ``name`` of a run's artifact; its number.

        Raises ``Refused`` or ``Unreachable`` where the server has no registry.
        """
        with suppress(Refused):  # there already, or there is no registry: the next request tells
            ask(lambda: self._client.create_registered_model(name))
        source = f"{run.artifacts}/{artifact}"
        made = once(lambda: self._client.create_model_version(name, source, run.run_id))
        return str(made.version)

    def name_version(self, name: str, version: str, alias: str) -> None:
        """Give a version an alias; a tag where the server is too old for aliases."""
        try:
            ask(lambda: self._client.set_registered_model_alias(name, alias, version))
        except Refused:
            ask(lambda: self._client.set_model_version_tag(name, version, "alias", alias))

    def name_again(self, run: Found, name: str, alias: str) -> None:
        """Give the alias back to the version that was registered of a run, if there is one."""
        query = f"run_id = '{run.run_id}'"
        with suppress(Refused):  # it has no registry
            for version in ask(lambda: self._client.search_model_versions(query)):
                if alias not in (getattr(version, "aliases", None) or ()):
                    self.name_version(name, str(version.version), alias)

    # --- artifacts ---

    def upload(self, run: Found, folder: Path, name: str) -> None:
        """Send a folder as the artifact ``name``: through the server, or straight to S3."""
        if urlsplit(run.artifacts).scheme == "s3":
            bucket.upload(self.bucket(), run.artifacts, folder, name)
        else:
            ask(lambda: self._client.log_artifacts(run.run_id, str(folder), name))


def _client(uri: str) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri)


def _found(run: Run) -> Found:
    tags = run.data.tags
    return Found(
        run.info.run_id,
        tags.get(SLOT, ""),
        run.info.status,
        tags.get(MARK),
        tags.get(MODEL),
        tags.get(PARENT),
        run.info.artifact_uri,
    )
