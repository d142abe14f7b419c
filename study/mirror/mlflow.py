"""The tracker MLflow: a server since 1.3, or a local store that is a SQLite file.

MLflow's own retries are off, because they repeat what must not be repeated (``runs/create``): an
error ends a pass, and the next one looks at what has arrived. Each request has a limit of time, and
each answer of a server one of size. Importing MLflow takes seconds: it is imported by `connect`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from study.errors import MirrorError
from study.files import check_writable, made_once
from study.limits import LONGEST_ANSWER, within
from study.mirror import old_servers
from study.mirror.desired import MODEL, STUDY, Artifact, Content, DesiredRun
from study.mirror.old_servers import LONGEST_VALUE, Buckets, Keys, handshake
from study.mirror.tracker import (
    PATIENCE,
    Finding,
    Refused,
    RemoteRun,
    StudyFacts,
    Target,
    TimedOut,
    Tracker,
    Unreachable,
    redact,
    secrets,
    shown,
)
from study.space.settings import Settings
from study.training.s3 import BYTES_A_SECOND

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList
    from mlflow.tracking import MlflowClient

Answer = TypeVar("Answer")

UUID, KEY = "study_uuid", "study_slot"
"""The tags by which a run is found again: the study's UUID, and the key of the run."""

_MARK, _FILES, _PARENT = "state", "model", "mlflow.parentRunId"
"""The tags that hold ``mark``, ``files`` and ``parent`` of a `RemoteRun`."""

_SYNCED = "study_synced"
"""The tag of the study's run that holds the digest of everything that was sent."""

_STATUS = {"running": "RUNNING", "complete": "FINISHED", "failed": "FAILED"}  # any other: KILLED
_ARTIFACTS = "mlflow-artifacts"  # the folder beside a local store
_PAGE_OF_LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves a store
_PAGE = 500  # runs a page of a search
_LONGEST_NAME = 250  # characters of an experiment's name


class Missing(Refused):
    """The server does not have this request."""


class MLflow(Tracker):
    """The runs of one study in an MLflow experiment of its name."""

    def __init__(
        self, target: Target, keys: Keys, study: StudyFacts | None, patience: float
    ) -> None:
        self._keys = keys
        self._study_facts = study
        self._patience = patience
        self._hidden = secrets(target, keys.tracking_uri, keys.access_key, keys.secret_key)
        self._file = target.file
        self._buckets = Buckets(keys, patience)
        self._client = self._opened()

    @classmethod
    def connect(cls, target: Target, study: StudyFacts | None, patience: float = PATIENCE) -> Self:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(patience)))
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        keys = Keys(target.uri)
        if target.token is not None:
            keys = handshake(target.uri, target.token, patience)
            os.environ["MLFLOW_TRACKING_TOKEN"] = target.token
        return cls(target, keys, study, patience)

    @property
    def _study(self) -> StudyFacts:
        assert self._study_facts is not None  # a tracker without a study is only examined
        return self._study_facts

    def _opened(self) -> MlflowClient:
        """MLflow's client of the server or store."""
        import mlflow.tracking

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if self._file is not None:
            return open_store(self._file)
        if self._is_http:
            _limit_answers()
        else:  # MLflow would try for minutes
            self._call(lambda: create_engine(self._keys.tracking_uri).connect().close())
        return self._call(lambda: mlflow.tracking.MlflowClient(self._keys.tracking_uri))

    @property
    def _is_http(self) -> bool:
        return self._keys.tracking_uri.startswith(("http://", "https://"))

    def _call(self, request: Callable[[], Answer], more: float = 0.0) -> Answer:
        """Make a request, which may take ``more`` seconds than usual.

        Raises ``Unreachable``, ``TimedOut``, ``Refused`` or ``Missing``, without secrets.
        """
        from mlflow.exceptions import MlflowException, RestException

        try:
            return request() if self._file else within(self._patience + more, request)
        except MirrorError:
            raise
        except TimeoutError:
            raise TimedOut(f"{_LATE} ({self._patience + more:g} s)") from None
        except MlflowException as error:
            kind: type[MirrorError] = Unreachable if error.error_code in _TEMPORARY else Refused
            kind = Missing if error.error_code == "ENDPOINT_NOT_FOUND" else kind
            words = _plain(error.message)
            if isinstance(error, RestException):
                words = f"the server answers: {error.message}"
            elif words == _LATE:
                kind = TimedOut
            raise kind(redact(words, self._hidden)) from None
        except Exception as error:  # noqa: BLE001 - the store of a database raises what it likes
            message = _plain(f"{type(error).__name__}: {error}")
            raise Unreachable(redact(message, self._hidden)) from None

    # --- runs ---

    def find(self) -> list[RemoteRun]:
        found: list[RemoteRun] = []
        token: str | None = None
        while True:
            page = self._search(max_results=_PAGE, page_token=token)
            found += map(_remote, page)
            token = page.token
            if not token:
                return found

    def _search(self, and_tag: str = "", **options: Any) -> PagedList[Run]:
        """The runs of the study, or those of them that have a tag besides."""
        wanted = f"tags.{UUID} = '{self._study.uuid}'{and_tag}"
        experiment = self.experiment
        return self._call(lambda: self._client.search_runs([experiment], wanted, **options))

    def synced(self) -> str | None:
        from mlflow.entities import ViewType

        if self._search(run_view_type=ViewType.DELETED_ONLY, max_results=1):
            return None
        found = self._search(f" and tags.{KEY} = '{STUDY}'", max_results=1)
        return found[0].data.tags.get(_SYNCED) if found else None

    def set_synced(self, study: RemoteRun, digest: str) -> None:
        self._tag(study, _SYNCED, digest)

    def create(self, run: DesiredRun, parent: RemoteRun | None) -> RemoteRun:
        tags = {
            "mlflow.runName": run.name[:LONGEST_VALUE],
            "mlflow.source.name": "study",
            "mlflow.source.type": "LOCAL",
            UUID: self._study.uuid,
            KEY: run.key,
        } | ({_PARENT: parent.id} if parent else {})
        started = run.started
        return _remote(self._call(lambda: self._client.create_run(self.experiment, started, tags)))

    def update(self, remote: RemoteRun, run: DesiredRun, content: Content) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if remote.state != "running":  # a run of a final status counts as sent whole
            self._call(lambda: self._client.update_run(remote.id, "RUNNING"))
            remote.state = "running"
        metrics = [Metric(p.key, p.value, p.timestamp, p.step) for p in content.points]
        params = [Param(name, text[:LONGEST_VALUE]) for name, text in content.params.items()]
        texts = {**content.tags, _MARK: run.mark}
        tags = [RunTag(name, text[:LONGEST_VALUE]) for name, text in texts.items()]
        self._call(lambda: self._client.log_batch(remote.id, metrics, params, tags))
        remote.mark = run.mark
        if not run.running:
            self._end(remote.id, _STATUS.get(run.state, "KILLED"), run.ended)
            remote.state = "ended"

    def _end(self, run_id: str, status: str, ended: int) -> None:
        """Give a run its final status; the SQL store of MLflow 1.3 fails on KILLED."""
        try:
            self._call(lambda: self._client.set_terminated(run_id, status, ended))
        except Unreachable:
            if status != "KILLED" or self._version() is not None:
                raise
            self._call(lambda: self._client.set_terminated(run_id, "FAILED", ended))

    def save(self, remote: RemoteRun) -> None:
        for tag, value in ((_PARENT, remote.parent), (_FILES, remote.files)):
            if value is not None:
                self._tag(remote, tag, value)

    def _tag(self, remote: RemoteRun, name: str, value: str) -> None:
        self._call(lambda: self._client.set_tag(remote.id, name, value))

    def delete(self, remote: RemoteRun) -> None:
        self._call(lambda: self._client.delete_run(remote.id))

    def address(self, remote: RemoteRun) -> str:
        page = shown(self._keys.tracking_uri).rstrip("/") if self._is_http else _PAGE_OF_LOCAL
        return f"{page}/#/experiments/{self.experiment}/runs/{remote.id}"

    # --- experiments ---

    @cached_property
    def experiment(self) -> str:
        """The id of the study's experiment: found, restored if it was deleted, or made."""
        name = self._study.name[:_LONGEST_NAME]
        known = self._named(name)
        if known is None:
            place = self._artifacts(name)
            try:
                return str(self._call(lambda: self._client.create_experiment(name, place)))
            except Refused:  # made by another process since
                known = self._named(name)
                if known is None:
                    raise
        identifier, stage = known
        if stage == "deleted":
            self._call(lambda: self._client.restore_experiment(identifier))
        return identifier

    def _artifacts(self, name: str) -> str | None:
        """Where a local store keeps the files of an experiment; a server decides by itself."""
        if self._file is None:
            return None
        folder = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]
        return (self._file.parent / _ARTIFACTS / folder).as_uri()

    def _named(self, name: str) -> tuple[str, str] | None:
        """Id and stage of an experiment."""
        try:
            found = self._call(lambda: self._client.get_experiment_by_name(name))
        except Missing:
            return self._listed().get(name)
        return None if found is None else (str(found.experiment_id), str(found.lifecycle_stage))

    def _listed(self) -> dict[str, tuple[str, str]]:
        """Id and stage of each experiment, by name, of a server that can only list them all."""
        status, text = self._get(old_servers.LIST_EXPERIMENTS)
        try:
            return {
                found["name"]: (str(found["experiment_id"]), str(found.get("lifecycle_stage")))
                for found in json.loads(text)["experiments"]
            }
        except (ValueError, KeyError, TypeError):
            raise Refused(_plain(f"error code {status}") if status != 200 else _NOT) from None

    def _get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer."""
        from mlflow.utils import credentials, rest_utils

        host = credentials.get_default_host_creds(  # type: ignore[no-untyped-call]
            self._keys.tracking_uri
        )
        answer = self._call(lambda: rest_utils.http_request(host, path, "GET"))  # type: ignore[no-untyped-call]
        return answer.status_code, str(answer.text)

    def _version(self) -> str | None:
        """The version of MLflow; None for a server that is too old to say."""
        if not self._is_http:
            from mlflow.version import VERSION

            return str(VERSION)
        status, text = self._get("/version")
        if status == 404:
            return None
        if status != 200:
            raise Refused(_plain(f"error code {status}"))
        if not re.fullmatch(r"\d+\.\d+[\w.]*", text.strip()):
            raise Refused(_NOT)
        return text.strip()

    # --- artifacts and registry ---

    def upload(self, remote: RemoteRun, artifact: Artifact, content: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="study-") as name:
            folder = Path(name)
            if artifact.name == MODEL:
                write_model(folder, content, remote.id, self._study.settings, artifact.pixels)
            else:
                (folder / artifact.filename).write_bytes(content)
            place = str(self._call(lambda: self._client.get_run(remote.id)).info.artifact_uri)
            self._check_place(place)
            if urlsplit(place).scheme == "s3":
                self._buckets.upload(f"{place}/{artifact.name}", folder)
            else:
                self._call(
                    lambda: self._client.log_artifacts(remote.id, name, artifact.name),
                    len(content) / BYTES_A_SECOND,
                )

    def _check_place(self, place: str) -> None:
        """Refuse a folder of this machine that a server on another one names."""
        host = urlsplit(self._keys.tracking_uri).hostname or ""
        here = not self._is_http or host == "localhost" or host.startswith("127.") or host == "::1"
        if urlsplit(place).scheme in ("file", "") and not here:
            raise Refused("the server names a folder of this machine for artifacts")

    def register(self, remote: RemoteRun, name: str, alias: str) -> None:
        """The alias goes to the version of this run; a version is made if there is none."""
        client, run_id = self._client, remote.id
        try:
            versions = self._call(lambda: client.search_model_versions(f"run_id = '{run_id}'"))
            if not versions:
                with suppress(Refused):  # it exists, or there is no registry: the next request says
                    self._call(lambda: client.create_registered_model(name))
                place = str(self._call(lambda: client.get_run(run_id)).info.artifact_uri)
                source = f"{place}/{MODEL}"
                made = self._call(lambda: client.create_model_version(name, source, run_id))
                versions.append(made)
        except Refused as error:
            self._tag(remote, "alias", alias)
            why = "has no registry" if isinstance(error, Missing) else f"refuses it ({error})"
            raise Refused(f"the server {why}; the run is tagged {alias}") from None
        version = str(versions[0].version)
        if alias in (getattr(versions[0], "aliases", None) or ()):
            return
        self._call(lambda: client.set_registered_model_alias(name, alias, version))

    # --- probes ---

    @classmethod
    def examine(cls, target: Target, patience: float = PATIENCE) -> Iterator[Finding]:
        if target.token is None:
            yield Finding("MFlux", None, f"not used: {target.shown} comes from {target.source}")
        if target.file is not None and not target.file.exists():
            fine = os.access(target.file.parent, os.W_OK)
            yield Finding("MLflow", fine, f"{target.shown} is made with the first run")
            return
        link = "MLflow" if target.token is None else "MFlux"
        try:
            tracker = cls.connect(target, None, patience)
            if target.token is not None:
                says = f"{target.shown} knows the token and names its servers"
                yield Finding("MFlux", True, says)
            link = "MLflow"
            says = f"{target.shown} answers: {tracker._checked_version()}"
            yield Finding("MLflow", True, says)
            yield tracker._checked_artifacts()
        except MirrorError as error:
            yield Finding(link, False, f"{target.shown}: {error}")

    def _checked_version(self) -> str:
        """What answers, once it has granted a request that needs access; ``/version`` does not."""
        version = self._version()
        if version is None:
            self._listed()
            return "an MLflow 1.x that does not tell its version"
        self._call(lambda: self._client.search_experiments(max_results=1))
        return f"MLflow {version}"

    def _checked_artifacts(self) -> Finding:
        """Whether files can be written where the server wants those of its first experiment."""
        place = self._first_place()
        if place is None:
            says = "the server's default experiment is gone: known with the first run"
            return Finding("artifacts", None, says)
        scheme = urlsplit(place).scheme
        if scheme not in ("s3", "file", ""):
            return Finding("artifacts", None, f"{place}: they pass through the tracking server")
        try:
            if scheme == "s3":
                self._buckets.probe(place)
            else:
                check_writable(Path(unquote(urlsplit(place).path)))
        except (MirrorError, OSError) as error:
            return Finding("artifacts", False, f"models cannot be kept: {error}")
        where = f" at {shown(self._keys.s3_endpoint)}" if self._keys.s3_endpoint else ""
        return Finding("artifacts", True, f"{place}{where} can be written and read")

    def _first_place(self) -> str | None:
        """Where the experiment every server starts with keeps artifacts; None if it is gone."""
        if self._file is not None:
            return (self._file.parent / _ARTIFACTS).as_uri()
        try:
            return str(self._call(lambda: self._client.get_experiment("0")).artifact_location)
        except Refused:
            return None


def _remote(run: Run) -> RemoteRun:
    tags = run.data.tags
    state = "running" if run.info.status == "RUNNING" else "ended"
    found = (tags.get(name) for name in (_MARK, _FILES, _PARENT))
    return RemoteRun(run.info.run_id, tags.get(KEY, ""), state, *found)


# --- stores and servers --------------------------------------------------------------------------


def open_store(file: Path) -> MlflowClient:
    """The client of a local store, made whole or not at all; one made meanwhile is kept."""
    from mlflow.tracking import MlflowClient

    # MLflow makes the folder of what begins with sqlite:///, without decoding it.
    def address(path: Path) -> str:
        return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()

    try:
        if not file.exists():
            with made_once(file) as aside:
                MlflowClient(address(aside))
        return MlflowClient(address(file))
    except OSError as error:
        raise Unreachable(f"{file}: cannot be written ({error.strerror})") from None
    except Exception as error:  # noqa: BLE001 - MLflow and SQLAlchemy raise what they like
        reason = redact(_plain(f"{type(error).__name__}: {error}"))
        raise Refused(
            f"{file}: MLflow cannot open its store ({reason}): move the file away, and a new one "
            "is made"
        ) from None


@cache
def _limit_answers() -> None:
    """Bound the size of an answer; MLflow would read all that a server sends."""
    from mlflow.utils import request_utils

    class Limited(request_utils.TCPKeepAliveHTTPAdapter):
        def send(self, *arguments: Any, **options: Any) -> Any:
            response = super().send(*arguments, **options)
            if not options.get("stream"):
                content = bytearray()
                for piece in response.iter_content(2**16):
                    content += piece
                    if len(content) > LONGEST_ANSWER:
                        response.close()
                        raise OSError(f"the answer has more than {LONGEST_ANSWER} bytes")
                response._content = bytes(content)
            return response

    request_utils.TCPKeepAliveHTTPAdapter = Limited  # type: ignore[misc]


_TEMPORARY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_NOT = "the address is not that of an MLflow server"
_LATE = "the server does not answer in time"
_WORDS = {
    "too many 429": "the server is busy (429)",
    "too many 5": "the server answers with an internal error (500)",
    "Connection refused": "the server is not there (connection refused)",
    "connection to server": "the server is not there (connection refused)",
    "Failed to resolve": "the server's name is not known",
    "Name or service not known": "the server's name is not known",
    "timed out": _LATE,
    "timeout": _LATE,
    "Connection aborted": "the server cut the connection",
    "RemoteDisconnected": "the server cut the connection",
    "Connection reset": "the server cut the connection",
    "redirects": "the server redirects without end",
    "error code 401": "the server refuses the token or password (401)",
    "error code 403": "the server refuses access (403)",
    "error code 404": f"{_NOT} (404)",
    "valid JSON": _NOT,
    "more than": "the server's answer is too long",
    "database is locked": "the local store is locked by another process",
    "disk is full": "the disk is full",
}


def _plain(message: str) -> str:
    """MLflow's account of a failed request in the words that matter."""
    return next((words for sign, words in _WORDS.items() if sign in message), message)


# --- models --------------------------------------------------------------------------------------


def write_model(
    folder: Path, model: bytes, run_id: str, settings: Settings, pixels: int = 1
) -> None:
    """Write the ``.keras`` file ``model`` of a run as the folder that MLflow knows as a model.

    The layout is that of ``mlflow.keras.save_model``, made without Keras: both
    ``mlflow.keras.load_model`` and ``mlflow.pyfunc`` read it. There is no signature: MLflow would
    refuse every type of number but the one it names, and images come as uint8, float32 and float64.
    """
    requirements = [
        f"{name}=={settings.versions[name]}"
        for name in ("tensorflow", "keras", "numpy")
        if name in settings.versions
    ]
    python = settings.versions.get("python", "")
    files = {
        "data/model.keras": model,
        "data/keras_module.txt": b"keras",
        "MLmodel": _yaml(_description(len(model), run_id, settings, pixels)),
        "requirements.txt": "\n".join(["mlflow", *requirements, ""]).encode(),
        "python_env.yaml": _yaml({"python": python, "dependencies": ["-r requirements.txt"]}),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _description(size: int, run_id: str, settings: Settings, pixels: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "artifact_path": MODEL,
        "flavors": {
            "keras": {
                "data": "data",
                "keras_backend": "tensorflow",
                "keras_version": settings.versions.get("keras", ""),
                "save_exported_model": False,
            },
            "python_function": {  # without "data": MLflow's loader adds the flavor's own
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.keras",
                "python_version": settings.versions.get("python", ""),
            },
        },
        "model_size_bytes": size,
        "run_id": run_id,
        "utc_time_created": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    }
    if settings.data is not None:
        shape = ", ".join(map(str, settings.data.input_shape))
        described["metadata"] = {
            "takes": f"images of shape (n, {shape}), pixels of 0..{pixels}",
            "gives": f"probabilities of shape (n, {settings.data.num_classes})",
            "classes": list(settings.data.label_names),
        }
        if settings.model and settings.network and settings.network.classes:
            described["metadata"]["needs"] = (
                f"{', '.join(settings.network.classes)} of {Path(settings.model.path).name}, which "
                "is an artifact of the study's run: run it, then load the model"
            )
    return described


def _yaml(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()  # every JSON text is YAML
