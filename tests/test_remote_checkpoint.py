"""Checkpoints in a bucket: as good as files, and where there is none the run starts anew."""

import pickle
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
from engine_contract import SPEC, dataset
from fake_trainer import train
from fakes import run_of

from study.errors import SettingsError
from study.training.checkpoint import (
    BucketCheckpoints,
    Checkpoint,
    FolderCheckpoints,
    checkpoints_at,
)
from study.training.run import Epoch

CHECKPOINT = Checkpoint("abc", ({"number": 0},), (np.arange(3, dtype=np.float32),))
RUN = run_of(SPEC)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> BucketCheckpoints:
    monkeypatch.setenv("FAKE_PAUSE", "0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", servers.running().s3.url)
    found = checkpoints_at(f"s3://{servers.BUCKET}/runs/")
    assert isinstance(found, BucketCheckpoints)
    return found


@pytest.fixture
def unreachable(store: BucketCheckpoints, monkeypatch: pytest.MonkeyPatch) -> BucketCheckpoints:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
    return store


def curve(epochs: Any) -> list[Any]:
    """What an epoch says but for when it was."""
    return [(e.number, e.accuracy, e.loss, e.val_accuracy, e.val_loss) for e in epochs]


def test_what_was_saved_is_loaded_by_another_process_bit_for_bit(store: BucketCheckpoints) -> None:
    store.save(CHECKPOINT)
    found = pickle.loads(pickle.dumps(store)).load("abc")
    assert found is not None
    assert (found.key, found.history) == (CHECKPOINT.key, CHECKPOINT.history)
    assert np.array_equal(found.arrays[0], CHECKPOINT.arrays[0])
    assert found.arrays[0].dtype == np.float32


def test_an_old_minio_keeps_checkpoints_too(
    store: BucketCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = servers.as_minio({servers.ACCESS_KEY})
    with servers.Proxy(servers.running().s3.url, rule=rule) as old:
        monkeypatch.setenv("AWS_ENDPOINT_URL", old.url)
        store.save(CHECKPOINT)
        assert store.load("abc") is not None


def test_a_deleted_checkpoint_is_gone_without_a_warning(
    store: BucketCheckpoints, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(CHECKPOINT)
    store.delete("abc")
    store.delete("abc")
    assert store.load("abc") is None
    assert not caplog.text


def test_a_truncated_checkpoint_is_ignored_with_a_warning(
    store: BucketCheckpoints, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(CHECKPOINT)
    content = store._open().get("runs/abc.checkpoint")
    store._open().put("runs/abc.checkpoint", content[:-5])
    assert store.load("abc") is None
    assert "the run starts anew" in caplog.text


def test_a_bucket_that_does_not_exist_is_a_warning(
    store: BucketCheckpoints, caplog: pytest.LogCaptureFixture
) -> None:
    absent = BucketCheckpoints("absent", "")
    assert absent.load("abc") is None
    assert "the run starts anew" in caplog.text
    with pytest.raises(OSError, match="NoSuchBucket"):
        absent.save(CHECKPOINT)


def test_a_bucket_that_cannot_be_reached_loses_nothing_but_time(
    unreachable: BucketCheckpoints, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="cannot be reached"):
        unreachable.save(CHECKPOINT)
    unreachable.delete("abc")
    assert "abc is left behind" in caplog.text
    assert curve(train(RUN, dataset(), checkpoints=unreachable)) == curve(train(RUN, dataset()))


def test_a_run_goes_on_from_the_bucket_to_the_same_result(store: BucketCheckpoints) -> None:
    first = train(RUN, dataset(), checkpoints=store)
    begun: list[Epoch] = [next(first), next(first)]
    first.close()
    stored = store.load(RUN.key)
    assert stored is not None
    assert len(stored.history) == 2
    resumed = list(train(RUN, dataset(), checkpoints=store))
    assert resumed[:2] == begun
    assert curve(resumed) == curve(train(RUN, dataset()))


def test_a_body_without_end_does_not_fill_the_memory(
    store: BucketCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints_at(f"s3://{servers.BUCKET}").load("abc")  # with its imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with servers.Hostile(servers.flood) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        with pytest.raises(OSError, match="the bucket"):
            store.save(CHECKPOINT)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 400e6  # of 4 GB


def test_an_address_without_a_bucket_is_refused_and_a_path_is_a_folder() -> None:
    assert checkpoints_at("~nobody-here/a") == FolderCheckpoints(Path("~nobody-here/a").absolute())
    with pytest.raises(SettingsError, match="holds a key: write s3://BUCKET/PREFIX") as refused:
        checkpoints_at("s3://AKIA123:topsecret@bucket/runs")
    assert "topsecret" not in str(refused.value)
    with pytest.raises(SettingsError, match="names no bucket"):
        checkpoints_at("s3://")
    assert isinstance(checkpoints_at("here"), FolderCheckpoints)


@pytest.mark.parametrize("behaviour", [servers.drip_head, servers.drip_body, servers.redirect])
def test_an_endpoint_that_misbehaves_loses_nothing_but_time(
    behaviour: servers.Behaviour,
    store: BucketCheckpoints,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("study.training.checkpoint._SECONDS", 1.0)
    monkeypatch.setattr("study.training.checkpoint._DOWNLOAD", 1.0)
    with servers.Hostile(behaviour) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        with pytest.raises(OSError, match="the bucket"):
            store.save(CHECKPOINT)
        assert store.load("abc") is None
    assert "the run starts anew" in caplog.text
