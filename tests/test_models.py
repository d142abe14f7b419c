"""Models worth keeping: which they are, and that their files are whole or not there."""

from pathlib import Path

import mirror_fakes
import pytest

from study.errors import SettingsError, StorageError
from study.files import write_whole
from study.space.metric import ACCURACY
from study.storage import models
from study.storage.trials import StoredTrials


@pytest.fixture
def made(tmp_path):
    return mirror_fakes.make(tmp_path, repeats=3)


def rows(made):
    return StoredTrials()(made.study)


def keep(made, keeper, params, repeat, values, state="complete"):
    """A run is told, then its model is kept: the order of the driver."""
    number = made.add(params, repeat, values, state)
    row = next(row for row in rows(made) if row.number == number)
    keeper.keep(row, f"model {number}".encode(), rows(made))
    return number


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def silent(line):
    raise AssertionError(line)


def test_the_best_run_of_each_configuration_is_kept(made, tmp_path):
    keeper = models.Keeper(tmp_path / "models", "best", silent, ACCURACY)
    keep(made, keeper, made.start(), 0, (0.5, 0.91))
    keep(made, keeper, made.start(), 1, (0.5, 0.93))
    keep(made, keeper, made.start(), 2, (0.5, 0.92))
    keep(made, keeper, made.option(filters=8), 0, (0.5, 0.60))
    assert names(tmp_path / "models") == ["1.keras", "3.keras"]
    assert models.file(tmp_path / "models", 1).read_bytes() == b"model 1"


def test_of_equal_runs_the_first_repeat_is_kept(made, tmp_path):
    keeper = models.Keeper(tmp_path / "models", "best", silent, ACCURACY)
    keep(made, keeper, made.start(), 1, (0.5, 0.91))
    keep(made, keeper, made.start(), 0, (0.5, 0.91))
    assert names(tmp_path / "models") == ["1.keras"]
    assert models.wanted("best", rows(made), ACCURACY) == {1}


def test_a_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_all_keeps_every_complete_run(made, tmp_path):
    keeper = models.Keeper(tmp_path / "models", "all", silent, ACCURACY)
    for repeat in range(3):
        keep(made, keeper, made.start(), repeat, (0.5, 0.9))
    made.add(made.option(filters=8), 0, (0.1,), "pruned")
    assert names(tmp_path / "models") == ["0.keras", "1.keras", "2.keras"]
    assert models.wanted("all", rows(made), ACCURACY) == {0, 1, 2}


def test_none_keeps_nothing_and_makes_no_folder(made, tmp_path):
    keep(
        made, models.Keeper(tmp_path / "models", "none", silent, ACCURACY), made.start(), 0, (0.9,)
    )
    assert not (tmp_path / "models").exists()


def test_a_folder_that_cannot_be_written_is_said_once_and_ends_nothing(made, tmp_path):
    (tmp_path / "models").write_text("a file where the folder should be")
    said = []
    keeper = models.Keeper(tmp_path / "models", "all", said.append, ACCURACY)
    keep(made, keeper, made.start(), 0, (0.9,))
    keep(made, keeper, made.start(), 1, (0.9,))
    assert len(said) == 1
    assert "the study continues" in said[0]


def test_only_models_are_deleted_and_what_a_kill_left_of_them(made, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("7.keras", ".7.keras.0a1b.tmp", "notes.txt", "my.keras", "x7.keras", ".tmp"):
        (folder / name).write_bytes(b"something")
    (tmp_path / "mine").write_bytes(b"mine")
    (folder / "8.keras").symlink_to(tmp_path / "mine")
    keeper = models.Keeper(folder, "best", silent, ACCURACY)
    keep(made, keeper, made.start(), 0, (0.9,))
    assert names(folder) == [".tmp", "0.keras", "my.keras", "notes.txt", "x7.keras"]
    assert (tmp_path / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("link", ["study.db.models", "study.db.models/uuid"])
def test_nothing_is_written_or_deleted_through_a_link(made, tmp_path, link):
    mine = tmp_path / "mine"
    (mine / "uuid").mkdir(parents=True)
    for folder in (mine, mine / "uuid"):
        (folder / "7.keras").write_bytes(b"mine")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(mine)
    said = []
    folder = tmp_path / "study.db.models" / "uuid"
    keep(made, models.Keeper(folder, "best", said.append, ACCURACY), made.start(), 0, (0.9,))
    assert "is a link" in said[0]
    assert names(mine / "uuid") == names(mine)[:1] == ["7.keras"]


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "models" / "0.keras"
    write_whole(path, b"the first")
    with pytest.raises(TypeError):
        write_whole(path, "text is not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"the first"
    assert names(path.parent) == ["0.keras"]


@pytest.mark.parametrize("stored", ["/etc", "../x", "a" * 31, "A" * 32, "a" * 32 + "\n", 3, None])
def test_a_uuid_that_is_none_names_no_folder(made, stored):
    made.study.set_user_attr(models.IDENTITY, stored)
    with pytest.raises(StorageError, match="UUID in the database is malformed"):
        models.identity(made.study)


def test_a_policy_is_recorded_and_holds_until_another_is_given(made):
    assert models.record(made.study, None) == "best"
    assert models.record(made.study, "all") == "all"
    assert models.record(mirror_fakes.again(made).study, None) == "all"
    assert models.policy_of(made.study) == "all"


def test_a_policy_that_does_not_exist_is_refused(made):
    with pytest.raises(SettingsError, match="all, best and none"):
        models.record(made.study, "some")
