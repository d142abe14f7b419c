"""Runs on real Dask clusters: workers join and die, and the answer is that of one process."""

import collections
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import dask
import fake_trainer
import fakes
import numpy as np
import psutil
import pytest
from dask.utils import parse_timedelta
from distributed.security import Security
from optuna.storages import BaseStorage, InMemoryStorage
from servers import free_port

from study.data.dataset import Dataset
from study.errors import StudyError
from study.plan.plan import PlanState, RunSpec
from study.running.driver import ActiveRun
from study.training.checkpoint import FolderCheckpoints
from study.training.run import Epoch, Run
from study.workers import cluster, local_cluster
from study.workers.engine import Engine, EpochReported, Event, InProcess, RunFinished

ROOT = Path(__file__).parents[1]
SLOT = RunSpec("width", 1, (("width", 1),), 0, None)
PAUSE = 0.05  # seconds an epoch takes
PATIENCE = 60  # seconds a process may take to start


def dataset() -> Dataset:
    """Images that nothing looks at."""
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    labels = np.arange(6, dtype=np.int32) % 2
    return Dataset("fake", images, labels, images[:2], labels[:2], (0, 1), "fake")


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
        file = self.folder / "trace"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def clear(self) -> None:
        """End the workers, and forget what they did."""
        for process in self._started[1:]:
            kill(process)
        for file in (self.folder / "trace", *self.folder.glob("checkpoints/*")):
            file.unlink(missing_ok=True)

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


def drive(storage: BaseStorage, engine: Engine, watch: Any = None) -> PlanState:
    with closing(engine):
        driven = fakes.driver(storage, engine=engine)
        driven._watch = watch or driven._watch
        return driven.drive()


def results(storage: BaseStorage) -> dict[Any, Any]:
    """What training decided, run by run; a failed or unfinished one would show."""
    series = ("accuracy", "loss", "val_accuracy", "val_loss")
    return {
        (row.configuration, row.repeat): (row.state, [list(row.curve[name]) for name in series])
        for row in fakes.rows(storage)
    }


@pytest.fixture(scope="module")
def expected() -> dict[Any, Any]:
    """The results of one process that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_PAUSE", "0")
        storage = InMemoryStorage()
        drive(storage, InProcess(lambda run: fake_trainer.train(run, dataset())))
    return results(storage)


def remote(servers: Servers, **given: Any) -> cluster.DaskEngine:
    store = FolderCheckpoints(servers.folder / "checkpoints")
    return cluster.remote_engine(servers.address, dataset(), store, fake_trainer.train, **given)


def local(folder: Path, **given: Any) -> cluster.DaskEngine:
    """Its workers are forked from a process that may be older than a test's environment."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("FAKE_")}
    dask.config.set({"distributed.nanny.environ": environ})
    store = FolderCheckpoints(folder / "checkpoints")
    return local_cluster.local_engine(dataset(), 2, 1, store, fake_trainer.train, **given)


def twice(trace: list[list[str]]) -> int:
    """How many epochs were trained more than once."""
    epochs = [tuple(line[1:]) for line in trace]
    return len(epochs) - len(set(epochs))


def most_processes(trace: list[list[str]]) -> int:
    """By how many processes a run was trained at most."""
    return max(len({line[0] for line in trace if line[1] == run}) for _, run, _ in trace)


def test_epochs_arrive_while_the_run_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "3")
    with closing(local(tmp_path)) as engine:
        engine.submit(7, fakes.run_of(SLOT))
        assert engine.next_event().epoch.number == 0
        assert not engine._tasks[7].future.done()


def until(engine: Engine, kind: type[Event]) -> None:
    while not isinstance(engine.next_event(), kind):
        pass


def test_a_run_that_is_stopped_for_good_leaves_no_checkpoint(servers: Servers) -> None:
    servers.worker()
    store = FolderCheckpoints(servers.folder / "checkpoints")
    run, other = (fakes.run_of(replace(SLOT, repeat=repeat)) for repeat in (0, 1))
    with closing(remote(servers)) as engine:
        engine.submit(0, run)
        until(engine, EpochReported)
        engine.stop(0)
        store.delete(run.key)  # as the driver does, while the next epoch is on its way
        engine.submit(1, other)  # the worker turns to it when it has done with the first
        until(engine, RunFinished)
    assert store.load(run.key) is None
    assert store.load(other.key) is not None


def test_a_run_that_is_interrupted_goes_on_from_its_checkpoint(servers: Servers) -> None:
    servers.worker()
    for wanted in (EpochReported, RunFinished):
        with closing(remote(servers)) as engine:
            engine.submit(0, fakes.run_of(SLOT))
            until(engine, wanted)
    assert len(servers.trace) == fakes.run_of(SLOT).epochs


@pytest.mark.parametrize("kind", ["in this process", "on this machine", "remote"])
def test_a_run_that_pauses_goes_on_where_it_was(
    kind: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = traced_here(tmp_path, monkeypatch)
    store = FolderCheckpoints(tmp_path / "checkpoints")
    if kind == "remote":
        servers.worker()
    engine: Engine = {
        "in this process": lambda: InProcess(
            lambda run: fake_trainer.train(run, dataset(), checkpoints=store)
        ),
        "on this machine": lambda: local(tmp_path),
        "remote": lambda: remote(servers),
    }[kind]()
    run = replace(fakes.run_of(SLOT), epochs=5)
    with closing(engine):
        paused, no_model = submitted(engine, replace(run, until=2))
        again, _ = submitted(engine, replace(run, until=1))
        whole, model = submitted(engine, run)
    trained = servers.trace if kind == "remote" else traced()
    monkeypatch.delenv("FAKE_TRACE")
    alone = InProcess(lambda run: fake_trainer.train(run, dataset()))
    undisturbed, expected_model = submitted(alone, run)
    assert [astuple(epoch)[:5] for epoch in whole] == [astuple(epoch)[:5] for epoch in undisturbed]
    assert (paused, again, no_model) == (whole[:2], whole[:1], None)
    assert model == expected_model == b"model"
    assert [line[2] for line in trained] == ["0", "1", "2", "3", "4"]


def submitted(engine: Engine, run: Run) -> tuple[list[Epoch], bytes | None]:
    """A run's epochs and its model, as its engine reports them."""
    engine.submit(0, run)
    epochs = []
    while True:
        match engine.next_event():
            case EpochReported(epoch=epoch):
                epochs.append(epoch)
            case RunFinished(model=model):
                return epochs, model


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
    assert twice(servers.trace) == 0


def test_a_machine_that_dies_in_the_middle_of_a_run_costs_nothing(
    servers: Servers, expected: dict
) -> None:
    for _ in range(2):
        servers.worker()
    (servers.folder / "death").write_text("group")
    drive(storage := InMemoryStorage(), remote(servers))
    assert results(storage) == expected
    assert most_processes(servers.trace) == 2
    assert twice(servers.trace) == 0


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
    """Dask's configuration for certificates of a new authority."""
    made = Security.temporary()
    contents = {
        "ca": made.tls_ca_file,
        "cert": made.tls_client_cert,
        "key": made.tls_client_key,
    }
    for name, content in contents.items():
        (folder / name).write_text(str(content))
    config = {"require-encryption": "True", "tls.ca-file": str(folder / "ca")}
    for role in ("scheduler", "worker", "client"):
        config |= {f"tls.{role}.{name}": str(folder / name) for name in ("cert", "key")}
    return {f"distributed.comm.{key}": value for key, value in config.items()}


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
    drive(storage, InProcess(lambda run: fake_trainer.train(run, dataset())))
    assert results(storage) == expected


def test_a_local_worker_that_is_killed_is_replaced_and_its_run_goes_on(
    tmp_path: Path, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = traced_here(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_DEATH", str(tmp_path / "death"))
    (tmp_path / "death").touch()
    drive(storage := InMemoryStorage(), local(tmp_path))
    assert results(storage) == expected
    assert most_processes(traced()) == 2
    assert twice(traced()) == 0


def test_a_worker_that_has_grown_is_replaced_between_two_runs(
    tmp_path: Path, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = traced_here(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_GROWTH", str(40 * 2**20))
    drive(storage := InMemoryStorage(), local(tmp_path, growth=0.05))
    assert results(storage) == expected
    assert twice(traced()) == 0
    runs_of = {pid: {line[1] for line in traced() if line[0] == pid} for pid, *_ in traced()}
    assert len(runs_of) > 2
    assert max(map(len, runs_of.values())) <= 4


def test_a_worker_is_not_given_up_because_it_is_being_replaced_once_more(tmp_path: Path) -> None:
    with closing(local(tmp_path)):
        patience = dask.config.get("distributed.deploy.lost-worker-timeout")
    assert parse_timedelta(patience) > 365 * 24 * 3600


def test_workers_that_cannot_be_replaced_are_one_line_and_no_wait_without_end(
    tmp_path: Path,
) -> None:
    with closing(local(tmp_path)) as engine:
        own = engine._client.cluster
        for nanny in list(own.workers.values()):
            own.sync(nanny.close)
        with pytest.raises(StudyError, match=r"none could be started.*nothing is lost: resume"):
            collections.deque(iter(engine.next_event, "the end"), maxlen=0)


def test_a_larger_network_may_need_more_memory_than_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from study.workers import worker

    sizes = iter([100, 200, 225, 235])
    monkeypatch.setattr(worker, "_size", lambda: next(sizes))
    process = worker._Process()
    process.measure(activations=10)
    process.measure(activations=20)
    process.measure(activations=22)  # hardly larger: what has grown here has leaked
    assert not process.grown(0.15)
    assert process.grown(0.15)


def traced_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """Have the workers of this machine trace; reads what they have trained."""
    monkeypatch.setenv("FAKE_TRACE", str(folder / "trace"))
    monkeypatch.setenv("FAKE_PAUSE", str(PAUSE))
    return lambda: [line.split() for line in (folder / "trace").read_text().splitlines()]


def test_on_this_machine_nobody_samples_the_workers_or_ticks_all_the_time(tmp_path: Path) -> None:
    def of_worker(dask_worker: Any) -> dict[str, float]:
        return {name: one.callback_time for name, one in dask_worker.periodic_callbacks.items()}

    def of_scheduler(dask_scheduler: Any) -> dict[str, float]:
        return of_worker(dask_scheduler)

    with closing(local(tmp_path)) as engine:  # Dask goes by the names of the arguments
        workers = engine._client.run(of_worker)
        driver = engine._client.run_on_scheduler(of_scheduler)
    assert len(workers) == 2
    for callbacks in (*workers.values(), driver):
        assert "profile" not in callbacks
        assert callbacks["tick"] >= 10_000  # milliseconds
        assert callbacks["monitor"] >= 10_000


def test_closing_leaves_no_process_behind(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    engine = local(tmp_path)
    workers = set(psutil.Process().children(recursive=True)) - before
    assert len(workers) >= 2
    engine.close()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not [p for p in alive if "resource_tracker" not in " ".join(p.cmdline())]
