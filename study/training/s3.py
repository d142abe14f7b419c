"""The one way to S3: a client for Amazon's own servers as much as for a MinIO of 2020."""

from __future__ import annotations

import os
from typing import Any


def connect(
    connect_timeout: float,
    read_timeout: float,
    endpoint: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> Any:
    """A client that gives up after two tries, each of at most these seconds.

    What is None is found where boto3 looks: environment, profile, role of the machine.
    """
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1" if endpoint and "AWS_DEFAULT_REGION" not in os.environ else None,
        config=Config(
            signature_version="s3v4",
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"total_max_attempts": 2},
            # A MinIO of 2020 does not know the checksums that boto3 sends by default since 2025.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
