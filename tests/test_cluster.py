"""Runs on real Dask clusters: workers join and die, and the answer is that of one process."""

import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import fake_trainer
import fakes
import psutil
import pytest
from engine_contract import (
    PAUSE,
    EngineContract,
    alone,
    dataset,
    drive,
    ended,
    expected_results,
    most_processes,
    repeated,
    results,
    run_of,
    traced,
    until,
)
from optuna.storages import InMemoryStorage
from servers import free_port

from study.errors import StudyError
from study.plan.plan import PlanState
from study.storage.ledger import ActiveRun
from study.training.checkpoint import FolderCheckpoints
from study.workers import cluster
from study.workers.engine import Engine, EpochReported, Event, RunFailed

ROOT = Path(__file__).parents[1]
PATIENCE = 60  # seconds a process may take to start


class Servers:
    """A Dask scheduler and its workers, each in a session of its own on a free loopback port."""

    def __init__(self, folder: Path, scheme: str = "tcp", **environ: str) -> None:
        self.folder = folder
        self.address = f"{scheme}://127.0.0.1:{free_port()}"
        self._environ = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "FAKE_PAUSE": str(PAUSE),
            "FAKE_TRACE": str(folder / "trace"),
            "FAKE_DEATH": str(folder / "death"),
            **environ,
        }
        self._started: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        words = ["--host", f"{scheme}://127.0.0.1", "--port", port]
        words += ["--dashboard-address", "127.0.0.1:0"]
        self.scheduler = self._start("scheduler", *words)
        deadline = time.monotonic() + PATIENCE
        while not answers(int(port)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def worker(self, *words: str) -> "subprocess.Popen[bytes]":
        """Have a worker join."""
        small = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        return self._start("worker", self.address, *small, *words)

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    @property
    def trace(self) -> list[list[str]]:
        """Process, run and number of every epoch that was trained."""
        return traced(self.folder)

    def forget(self) -> None:
        """Delete what the workers have left."""
        for file in (self.folder / "trace", *self.folder.glob("checkpoints/*")):
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """End the workers, and forget what they did."""
        for process in self._started[1:]:
            kill(process)
        self.forget()

    def close(self) -> None:
        self.clear()
        kill(self.scheduler)


def answers(port: int) -> bool:
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", port)) == 0


def kill(process: "subprocess.Popen[bytes]") -> None:
    """As a power cut: the process and all it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def family(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The processes that a process has started."""
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(autouse=True)
def _nothing_to_collect() -> Iterator[None]:
    """A client of Dask that is collected while another one starts: each waits for the other."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def one_scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with closing(Servers(tmp_path_factory.mktemp("dask"))) as started:
        yield started


@pytest.fixture
def servers(one_scheduler: Servers) -> Iterator[Servers]:
    """A scheduler that has seen other tests, but no worker yet."""
    one_scheduler.clear()
    yield one_scheduler
    one_scheduler.clear()


class Once:
    """A watch that does something at one of the epochs, and remembers how many runs it saw."""

    def __init__(self, epoch: int, act: Callable[[], object]) -> None:
        self._left = epoch
        self._act = act
        self.most = 0

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        self.most = max(self.most, len(active))
        if isinstance(event, EpochReported):
            self._left -= 1
            if self._left == 0:
                self._act()


@pytest.fixture(scope="module")
def expected() -> dict[Any, Any]:
    return expected_results()


def remote(servers: Servers, **given: Any) -> cluster.DaskEngine:
    store = FolderCheckpoints(servers.folder / "checkpoints")
    return cluster.remote_engine(servers.address, dataset(), store, fake_trainer.train, **given)


class TestDask(EngineContract):
    """On one worker, which serves engine after engine."""

    @pytest.fixture(scope="class")
    def worker(self, one_scheduler: Servers) -> None:
        one_scheduler.worker()

    @pytest.fixture
    def folder(self, one_scheduler: Servers) -> Path:
        one_scheduler.forget()
        return one_scheduler.folder

    @pytest.fixture
    def make(self, one_scheduler: Servers, folder: Path, worker: None) -> Callable[[], Engine]:
        return lambda: remote(one_scheduler)


def test_a_worker_that_joins_is_given_runs(servers: Servers, expected: dict) -> None:
    engine = remote(servers)  # before there is any worker
    assert engine.offered == 0
    servers.worker()

    def join() -> None:
        servers.worker()
        engine._client.wait_for_workers(2, timeout=PATIENCE)

    drive(storage := InMemoryStorage(), engine, watch := Once(2, join))
    assert watch.most == 2
    assert len({line[0] for line in servers.trace}) == 2
    assert results(storage) == expected
    assert repeated(servers.trace) == 0


def test_a_machine_that_dies_in_the_middle_of_a_run_costs_nothing(
    servers: Servers, expected: dict
) -> None:
    for _ in range(2):
        servers.worker()
    (servers.folder / "death").write_text("group")
    drive(storage := InMemoryStorage(), remote(servers))
    assert results(storage) == expected
    assert most_processes(servers.trace) == 2
    assert repeated(servers.trace) == 0


def test_runs_go_only_to_workers_that_offer_what_they_take(
    servers: Servers, expected: dict
) -> None:
    engine = remote(servers, resources={"GPU": 1})
    gpu = servers.worker("--resources", "GPU=1")
    servers.worker()
    engine._client.wait_for_workers(2, timeout=PATIENCE)
    drive(storage := InMemoryStorage(), engine)
    assert engine.workers == engine.offered == 1
    assert results(storage) == expected
    assert {line[0] for line in servers.trace} <= {str(p.pid) for p in family(gpu)}


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "http://127.0.0.1:{}", "tcp://"])
def test_an_address_without_a_scheduler_is_one_line(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    address = address.format(free_port())
    with pytest.raises(StudyError, match=f"--scheduler {address}: does not answer") as wrong:
        cluster.remote_engine(address, dataset(), None)
    assert "\n" not in str(wrong.value)


def certified(folder: Path) -> dict[str, str]:
    """Dask's configuration for certificates that are made as docs/cluster.md says."""
    found = re.search(r"```sh\n(openssl .*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)
    assert found
    subprocess.run(["bash", "-ec", found[1]], cwd=folder, check=True, capture_output=True)
    config = {"require-encryption": "True", "tls.ca-file": str(folder / "ca.pem")}
    for role in ("scheduler", "worker", "client"):
        config |= {f"tls.{role}.cert": str(folder / "host.pem")}
        config |= {f"tls.{role}.key": str(folder / "host.key")}
    return {f"distributed.comm.{key}": value for key, value in config.items()}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_a_cluster_with_tls_is_reached_through_dasks_configuration(
    tmp_path: Path, expected: dict
) -> None:
    config = certified(tmp_path)
    environ = {
        "DASK_" + key.upper().replace(".", "__").replace("-", "_"): value
        for key, value in config.items()
    }
    with closing(Servers(tmp_path, "tls", **environ)) as servers:
        servers.worker()
        with dask.config.set(config):
            drive(storage := InMemoryStorage(), remote(servers))
        assert results(storage) == expected
        with pytest.raises(StudyError, match=r"does not answer.*check your TLS configuration"):
            remote(servers)  # a stranger without a certificate


def test_a_scheduler_that_dies_ends_the_study_with_a_line_and_it_can_be_resumed(
    tmp_path: Path, expected: dict
) -> None:
    storage = InMemoryStorage()
    with closing(Servers(tmp_path)) as servers:
        servers.worker()
        watch = Once(3, lambda: kill(servers.scheduler))
        with pytest.raises(StudyError, match=r"scheduler tcp://127.* is gone.*resume") as gone:
            drive(storage, remote(servers), watch)
    assert "\n" not in str(gone.value)
    assert {row.state for row in fakes.rows(storage)} <= {"running", "complete"}
    with alone() as engine:
        drive(storage, engine)
    assert results(storage) == expected


def test_a_run_that_kills_its_workers_in_one_epoch_has_failed(servers: Servers) -> None:
    servers.worker()
    with closing(remote(servers)) as engine:
        epochs, failed = ended(engine, run_of(trouble="death"))
        assert isinstance(failed, RunFailed)
        assert f"4 workers died in epoch {len(epochs) + 1}, the last one at tcp://" in failed.reason


def test_what_has_been_stopped_leaves_nothing_on_the_scheduler(servers: Servers) -> None:
    def flags(dask_scheduler: Any) -> set[str]:  # Dask goes by the argument's name
        return set(dask_scheduler.extensions["events"]._events)

    servers.worker()
    with closing(remote(servers)) as engine:
        before = engine._client.run_on_scheduler(flags)  # of workers that other tests killed
        engine.submit(0, replace(run_of(), epochs=1000))
        until(engine, EpochReported)
        engine.stop(0)
        ended(engine, run_of(1), key=1)
        assert engine._client.run_on_scheduler(flags) <= before
