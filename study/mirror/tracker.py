"""The interface of a tracker, the table of trackers, and which one a command mirrors to.

A tracker shows runs: MLflow is one. Another one is a file with a subclass of `Tracker` and an entry
in `TRACKERS`. Which one is used follows from the first of ``--mlflow URI``, an MFlux token,
``MLFLOW_TRACKING_URI`` and the default, a local MLflow store beside the study's database. Nothing
is contacted before `Tracker.connect`.
"""

from __future__ import annotations

import base64
import importlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from study.errors import MirrorError
from study.files import printable
from study.mirror.desired import Artifact, Content, DesiredRun
from study.space.settings import Settings
from study.storage.location import Database

_MLFLOW = "study.mirror.mlflow:MLflow"

TRACKERS: dict[str, str] = {
    "http": _MLFLOW,
    "https": _MLFLOW,
    "sqlite": _MLFLOW,
    "postgresql": _MLFLOW,
    "mysql": _MLFLOW,
    "mssql": _MLFLOW,
}
"""Scheme of an address -> ``MODULE:CLASS`` of the tracker, imported when it is used."""

PATIENCE = 30.0
"""Seconds that one request may take, from its start to the end of its answer."""

DEFAULT = "default"
"""The source of the default target."""

MFLUX = "https://www.mflux.ai"

_NONE = "none"
_LONGEST_MESSAGE = 300


class Unreachable(MirrorError):
    """The server does not answer, or with an internal error: a later try may succeed."""


class TimedOut(Unreachable):
    """The server did not answer within the time allowed."""


class Refused(MirrorError):
    """The server answers that it will not do this."""


# --- the interface -------------------------------------------------------------------------------


@dataclass
class RemoteRun:
    """A run as the tracker has it.

    ``mark`` is the one of the `DesiredRun` sent last, ``files`` that of the artifact sent last;
    both are None if nothing was sent. ``parent`` is the id of the run above it.
    """

    id: str
    key: str
    state: str
    mark: str | None = None
    files: str | None = None
    parent: str | None = None


@dataclass(frozen=True)
class StudyFacts:
    """The study whose runs are mirrored; ``uuid`` tells studies of the same name apart."""

    name: str
    uuid: str
    settings: Settings


@dataclass(frozen=True)
class Finding:
    """What a probe found of one link; ``fine`` is None where there is nothing to probe."""

    link: str
    fine: bool | None
    says: str


class Tracker(ABC):
    """Shows the runs of one study; raises `Unreachable` and `Refused`, in one line each.

    Every method may be repeated after an error without doing harm, except that `create` may then
    have made two runs of one key; `find` returns both.
    """

    @classmethod
    @abstractmethod
    def connect(cls, target: Target, study: StudyFacts | None, patience: float = PATIENCE) -> Self:
        """The tracker at ``target``; ``patience`` is the seconds that one request may take.

        Without a ``study`` it is only examined.
        """

    @classmethod
    def examine(cls, target: Target, patience: float = PATIENCE) -> Iterator[Finding]:
        """Probe the links to the tracker, and delete what that writes; raises nothing."""
        yield Finding(cls.__name__, None, f"{target.shown} is not probed ({patience:g} s)")

    @abstractmethod
    def find(self) -> list[RemoteRun]:
        """The runs of the study that the tracker has."""

    def synced(self) -> str | None:
        """The digest that `set_synced` stored; None where runs were deleted since, or unknown."""
        return None

    def set_synced(self, study: RemoteRun, digest: str) -> None:  # noqa: B027 - optional
        """Store with the study's run that everything was sent; it saves `find` the next time."""

    @abstractmethod
    def create(self, run: DesiredRun, parent: RemoteRun | None) -> RemoteRun:
        """Make an empty run in the state "running"."""

    @abstractmethod
    def update(self, remote: RemoteRun, run: DesiredRun, content: Content) -> None:
        """Add ``content`` and the mark, and last set the state; both in ``remote``, too."""

    @abstractmethod
    def save(self, remote: RemoteRun) -> None:
        """Store ``remote.parent`` and ``remote.files``."""

    @abstractmethod
    def upload(self, remote: RemoteRun, artifact: Artifact, content: bytes) -> None:
        """Send a file of a run."""

    @abstractmethod
    def delete(self, remote: RemoteRun) -> None:
        """Delete a run."""

    @abstractmethod
    def address(self, remote: RemoteRun) -> str:
        """Where a browser shows a run."""

    def register(self, remote: RemoteRun, name: str, alias: str) -> None:
        """Make the model of a run version ``alias`` of the registered model ``name``."""
        raise Refused("there is no model registry")


# --- where to ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """Where to mirror: ``shown`` is what a person may see, ``source`` names the place it is from.

    ``token`` is that of MFlux, with its host as ``uri``; for any other tracker None.
    """

    shown: str
    source: str
    uri: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def tracker(self) -> type[Tracker]:
        """The class in `TRACKERS` for this address; imports its module."""
        module, _, name = TRACKERS[_scheme(self.uri)].partition(":")
        found: type[Tracker] = getattr(importlib.import_module(module), name)
        return found

    @property
    def file(self) -> Path | None:
        """The file of a local MLflow store; None for any other address."""
        if _scheme(self.uri) != "sqlite":
            return None
        return Path(make_url(self.uri).database or ":memory:")

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a command that is to mirror to the same place."""
        return ("--mlflow", self.uri) if self.source != DEFAULT and not self.needs else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The variables that such a command needs, because their values must not be printed."""
        if self.token is not None:
            return (f"the MFLUX_TOKEN of {self.shown} set",)
        if self.file is None and self.uri != self.shown:
            return (f"MLFLOW_TRACKING_URI set to {self.shown} and its password",)
        return ()

    def environment(self) -> dict[str, str]:
        """The variables that make `resolve` find this target in another process; hold secrets."""
        if self.token is None:
            return {"STUDY_MLFLOW": self.uri}
        return {"STUDY_MLFLOW": "", "MFLUX_TOKEN": self.token, "MFLUX_HOST": self.uri}


def resolve(option: str | None, environ: Mapping[str, str], database: Database) -> Target | None:
    """The target that ``option`` (``--mlflow``), the environment or the default names.

    None: ``--mlflow none`` turns the mirror off. The default is the local store beside the study's
    database. Raises ``MirrorError`` for an address that is malformed.
    """
    if option is not None and option.strip().lower() == _NONE:
        return None
    if option:
        return _named(option, "--mlflow")
    if token := environ.get("MFLUX_TOKEN", "").strip():
        host = environ.get("MFLUX_HOST") or MFLUX
        if not is_http(host):
            raise MirrorError(f"MFLUX_HOST {shown(host)}: is not an address; write https://HOST")
        return Target(f"MFlux at {shown(host)}", "MFLUX_TOKEN", host, token)
    if uri := environ.get("MLFLOW_TRACKING_URI", "").strip():
        return _named(uri, "MLFLOW_TRACKING_URI")
    return _local(database.mlflow_store, DEFAULT)


def _local(file: str | Path, source: str) -> Target:
    """A store that is a SQLite file, from any folder the same one."""
    path = os.path.realpath(file)
    uri = URL.create("sqlite", database=path).render_as_string(hide_password=False)
    return Target(f"sqlite:///{path}", source, uri)


def _named(uri: str, source: str) -> Target:
    if _scheme(uri) not in TRACKERS or not _is_address(uri):
        raise MirrorError(
            f"{source} {shown(uri)}: is not the address of an MLflow server; write "
            "http://HOST:PORT, sqlite:///FILE or none"
        )
    if _scheme(uri) == "sqlite" and (database := make_url(uri).database):
        return _local(database, source)
    return Target(shown(uri), source, uri)


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.partition("+")[0] if separator else ""


def is_http(uri: str) -> bool:
    """Whether this is the address of a web server."""
    return _scheme(uri) in ("http", "https") and _is_address(uri) and bool(urlsplit(uri).hostname)


def _is_address(uri: str) -> bool:
    try:
        _parsed(uri)
    except (ArgumentError, ValueError):
        return False
    return True


def _parsed(uri: str) -> SplitResult | URL:
    """The parts of an address; raises ``ArgumentError`` or ``ValueError``."""
    if _scheme(uri) in ("sqlite", "postgresql", "mysql", "mssql"):
        return make_url(uri)
    parts = urlsplit(uri)
    _ = parts.port  # raises ValueError where it is not a number
    return parts


# --- what must not be shown ----------------------------------------------------------------------

_SECRETS = (
    "MFLUX_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)
"""Variables that are secrets, and those that are addresses which may hold some."""


def shown(uri: str) -> str:
    """An address without user, password, query and fragment."""
    try:
        parts = _parsed(uri)
    except (ArgumentError, ValueError):
        return re.sub("//.*@", "//***@", uri.partition("?")[0])
    if isinstance(parts, URL):
        return parts.set(query={}).render_as_string(hide_password=True)
    host = parts.netloc.rpartition("@")[2]
    if "//" not in uri:  # no address of a server: it is shown as it was given
        return f"{parts.scheme}:{parts.path}" if parts.scheme else parts.path
    return f"{parts.scheme}://{host}{parts.path}"


def secrets(target: Target, *more: str | None, environ: Mapping[str, str] = os.environ) -> set[str]:
    """Every token, key and password that must not be seen in a message, in each of its forms."""
    found = {environ.get(name) for name in _SECRETS} | {target.token, *more}
    addresses = [environ.get(form) for name in _ADDRESSES for form in (name, name.lower())]
    users = [(environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD"))]
    for uri in filter(None, [target.uri, *addresses]):
        user, _, password = uri.partition("://")[2].rpartition("@")[0].partition(":")
        found |= {f"{user}:{password}" if password else user, password, unquote(password)}
        users.append((unquote(user), unquote(password)))
        query = parse_qsl(uri.partition("?")[2])
        found |= {value for name, value in query if re.search("password|token|secret|key", name)}
    pairs = [f"{user}:{password}".encode() for user, password in users if user and password]
    found |= {base64.b64encode(pair).decode() for pair in pairs}  # as a server echoes a header
    kept = {secret for secret in found if secret}
    return kept | {quote(secret, safe="") for secret in kept}


def redact(message: str, hidden: Iterable[str] = ()) -> str:
    """One line of ``message``, without any of ``hidden``; long ones are cut."""
    for secret in sorted(hidden, key=len, reverse=True):
        message = message.replace(secret, "***")
    message = re.sub(r"\b(Basic|Bearer|api-key) [\w+/=.~-]{8,}", r"\1 ***", message)
    line = printable(" ".join(message.split()))
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 3]}..."
