"""Checkpoints of unfinished runs: a file a run, written whole or not at all.

A file is one line (format, SHA-256 of the rest) and a NumPy archive of plain arrays: no pickles.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from study.errors import SettingsError
from study.files import unfinished, write_whole

_FORMAT = b"study-checkpoint-1"
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
        """The run's checkpoint; None, with a logged warning, if the file is of no use."""
        path = self._path(key)
        try:
            return unpack(path.read_bytes(), key)
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
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        first, *arrays = (archive[name] for name in archive.files)
    meta = json.loads(first.tobytes())
    if meta["key"] != key:
        raise ValueError("it belongs to another run")
    return Checkpoint(key, tuple(meta["history"]), tuple(arrays))


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
