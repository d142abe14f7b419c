"""Checkpoints of unfinished runs, in a folder or an S3 bucket, each written whole or not at all.

A checkpoint is one line (format, SHA-256 of the rest) and a NumPy archive of plain arrays: no
pickles. One that is damaged, or of another run, is ignored, with a warning: the run starts anew.
A bucket is for workers that share no folder. Keys and endpoint come from where boto3 looks
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` and so on) on the machine that trains; none of them is
stored.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import uuid
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from study.errors import SettingsError
from study.files import absolute, unfinished, write_whole
from study.training import s3

_FORMAT = b"study-checkpoint-1"
_SCHEME = "s3://"
_SECONDS = 15.0  # of a request to a bucket, an upload longer by its size
_DOWNLOAD = 300.0  # additional seconds to read a checkpoint
_LARGEST = 2**31  # bytes of a checkpoint in a bucket
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A run after its last finished epoch: what a new process needs to train on, bit for bit.

    `history` has one JSON-able record an epoch, `arrays` every variable of model and optimizer.
    """

    key: str
    history: tuple[dict[str, Any], ...]
    arrays: tuple[NDArray[Any], ...]


class Checkpoints(Protocol):
    """Where unfinished runs are kept, by run key."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the run's checkpoint, whole or not at all; OSError if that cannot be done."""

    def load(self, key: str) -> Checkpoint | None:
        """The run's checkpoint, or None if there is none that can be used."""

    def delete(self, key: str) -> None:
        """Forget the run's checkpoint; nothing happens if there is none."""


@dataclass(frozen=True)
class FolderCheckpoints:
    """Checkpoints as files `<run key>.checkpoint` in a folder, made when the first is saved."""

    folder: Path

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the run's file, whole or not at all; raises OSError."""
        write_whole(self._path(checkpoint.key), pack(checkpoint))

    def load(self, key: str) -> Checkpoint | None:
        """The run's checkpoint; None, with a logged warning, if the file cannot be used."""
        path = self._path(key)
        try:
            return unpack(_content(path), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s is ignored, the run starts anew: %s", path, error)
            return None

    def delete(self, key: str) -> None:
        """Remove the run's file, and what a killed process left half-written beside it."""
        for path in (self._path(key), *unfinished(self._path(key))):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s is left behind: %s", path, error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.checkpoint"


class BucketCheckpoints:
    """Checkpoints as objects ``<prefix>/<run key>.checkpoint``; an object is written whole."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._opened: s3.Bucket | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "prefix": self.prefix, "_opened": None}

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the run's object; ``OSError`` if that cannot be done."""
        self._open().put(self._object(checkpoint.key), pack(checkpoint))

    def load(self, key: str) -> Checkpoint | None:
        """The run's checkpoint; None, with a logged warning, if it cannot be reached or read."""
        try:
            return unpack(self._open().get(self._object(key), _LARGEST, _DOWNLOAD), key)
        except s3.S3Error as error:
            if error.code != "NoSuchKey":
                _log.warning("checkpoint %s is ignored, the run starts anew: %s", key, error)
        except ValueError as error:
            _log.warning("checkpoint %s is ignored, the run starts anew: %s", key, error)
        return None

    def delete(self, key: str) -> None:
        """Remove the run's object."""
        try:
            self._open().delete(self._object(key))
        except s3.S3Error as error:
            _log.warning("checkpoint %s is left behind: %s", key, error)

    def _object(self, key: str) -> str:
        return f"{self.prefix}{key}.checkpoint"

    def _open(self) -> s3.Bucket:
        if self._opened is None:
            self._opened = s3.Bucket(self.bucket, _SECONDS)
        return self._opened


def checkpoints_at(place: str) -> Checkpoints:
    """The checkpoints in a folder, or at ``s3://bucket/prefix``."""
    if not place.startswith(_SCHEME):
        return FolderCheckpoints(absolute(place))
    bucket, _, prefix = place.removeprefix(_SCHEME).partition("/")
    if {"@", ":"} & {*bucket}:
        raise SettingsError(
            "--checkpoints: the address holds a key: write s3://BUCKET/PREFIX, and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where runs are trained"
        )
    if not bucket:
        raise SettingsError(f"--checkpoints {place}: names no bucket; write s3://BUCKET/PREFIX")
    return BucketCheckpoints(bucket, f"{prefix.rstrip('/')}/" if prefix else "")


def pack(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint, for any store; `unpack` reads them."""
    meta = json.dumps({"key": checkpoint.key, "history": checkpoint.history}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, np.frombuffer(meta, np.uint8), *checkpoint.arrays)
    body = buffer.getvalue()
    return b"%s %s\n%s" % (_FORMAT, hashlib.sha256(body).hexdigest().encode(), body)


def unpack(content: bytes, key: str) -> Checkpoint:
    """The checkpoint of run `key`; ValueError says why these bytes are not one."""
    head, _, body = content.partition(b"\n")
    if head.split(b" ")[0] != _FORMAT:
        raise ValueError("not a checkpoint of this format")
    if head != b"%s %s" % (_FORMAT, hashlib.sha256(body).hexdigest().encode()):
        raise ValueError("truncated or changed since it was written")
    try:
        _require_unpacked(body)
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            first, *arrays = (archive[name] for name in archive.files)
        meta = json.loads(first.tobytes())
        found, history = meta["key"], tuple(meta["history"])
    except Exception as error:  # noqa: BLE001 - NumPy and zipfile may raise anything
        raise ValueError(f"damaged ({type(error).__name__})") from None
    if found != key:
        raise ValueError("it belongs to another run")
    return Checkpoint(key, history, tuple(arrays))


def _content(path: Path) -> bytes:
    """The bytes of a file; ValueError for a pipe or a device, of which reading may never end."""
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    return path.read_bytes()


def _require_unpacked(body: bytes) -> None:
    """Raise ValueError for a compressed archive: `pack` writes none, and it may fill the memory."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(body):
            raise ValueError("compressed")


def require_writable(checkpoints: Checkpoints, place: str) -> None:
    """Raise SettingsError if no checkpoint can be written to ``place``; leaves nothing there."""
    probe = Checkpoint(f"probe-{uuid.uuid4().hex}", (), ())
    try:
        checkpoints.save(probe)
    except OSError as error:
        said = " ".join(str(error).split())[:300]
        raise SettingsError(
            f"no checkpoint can be written to {place} ({said}): make it writable, or give another "
            "place with --checkpoints"
        ) from None
    checkpoints.delete(probe.key)
    if isinstance(checkpoints, FolderCheckpoints):
        with suppress(OSError):  # it has checkpoints of other runs
            checkpoints.folder.rmdir()
