"""Where a study's things are, and that nothing of two studies is in one place."""

import itertools
import re
import sys
from pathlib import Path

import pytest

from study.errors import StorageError
from study.storage.location import Database, Location, typed


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell finds the `study` command of this Python."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


SERVER = "postgresql+psycopg://me:pass%40word@db.example.org:5433/studies"


def places(location: Location) -> set[Path]:
    """Every place that belongs to a study alone."""
    uuid = location.name.replace("/", "-")
    return {location.report, location.final_models, location.models(uuid)}


def test_beside_the_usual_database_the_names_are_simple(tmp_path: Path) -> None:
    location = Database.at(f"sqlite:///{tmp_path / 'study.db'}").study("digits")
    assert location.report == tmp_path / "digits-report"
    assert location.final_models == tmp_path / "digits-models"
    assert location.checkpoints == tmp_path / "study.db.checkpoints"
    assert location.models("abc") == tmp_path / "study.db.models" / "abc"
    assert location.database.mlflow_store == tmp_path / "mlflow.db"


def test_no_two_studies_share_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    urls = [f"sqlite:///{name}" for name in ("study.db", "study", "a.db", "a-b.db", "a.sqlite")]
    urls += [SERVER, SERVER.replace(":5433", ""), SERVER.replace("/studies", "/others")]
    names = ("digits", "b-digits", "a.db", "../a.db.studies/digits", "a.db.studies")
    studies = [Database.at(url).study(name) for url in urls for name in names]
    for one, other in itertools.combinations(studies, 2):
        assert not places(one) & places(other), (one, other)


def test_a_place_is_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Database.at("sqlite:///study.db")
    assert found == Database.at(f"sqlite:///{tmp_path / 'study.db'}")
    assert found.study("digits").report.is_absolute()


def test_a_storage_is_opened_once(tmp_path: Path) -> None:
    database = Database.at(f"sqlite:///{tmp_path / 'study.db'}")
    assert database.open(create=True) is database.open()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:secret@word@host/studies",
        "postgresql://me:sec/ret@word@host/studies",
        "postgres://me:sec:ret@w@rd@host:5432/studies?sslmode=require",
        "mysql://me@secret:word@host/studies",
        "postgresql://me:secret@word@host:port/studies",
    ],
)
def test_a_password_with_an_at_sign_is_refused_and_no_part_of_it_shown(url: str) -> None:
    with pytest.raises(StorageError, match="write it as %40") as refused:
        Database.at(url)
    assert not re.search("sec|ret|w@?rd", str(refused.value))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_any_name_of_postgresql_is_understood(scheme: str) -> None:
    found = Database.at(f"{scheme}://me:pass%40word@host/studies")
    assert found == Database.at("postgresql+psycopg://me:pass%40word@host/studies")
    assert found.address.password == "pass@word"


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x"])
def test_what_is_no_database_file_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="write sqlite:///FILE"):
        Database.at(url)


def test_a_link_in_a_circle_is_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(StorageError, match="no such folder"):
        Database.at(f"sqlite:///{tmp_path / 'circle' / 'study.db'}").check()


def test_a_password_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = "postgresql+psycopg://me@host/studies?password=pass%40word&sslmode=require"
    for url in (SERVER, inside):
        database = Database.at(url)
        said = database.command("resume", name="digits")
        for text in (said, database.shown, repr(database), repr(database.study("digits"))):
            assert "pass@word" not in text
            assert "pass%40word" not in text
        assert said.startswith(f"cd {tmp_path} && study resume digits (with ")
        assert f"STUDY_STORAGE set to {database.shown} and its password" in said


def test_a_command_needs_no_variable_where_there_is_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "postgresql+psycopg://me@host/studies"
    assert Database.at(url).command("run") == f"cd {tmp_path} && study run --storage {url}"


def test_where_the_shell_finds_another_study_the_command_names_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Path(sys.executable).parent
    assert typed("list") == "study list"
    monkeypatch.setenv("PATH", "/nowhere")
    assert typed("list") == f"{home / 'study'} list"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert typed("list") == "/nowhere/python -m study list"


def test_long_names_that_begin_alike_have_two_folders(tmp_path: Path) -> None:
    database = Database.at(f"sqlite:///{tmp_path / 'study.db'}")
    for beginning in ("a" * 200, "é" * 140, "/" * 60):
        folders = [database.study(beginning + end).report for end in ("", "1", "2")]
        assert len(set(folders)) == 3
        assert all(len(folder.name.encode()) < 200 for folder in folders)
