"""What only MFlux and servers of its age need; to be deleted with the last of them.

MFlux is a hosted MLflow 1.x with a MinIO of 2020 behind it, whose client uploads models to the
bucket by itself. A project token is exchanged for the addresses and keys of both by one GET; it is
sent to no other host, and neither token nor key is part of a message.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from study.errors import MirrorError
from study.limits import read_whole, within
from study.mirror.tracker import Refused, TimedOut, Unreachable, is_http, shown
from study.training import s3

LONGEST_VALUE = 250
"""Characters that MLflow 1.x takes for the value of a param or tag."""

LIST_EXPERIMENTS = "/api/2.0/mlflow/experiments/list?view_type=ALL"
"""The request by which the first servers name their experiments: they have no get-by-name."""

_ACCEPT = "application/vnd.aiascience.mflux+json; version=0.4"
_NAMES = ("mlflow_server", "minio_server", "minio_access_key", "minio_secret_key")
_ANSWERS = {
    204: "does not know the token: check MFLUX_TOKEN",
    401: "refuses the token: check MFLUX_TOKEN",
    403: "refuses the token: check MFLUX_TOKEN",
    406: "refuses the token or does not speak version 0.4 any more: check MFLUX_TOKEN",
}


@dataclass(frozen=True)
class Keys:
    """The addresses and keys that reach a tracking server and the bucket behind it.

    Where a part of the bucket's is None, boto3 looks for it (environment, profile, instance role).
    """

    tracking_uri: str = field(repr=False)
    s3_endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


# --- the handshake of MFlux ----------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: it would carry the token to another host."""


def handshake(host: str, token: str, patience: float = 10.0) -> Keys:
    """Exchange ``token`` at ``host``; takes at most ``patience`` seconds.

    Raises ``Unreachable`` where the host does not answer, ``Refused`` where it does not take the
    token, ``MirrorError`` for an address or an answer of another kind.
    """
    if not is_http(host):
        raise MirrorError(f"MFLUX_HOST {shown(host)}: is not an address; write https://HOST")
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        f"{host.rstrip('/')}/api/env_vars/",
        headers={"Authorization": f"api-key {token}", "Accept": _ACCEPT},
    )
    opener = urllib.request.build_opener(_NoRedirect)

    def exchange() -> tuple[int, bytes]:
        try:
            with opener.open(request, timeout=patience) as answer:
                return answer.status, read_whole(answer, 2**16)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, b""

    try:
        status, body = within(patience, exchange)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        kind = TimedOut if isinstance(reason, TimeoutError) else Unreachable
        raise kind(
            f"MFlux at {shown(host)} cannot be reached ({type(reason).__name__}): check the "
            "network and MFLUX_HOST"
        ) from None
    if status != 200:
        what = _ANSWERS.get(status, f"answers {status}: check MFLUX_HOST, or try again later")
        raise (Refused if status in _ANSWERS else Unreachable)(f"MFlux at {shown(host)} {what}")
    return _keys(shown(host), body)


def _keys(host: str, body: bytes) -> Keys:
    try:
        answer = json.loads(body)
        tracking, endpoint, *keys = (str(answer[name] or "") for name in _NAMES)
    except (ValueError, KeyError, TypeError, RecursionError):
        tracking, endpoint, keys = "", "", []
    if not all([tracking, endpoint, *keys]):
        raise MirrorError(f"MFlux at {host} answers without {', '.join(_NAMES)}: check MFLUX_HOST")
    for name, address in (("mlflow_server", tracking), ("minio_server", endpoint)):
        if not is_http(address):
            raise MirrorError(
                f"MFlux at {host} answers with a {name} that is not an http(s) address: check "
                "MFLUX_HOST"
            )
    return Keys(tracking, endpoint, *keys)


# --- the bucket ----------------------------------------------------------------------------------


class Buckets:
    """The S3 buckets that a server leaves its clients to write to."""

    def __init__(self, keys: Keys, patience: float) -> None:
        self._keys = keys
        self._patience = patience

    def upload(self, place: str, folder: Path) -> None:
        """Write the files of a folder under ``place`` (``s3://BUCKET/...``)."""
        with self._opened(place) as (bucket, prefix):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                bucket.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def probe(self, place: str) -> None:
        """Write an object under ``place``, read it and delete it."""
        with self._opened(place) as (bucket, prefix):
            key = f"{prefix}/study-doctor-{uuid.uuid4().hex}"
            bucket.put(key, b"probe")
            try:
                bucket.get(key)
            finally:
                bucket.delete(key)

    @contextmanager
    def _opened(self, place: str) -> Iterator[tuple[s3.Bucket, str]]:
        """The bucket of an address and its prefix; raises ``Refused`` or ``Unreachable``."""
        parts, keys = urlsplit(place), self._keys
        endpoint = keys.s3_endpoint or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
        try:
            yield (
                s3.Bucket(parts.netloc, self._patience, endpoint, keys.access_key, keys.secret_key),
                parts.path.strip("/"),
            )
        except s3.S3Error as error:
            if error.code is None:
                raise Unreachable(str(error)) from None
            raise Refused(f"the bucket refuses models ({error.code}): check its keys") from None
