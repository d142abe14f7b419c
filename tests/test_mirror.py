"""The mirror against real servers: what each run holds, and that nothing is lost or doubled."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mirror_fakes
import psutil
import pytest
import servers
from mirror_fakes import BORN, Made
from servers import ACCESS_KEY, SECRET_KEY, TOKEN, Fault, MFlux, Proxy, Shown

from study.errors import MirrorError
from study.files import write_whole
from study.mirror.follow import Follower, Mirror, mirror_once, shown_at
from study.mirror.old_servers import Keys, handshake
from study.mirror.tracker import Target, resolve
from study.storage import models
from study.storage.location import Database, Location
from study.storage.lock import driver_lock

PATIENCE = 10.0


@dataclass
class Place:
    """A target, and where to look at what it was sent."""

    target: Target
    database: Path

    def see(self, made: Made) -> dict[str, Shown]:
        return servers.shown(self.database, models.identity(made.study))


@pytest.fixture
def made(tmp_path) -> Made:
    return mirror_fakes.make(tmp_path, name=tmp_path.name)


@pytest.fixture
def server() -> servers.Running:
    return servers.running()


@pytest.fixture
def tracking(server) -> Iterator[Proxy]:
    with Proxy(server.mlflow.url) as proxy:
        yield proxy


@pytest.fixture
def s3(server) -> Iterator[Proxy]:
    with Proxy(server.s3.url, rule=servers.as_minio({ACCESS_KEY})) as proxy:
        yield proxy


@pytest.fixture
def mflux(tracking, s3) -> Iterator[MFlux]:
    with MFlux(tracking.url, s3.url) as handshake:
        yield handshake


@pytest.fixture
def place(server, mflux, made) -> Place:
    """MFlux: a server with S3 behind it, through proxies that can fail."""
    environ = {"MFLUX_TOKEN": TOKEN, "MFLUX_HOST": mflux.host}
    target = resolve(None, environ, Database.at(made.url))
    assert target is not None
    return Place(target, server.database)


@pytest.fixture(params=["local store", "server", "server with S3", "old server"])
def anywhere(request, made, tmp_path) -> Place:
    """Every kind of target."""
    if request.param == "local store":
        shutil.copy(servers.local_store(), tmp_path / "mlflow.db")  # making one takes seconds
        target = resolve(None, {}, Database.at(made.url))
        assert target is not None
        return Place(target, tmp_path / "mlflow.db")
    if request.param == "server":
        server = request.getfixturevalue("server")
        target = resolve(server.mlflow.url, {}, Database.at(made.url))
        assert target is not None
        _make_experiment(server.mlflow.url, made.study.study_name, "mlflow-artifacts:/through")
        return Place(target, server.database)
    if request.param == "old server":
        request.getfixturevalue("tracking").rule = servers.as_old
    return request.getfixturevalue("place")


def _make_experiment(url: str, name: str, location: str) -> None:
    import requests

    order = {"name": name, "artifact_location": location}
    requests.post(
        f"{url}/api/2.0/mlflow/experiments/create", json=order, timeout=60
    ).raise_for_status()


def location(made: Made) -> Location:
    return Database.at(made.url).study(made.study.study_name)


def here(made: Made, place: Place, patience: float = PATIENCE) -> Mirror:
    return Mirror(location(made), place.target, patience)


def mirror(made: Made, place: Place, *, live: bool = False):
    return here(made, place).run(live=live, afresh=True)


def fill(made: Made) -> None:
    """A study with a run of every kind, one of them with its model models."""
    made.add(made.start(), 0, (0.5, 0.8, 0.90))
    made.add(made.start(), 1, (0.5, 0.8, 0.92))
    made.add(made.option(filters=8), 0, (0.1, 0.2), "pruned")
    made.add(made.option(filters=8), 1, (), "failed", attributes={"failure": "out of memory"})
    keep_model(made, 1)


def keep_model(made: Made, number: int, model: bytes = b"a model") -> None:
    folder = location(made).models(models.identity(made.study))
    write_whole(models.file(folder, number), model)


def same(one: dict[str, Shown], other: dict[str, Shown]) -> bool:
    """Whether two studies look the same, apart from whose they are."""
    return _plain(one) == _plain(other)


def _plain(shown: dict[str, Shown]) -> dict[str, Shown]:
    own = ("study_uuid", "mlflow.runName", "mlflow.user")
    return {
        slot: dataclasses.replace(
            run, tags={key: run.tags[key] for key in run.tags if key not in own}, name=""
        )
        for slot, run in shown.items()
    }


# --- what each run holds, wherever it is sent ----------------------------------------------------


def test_every_kind_of_target_shows_the_same_study(made, anywhere):
    fill(made)
    report = mirror(made, anywhere)
    assert report.problems == []
    shown = anywhere.see(made)
    assert _statuses(shown) == {
        "study": ("FINISHED", "KILLED", "FAILED"),
        "trial 0": ("FINISHED",),
        "trial 1": ("FINISHED",),
        "trial 2": ("KILLED", "FAILED"),
        "trial 3": ("FAILED",),
    }
    best = shown["trial 1"]
    parent = shown[best.parent]
    assert (parent.status, parent.parent, shown["study"].parent) == ("FINISHED", "study", None)
    assert best.name == "filters=4, repeat 2"
    assert best.started == (BORN + 100) * 1000
    assert best.ended == (BORN + 199) * 1000
    assert _series(best, "val_accuracy") == [
        (1, (BORN + 102) * 1000 + 500, 0.5),
        (2, (BORN + 105) * 1000, 0.8),
        (3, (BORN + 107) * 1000 + 500, 0.92),
    ]
    assert best.params.items() >= {"filters": "4", "epochs": "3", "batch_size": "32"}.items()
    assert best.tags.items() >= best.params.items()
    assert best.tags.items() >= {"trial": "1", "repeat": "2", "seed": "1", "model": "kept"}.items()
    assert shown["trial 3"].tags["failure"] == "out of memory"
    assert shown["trial 2"].tags["state"] == "pruned"
    assert _series(best, "final_val_accuracy")[0][2] == 0.92
    assert _series(shown["trial 2"], "final_val_accuracy") == []
    means = [(step, round(value, 6)) for step, _, value in _series(parent, "mean_val_accuracy")]
    assert means == [(1, 0.733333), (2, 0.736667)]  # of the last three epochs, as in the study
    assert [step for step, _, _ in _series(parent, "standard_error")] == [1, 2]
    again = mirror(made, anywhere)
    assert (again.made, again.points, again.artifacts) == (0, 0, 0)
    assert anywhere.see(made) == shown


def _statuses(shown: dict[str, Shown]) -> dict[str, tuple[str, ...]]:
    """The status of each run but the configurations', among those it may have."""
    allowed = {"study": ("FINISHED", "KILLED", "FAILED"), "trial 2": ("KILLED", "FAILED")}
    found = {}
    for slot, run in shown.items():
        if not slot.startswith("configuration"):
            may = allowed.get(slot, (run.status,))
            assert run.status in may
            found[slot] = may
    return found


def _series(run: Shown, key: str) -> list[tuple[int, int, float]]:
    return [(step, at, value) for name, step, at, value in run.points if name == key]


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*AnyType")  # MLflow warns of its own scoring server
def test_a_mirrored_model_predicts_what_the_trained_one_did(made, anywhere, tmp_path, monkeypatch):
    import mlflow.keras
    import numpy as np

    from study.training.network import build_cnn

    model = build_cnn(dict(made.start()), (28, 28, 1), 10)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).integers(0, 256, (8, 28, 28, 1)) / 255
    made.add(made.start(), 0)
    made.add(made.start(), 1)
    keep_model(made, 0, (tmp_path / "model.keras").read_bytes())
    assert mirror(made, anywhere).artifacts == 1
    become_client(anywhere, monkeypatch)
    address = f"runs:/{_run_id(anywhere, made, 'trial 0')}/model"
    predicted = model.predict(images, verbose=0)
    loaded = mlflow.keras.load_model(address)
    assert np.array_equal(loaded.predict(images, verbose=0), predicted)
    assert serves(address, images, predicted)


def become_client(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have MLflow in this process read from a place, as the code of a user does."""
    keys = keys_of(place.target)
    variables = {
        "MLFLOW_TRACKING_URI": keys.tracking_uri,
        "MLFLOW_TRACKING_TOKEN": place.target.token,
        "MLFLOW_S3_ENDPOINT_URL": keys.s3_endpoint,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
    }
    if keys.s3_endpoint is not None:  # a MinIO of 2020 does not know boto3's checksums
        variables["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
        variables["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"
    for name, value in variables.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    if "AWS_ACCESS_KEY_ID" not in os.environ:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)


def keys_of(target: Target) -> Keys:
    return handshake(target.uri, target.token) if target.token else Keys(target.uri)


def serves(address: str, images: Any, predicted: Any) -> bool:
    """Whether `mlflow.pyfunc` and `mlflow models serve` predict the same, whatever the numbers."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.pyfunc import scoring_server

    model = mlflow.pyfunc.load_model(address)
    body = json.dumps({"inputs": images.tolist()})
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(body, "application/json", model, schema)
    said = [json.loads(answer.response)["predictions"]]
    said += [model.predict(images.astype(kind)) for kind in (images.dtype, "float32", "float64")]
    return all(np.allclose(one, predicted, rtol=1e-5, atol=1e-6) for one in said)


def _run_id(place: Place, made: Made, slot: str) -> str:
    with closing(sqlite3.connect(place.database)) as opened:
        return str(
            opened.execute(
                "SELECT s.run_uuid FROM tags s JOIN tags u ON u.run_uuid = s.run_uuid"
                " WHERE s.value = ? AND u.value = ?",
                (slot, models.identity(made.study)),
            ).fetchone()[0]
        )


def test_with_none_a_study_is_mirrored_later_with_its_original_times(made, place):
    off = Follower(location(made), resolve("none", {}, Database.at(made.url)), print)
    off.start()
    fill(made)
    off.close(1)
    assert place.see(made) == {}
    mirror_once(location(made), place.target)
    assert place.see(made)["trial 0"].started == BORN * 1000
    assert place.see(made)["trial 0"].ended == (BORN + 99) * 1000


# --- while a study runs --------------------------------------------------------------------------


def test_a_running_trial_is_followed_epoch_by_epoch(made, place):
    number = made.add(made.start(), 0, (0.5,), "running")
    passes = here(made, place)
    passes.run(live=True)
    assert place.see(made)["trial 0"].status == "RUNNING"
    made.report(number, 0.7)
    report = passes.run(live=True)
    assert (report.made, report.points) == (0, 5)
    made.tell(number, "complete", 0.7)
    passes.run(live=True)
    shown = place.see(made)["trial 0"]
    assert shown.status == "FINISHED"
    assert [step for step, _, _ in _series(shown, "val_accuracy")] == [1, 2]


def test_a_driver_that_stopped_leaves_nothing_running_and_the_next_one_goes_on(made, place):
    number = made.add(made.start(), 0, (0.5,), "running")
    mirror(made, place, live=True)
    mirror(made, place, live=False)
    assert {run.status for run in place.see(made).values()} == {"KILLED"}
    assert place.see(made)["trial 0"].tags["state"] == "interrupted"
    mirror(made, place, live=True)
    assert {run.status for run in place.see(made).values()} == {"RUNNING"}
    made.report(number, 0.6)
    made.tell(number, "complete", 0.6)
    mirror(made, place, live=False)
    shown = place.see(made)["trial 0"]
    assert (shown.status, shown.tags["state"]) == ("FINISHED", "complete")
    assert len(_series(shown, "accuracy")) == 2


def test_a_model_is_sent_once_its_configuration_is_decided(made, place):
    made.add(made.start(), 0, (0.5, 0.9))
    keep_model(made, 0)
    passes = here(made, place)
    assert passes.run(live=True).artifacts == 0
    made.add(made.start(), 1, (0.5, 0.8))
    assert passes.run(live=True).artifacts == 1


def test_a_model_that_is_gone_is_said_to_be(made, place):
    fill(made)
    models.file(location(made).models(models.identity(made.study)), 1).unlink()
    assert "the model of trial 1 is gone" in mirror(made, place).problems[0]
    assert place.see(made)["trial 1"].tags["model"] == "gone"


def test_the_study_knows_where_it_is_shown(made, place, tracking):
    fill(made)
    mirror(made, place)
    address = shown_at(location(made), models.identity(made.study))
    assert address.startswith(f"{tracking.url}/#/experiments/")
    assert address.endswith(f"/runs/{_run_id(place, made, 'study')}")


def test_the_mirror_writes_nothing_to_the_database_of_the_study(made, place):
    fill(made)
    made.add(made.start(), 0, (0.5,), "running")

    def stored() -> list[str]:
        with closing(sqlite3.connect(made.url.removeprefix("sqlite:///"))) as opened:
            return list(opened.iterdump())

    before = stored()
    mirror(made, place, live=True)
    mirror(made, place)
    assert stored() == before


# --- what is deleted on the server ---------------------------------------------------------------


def _client(server: servers.Running):
    from mlflow.tracking import MlflowClient

    return MlflowClient(server.mlflow.url)


@pytest.mark.parametrize("slot", ["trial 1", "study"])
def test_a_run_that_is_deleted_on_the_server_is_made_again(made, place, server, slot):
    fill(made)
    mirror(made, place)
    before = place.see(made)
    _client(server).delete_run(_run_id(place, made, slot))
    assert mirror(made, place).made == 1
    assert same(place.see(made), before)


def test_a_running_run_that_is_deleted_is_made_again_by_the_next_pass(made, place, server):
    number = made.add(made.start(), 0, (0.5,), "running")
    passes = here(made, place)
    passes.run(live=True)
    _client(server).delete_run(_run_id(place, made, "trial 0"))
    made.report(number, 0.7)
    assert "deleted" in passes.run(live=True).problems[0]
    assert passes.run(live=True).problems == []
    assert len(_series(place.see(made)["trial 0"], "loss")) == 2


def test_an_experiment_that_is_deleted_is_restored(made, place, server):
    fill(made)
    mirror(made, place)
    before = place.see(made)
    client = _client(server)
    experiment = client.get_experiment_by_name(made.study.study_name)
    client.delete_experiment(experiment.experiment_id)
    mirror(made, place)
    assert client.get_experiment(experiment.experiment_id).lifecycle_stage == "active"
    assert same(place.see(made), before)


def test_doubles_that_a_lost_answer_caused_are_removed(made, place, server):
    fill(made)
    mirror(made, place, live=True)
    client = _client(server)
    first = client.get_run(_run_id(place, made, "trial 0"))
    client.create_run(first.info.experiment_id, first.info.start_time, first.data.tags)
    mirror(made, place)
    assert place.see(made)["trial 0"].status == "FINISHED"  # a double would be an error


# --- servers that fail ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, Shown]:
    """The same study, mirrored without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    made = mirror_fakes.make(folder, name=folder.name)
    fill(made)
    server = servers.running()
    _make_experiment(server.mlflow.url, made.study.study_name, "mlflow-artifacts:/undisturbed")
    target = resolve(server.mlflow.url, {}, Database.at(made.url))
    assert target is not None
    where = Place(target, server.database)
    mirror(made, where)
    return where.see(made)


FAULTS = {
    "500 after having done the work": Fault(500, worked=True),
    "500 without having done it": Fault(500),
    "429": Fault(429),
    "a connection cut after the work": Fault(worked=True, cut=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_server_that_fails_each_request_once_gets_everything_once(
    made, place, tracking, undisturbed, fault
):
    fill(made)
    seen = set()

    def at_first(request: servers.Request) -> Fault | None:
        new = (request.path, request.body) not in seen
        seen.add((request.path, request.body))
        return fault if new else None

    tracking.rule = at_first
    insist(made, place)
    assert len(seen) > 15
    assert same(place.see(made), undisturbed)


def insist(made: Made, place: Place, tries: int = 60) -> None:
    """Pass after pass until one has nothing to complain of; complaints are a line, not secret."""
    passes = here(made, place)
    complaints = []
    while len(complaints) < tries:
        try:
            if not passes.run(live=False).problems:
                break
        except MirrorError as error:
            complaints.append(str(error))
    assert len(complaints) < tries
    for secret in ("\n", TOKEN, ACCESS_KEY, SECRET_KEY):
        assert not any(secret in complaint for complaint in complaints)


def test_a_wrong_token_is_said_in_one_line_and_nothing_is_sent(made, mflux, tracking):
    fill(made)
    target = resolve(
        None, {"MFLUX_TOKEN": "wrong", "MFLUX_HOST": mflux.host}, Database.at(made.url)
    )
    assert target is not None
    asked = mflux.asked
    with pytest.raises(MirrorError, match="does not know the token: check MFLUX_TOKEN"):
        mirror_once(location(made), target)
    assert mflux.asked == asked + 1  # it would refuse again
    assert tracking.requests == []


def test_with_expired_keys_metrics_arrive_and_models_follow(made, place, s3, mflux, undisturbed):
    fill(made)
    s3.rule = servers.as_minio({"a-new-key"})
    passes = here(made, place)
    report = passes.run(live=False)
    assert "the model of trial 1 is not sent: the bucket refuses" in report.problems[0]
    assert place.see(made)["trial 1"].status == "FINISHED"
    assert "model" not in place.see(made)["trial 1"].tags
    mflux.answer["minio_access_key"] = "a-new-key"
    assert passes.run(live=False).artifacts == 1
    assert same(place.see(made), undisturbed)


def test_a_disk_that_is_full_does_not_pass_for_success(made, tmp_path):
    fill(made)
    shutil.copy(servers.local_store(), tmp_path / "mlflow.db")
    (tmp_path / "mlflow-artifacts").write_text("no folder")  # the local store's artifacts
    target = resolve(None, {}, Database.at(made.url))
    assert target is not None
    report = mirror_once(location(made), target)
    assert "the model of trial 1 is not sent" in report.problems[0]


# --- kills ---------------------------------------------------------------------------------------


# What a child is going to need: it then starts in no time.
PRELOADED = ["pytest", "mlflow.tracking", "boto3", "alembic.command", "optuna_dashboard"]
PRELOADED += [
    "optuna.storages._rdb.models",
    "study.storage.database",
    "study.mirror.mlflow",
    "mlflow.tracking",
]


def _mirror_when_told(begin, url: str, name: str, target: Target) -> None:
    begin.wait()
    Mirror(Database.at(url).study(name), target, PATIENCE).run(live=False, afresh=True)


def test_killed_after_any_step_the_next_pass_completes_it(tmp_path, place, tracking, s3):
    """Steps through every request of mirroring one run with its model."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    (tmp_path / "template").mkdir()
    template = mirror_fakes.make(tmp_path / "template", repeats=1)
    template.add(template.start(), 0)
    reference: dict[str, Shown] = {}
    steps, step = 0, 0  # step 0 kills nothing, and counts
    while step <= steps:
        made = mirror_fakes.copy(template, tmp_path / str(step), f"{tmp_path.name}-{step}")
        keep_model(made, 0)
        begin = context.Event()
        about = (begin, made.url, made.study.study_name, place.target)
        child = context.Process(target=_mirror_when_told, args=about)
        child.start()
        killer = Killer(child.pid, step)
        tracking.answered = s3.answered = killer
        begin.set()
        child.join(120)
        tracking.answered = s3.answered = None
        if step == 0:
            assert child.exitcode == 0
            reference, steps = place.see(made), killer.count
        else:
            assert child.exitcode == -signal.SIGKILL
            mirror(made, place)
            assert same(place.see(made), reference), f"killed after step {step}"
        step += 1
    assert steps > 12


class Killer:
    """Kills a process when the request number ``step`` is done, before its answer is sent."""

    def __init__(self, pid: int | None, step: int) -> None:
        assert pid is not None
        self._pid = pid
        self._step = step
        self._lock = threading.Lock()
        self.count = 0

    def __call__(self, _: servers.Request) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._step:
                os.kill(self._pid, signal.SIGKILL)


# --- the child of a driver -----------------------------------------------------------------------


def wait_for(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_child_shows_no_secret_and_is_started_again_when_it_died(made, place, tmp_path):
    made.add(made.start(), 0, (0.5,), "running")
    said: list[str] = []
    follower = Follower(location(made), place.target, said.append)
    with driver_lock(location(made)):
        follower.start()
        process = follower._process
        assert process is not None
        wait_for(lambda: "trial 0" in place.see(made))
        assert place.see(made)["trial 0"].status == "RUNNING"
        line = Path(f"/proc/{process.pid}/cmdline")
        command = line.read_bytes() if line.exists() else b""  # there is none on macOS
        stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        for secret in (TOKEN, ACCESS_KEY, SECRET_KEY):
            assert secret.encode() not in command + stored
        process.kill()
        process.wait()
    follower.close(120)
    assert {run.status for run in place.see(made).values()} == {"KILLED"}
    assert said == []


def test_a_child_that_cannot_send_says_why_and_what_sends_the_rest(made, place, tracking):
    fill(made)
    tracking.stop()
    said: list[str] = []
    follower = Follower(location(made), place.target, said.append)
    follower.start()
    follower.close(120)
    (line,) = said
    assert "MLflow does not have everything yet (the server is not there" in line
    assert f"mirror {made.study.study_name} --storage" in line
    assert TOKEN not in line


DRIVER = """
import os, sys, time
from study.mirror.follow import Follower
from study.mirror.tracker import resolve
from study.storage.location import Database
from study.storage.lock import driver_lock
database = Database.at(sys.argv[1])
with driver_lock(database.study(sys.argv[2])):
    follower = Follower(database.study(sys.argv[2]), resolve(None, os.environ, database), print)
    follower.start()
    print(follower._process.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_driver_is_outlived_by_a_last_pass_alone(made, place):
    made.add(made.start(), 0, (0.5,), "running")
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, made.url, made.study.study_name],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | place.target.environment(),
    ) as driver:
        assert driver.stdout is not None
        child = psutil.Process(int(driver.stdout.readline()))
        wait_for(lambda: "trial 0" in place.see(made))
        driver.kill()
    child.wait(100)
    assert {run.status for run in place.see(made).values()} == {"KILLED"}
