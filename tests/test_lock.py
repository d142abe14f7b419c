"""One driver a study, and the lock of a dead process is gone."""

import subprocess
import sys
from pathlib import Path

import postgres
import pytest

from study.errors import StorageError, StudyLocked
from study.storage.location import Database
from study.storage.lock import driven, driving

HOLDER = """
import sys
from study.storage.location import Database
from study.storage.lock import driving
with driving(Database.at(sys.argv[1]).study("one")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return postgres.database()
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def holder(url: str):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_driver_is_told_which_process_holds_the_study(url: str, holder) -> None:
    assert driven(Database.at(url).study("one"))
    with pytest.raises(StudyLocked, match=f"'one' is being driven by process {holder.pid}"):
        driving(Database.at(url).study("one")).__enter__()


def test_the_lock_of_a_killed_process_is_free(url: str, holder) -> None:
    holder.kill()
    holder.wait()
    with driving(Database.at(url).study("one")):
        assert driven(Database.at(url).study("one"))
    assert not driven(Database.at(url).study("one"))


def test_another_study_of_the_same_database_is_free(url: str, holder) -> None:
    assert holder.poll() is None
    assert not driven(Database.at(url).study("two"))
    with driving(Database.at(url).study("two")):
        assert driven(Database.at(url).study("two"))


def test_a_study_that_was_never_driven_leaves_no_file_when_asked_about(tmp_path: Path) -> None:
    assert not driven(Database.at(f"sqlite:///{tmp_path / 'study.db'}").study("one"))
    assert not list(tmp_path.iterdir())


def test_who_drives_need_not_be_written_down(tmp_path: Path) -> None:
    location = Database.at(f"sqlite:///{tmp_path / 'study.db'}").study("one")
    location.lock.with_suffix(".holder").mkdir()
    with driving(location), pytest.raises(StudyLocked, match="driven by another process"):
        driving(location).__enter__()
    assert not driven(location)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder no one can write: Linux")
def test_a_folder_that_cannot_be_written_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"/sys/study\.db.*cannot be written"):
        driving(Database.at("sqlite:////sys/study.db").study("one")).__enter__()
