"""The S3 bucket that an MLflow server of the old kind leaves its clients to write to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from study.mirror.requests import Refused, Unreachable
from study.mirror.target import Access
from study.training import s3

Answer = TypeVar("Answer")


def connect(access: Access, patience: float) -> Any:
    """A client for the bucket behind a tracking server."""
    endpoint = access.s3_endpoint or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    return s3.connect(patience, patience, endpoint, access.access_key, access.secret_key)


def upload(client: Any, place: str, folder: Path, name: str) -> None:
    """Write the files of a folder under ``place``/``name`` (``s3://BUCKET/...``)."""
    parts = urlsplit(place)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = f"{parts.path.strip('/')}/{name}/{path.relative_to(folder).as_posix()}"
        put(client, parts.netloc, key, path.read_bytes())


def put(client: Any, bucket: str, key: str, content: bytes) -> None:
    """Write one object; ``Refused`` says that the keys are wrong or have expired."""
    attempt(lambda: client.put_object(Bucket=bucket, Key=key, Body=content))


def get(client: Any, bucket: str, key: str) -> bytes:
    """Read one object."""

    def read() -> bytes:
        content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    return attempt(read)


def delete(client: Any, bucket: str, key: str) -> None:
    """Delete one object."""
    attempt(lambda: client.delete_object(Bucket=bucket, Key=key))


def attempt(request: Callable[[], Answer]) -> Answer:
    """Make a request of S3; raises ``Refused`` or ``Unreachable``."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return request()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise Refused(f"the bucket refuses models ({code}): check its keys") from None
    except BotoCoreError as error:
        raise Unreachable(f"the bucket cannot be reached ({type(error).__name__})") from None
