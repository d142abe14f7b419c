"""A request to MLflow: made once, or again where it may be, its errors sorted and said plainly.

MLflow's own retries are off (`tracking.prepare`), because they repeat every request alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from study.errors import MirrorError

Answer = TypeVar("Answer")


class Unreachable(MirrorError):
    """The server does not answer, or not in time, or with an error of its own."""


class Refused(MirrorError):
    """The server answers that it will not do this."""


class Missing(Refused):
    """The server does not have this request."""


def ask(request: Callable[[], Answer]) -> Answer:
    """Make a request that may be repeated: once more where a connection was cut."""
    try:
        return once(request)
    except Unreachable as error:
        if not _was_cut(str(error)):
            raise
        return once(request)


def once(request: Callable[[], Answer]) -> Answer:
    """Make a request and sort what can go wrong into ``Unreachable`` and ``Refused``."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        return request()
    except RestException as error:
        kind: type[MirrorError] = Unreachable if error.error_code in _TEMPORARY else Refused
        raise kind(f"the server answers: {error.message}") from None
    except MlflowException as error:
        kind = Unreachable if error.error_code in _TEMPORARY else Refused
        kind = Missing if error.error_code == "ENDPOINT_NOT_FOUND" else kind
        raise kind(_plain(error.message)) from None
    except Exception as error:  # noqa: BLE001 - the store of a local file raises what it likes
        raise Unreachable(f"{type(error).__name__}: {error}") from None


_TEMPORARY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


def _was_cut(reason: str) -> bool:
    signs = ("Connection aborted", "RemoteDisconnected", "Connection reset", "cut the connection")
    return any(sign in reason for sign in signs)


def _plain(message: str) -> str:
    """MLflow's account of a failed request in the words that matter."""
    for sign, words in _WORDS.items():
        if sign in message:
            return words
    return message


_WORDS = {
    "too many 429": "the server is busy (429)",
    "too many 5": "the server answers with an error of its own (500)",
    "Connection refused": "the server is not there (connection refused)",
    "Failed to resolve": "the server's name is not known",
    "Name or service not known": "the server's name is not known",
    "timed out": "the server does not answer in time",
    "timeout": "the server does not answer in time",
    "Connection aborted": "the server cut the connection",
    "RemoteDisconnected": "the server cut the connection",
    "Connection reset": "the server cut the connection",
    "error code 401": "the server refuses the token or password (401)",
    "error code 403": "the server refuses access (403)",
    "error code 404": "the address is not that of an MLflow server (404)",
    "database is locked": "the local store is locked by another process",
    "disk is full": "the disk is full",
}
