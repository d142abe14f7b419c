"""The handshake of MFlux: a project token becomes the addresses and keys of its servers.

MFlux is a hosted MLflow 1.x server with MinIO (S3) behind it. The exchange is one GET; a token is
never sent on to another host, and neither token nor key is part of any message.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from study.errors import MirrorError
from study.mirror.requests import Refused, Unreachable

HOST = "https://www.mflux.ai"

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
    """What a token was exchanged for: the address of MLflow, and address and keys of MinIO."""

    tracking_uri: str
    s3_endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: it would carry the token to wherever it points."""


def handshake(host: str, token: str, patience: float = 10.0) -> Keys:
    """Exchange ``token`` at ``host``; waits at most ``patience`` seconds for an answer.

    Raises ``Unreachable`` where the host does not answer, ``Refused`` where it does not take the
    token, ``MirrorError`` for an address or an answer of another kind.
    """
    if urlsplit(host).scheme not in ("http", "https"):
        raise MirrorError(f"MFLUX_HOST {host}: is no address; write https://HOST")
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        f"{host.rstrip('/')}/api/env_vars/",
        headers={"Authorization": f"api-key {token}", "Accept": _ACCEPT},
    )
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=patience) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, b""
        error.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(
            f"MFlux at {host} cannot be reached ({type(reason).__name__}): check the network and "
            "MFLUX_HOST"
        ) from None
    if status != 200:
        what = _ANSWERS.get(status, f"answers {status}: check MFLUX_HOST, or try again later")
        kind = Refused if status in _ANSWERS else Unreachable
        raise kind(f"MFlux at {host} {what}")
    return _keys(host, body)


def _keys(host: str, body: bytes) -> Keys:
    try:
        answer = json.loads(body)
        found = [str(answer[name] or "") for name in _NAMES]
    except (ValueError, KeyError, TypeError):
        found = [""]
    if not all(found):
        raise MirrorError(f"MFlux at {host} answers without {', '.join(_NAMES)}: check MFLUX_HOST")
    return Keys(*found)
