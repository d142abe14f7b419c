"""Final models: what is trained, that it is trained once, and that the test set is opened once."""

import csv
import importlib.util
import json
import math
import signal
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import test_cli as commands
from PIL import Image
from test_cli import assert_one_line, database, finished, here, home, study  # noqa: F401

from study.api import FinalResult
from study.errors import ModelError
from study.final import records
from study.final.archive import read_card
from study.final.finalize import FinalModels, FinalOptions, finalize
from study.final.members import FinalRuns, Member, chosen, seed_of
from study.running.driver import Observers
from study.running.launch import ExecutionOptions
from study.running.prepare import prepare_again
from study.space.model_source import ModelSource, NetworkFacts
from study.storage import database as storage
from study.storage.database import plan_state_of
from study.storage.location import DEFAULT, Database
from study.storage.lock import driver_lock
from study.storage.trials import StoredTrials
from study.text import units
from study.training.run import Epoch, Run

pytestmark = pytest.mark.usefixtures("finished")


def loaded() -> tuple[Any, Any]:
    return storage.load(Database.at(DEFAULT).open(), None)


def final_runs(seeds: int = 3, holdout: float = 0.1, top: int | None = None) -> FinalRuns:
    kept, settings = loaded()
    picked = chosen(plan_state_of(kept, settings), settings.repeats, top)
    return FinalRuns(settings, tuple(picked), seeds, holdout, "fake")


def runs_of(wanted: FinalRuns) -> list[Run]:
    return [wanted.run(configuration, repeat) for _, configuration, repeat in wanted.all]


def made_with(trainer: Any, said: list[str] | None = None, **settings: Any) -> FinalModels:
    prepared = prepare_again("fake", Database.at(DEFAULT), None)
    prepared = replace(prepared, settings=replace(prepared.settings, **settings))
    say = (said if said is not None else []).append
    one = ExecutionOptions(jobs=1)
    return finalize(prepared, FinalOptions(), one, Observers(), say, trainer)


def test_the_seeds_are_fresh_and_the_same_every_time() -> None:
    _, settings = loaded()
    seeds = [seed_of(settings, number) for number in range(1, 20)]
    assert seeds == [seed_of(settings, number) for number in range(1, 20)]
    assert len({settings["seed"], *seeds}) == 20


def test_the_runs_of_a_holdout_leave_the_same_images_out_and_keep_their_best_epoch() -> None:
    runs = runs_of(final_runs())
    assert len({run.seed for run in runs}) == len({run.key for run in runs}) == 3
    assert len({run.validation for run in runs}) == 1
    assert [dict(run.params)["restore_best_weights"] for run in runs] == [True] * 3
    everything = runs_of(final_runs(holdout=0))[0]
    assert everything.validation.kind == "none"
    assert dict(everything.params)["restore_best_weights"] is False


def test_more_seeds_begin_with_the_same_runs() -> None:
    assert runs_of(final_runs(5))[:3] == runs_of(final_runs(3))


def test_the_best_configurations_are_those_of_the_best_means() -> None:
    kept, settings = loaded()
    plan_state, rows = plan_state_of(kept, settings), StoredTrials()(kept)
    best = chosen(plan_state, 2, 3)
    means = []
    for configuration in best:
        curves = [row.reported for row in rows if row.configuration == configuration]
        means.append(np.mean([curve[-3:] for curve in curves]))
    assert means == sorted(means, reverse=True)
    names = [name for name, _, _ in final_runs(1, top=3).all]
    assert names[:2] == ["configuration 1, seed 1", "configuration 2, seed 1"]
    with pytest.raises(ModelError, match=r"--top 99: the study has \d configurations"):
        chosen(plan_state, 2, 99)


@pytest.mark.parametrize("lost", [False, True])
def test_final_runs_that_ended_are_not_trained_again_unless_their_file_is_lost(
    monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    trained: list[int] = []

    def mortal(run: Run, *_: Any, **__: Any) -> Generator[Epoch, None, bytes | None]:
        if len(trained) == 2:
            raise fakes.Killed
        trained.append(run.seed)
        return (yield from fakes.train(run))

    with pytest.raises(fakes.Killed):
        made_with(mortal)
    first = list(trained)
    if lost:
        next(Path("fake-models/members").iterdir()).unlink()

    def counted(run: Run, *_: Any, **__: Any) -> Generator[Epoch, None, bytes | None]:
        trained.append(run.seed)
        return (yield from fakes.train(run))

    def measured(_: Any, __: Any, members: list[Member], ___: Any) -> Any:
        assert [member.run.seed for member in members] == seeds
        assert all(member.file.exists() and member.best for member in members)
        raise ModelError("measured")

    seeds = [run.seed for run in runs_of(final_runs())]
    monkeypatch.setattr("study.final.finalize.measure", measured)
    with pytest.raises(ModelError, match="measured"):
        made_with(counted)
    assert first == seeds[:2]
    assert len(trained) == (4 if lost else 3)
    assert set(trained) == set(seeds)


def test_a_final_run_that_cannot_be_trained_ends_it_with_the_reason_and_is_tried_anew() -> None:
    tries = []

    def broken(run: Run, *_: Any, **__: Any) -> Generator[Epoch, None, bytes]:
        tries.append(run.seed)
        yield from ()
        raise MemoryError("no room")

    for _ in range(2):
        with pytest.raises(ModelError, match="seed 1 cannot be trained: MemoryError: no room"):
            made_with(broken)
    assert len(tries) == 2 * len(set(tries))


def test_the_classes_that_the_models_need_are_said_before_anything_is_trained() -> None:
    source, said = ModelSource("/home/me/net.py", "build", "..."), list[str]()

    def broken(run: Run, *_: Any, **__: Any) -> Generator[Epoch, None, bytes]:
        yield from ()
        raise MemoryError("no room")

    network = NetworkFacts(7, classes=("mine>Patch",))
    with pytest.raises(ModelError, match="seed 1 cannot be trained: MemoryError: no room"):
        made_with(broken, said, model=source, network=network)
    assert said[0].startswith("The models need Patch of net.py to be loaded")


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    assert records.interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert records.interval(10, 10)[1] == pytest.approx(1)
    assert records.interval(0, 10) == (0, pytest.approx(0.27753, abs=1e-5))


def test_the_folder_is_named_after_the_study_and_shared_with_no_other() -> None:
    kept, _ = loaded()
    location = Database.at(DEFAULT).study("fake")
    folder = records.folder(location, kept)
    assert folder == Path("fake-models").resolve()
    records.claim(folder, kept)
    assert records.folder(location, kept) == folder
    (folder / "study.txt").write_text("somebody else\n")
    assert records.folder(location, kept).name.startswith("fake-models-")


def test_a_study_at_work_is_not_finalized() -> None:
    with driver_lock(Database.at(DEFAULT).study("fake")):
        assert_one_line(study("finalize"), "study 'fake' is being driven by process")


def test_no_model_is_written_through_a_link_that_came_with_a_database() -> None:
    Path("mine").mkdir()
    Path("fake-models").symlink_to("mine")
    assert_one_line(study("finalize", "--members", "1"), "fake-models is a link")
    assert list(Path("mine").iterdir()) == []


def test_wrong_wishes_are_one_line() -> None:
    assert_one_line(study("finalize", "none"), "no study named 'none'")
    assert_one_line(study("finalize", "--top", "50"), "--top 50: the study has")
    assert_one_line(study("finalize", "--holdout", "0.01"), "cannot be drawn with all 4 classes")
    assert_one_line(study("gallery"), "has no final model yet", "study finalize")
    assert_one_line(study("export"), "has no final model yet", "study finalize")
    assert_one_line(study("export", "--to", "coreml"), "--to coreml: unknown format; give tflite")


def test_the_command_that_goes_on_keeps_a_holdout_of_nothing(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        request.addfinalizer(partial(signal.signal, number, signal.getsignal(number)))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.final.finalize.finalize", interrupted)
    stopped = study("finalize", "--holdout", "0", "--top", "2")
    assert stopped.exit_code == 130
    assert "study finalize fake --top 2 --holdout 0.0" in stopped.stdout


def test_a_study_without_a_finished_configuration_is_one_line() -> None:
    Path("study.db").unlink()

    def interrupted(run: Run) -> Generator[Epoch, None, bytes]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        commands.drive_fake(interrupted)
    assert_one_line(study("finalize"), "no finished configuration yet", "study resume")


def assert_a_broken_picture_is_left_out(model: str, picture: Any) -> None:
    Path("many").mkdir()
    Image.fromarray(picture).save("many/good.png")
    Path("many/broken.png").write_text("no picture")
    told = study("predict", model, "many")
    assert told.exit_code == 1
    assert told.stdout.startswith("many/good.png: ")
    assert "Left out: many/broken.png: not a picture" in told.stderr
    assert told.stderr.splitlines()[-1] == "study: 1 of the files could not be read"
    assert_one_line(study("predict", model, "many", "--submission", "no.csv"), "many/broken.png")
    assert not Path("no.csv").exists()


def assert_what_is_known_is_reported(model: dict[str, Any]) -> None:
    drawn = Path("fake-models/gallery.png")
    plain = drawn.read_bytes()
    assert study("gallery", "--grad-cam").exit_code == 0
    assert plain != drawn.read_bytes()
    with Path("fake-report/classes.csv").open() as file:
        rows = [*csv.DictReader(file)]
    images, right = (sum(int(row[name]) for row in rows) for name in ("images", "right"))
    assert (images, images - right) == (model["images"], model["errors"])
    assert Path("fake-report/confusion.png").read_bytes().startswith(b"\x89PNG")
    page = Path("fake-report/report.html").read_text()
    assert f"after temperature {model['calibration']['temperature']:.2f}" in page
    final = records.latest(loaded()[0])[-1]
    result = FinalResult((final,), Path("fake-models"), None)
    assert result.confusion().to_numpy().sum() == images
    assert list(result.classes()["recall"]) == [float(row["recall"]) for row in rows]


def assert_exported_models_are_measured_and_predict(folder: Path, images: int) -> None:
    held_out = math.ceil(0.2 * images)
    said = study("predict", str(folder / "seed-1.keras"), "test.npz", "--json")
    wanted = [one["label"] for one in json.loads(said.stdout)]
    kinds = ["tflite", "onnx"] if importlib.util.find_spec("tf2onnx") else ["tflite"]
    for kind in kinds:
        made = study("export", "--to", kind, "--model", "seed 1", "--json")
        assert made.exit_code == 0, made.output
        told = json.loads(made.stdout)
        assert told["bytes"] == Path(told["file"]).stat().st_size
        assert (told["cost"]["images"], told["cost"]["changed"]) == (held_out, 0)
        found = json.loads(study("predict", told["file"], "test.npz", "--json").stdout)
        assert [one["label"] for one in found] == wanted
    small = study("export", "--int8", "--output", "small.tflite")
    assert f"points on {held_out} held-out images" in small.stdout
    assert "It has 2 networks; one alone is smaller: --model best" in small.stdout
    assert study("predict", "small.tflite", "test.npz").exit_code == 0
    before = Path("small.tflite").read_bytes()
    assert_one_line(study("export", "--output", "small.tflite"), "small.tflite: exists already")
    assert Path("small.tflite").read_bytes() == before
    assert_one_line(study("export", "--to", "keras"), "average-of-2.keras: exists already")
    assert study("export", "--to", "keras", "--output", "copy.keras").exit_code == 0
    assert Path("copy.keras").read_bytes() == (folder / "average-of-2.keras").read_bytes()


@pytest.mark.tensorflow
def test_finalize_opens_the_test_set_once_and_what_it_made_can_be_used() -> None:
    made = study("finalize", "--members", "2", "--jobs", "1", "--holdout", "0.2", "--json")
    assert made.exit_code == 0, made.output
    models = {model["model"]: model for model in json.loads(made.stdout)["models"]}
    assert list(models) == ["seed 1", "seed 2", "best by validation", "average of 2"]
    kept, _ = loaded()
    assert [final.to_json() for final in records.finals(kept)] == list(models.values())
    for model in models.values():
        assert model["low"] <= model["accuracy"] <= model["high"]
        assert model["errors"] == round((1 - model["accuracy"]) * model["images"])

    again = study("finalize", "--members", "2", "--jobs", "1", "--holdout", "0.2")
    assert "not opened for it again" in again.stdout
    assert "opened once" in again.stdout
    assert "average of 2 confuses most: " in again.stdout
    assert "Expected calibration error on the test images: " in again.stdout
    assert len(records.finals(loaded()[0])) == 4

    folder = Path("fake-models")
    prepared = prepare_again(None, Database.at(DEFAULT), None)
    pixels = np.rint(prepared.dataset.test_images * 255).astype(np.uint8)
    np.savez("test.npz", x_test=prepared.dataset.test_images)
    said = study("predict", str(folder / models["average of 2"]["file"]), "test.npz", "--json")
    right = [
        p["label"] == prepared.dataset.label_names[label]
        for p, label in zip(json.loads(said.stdout), prepared.dataset.test_labels, strict=True)
    ]
    assert np.mean(right) == models["average of 2"]["accuracy"]

    model = str(folder / models["seed 1"]["file"])
    told = study("predict", model, "test.npz", "--submission", "submission.csv")
    assert told.exit_code == 0, told.output
    lines = Path("submission.csv").read_text().splitlines()
    assert (lines[0], len(lines)) == ("ImageId,Label", 1 + len(pixels))
    assert (
        study("predict", model, "test.npz", "--invert").stdout
        != study("predict", model, "test.npz").stdout
    )

    assert_a_broken_picture_is_left_out(model, pixels[0, ..., 0])

    shown = study("gallery")
    assert shown.exit_code == 0, shown.output
    wrong = (folder / "gallery.csv").read_text().splitlines()
    assert shown.stdout.startswith("average of 2: ")
    assert len(wrong) - 1 == models["average of 2"]["errors"]
    assert_what_is_known_is_reported(models["average of 2"])
    assert_exported_models_are_measured_and_predict(folder, len(prepared.dataset.labels))

    average = folder / models["average of 2"]["file"]
    own = average.read_bytes()
    other = study("finalize", "--members", "2", "--jobs", "1", "--holdout", "0")
    assert "opened 2 times" in other.stdout
    assert average.read_bytes() != own
    again = study("finalize", "--members", "2", "--jobs", "1", "--holdout", "0.2")
    assert "not opened for it again" in again.stdout
    assert read_card(average).members == tuple(models["average of 2"]["members"])
    assert [f.to_json() for f in records.latest(loaded()[0])] == list(models.values())

    for member in (folder / "members").iterdir():
        member.unlink()
    again = study("finalize", "--members", "2", "--jobs", "1", "--holdout", "0.2")
    assert "not opened for it again" in again.stdout
    assert "trained in" not in again.stdout
    assert "used 2 times" in Path("fake-report/report.html").read_text()


@pytest.mark.tensorflow
def test_the_best_configurations_together_are_one_average_and_the_report_names_them() -> None:
    made = study("finalize", "--top", "2", "--jobs", "1", "--holdout", "0.2", "--json")
    assert made.exit_code == 0, made.output
    models = {model["model"]: model for model in json.loads(made.stdout)["models"]}
    *singles, _, average = models.values()
    assert average["model"] == "average of 2"
    assert average["members"] == [key for single in singles for key in single["members"]]
    both = average["configurations"]
    assert len(both) == 2
    page = Path("fake-report/report.html").read_text()
    assert "; ".join(map(units.params, both)) in page
    assert read_card(Path("fake-models") / average["file"]).members == tuple(average["members"])
