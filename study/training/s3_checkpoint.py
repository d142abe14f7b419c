"""Checkpoints in an S3 bucket, for workers that share no folder.

Keys and endpoint come from where boto3 looks (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` and so
on) on the machine that trains; none of them is stored. A bucket that cannot be reached costs
time, never results: the run starts anew.
"""

from __future__ import annotations

import logging
from typing import Any

from study.errors import SettingsError
from study.files import absolute
from study.training import s3
from study.training.checkpoint import Checkpoint, Checkpoints, FolderCheckpoints, pack, unpack

_log = logging.getLogger(__name__)
_SCHEME = "s3://"


class BucketCheckpoints:
    """Checkpoints as objects ``<prefix>/<run key>.checkpoint``; an object is written whole."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "prefix": self.prefix, "_client": None}

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the run's object; ``OSError`` if that cannot be done."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._s3().put_object(**self._object(checkpoint.key), Body=pack(checkpoint))
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from None

    def load(self, key: str) -> Checkpoint | None:
        """The run's checkpoint; None, with a logged warning, if it cannot be reached or read."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            content: bytes = self._s3().get_object(**self._object(key))["Body"].read()
            return unpack(content, key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                _log.warning("checkpoint %s is ignored, the run starts anew: %s", key, error)
        except (BotoCoreError, ValueError) as error:
            _log.warning("checkpoint %s is ignored, the run starts anew: %s", key, error)
        return None

    def delete(self, key: str) -> None:
        """Remove the run's object."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._s3().delete_object(**self._object(key))
        except (BotoCoreError, ClientError) as error:
            _log.warning("checkpoint %s is left behind: %s", key, error)

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}{key}.checkpoint"}

    def _s3(self) -> Any:
        if self._client is None:
            self._client = s3.connect(connect_timeout=3, read_timeout=10)
        return self._client


def checkpoints_at(place: str) -> Checkpoints:
    """The checkpoints in a folder, or at ``s3://bucket/prefix``."""
    if not place.startswith(_SCHEME):
        return FolderCheckpoints(absolute(place))
    bucket, _, prefix = place.removeprefix(_SCHEME).partition("/")
    if not bucket:
        raise SettingsError(f"--checkpoints {place}: names no bucket; write s3://BUCKET/PREFIX")
    return BucketCheckpoints(bucket, f"{prefix.rstrip('/')}/" if prefix else "")
