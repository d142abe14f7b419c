"""Checkpoints survive a kill at any moment and are never believed without proof."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.training.checkpoint import Checkpoint, FolderCheckpoints, pack, unpack

CHECKPOINT = Checkpoint(
    "abc",
    (
        {"number": 0, "loss": 0.1, "val_accuracy": 1 / 3},
        {"number": 1, "loss": 1e-300, "val_accuracy": 1.0},
    ),
    (np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros(0, np.uint32)),
)


@pytest.fixture
def store(tmp_path: Path) -> FolderCheckpoints:
    return FolderCheckpoints(tmp_path / "checkpoints")


def same(one: Checkpoint | None, other: Checkpoint) -> bool:
    assert one is not None
    return (one.key, one.history) == (other.key, other.history) and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(one.arrays, other.arrays, strict=True)
    )


def test_what_was_saved_is_loaded_bit_for_bit(store: FolderCheckpoints) -> None:
    store.save(CHECKPOINT)
    assert same(store.load("abc"), CHECKPOINT)


def test_the_last_save_wins_and_leaves_one_file(store: FolderCheckpoints) -> None:
    store.save(CHECKPOINT)
    later = Checkpoint("abc", CHECKPOINT.history[:1], CHECKPOINT.arrays)
    store.save(later)
    assert same(store.load("abc"), later)
    assert [path.name for path in store.folder.iterdir()] == ["abc.checkpoint"]


def test_a_run_without_a_checkpoint_has_none(store: FolderCheckpoints) -> None:
    assert store.load("abc") is None


@pytest.mark.parametrize("length", [0, 1, 30, 200, -1])
def test_a_truncated_checkpoint_is_ignored_with_a_warning(
    store: FolderCheckpoints, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    store.folder.mkdir()
    (store.folder / "abc.checkpoint").write_bytes(pack(CHECKPOINT)[:length])
    assert store.load("abc") is None
    assert "abc.checkpoint is ignored, the run starts anew" in caplog.text


def changed() -> bytes:
    content = bytearray(pack(CHECKPOINT))
    content[-200] ^= 1
    return bytes(content)


def holding(body: bytes) -> bytes:
    """A file that is whole, and has these contents."""
    return b"study-checkpoint-1 %s\n%s" % (hashlib.sha256(body).hexdigest().encode(), body)


def archive(*arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return holding(buffer.getvalue())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (changed(), "changed"),
        (pack(Checkpoint("abd", (), ())), "another run"),
        (b"study-checkpoint-0 00\n", "format"),
        (pack(Checkpoint("abc", (), (np.array([{}]),))), "damaged"),  # pickled
        (holding(b"no archive"), "damaged"),
        (archive(), "damaged"),
        (archive(np.frombuffer(b"[1]", np.uint8)), "damaged"),
        (archive(np.frombuffer(b'{"key": "abc", "history": 3}', np.uint8)), "damaged"),
        (archive(np.frombuffer(b"[" * 100_000, np.uint8)), "damaged"),
    ],
)
def test_what_is_not_the_runs_checkpoint_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unpack(content, "abc")


def test_a_checkpoint_that_unpacks_to_more_than_itself_is_refused() -> None:
    meta = json.dumps({"key": "abc", "history": []}).encode()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, np.frombuffer(meta, np.uint8), np.zeros(10**6, np.uint8))
    with pytest.raises(ValueError, match="damaged"):
        unpack(holding(buffer.getvalue()), "abc")


def test_a_named_pipe_in_place_of_a_checkpoint_is_ignored(
    store: FolderCheckpoints, caplog: pytest.LogCaptureFixture
) -> None:
    store.folder.mkdir()
    os.mkfifo(store.folder / "abc.checkpoint")
    assert store.load("abc") is None
    assert "not a regular file" in caplog.text


def test_deleting_forgets_the_run_and_what_a_kill_left_behind(store: FolderCheckpoints) -> None:
    store.save(CHECKPOINT)
    store.save(Checkpoint("abcd", (), ()))
    (store.folder / ".abc.checkpoint.x1.tmp").write_bytes(b"half")
    store.delete("abc")
    store.delete("abc")
    assert [path.name for path in store.folder.iterdir()] == ["abcd.checkpoint"]


def test_a_save_that_fails_says_so_and_keeps_the_old_one(store: FolderCheckpoints) -> None:
    store.save(CHECKPOINT)
    hopeless = Checkpoint("abc", ({"loss": object()},), ())
    with pytest.raises(TypeError):
        store.save(hopeless)
    assert same(store.load("abc"), CHECKPOINT)
    assert [path.name for path in store.folder.iterdir()] == ["abc.checkpoint"]


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        FolderCheckpoints(tmp_path / "file").save(CHECKPOINT)
