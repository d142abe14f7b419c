"""Where runs are mirrored to: the first of four places that says so, and what it takes to get in.

``--mlflow URI``, then an MFlux token, then ``MLFLOW_TRACKING_URI``, then a local store in SQLite
with its artifacts beside it. Nothing is contacted before ``Target.access``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from study.errors import MirrorError
from study.mirror.mflux import HOST, handshake
from study.storage.location import Database

DEFAULT = "default"
"""The source of a target that nobody named."""

NONE = "none"
"""The ``--mlflow`` that turns the mirror off."""

ARTIFACTS = "mlflow-artifacts"
"""The folder beside a local store in which it keeps its artifacts."""

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_SECRETS = (
    "MFLUX_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)


@dataclass(frozen=True)
class Access:
    """The addresses and keys that reach a tracking server and the bucket behind it.

    ``s3_endpoint`` and the keys are None where boto3 finds them by itself (environment, profile,
    instance role); ``artifacts`` is where a local store keeps its artifacts.
    """

    tracking_uri: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    s3_endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    artifacts: str | None = None


@dataclass(frozen=True)
class Target:
    """Where to mirror: ``shown`` is what a person may see, ``source`` the place that said so."""

    shown: str
    source: str
    uri: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def access(self, patience: float = 10.0) -> Access:
        """Get in: exchanges the token of MFlux, which takes up to ``patience`` seconds.

        Raises ``MirrorError`` where MFlux does not answer or refuses the token.
        """
        if self.token is not None:
            keys = handshake(self.uri, self.token, patience)
            return Access(
                keys.tracking_uri, self.token, keys.s3_endpoint, keys.access_key, keys.secret_key
            )
        return Access(self.uri, artifacts=_artifacts(self.uri))

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a command that is to mirror to the same place."""
        return ("--mlflow", self.uri) if self.source != DEFAULT and not self.needs else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Which variables such a command needs, as what they hold is not for the screen."""
        if self.token is not None:
            return (f"the MFLUX_TOKEN of {self.shown} set",)
        if self.uri != self.shown:
            return (f"MLFLOW_TRACKING_URI set to {self.shown} and its password",)
        return ()

    def environment(self) -> dict[str, str]:
        """The variables that make `resolve` find this target in another process; hold secrets."""
        if self.token is None:
            return {"STUDY_MLFLOW": self.uri}
        return {"STUDY_MLFLOW": "", "MFLUX_TOKEN": self.token, "MFLUX_HOST": self.uri}


def resolve(option: str | None, environ: Mapping[str, str], database: Database) -> Target | None:
    """The place that ``option`` (``--mlflow``), the environment or the default names.

    None turns the mirror off. The default is the local store of the study's database. Raises
    ``MirrorError`` for an address that is none.
    """
    if option is not None and option.strip().lower() == NONE:
        return None
    if option:
        return _named(option, "--mlflow")
    if token := environ.get("MFLUX_TOKEN", "").strip():
        host = environ.get("MFLUX_HOST") or HOST
        if not _is_address(host):
            raise MirrorError(f"MFLUX_HOST {shown(host)}: is no address; write https://HOST")
        return Target(f"MFlux at {shown(host)}", "MFLUX_TOKEN", host, token)
    if uri := environ.get("MLFLOW_TRACKING_URI", "").strip():
        return _named(uri, "MLFLOW_TRACKING_URI")
    uri = f"sqlite:///{database.mlflow_store}"
    return Target(uri, DEFAULT, uri)


def _named(uri: str, source: str) -> Target:
    scheme = uri.partition("://")[0].partition("+")[0]
    if "://" not in uri or scheme not in _SCHEMES or not _is_address(uri):
        raise MirrorError(
            f"{source} {shown(uri)}: is no address of an MLflow server; write http://HOST:PORT, "
            "sqlite:///FILE or none"
        )
    if uri.startswith("sqlite:///"):  # the same file from any folder
        address = make_url(uri)
        if address.database:
            path = os.path.realpath(address.database)
            uri = address.set(database=path).render_as_string(hide_password=False)
    return Target(shown(uri), source, uri)


def _is_address(uri: str) -> bool:
    try:
        _parsed(uri)
    except (ArgumentError, ValueError):
        return False
    return True


def _parsed(uri: str) -> SplitResult | URL:
    return urlsplit(uri) if uri.startswith(("http://", "https://")) else make_url(uri)


def shown(uri: str) -> str:
    """An address without a user's password, and without what hides in its query."""
    try:
        parts = _parsed(uri)
    except (ArgumentError, ValueError):
        return re.sub("//.*@", "//***@", uri.partition("?")[0])
    if isinstance(parts, URL):
        return parts.set(query={}).render_as_string(hide_password=True)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _artifacts(uri: str) -> str | None:
    """Where a store that is a SQLite file keeps its artifacts: in a folder beside it."""
    if not uri.startswith("sqlite"):
        return None
    database = make_url(uri).database
    return None if not database else (Path(os.path.realpath(database)).parent / ARTIFACTS).as_uri()


def secrets(environ: Mapping[str, str], target: Target, access: Access | None) -> set[str]:
    """Every token, key and password that must not be seen in a message."""
    found = {environ.get(name) for name in _SECRETS} | {target.token}
    if access is not None:
        found |= {access.token, access.access_key, access.secret_key}
    for uri in (target.uri, access.tracking_uri if access else target.uri):
        user = uri.partition("://")[2].rpartition("@")[0]
        found |= {user, user.partition(":")[2]}
        given = parse_qsl(urlsplit(uri).query)
        found |= {value for name, value in given if re.search("password|token", name)}
    kept = {secret for secret in found if secret}
    return kept | {quote(secret, safe="") for secret in kept}


def redact(message: str, hidden: Iterable[str]) -> str:
    """One line of ``message``, without any of ``hidden``; long ones are cut."""
    for secret in sorted(hidden, key=len, reverse=True):
        message = message.replace(secret, "***")
    line = " ".join(message.split())
    return line if len(line) <= 300 else f"{line[:297]}..."
