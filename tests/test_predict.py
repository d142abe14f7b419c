"""Anybody's images and anybody's model files: converted with a note, or refused in one line."""

import csv
import io
import json
import os
import pickle
import tracemalloc
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import assert_one_line, study

from study.data import arrays
from study.data.dataset import Dataset
from study.data.picture import FITS
from study.errors import DataError, ModelError, StudyError
from study.final import archive, gallery, predict
from study.final.archive import CARD, Card, read_card, with_card
from study.final.pictures import Batch, find, read

SHAPE = (8, 6, 1)
RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (8, 6)).astype(np.uint8)
CARD_OF = Card("seed 1", "fake", (3, 7, 9), SHAPE, 0.2, "abc", ("key",))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


LOSSLESS = {"webp": {"lossless": True}, "jpg": {"quality": 100}}


def one(name: str, shape: tuple[int, int, int] = SHAPE, **options: Any) -> Batch:
    ((file, id_),) = find([Path(name)]).files
    (batch,) = read(file, shape, name=id_, **options)
    return batch


def saved(image: Any, name: str = "image.png", **options: Any) -> str:
    Image.fromarray(image).save(name, **options)
    return name


def test_a_grey_image_of_the_right_size_is_taken_as_it_is() -> None:
    batch = one(saved(GREY))
    assert np.array_equal(batch.pixels[0, ..., 0], GREY)
    assert list(batch.notes) == []
    assert np.array_equal(one("image.png", invert=True).pixels[0, ..., 0], 255 - GREY)


@pytest.mark.parametrize(
    ("image", "note"),
    [
        (np.stack([GREY] * 3, 2), "colour made grey"),
        (GREY.astype(np.uint16) * 257, "pixels of 0 to 65535 made 8 bits"),
        (GREY > 127, "black and white made grey"),
        (np.stack([GREY] * 3 + [np.full_like(GREY, 255)], 2), "colour made grey"),
    ],
)
def test_another_colour_depth_is_converted_with_a_note(image: Any, note: str) -> None:
    batch = one(saved(image))
    assert list(batch.notes) == [note]
    wanted = np.where(GREY > 127, 255, 0) if image.dtype == bool else GREY
    assert np.abs(batch.pixels[0, ..., 0] - wanted).max() <= 1


def test_transparent_pixels_are_black_whatever_colour_hides_below() -> None:
    image = np.full((8, 6, 4), 255, np.uint8)
    image[..., 3] = 0
    assert one(saved(image)).pixels.max() == 0


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (60, 255), (200, 0), (255, 0)])
def test_transparent_parts_take_the_ground_that_leaves_ink_visible(ink: int, ground: int) -> None:
    image = np.full((8, 6, 4), 128, np.uint8)
    image[..., 3] = 0
    image[2:6, 3] = ink, ink, ink, 255
    batch = one(saved(image))
    wanted = np.full((8, 6), ground)
    wanted[2:6, 3] = ink
    assert np.array_equal(batch.pixels[0, ..., 0], wanted)
    assert f"transparent parts made {'white' if ground else 'black'}" in batch.notes
    assert np.array_equal(one("image.png", invert=True).pixels, 255 - batch.pixels)


def test_another_size_is_converted_with_a_note() -> None:
    batch = one(saved(np.full((40, 30), 200, np.uint8), "big.jpg"))
    assert batch.notes == ["40x30 made 8x6 (height x width)"]
    assert np.abs(batch.pixels - 200).max() <= 2
    assert one("big.jpg", (8, 6, 3)).pixels.shape == (1, 8, 6, 3)


def test_other_proportions_are_kept_and_padded_with_the_ground() -> None:
    wide = np.full((200, 600), 220, np.uint8)
    wide[80:120, 200:400] = 10  # five times as wide as high
    batch = one(saved(wide), (30, 30, 1))
    assert batch.notes == ["200x600 made 30x30 (height x width), padded"]
    rows, columns = np.nonzero(batch.pixels[0, ..., 0] < 115)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 15, 10, 19)
    assert set(np.unique(batch.pixels[0, :10])) == {220}


def test_ink_is_centred_as_in_mnist_where_that_is_asked_for() -> None:
    paper = np.full((300, 400), 230, np.uint8)
    paper[20:120, 30:80] = 20  # twice as high as wide, in a corner
    batch = one(saved(paper), (28, 28, 1), center=True)
    assert batch.notes == ["300x400 cropped to the ink and made 28x28 (height x width)"]
    rows, columns = np.nonzero(batch.pixels[0, ..., 0] < 125)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    assert (rows.mean(), columns.mean()) == (13.5, 13.5)
    blank = one(saved(np.full((300, 400), 230, np.uint8)), (28, 28, 1), center=True)
    assert "no ink to centre" in blank.notes


def test_a_folder_is_its_images_in_the_order_that_people_count_in() -> None:
    Path("many/below").mkdir(parents=True)
    for name in ("b10.png", "a.PNG", "b2.png", "c.jpeg", "below/1.png"):
        saved(GREY, f"many/{name}")
    Path("many/circle").symlink_to(".")
    files = find([Path("many")]).files
    assert [name for _, name in files] == [str(path.relative_to("many")) for path, _ in files]
    assert [str(path) for path, _ in files] == [
        "many/a.PNG",
        "many/b2.png",
        "many/b10.png",
        "many/below/1.png",
        "many/c.jpeg",
    ]


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "webp", "tif", "tiff", "jpg"])
def test_pictures_of_every_common_kind_are_read(kind: str) -> None:
    Path("many").mkdir()
    saved(GREY, f"many/a.{kind}", **LOSSLESS.get(kind, {}))
    ((file, _),) = find([Path("many")]).files
    assert np.abs(one(str(file)).pixels[0, ..., 0] - GREY).mean() < 2


def test_what_is_skipped_in_a_folder_is_counted_and_named() -> None:
    Path("many").mkdir()
    saved(GREY, "many/a.png")
    for name in ("notes.txt", "b.heic", "c.heic", ".DS_Store"):
        Path("many", name).touch()
    assert find([Path("many")]).skipped == ["many: 3 files of other kinds not used (.heic, .txt)"]


def test_of_a_picture_with_several_frames_the_first_is_taken_and_it_is_said() -> None:
    frames = [Image.fromarray(grey) for grey in (GREY, GREY[::-1].copy())]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    batch = one("moving.gif")
    assert "the first of several frames" in batch.notes
    assert np.array_equal(batch.pixels[0, ..., 0], GREY)


def test_an_archive_may_hold_fractions_or_whole_numbers_of_another_size() -> None:
    stack = np.stack([GREY, GREY.T.reshape(8, 6)])
    np.savez("whole.npz", x_test=stack, y_test=[1, 2])
    np.savez("fractions.npz", stack.astype(np.float32) / 255)
    np.savez("colour.npz", images=np.zeros((2, 20, 20, 3), np.uint8))
    assert np.array_equal(one("whole.npz").pixels[..., 0], stack)
    assert np.allclose(one("fractions.npz").pixels[..., 0], stack, atol=1e-4)
    colour = one("colour.npz")
    assert colour.pixels.shape == (2, *SHAPE)
    assert colour.notes == ["colour made grey", "20x20 made 8x6 (height x width), padded"]


def table(name: str, header: list[str], rows: Any) -> str:
    with Path(name).open("w") as file:
        csv.writer(file).writerows([header, *rows])
    return name


def test_a_table_is_kaggles_with_or_without_labels() -> None:
    pixels = [f"pixel{i}" for i in range(48)]
    rows = np.stack([GREY.ravel(), GREY.ravel()[::-1]])
    plain = one(table("test.csv", pixels, rows.tolist()))
    assert np.array_equal(plain.pixels.reshape(2, -1), rows)
    assert plain.names[1] == "test.csv, 2"
    named = one(table("train.csv", ["label", *pixels], [[5, *row] for row in rows.tolist()]))
    assert np.array_equal(named.pixels, plain.pixels)
    assert named.notes == ["the column label is not used"]
    square = one(table("square.csv", [f"p{i}" for i in range(100)], [[7] * 100]))
    assert (square.pixels.shape, square.notes) == (
        (1, *SHAPE),
        ["10x10 made 8x6 (height x width), padded"],
    )


def test_a_header_may_count_the_columns() -> None:
    counted = one(table("pandas.csv", [str(i) for i in range(48)], [[3] * 48]))
    assert counted.pixels.shape == (1, *SHAPE)


def prepare_bad() -> None:
    Path("empty").mkdir()
    Path("image.txt").write_text("no image")
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nonsense" * 9)
    Path("cut.png").write_bytes(
        Path(saved(RNG.integers(0, 9, (90, 90)).astype("u1"))).read_bytes()[:99]
    )
    saved(GREY, "hidden.ppm")
    Path("hidden.ppm").rename("hidden.png")
    np.savez("pickled.npz", x_test=np.array([{}, 1], object))
    np.savez("two.npz", a=GREY, b=GREY)
    np.savez("flat.npz", x_test=GREY.ravel())
    np.savez("high.npz", x_test=GREY[np.newaxis].astype(np.float32) * 9000)
    np.savez("nan.npz", x_test=np.full((1, 8, 6), np.nan))
    with zipfile.ZipFile("readme.npz", "w") as archive_:
        archive_.writestr("readme.txt", "no array")
    Path("text.csv").write_text("pixel0\nx\n")
    Path("none.csv").write_text("pixel0\n")
    Path("seven.csv").write_text("a,b,c,d,e,f,g\n1,2,3,4,5,6,7\n")
    Path("binary.csv").write_bytes(bytes(range(256)))
    np.savetxt("headless.csv", np.ones((2, 48)), delimiter=",")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.png", "no such file or folder"),
        ("empty", "a folder without pictures; it must hold .png"),
        ("image.txt", "not a kind of file that is read here; give one of .png"),
        ("broken.png", "damaged"),
        ("cut.png", "damaged"),
        ("hidden.png", "not a picture of a supported kind"),
        ("pickled.npz", "holds pickled objects, which are never loaded"),
        ("two.npz", "has a, b; call the images x_test"),
        ("readme.npz", "readme.txt is not an array"),
        ("flat.npz", "an array of shape (48,); images are"),
        ("high.npz", "save whole numbers of 8, 10"),
        ("nan.npz", "48 pixels are NaN or infinite"),
        ("text.csv", "line 2: 'x' is not a number"),
        ("none.csv", "no image below the header"),
        ("seven.csv", "7 pixels a line; the model takes 48"),
        ("binary.csv", "not a text file"),
        ("headless.csv", "put a header above it"),
        ("x" * 300 + "/a.png", "no such file or folder"),
    ],
)
def test_what_is_no_image_is_named(name: str, said: str) -> None:
    prepare_bad()
    with pytest.raises(StudyError) as error:
        one(name)
    assert str(error.value).startswith(name)
    assert said in str(error.value)


def model_file(name: str = "model.keras", card: Any = None, config: Any = None) -> Path:
    """An archive as Keras writes it, as far as it is looked at before Keras is asked."""
    stored = asdict(CARD_OF) if card is None else card
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {}}
    with zipfile.ZipFile(name, "w") as archive_:
        archive_.writestr("config.json", json.dumps({"layers": [layer], **(config or {})}))
        if stored:
            archive_.writestr(CARD, json.dumps(stored))
    return Path(name)


def test_a_card_comes_back_as_it_was_put_in() -> None:
    plain = model_file(card={}).read_bytes()
    Path("with.keras").write_bytes(with_card(plain, CARD_OF))
    assert read_card(Path("with.keras")) == CARD_OF


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"config": {"a": {"module": "keras.layers", "class_name": "Lambda"}}}, "holds a Lambda"),
        ({"config": {"a": {"module": "os", "class_name": "function"}}}, "holds a function"),
        ({"config": {"a": {"class_name": ["Dense"]}}}, "holds a ['Dense']"),
        ({"config": {"a": [{"module": "mine", "class_name": "Dense"}]}}, "holds a Dense"),
        ({"card": {}, "config": {}}, "has no study.json"),
        ({"card": {**asdict(CARD_OF), "format": 2}}, "has format 2, this version reads 1"),
        ({"card": [1]}, "has format None"),
        ({"card": {"format": 1}}, "its study.json is damaged"),
        ({"card": {**asdict(CARD_OF), "brightness": "dark"}}, "its study.json is damaged"),
        ({"card": {**asdict(CARD_OF), "input_shape": [8, 6]}}, "its study.json is damaged"),
        ({"name": "model.keras.h5"}, "not a .keras file"),
    ],
)
def test_a_model_file_of_another_kind_or_version_is_one_line(
    made: dict[str, Any], said: str
) -> None:
    saved(GREY)
    path = str(model_file(**made))
    assert_one_line(study("predict", path, "image.png"), f"{path}: ", said)


def test_a_file_that_is_no_archive_is_one_line_and_is_not_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, ("sprung",)

    Path("junk.keras").write_bytes(pickle.dumps(Trap()))
    with zipfile.ZipFile("other.keras", "w") as other:
        other.writestr("data.pkl", pickle.dumps(Trap()))
    for name in ("junk.keras", "other.keras"):
        assert_one_line(study("predict", name, "x.png"), f"{name}: not a .keras file")
    assert_one_line(study("predict", "absent.keras", "x.png"), "absent.keras: no such file")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("center", [False, True])
def test_ink_that_fills_little_of_a_picture_is_told_and_not_where_it_was_centred(
    center: bool,
) -> None:
    paper = np.full((300, 400), 20, np.uint8)
    paper[20:80, 30:60] = 230
    batch = one(saved(paper), (28, 28, 1), center=center)
    (found,) = FIXED.predict([batch])
    assert any("does it need --center?" in note for note in found.notes) is not center


class Fixed:
    """A model that says the same of every image."""

    def __init__(self, *said: float) -> None:
        self._said = said

    def __call__(self, pixels: Any, training: bool) -> Any:
        return np.tile(np.float32(self._said), (len(pixels), 1))


FIXED = predict.Classifier(Fixed(0.1, 0.2, 0.7), CARD_OF)


def folder_with_a_broken_picture() -> None:
    Path("many").mkdir()
    for name in ("a.png", "c.png"):
        saved(GREY, f"many/{name}")
    Path("many/b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nonsense" * 9)


def test_a_broken_picture_is_named_and_the_others_are_predicted() -> None:
    folder_with_a_broken_picture()
    found = predict.of_files([Path("many")], CARD_OF, lambda: FIXED)
    assert [one.image for one in found.predictions] == ["many/a.png", "many/c.png"]
    (left_out,) = found.left_out
    assert left_out.startswith("many/b.png: cannot be read (damaged)")


def test_a_link_in_a_circle_is_named_and_the_others_are_predicted() -> None:
    folder_with_a_broken_picture()
    Path("many/d.png").symlink_to("d.png")
    found = predict.of_files([Path("many")], CARD_OF, lambda: FIXED)
    assert [one.image for one in found.predictions] == ["many/a.png", "many/c.png"]
    assert "many/d.png" in found.left_out[1]


def test_a_submission_does_not_replace_the_images_nor_a_folder() -> None:
    Path("rows.csv").write_text("pixel0\n1\n")
    words = ["predict", "model.keras", "rows.csv", "--submission"]
    assert_one_line(study(*words, "../" + Path.cwd().name + "/rows.csv"), "holds the images")
    assert Path("rows.csv").read_text() == "pixel0\n1\n"
    with pytest.raises(ModelError, match=r"^\.: cannot be written \(is a folder\)"):
        predict.submission(Path(), [])


def test_a_submission_needs_every_picture() -> None:
    folder_with_a_broken_picture()
    with pytest.raises(StudyError, match=r"many/b\.png: cannot be read \(damaged\)"):
        predict.of_files([Path("many")], CARD_OF, lambda: FIXED, strict=True)


def test_where_nothing_can_be_read_the_first_reason_is_the_error() -> None:
    folder_with_a_broken_picture()
    with pytest.raises(StudyError, match=r"many/b\.png: cannot be read \(damaged\)"):
        predict.of_files([Path("many/b.png")], CARD_OF, lambda: FIXED)
    Path("many/a.png").unlink()
    Path("many/c.png").write_text("no picture")
    with pytest.raises(
        ModelError, match=r"many/b\.png: cannot be read .* \(none of 2 files can be read\)"
    ):
        predict.of_files([Path("many")], CARD_OF, lambda: FIXED)


def test_a_prediction_names_the_label_as_the_data_does() -> None:
    dark = Batch(np.zeros((2, *SHAPE), np.float32), ["a", "b"], [1, 2], ["was converted"])
    found = list(FIXED.predict([dark]))
    assert [p.label for p in found] == [9, 9]
    assert predict.line(found[0]) == "a: 9 (70.00 %; 7: 20.00 %, 3: 10.00 %)  [was converted]"
    assert found[0].probabilities == pytest.approx({"3": 0.1, "7": 0.2, "9": 0.7})
    predict.submission(Path("out.csv"), found)
    assert Path("out.csv").read_text() == "ImageId,Label\n1,9\n2,9\n"
    with pytest.raises(ModelError, match="cannot be written"):
        predict.submission(Path("out.csv/below.csv"), found)


def test_a_submission_names_pictures_and_numbers_rows(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "sub/2.png"):
        Path("many/sub").mkdir(parents=True, exist_ok=True)
        saved(GREY, f"many/{name}")
    np.savez("rows.npz", x_test=np.stack([GREY] * 3))

    def ids(*paths: str) -> list[str]:
        found = predict.of_files([Path(path) for path in paths], CARD_OF, lambda: FIXED)
        predict.submission(Path("out.csv"), found.predictions)
        return [row["ImageId"] for row in csv.DictReader(Path("out.csv").read_text().splitlines())]

    assert ids("many") == ["2.png", "10.png", "sub/2.png"]
    assert ids("many/10.png") == ["10.png"]
    assert ids("rows.npz") == ["1", "2", "3"]
    Path("out.csv").unlink()
    with pytest.raises(ModelError, match=r"two images would have the ImageId 2\.png"):
        ids("many/2.png", "many/sub/2.png")
    assert not Path("out.csv").exists()


def test_a_name_that_a_spreadsheet_would_run_is_marked_as_text() -> None:
    Path("many").mkdir()
    saved(GREY, "many/=cmd.png")
    saved(GREY, "many/a\nb\x1b[2J.png")
    card = replace(CARD_OF, labels=("-1+1", "@x", '=HYPERLINK("http://x")'))
    classifier = predict.Classifier(FIXED.model, card)
    found = predict.of_files([Path("many")], card, lambda: classifier)
    predict.submission(Path("out.csv"), found.predictions)
    rows = [[*row.values()] for row in csv.DictReader(Path("out.csv").read_text().splitlines())]
    assert rows == [["'=cmd.png", '\'=HYPERLINK("http://x")'], [r"a\nb\x1b[2J.png", rows[0][1]]]
    for prediction in found.predictions:
        assert predict.line(prediction).isprintable()
    mistake = gallery.Mistake(
        0, "=1.png", "@x", "-x", -0.5, 0.1, candidate=True, votes=1, members=1
    )
    _, table = gallery.write(gallery.Gallery("m", [mistake], 1), wrongly([0]), Path())
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert [row[key] for key in ("file", "label", "predicted", "confidence")] == [
        "'=1.png",
        "'@x",
        "'-x",
        "-0.5",
    ]


def test_prediction_holds_a_few_pictures_at_a_time() -> None:
    """In the end 600 pictures of 224x224 would be 361 MB as float32."""
    Path("many").mkdir()
    photo = RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    first = Path(saved(photo, "many/0.png"))
    for number in range(1, 600):
        Path(f"many/{number}.png").hardlink_to(first)
    np.savez("many.npz", x_test=np.stack([photo] * 600))
    card = replace(CARD_OF, input_shape=(224, 224, 3))
    given: list[int] = []

    def model(pixels: Any, training: bool) -> Any:
        given.append(len(pixels))
        return FIXED.model(pixels, training)

    for path in ("many", "many.npz"):
        given.clear()
        tracemalloc.start()
        found = predict.of_files([Path(path)], card, lambda: predict.Classifier(model, card))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found.predictions) == sum(given) == 600
        assert peak < 300e6


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_some_rows_at_a_time(save: Any) -> None:
    photos = np.zeros((400, 224, 224, 3), np.uint8)
    photos[...] = RNG.integers(0, 256, (224, 224, 3))
    save("photos.npz", x_test=photos)
    tracemalloc.start()
    rows = arrays.npz_rows(Path("photos.npz"), lambda names: names)
    assert rows.like.shape == photos.shape
    assert all(np.array_equal(part, photos[:7][: len(part)]) for part in rows.read(7))
    assert sum(len(part) for part in rows.read(7)) == 400
    assert tracemalloc.get_traced_memory()[1] < 6e6  # of 60 MB
    tracemalloc.stop()


def test_an_archive_stored_by_columns_or_cut_short_is_read_or_refused() -> None:
    stack = RNG.integers(0, 256, (9, 8, 6)).astype(np.uint8)
    np.savez("columns.npz", x_test=np.asfortranarray(stack))
    assert np.array_equal(one("columns.npz").pixels[..., 0], stack)
    with zipfile.ZipFile("short.npz", "w") as archive_:
        content = io.BytesIO()
        np.save(content, stack)
        archive_.writestr("x_test.npy", content.getvalue()[:-5])
    with pytest.raises(DataError, match=r"short\.npz: empty, damaged or not an \.npz file"):
        one("short.npz")


def test_ink_on_paper_is_told_from_paper_on_ink() -> None:
    classifier = predict.Classifier(Fixed(1, 0, 0), CARD_OF)
    (found,) = classifier.predict([Batch(np.full((1, *SHAPE), 250, np.float32), ["a"], [1])])
    assert "does it need --invert?" in found.notes[0]


def wrongly(truth: list[int]) -> Dataset:
    images, labels = np.zeros((len(truth), *SHAPE), np.float32), np.array(truth, np.int32)
    files = tuple(f"x/{number}.png" for number in range(len(truth)))
    return Dataset("fake", images, labels, images, labels, ("x", "y", "z"), "fake", files)


def test_mistakes_of_the_average_are_shown_and_those_whose_label_may_be_wrong_first() -> None:
    one = [[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0, 0.1, 0.9], [0.2, 0.8, 0], [0.1, 0.9, 0]]
    two = [[0.8, 0.2, 0], [0.6, 0.3, 0.1], [0, 0.2, 0.8], [0.1, 0.5, 0.4], [0.2, 0.8, 0]]
    members = np.array([one, two], np.float32)
    dataset = wrongly([0, 0, 1, 0, 1])
    found = gallery.mistakes(members, dataset)
    assert [(m.image, m.label, m.predicted) for m in found] == [(3, "x", "y"), (2, "y", "z")]
    assert [(m.candidate, m.votes) for m in found] == [(True, 1), (False, 0)]
    assert (found[0].confidence, found[0].label_probability) == pytest.approx((0.65, 0.15))
    shown = gallery.Gallery("average of 2", found, 5)
    assert shown.candidates == 1
    picture, written = gallery.write(shown, dataset, Path())
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader(written.read_text().splitlines()))
    assert [(line["image"], line["candidate"]) for line in lines] == [("3", "True"), ("2", "False")]
    assert [line["file"] for line in lines] == ["x/3.png", "x/2.png"]
    gallery.write(replace(shown, mistakes=[]), dataset, Path())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_gallery_draws_what_is_stored(dtype: Any) -> None:
    """A bright disc on black is one, not a dark disc on white."""
    image = np.zeros((1, 40, 40, 1), np.uint8)
    image[0, 10:30, 10:30] = 255
    images = image if dtype is np.uint8 else image.astype(np.float32) / 255
    labels = np.zeros(1, np.int32)
    dataset = Dataset("fake", images, labels, images, labels, ("x", "y"), "fake")
    mistake = gallery.Mistake(0, "", "x", "y", 0.9, 0.1, candidate=False, votes=0, members=1)
    picture, _ = gallery.write(gallery.Gallery("m", [mistake], 1), dataset, Path())
    drawn = np.asarray(Image.open(picture).convert("L")).astype(int)
    dark = drawn < 20  # letters, and the ground of the image, which is higher than any of them
    columns = np.flatnonzero(dark.sum(axis=0) > 40)
    rows = np.flatnonzero(dark[:, columns[0] : columns[5]].all(axis=1))
    assert drawn[rows[5], columns[5]] == 0
    assert drawn[(rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2] == 255


@pytest.mark.tensorflow
def test_an_average_is_the_mean_of_its_members_and_loads_in_keras_alone() -> None:
    import keras

    from study.final import classifier
    from study.training.compiled import to_bytes
    from study.training.network import build_cnn

    shape = (12, 12, 1)
    options = {"filters": 2, "k2": 3, "dense": 4, "batch_norm": True, "strided": True}
    made = [build_cnn(options, shape, 3) for _ in range(2)]
    members = [type(one).from_config(one.get_config()) for one in made]  # not compiled, as loaded
    images = RNG.integers(0, 256, (5, *shape)).astype(np.float32)
    together = classifier.with_preprocessing(members, shape)
    card = replace(CARD_OF, input_shape=shape)
    Path("average.keras").write_bytes(with_card(to_bytes(together), card))
    said = keras.models.load_model("average.keras").predict(images, verbose=0)
    wanted = np.mean([member.predict(images / 255, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(said, wanted, atol=1e-6)
    loaded, _ = archive.load(Path("average.keras"))
    np.testing.assert_allclose(classifier.probabilities(loaded, images), wanted, atol=1e-6)

    Path("other.keras").write_bytes(with_card(to_bytes(together), CARD_OF))
    with pytest.raises(ModelError, match="that of another model"):
        archive.load(Path("other.keras"))
    with zipfile.ZipFile("average.keras") as good, zipfile.ZipFile("cut.keras", "w") as cut:
        for name in good.namelist():
            cut.writestr(name, good.read(name) if name != "model.weights.h5" else b"cut")
    with pytest.raises(ModelError, match=r"cut.keras: cannot be loaded by Keras"):
        archive.load(Path("cut.keras"))


def test_a_picture_fills_the_shape_as_those_of_the_training_did() -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 200
    saved(wide, "wide.png")
    shown = {fit: one("wide.png", (12, 12, 1), fit=fit).pixels[0, ..., 0] for fit in FITS}
    assert [int((image > 150).sum()) for image in shown.values()] == [16, 144, 48]
    model_file("crop.keras", {**asdict(CARD_OF), "fit": "crop"})
    assert read_card(Path("crop.keras")).fit == "crop"
    model_file("bent.keras", {**asdict(CARD_OF), "fit": "bent"})
    with pytest.raises(ModelError, match=r"its study\.json is damaged"):
        read_card(Path("bent.keras"))
