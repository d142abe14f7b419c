"""Checkpoints survive a kill at any moment and are never believed without proof."""

from pathlib import Path

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


def test_a_changed_byte_is_noticed() -> None:
    content = bytearray(pack(CHECKPOINT))
    content[-200] ^= 1
    with pytest.raises(ValueError, match="changed"):
        unpack(bytes(content), "abc")


def test_the_checkpoint_of_another_run_is_refused() -> None:
    with pytest.raises(ValueError, match="another run"):
        unpack(pack(CHECKPOINT), "abd")


def test_a_file_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        unpack(b"study-checkpoint-2 00\n", "abc")


def test_pickled_objects_are_never_written() -> None:
    with pytest.raises(ValueError, match="pickle"):
        unpack(pack(Checkpoint("abc", (), (np.array([{}]),))), "abc")


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
