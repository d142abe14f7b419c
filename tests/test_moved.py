"""A project that is moved, and data that is moved: data is recognised by its contents."""

import shutil
from pathlib import Path

import fakes
import image_files
import pytest

from study.errors import SettingsError
from study.plan.plan import PlanState
from study.running.driver import Observers
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import Prepared, prepare, prepare_again
from study.storage.location import DEFAULT, Database


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space that names data beside itself, and a study of it."""
    folder = tmp_path / "project"
    (folder / "spaces").mkdir(parents=True)
    image_files.npz(folder, x_train=image_files.pictures(shape=(12, 12)), x_test=None, y_test=None)
    next(folder.glob("*.npz")).rename(folder / "data.npz")
    space = f'data = "../data.npz"\n{fakes.SPACE}'
    (folder / "spaces" / "fake.toml").write_text(space)
    monkeypatch.chdir(folder)
    drive(run())
    return folder


def run() -> Prepared:
    """What `run spaces/fake.toml` checks, in the current folder."""
    return prepare("spaces/fake.toml", None, Database.at(DEFAULT), {})


def resume(data: str | None = None) -> Prepared:
    return prepare_again("fake", Database.at(DEFAULT), None, data=data)


def drive(prepared: Prepared) -> PlanState:
    options = ExecutionOptions(jobs=1)
    return launch(prepared, Observers(), options, print, lambda run, *_, **__: fakes.train(run))


@pytest.mark.parametrize("again", [run, resume])
def test_a_project_that_is_moved_continues(
    project: Path, again: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.rename(project.with_name("moved"))
    monkeypatch.chdir(moved)
    prepared = run() if again is run else resume()
    assert not prepared.new
    assert drive(prepared).complete
    assert resume().settings["data"] == str(moved / "data.npz")


def test_data_that_is_moved_alone_is_named_with_data(project: Path) -> None:
    (project / "data.npz").rename(project / "other.npz")
    with pytest.raises(SettingsError, match=r"data\.npz: is no longer there; .*--data"):
        resume()
    assert drive(resume("other.npz")).complete
    assert resume().settings["data"] == str(project / "other.npz")  # it is recorded


def test_other_data_is_refused_wherever_it_is(project: Path) -> None:
    pictures = image_files.pictures(shape=(12, 12))[::-1]
    shutil.rmtree(project / "more", ignore_errors=True)
    (project / "more").mkdir()
    image_files.npz(project / "more", x_train=pictures, x_test=None, y_test=None)
    other = str(next((project / "more").glob("*.npz")))
    with pytest.raises(SettingsError, match="is not the data that the study was made with"):
        resume(other)
    shutil.copy(other, project / "data.npz")
    with pytest.raises(SettingsError, match="the contents of the data"):
        run()


def test_a_copy_of_the_data_is_the_same_data(project: Path) -> None:
    shutil.copy(project / "data.npz", project / "copy.npz")
    space = Path("spaces/fake.toml")
    space.write_text(space.read_text().replace("../data.npz", "../copy.npz"))
    assert not run().new
