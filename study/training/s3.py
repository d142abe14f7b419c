"""The one way to S3: Amazon's own servers as much as a MinIO of 2020; every request is limited."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from study.limits import LONGEST_ANSWER, read_whole, within

Answer = TypeVar("Answer")

BYTES_A_SECOND = 100_000
"""How slow an upload may be."""


class S3Error(OSError):
    """A request that failed, in a line; ``code`` is S3's own, None where there was no answer."""

    def __init__(self, says: str, code: str | None = None) -> None:
        super().__init__(says)
        self.code = code


class Bucket:
    """A bucket. A request takes at most ``seconds``, and an upload longer by its size.

    Endpoint and keys that are None are found where boto3 looks: environment, profile, role of the
    machine.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        endpoint: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._client = self._ask(lambda: _connect(seconds, endpoint, access_key, secret_key))

    def put(self, key: str, content: bytes) -> None:
        """Write an object whole."""
        place = {"Bucket": self._name, "Key": key}
        more = len(content) / BYTES_A_SECOND
        self._ask(lambda: self._client.put_object(**place, Body=content), more)

    def get(self, key: str, most: int = LONGEST_ANSWER, more: float = 0.0) -> bytes:
        """Read an object of at most ``most`` bytes, which may take ``more`` seconds."""
        place = {"Bucket": self._name, "Key": key}
        return self._ask(lambda: read_whole(self._client.get_object(**place)["Body"], most), more)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        self._ask(lambda: self._client.delete_object(Bucket=self._name, Key=key))

    def _ask(self, request: Callable[[], Answer], more: float = 0.0) -> Answer:
        """Make a request; raises ``S3Error``."""
        from botocore.exceptions import ClientError

        try:
            return within(self._seconds + more, request)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "an error"))
            raise S3Error(f"the bucket answers {code}", code) from None
        except TimeoutError as error:
            raise S3Error(f"the bucket does not answer in time ({error})") from None
        except Exception as error:  # noqa: BLE001 - redirects without end are a RecursionError
            raise S3Error(f"the bucket cannot be reached ({type(error).__name__})") from None


def _content(answer: Any) -> bytes:
    """The body of an answer, as of an error, that boto3 would read whole, however long it is."""
    if answer._content is None:
        answer._content = read_whole(answer.raw)
    content: bytes = answer._content
    return content


def _connect(
    seconds: float, endpoint: str | None, access_key: str | None, secret_key: str | None
) -> Any:
    import boto3
    from botocore.awsrequest import AWSResponse
    from botocore.config import Config

    AWSResponse.content = property(_content)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1" if endpoint and "AWS_DEFAULT_REGION" not in os.environ else None,
        config=Config(
            signature_version="s3v4",
            connect_timeout=min(3.0, seconds),
            read_timeout=seconds,
            retries={"total_max_attempts": 2},
            # A MinIO of 2020 does not know the checksums that boto3 sends by default since 2025.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
