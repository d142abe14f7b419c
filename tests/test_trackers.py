"""Another tracker than MLflow; and servers that are slow, huge, lying or close by when asked."""

# ruff: noqa: F811 - the mirror's fixtures are used by their names

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path

import mirror_fakes
import pytest
import servers
from mirror_fakes import Made
from servers import TOKEN, Hostile
from test_mirror import fill, keep_model, location, made, wait_for  # noqa: F401
from typer.testing import CliRunner

from study.cli.app import app
from study.errors import MirrorError
from study.mirror import old_servers
from study.mirror.follow import Follower, Mirror, mirror_once, shown_at
from study.mirror.tracker import TRACKERS, Target, resolve
from study.storage.location import Database
from study.storage.lock import driver_lock

# --- another tracker -----------------------------------------------------------------------------

REGISTER = """
import sys
sys.path.append({tests!r})
from study.mirror.tracker import TRACKERS
TRACKERS["jsonl"] = "json_lines:JsonLines"
"""


@pytest.fixture
def json_lines(tmp_path, monkeypatch) -> Path:
    """The file of the tracker, which is in the table here and in every Python started from here."""
    (tmp_path / "site").mkdir()
    text = REGISTER.format(tests=str(Path(__file__).parent))
    (tmp_path / "site" / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setitem(TRACKERS, "jsonl", "json_lines:JsonLines")
    return tmp_path / "runs.jsonl"


def written(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def target_of(made: Made, uri: str) -> Target:
    target = resolve(uri, {}, Database.at(made.url))
    assert target is not None
    return target


def test_another_tracker_is_a_file_and_an_entry_in_a_table(made, json_lines):
    """Followed live by the driver's child, then sent the rest, then nothing twice."""
    target = target_of(made, f"jsonl://{json_lines}")
    number = made.add(made.start(), 0, (0.5,), "running")
    said: list[str] = []
    follower = Follower(location(made), target, said.append)
    with driver_lock(location(made)):
        follower.start()
        wait_for(lambda: any(line["run"]["key"] == "trial 0" for line in written(json_lines)))
        made.report(number, 0.7)
        keep_model(made, number)
        made.tell(number, "complete", 0.7)
    follower.close(60)
    assert said == []
    last = {line["run"]["key"]: line["run"] for line in written(json_lines)}
    states = {key: run["state"] for key, run in last.items() if "configuration" not in key}
    assert states == {"trial 0": "complete", "study": "interrupted"}
    assert last[last["trial 0"]["parent"]]["parent"] == "study"
    points = [point for line in written(json_lines) for point in line.get("points", ())]
    accuracies = {p["step"]: p["value"] for p in points if p["key"] == "val_accuracy"}
    assert accuracies == {1: 0.5, 2: 0.7}
    assert shown_at(location(made), _uuid(made)).endswith("runs.jsonl#study")
    fill(made)
    keep_model(made, 2)
    assert mirror_once(location(made), target).artifacts > 0
    lines = len(written(json_lines))
    assert mirror_once(location(made), target).made == 0
    assert len(written(json_lines)) == lines


def _uuid(made: Made) -> str:
    return str(made.study.user_attrs["uuid"])


def test_a_tracker_that_is_in_no_table_is_named_with_those_that_are(made):
    with pytest.raises(MirrorError, match=r"wandb://me: is not .* write http://HOST:PORT"):
        target_of(made, "wandb://me")


# --- slow, huge and lying servers ----------------------------------------------------------------

BEHAVIOURS = {
    "a byte of the head now and then": (servers.drip_head, "does not answer in time"),
    "a byte of the body now and then": (servers.drip_body, "does not answer in time"),
    "nothing": (servers.silence, "does not answer in time"),
    "a body of four gigabytes": (servers.flood, "answer is too long"),
    "redirects without end": (servers.redirect, "redirects without end"),
    "an end at once, as PostgreSQL": (servers.hang_up, "cut the connection"),
}


@pytest.mark.parametrize(("behaviour", "says"), BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_a_server_that_misbehaves_is_one_line_within_seconds_and_bounded_memory(
    made, behaviour, says
):
    made.add(made.start(), 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Hostile(behaviour) as server:
        target = target_of(made, server.url)
        began = time.monotonic()
        with pytest.raises(MirrorError, match=says) as caught:
            Mirror(location(made), target, patience=2).run(live=False)
        (*_, found) = target.tracker.examine(target, 2)
        assert time.monotonic() - began < 60
    assert (found.fine, says in found.says) == (False, True)
    assert "\n" not in str(caught.value)
    unit = 1 if sys.platform == "darwin" else 1024
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    assert grown < 700 * 2**20


def test_a_study_without_runs_is_not_called_mirrored(made):
    nobody = f"http://127.0.0.1:{servers.free_port()}"
    told = CliRunner().invoke(app, ["mirror", "--storage", made.url, "--mlflow", nobody])
    assert (told.exit_code, told.output) == (
        0,
        f"Study {made.study.study_name!r} has no runs yet: there is nothing to mirror\n",
    )


def test_a_database_that_is_not_there_is_said_within_seconds(made):
    made.add(made.start(), 0)
    address = f"postgresql+psycopg://me:pw5678@127.0.0.1:{servers.free_port()}/mlflow"
    target = target_of(made, address)
    began = time.monotonic()
    with pytest.raises(MirrorError, match="the server is not there") as caught:
        Mirror(location(made), target, patience=5).run(live=False)
    assert time.monotonic() - began < 60
    assert "pw5678" not in str(caught.value)


@pytest.mark.parametrize(
    "behaviour", [servers.drip_head, servers.drip_body, servers.flood, servers.hang_up]
)
def test_an_mflux_that_misbehaves_is_given_up_in_time(behaviour):
    with Hostile(behaviour) as server, pytest.raises(MirrorError, match="cannot be reached"):
        old_servers.handshake(server.url, TOKEN, patience=2)


@pytest.mark.parametrize("behaviour", [servers.drip_head, servers.drip_body, servers.redirect])
def test_a_bucket_that_misbehaves_is_given_up_in_time(behaviour):
    with Hostile(behaviour) as server:
        began = time.monotonic()
        buckets = old_servers.Buckets(old_servers.Keys("", server.url, "a", "b"), 2)
        with pytest.raises(MirrorError, match="the bucket"):
            buckets.probe("s3://models/one")
        assert time.monotonic() - began < 20


def test_a_server_that_echoes_the_password_does_not_make_it_seen(made):
    made.add(made.start(), 0)
    with servers.Proxy("", rule=servers.echo) as server:
        target = target_of(made, server.url.replace("//", "//me:pa55word@"))
        with pytest.raises(MirrorError) as caught:
            Mirror(location(made), target, patience=5).run(live=False)
    assert "bWU6cGE1NXdvcmQ" not in str(caught.value)
    assert "pa55word" not in str(caught.value)


# --- names ---------------------------------------------------------------------------------------

FOLDERS = ["project (1)", "müller", "100%", "100%41", "a#b?c", "a b&c=d;e", 'it\'s "mine"', "\\"]
NAMES = ["../../escaped", "a/b/../c", "/etc", ".", "ü" * 127, "x" * 512, "100%2F..", "file:///x"]


@pytest.mark.parametrize(("folder", "name"), [*zip(FOLDERS, NAMES, strict=True)])
def test_any_name_of_folder_and_study_works_and_nothing_is_written_outside(tmp_path, folder, name):
    home = tmp_path / "above" / folder
    home.mkdir(parents=True)
    if folder not in ("100%41", "a#b?c"):  # where a new store is made; making one takes seconds
        shutil.copy(servers.local_store(), home / "mlflow.db")
    made = mirror_fakes.make(home, name=name)
    fill(made)
    target = resolve(None, {}, Database.at(made.url))
    assert target is not None
    passed_on = target_of(made, target.environment()["STUDY_MLFLOW"])  # as the child is told
    assert passed_on.file == target.file == home / "mlflow.db"
    assert mirror_once(location(made), passed_on).problems == []
    assert mirror_once(location(made), target).made == 0
    assert {path.name for path in tmp_path.iterdir()} == {"above"}
    assert {path.name for path in home.parent.iterdir()} == {folder}
    assert {path.name for path in home.iterdir()} >= {"mlflow.db", "mlflow-artifacts"}
    assert [path.read_bytes() for path in home.rglob("model.keras")] == [b"a model"]
