"""Folders and lists of picture files become datasets; what cannot is named in one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import folder, numbers, pictures, refusal, same_content, save, write_npz
from PIL import Image

from study.data import decode, picture
from study.data.dataset import Dataset, load
from study.data.reading import ImageOptions, ProgressCallbacks
from study.errors import DataError

SIDE = 8


def read(source: Path, said: list[str] | None = None, **how: Any) -> Dataset:
    told = ProgressCallbacks((said if said is not None else []).append)
    return load(str(source), ImageOptions(**how, callbacks=told))


def refused(source: Path, **how: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **how)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # can be printed
    return message


# What is read


def test_a_folder_a_class_gives_the_classes_their_names(tmp_path: Path) -> None:
    dataset = read(folder(tmp_path))
    assert dataset.label_names == ("cats", "dogs")
    assert dataset.images.shape == (16, SIDE, SIDE, 3)
    assert dataset.images.dtype == np.uint8
    assert np.bincount(dataset.test_labels).tolist() == [2, 2]


def test_a_test_image_knows_its_file(tmp_path: Path) -> None:
    root = folder(tmp_path / "some")
    by_folder = read(root)
    lines = [f"some/{path.relative_to(root)},{path.parent.name}" for path in root.glob("*/*")]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    for dataset, above in ((by_folder, root), (read(tmp_path / "labels.csv"), tmp_path)):
        assert len(dataset.test_files) == 4
        for image, file in zip(dataset.test_images, dataset.test_files, strict=True):
            assert np.array_equal(image, picture.read(above / file, dataset.input_shape)[0])


def test_lossless_pictures_are_the_same_data_as_an_archive_of_them(tmp_path: Path) -> None:
    x, y = pictures(), np.sort(numbers())
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        save(tmp_path / "folder" / str(label) / f"{number:02d}.png", image)
    from_files = read(tmp_path / "folder")
    from_arrays = load(write_npz(tmp_path / "some.npz", x_train=x, y_train=y))
    assert same_content(from_files, from_arrays)
    assert from_files.fingerprint == from_arrays.fingerprint
    assert from_files.label_names == (0, 1, 2, 3)


LAYOUTS: list[tuple[list[str], int, list[str]]] = [
    # folders of pictures of all classes, test images in the dataset, what is said
    (["train", "test"], 6, []),
    (["Training", "Testing"], 6, []),
    (["training_set", "test_set"], 6, []),
    (["TRAIN", "Valid", "Test"], 6, ["Valid is not used"]),
    (["train", "validation"], 2, ["validation is not used"]),
    (["archive/train", "archive/test"], 6, ["the classes are in"]),
    (["archive/Data"], 2, ["the classes are in"]),
    (["images", "annotations/xmls"], 2, ["the classes are in"]),
    (["Images", "labels"], 2, ["the classes are in"]),
    (["train/images", "test/images"], 6, []),
    (["seg_train/seg_train", "seg_test/seg_test", "seg_pred"], 6, ["seg_pred is not used"]),
    (["cats-train", "cats-test"], 6, []),
    (["train_1", "test_2"], 6, []),
]


@pytest.mark.parametrize(("places", "test", "notes"), LAYOUTS)
def test_common_layouts_are_not_taken_for_classes(
    tmp_path: Path, places: list[str], test: int, notes: list[str]
) -> None:
    for number, place in enumerate(places):
        if place in {"annotations/xmls", "labels"}:
            save(tmp_path / place / "mask.png", pictures(1)[0])
            continue
        for name, first in (("cats", 0), ("dogs", 50)):
            count = 10 if number == 0 else 3
            for i in range(first, first + count):
                save(tmp_path / place / name / f"{i}.png", pictures(1 + 200 * number + i)[-1])
    said: list[str] = []
    dataset = read(tmp_path, said)
    assert dataset.label_names == ("cats", "dogs")
    assert len(dataset.test_images) == (test if test == 6 else 4)
    assert len(dataset.images) == (20 if test == 6 else 16)
    assert len(said) == len(notes)
    assert all(note in line for note, line in zip(notes, said, strict=True))


@pytest.mark.parametrize(
    "junk",
    [
        "@eaDir/cats/SYNOPHOTO_THUMB_M.jpg",
        "cats/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "cats/SYNOPHOTO_THUMB_S.png",
        "lost+found/1.png",
        "$RECYCLE.BIN/1.png",
        "System Volume Information/1.png",
        "#recycle/1.png",
        ".ipynb_checkpoints/1-checkpoint.png",
        "cats/.ipynb_checkpoints/1-checkpoint.png",
        "__MACOSX/cats/._1.png",
        "cats/Thumbs.db",
        "dogs/desktop.ini",
        "cats/.DS_Store",
        "__pycache__/x.png",
    ],
)
def test_what_systems_leave_in_folders_is_no_data(tmp_path: Path, junk: str) -> None:
    clean = read(folder(tmp_path / "some"))
    path = tmp_path / "some" / junk
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x.png").write_bytes(save(tmp_path / "y.png", pictures(7)[3]).read_bytes())
    (tmp_path / "x.png").rename(path)
    said: list[str] = []
    assert read(tmp_path / "some", said).fingerprint == clean.fingerprint
    assert said == []


def test_an_accent_that_is_written_in_two_ways_is_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    folder(tmp_path, tea=10, **{composed: 10})
    for number in range(4):
        save(tmp_path / decomposed / f"{number}.png", pictures(500 + number, (8, 8, 3))[-1])
    said: list[str] = []
    dataset = read(tmp_path, said)
    assert dataset.label_names == (composed, "tea")
    assert len(dataset.images) + len(dataset.test_images) == 24
    assert said == [f"{tmp_path}: 'caf\\xe9' and 'cafe\\u0301' are one class, café"]
    names = np.array([composed, decomposed, "tea", "tea"])
    arrays = {"x_train": pictures(), "y_train": names[numbers()]}
    assert load(write_npz(tmp_path / "a.npz", **arrays)).label_names == (composed, "tea")


def test_names_that_differ_in_capitals_only_and_a_folder_too_high_are_pointed_out(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    read(folder(tmp_path / "some", Cat=10, cat=10, dog=10), said)
    assert [line.partition(": ")[2] for line in said] == [
        "the name of class Cat differs from another in capitals only",
        "the name of class cat differs from another in capitals only",
    ]
    for name in ("first", "second"):
        folder(tmp_path / "high" / name, 5)
    said.clear()
    read(tmp_path / "high", said)
    assert (
        "no pictures right in the class folders first, second; is it a folder too high?" in said[0]
    )


def test_a_test_folder_without_classes_is_said_and_not_used(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    save(tmp_path / "test" / "1.png", pictures(1)[0])
    said: list[str] = []
    assert len(read(tmp_path, said).test_images) == 4
    assert said == [f"{tmp_path / 'test'} has no class folders and is not used"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert read(folder(tmp_path, bus=10, train=10)).label_names == ("bus", "train")


def test_pictures_in_both_parts_and_repeated_ones_are_counted(tmp_path: Path) -> None:
    folder(tmp_path / "train", 10)
    folder(tmp_path / "test", 3)
    save(tmp_path / "test" / "dogs" / "new.png", pictures(900, (8, 8, 3))[-1])
    cat = (tmp_path / "train" / "cats" / "000.png").read_bytes()
    for name in ("cats/again.png", "dogs/cat.png"):
        (tmp_path / "train" / name).write_bytes(cat)
    said: list[str] = []
    read(tmp_path, said)
    assert said == [
        f"{tmp_path}: 2 of 22 training images repeat another one, 1 of them with another label",
        f"{tmp_path}: 6 of 7 test images are training images too",
    ]


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "webp", "tif", "JPEG", "jfif"])
def test_every_kind_of_picture_is_read(tmp_path: Path, ending: str) -> None:
    dataset = read(folder(tmp_path, 5, ending))
    known = read(folder(tmp_path / "other", 5))
    lossless = ending not in {"jpg", "JPEG", "jfif", "webp"}
    assert dataset.images.shape == known.images.shape
    assert np.array_equal(dataset.images, known.images) is lossless


def test_hidden_files_other_files_and_folders_below_a_class(tmp_path: Path) -> None:
    folder(tmp_path)
    save(tmp_path / "cats" / "more" / "1.png", pictures(1)[0])
    (tmp_path / ".cache").mkdir()
    (tmp_path / "__MACOSX" / "cats").mkdir(parents=True)  # of an archive made by macOS
    (tmp_path / "__MACOSX" / "cats" / "._000.png").touch()
    (tmp_path / "cats" / "._000.png").touch()
    for name in ("notes.txt", "photo.HEIC", "Makefile"):
        (tmp_path / "cats" / name).touch()
    said: list[str] = []
    dataset = read(tmp_path, said)
    assert len(dataset.images) + len(dataset.test_images) == 21
    assert dataset.num_classes == 2
    assert f"{tmp_path}: 3 files of other kinds not used (.HEIC, .txt, Makefile)" in said


def test_grey_pictures_have_one_channel_and_a_single_colour_one_makes_all_three(
    tmp_path: Path,
) -> None:
    for number in range(20):
        save(tmp_path / "ab"[number % 2] / f"{number}.png", pictures(number + 1)[-1])
    assert read(tmp_path).input_shape == (6, 6, 1)
    save(tmp_path / "a" / "colour.png", pictures(1, (6, 6, 3))[0])
    assert read(tmp_path).input_shape == (6, 6, 3)


def test_mixed_sizes_become_the_median_or_the_size_that_is_asked_for(tmp_path: Path) -> None:
    for number in range(30):
        shape = (10, 20) if number % 3 else (30, 12)
        save(tmp_path / "ab"[number % 2] / f"{number}.png", np.full(shape, number))
    said: list[str] = []
    assert read(tmp_path, said).input_shape == (10, 20, 1)
    line, _ = said  # the pictures are uniform
    assert line == (
        f"{tmp_path}: pictures of 10x12 to 30x20 are made 10x20 (height x width), the median "
        "(size = [HEIGHT, WIDTH] in a space sets it), fit = pad"
    )
    assert read(tmp_path, size=(7, 9)).input_shape == (7, 9, 1)


@pytest.mark.parametrize(
    ("fit", "corner", "middle"), [("pad", 0, 200), ("crop", 200, 200), ("stretch", 0, 200)]
)
def test_a_picture_of_other_proportions_is_padded_cropped_or_stretched(
    tmp_path: Path, fit: Any, corner: int, middle: int
) -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 15:45] = 200
    made, _ = picture.read(save(tmp_path / "wide.png", wide), (12, 12, 1), fit)
    assert abs(int(made[6, 6, 0]) - middle) < 3
    assert abs(int(made[6, 0, 0]) - corner) < 3
    assert made[0, 6, 0] == (0 if fit == "pad" else 200)  # above the picture is its border's colour


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_turned_photograph_stands_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    upright = np.zeros((24, 64, 3), np.uint8)
    upright[:12, :32], upright[12:, 32:] = 250, 120
    turned = {  # as a camera stores it that was held so
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if ending == "webp" else {"quality": 95} if ending == "jpg" else {}
    path = save(tmp_path / f"turned.{ending}", np.ascontiguousarray(turned), exif=exif, **how)
    assert picture.look(path).shape == (24, 64, 3)
    made, notes = picture.read(path, (24, 64, 3))
    assert notes == []
    assert np.abs(made.astype(int) - upright).mean() < 3
    assert np.ptp(picture.read(path, (12, 32, 3))[0][:5, :15]) < 20  # no padding


def test_a_large_jpeg_is_nearly_the_same_decoded_coarsely(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    large = Image.fromarray(small).resize((800, 800), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    large.save(tmp_path / "large.png")
    coarse, fine = (
        picture.read(tmp_path / f"large.{ending}", (32, 32, 3))[0].astype(int)
        for ending in ("jpg", "png")
    )
    assert np.abs(coarse - fine).mean() < 2


# Lists


def listed(root: Path, header: str = "path,label", name: str = "labels.csv") -> Path:
    lines = [header]
    for number in range(20):
        save(root / "files" / f"{number}.png", pictures(number + 1)[-1])
        lines.append(f"files/{number}.png,{'ab'[number % 2]}")
    (root / name).write_text("\n".join(lines) + "\n")
    return root / name


@pytest.mark.parametrize(
    "header", ["path,label", "filepath,label", "Filename,class", "image,Label"]
)
def test_a_csv_lists_files_and_labels(tmp_path: Path, header: str) -> None:
    dataset = read(listed(tmp_path, header))
    assert dataset.label_names == ("a", "b")
    assert len(dataset.images) + len(dataset.test_images) == 20


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_of_a_spreadsheet_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = listed(tmp_path)
    lines = path.read_text().replace(",", delimiter).replace("b\n", '"bär"\r\n')
    path.write_bytes(lines.encode(encoding))
    assert read(path).label_names == ("a", "bär")


def test_the_split_column_of_a_csv_is_used(tmp_path: Path) -> None:
    listed(tmp_path)
    parts = ["train"] * 12 + ["Test"] * 4 + ["valid"] * 4
    lines = [f"files/{i}.png,{'ab'[i % 2]},{part}" for i, part in enumerate(parts)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    said: list[str] = []
    dataset = read(tmp_path / "labels.csv", said)
    assert (len(dataset.images), len(dataset.test_images)) == (12, 4)
    assert said == [
        f"{tmp_path / 'labels.csv'}: 4 pictures of the split for validation are not used"
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *lines, lines[0] + "x"]))
    assert "line 22: split 'trainx'; say train or test" in refused(tmp_path / "labels.csv")


def test_labels_1_and_1_0_are_one_class_and_repeated_rows_are_counted(tmp_path: Path) -> None:
    listed(tmp_path)
    labels = ["1", "2", "1.0", "2"] * 5
    lines = [f"files/{i}.png,{label}" for i, label in enumerate(labels)]
    repeated = ["files/0.png,1", "files/2.png,2"]
    (tmp_path / "labels.csv").write_text(
        "\n".join(
            [
                "path,label,split",
                *(f"{line},train" for line in [*lines, *repeated]),
                "files/9.png,2,test",
                "files/8.png,1,test",
            ]
        )
    )
    said: list[str] = []
    dataset = read(tmp_path / "labels.csv", said)
    assert dataset.label_names == (1, 2)
    assert [line.partition("labels.csv: ")[2] for line in said] == [
        "'1' and '1.0' are one class, 1",
        "2 of 22 training images repeat another one, 1 of them with another label",
        "2 of 2 test images are training images too",
    ]


def test_a_file_is_found_however_its_accents_are_written(tmp_path: Path) -> None:
    listed(tmp_path)
    (tmp_path / "files" / "0.png").rename(tmp_path / "files" / "cafe\u0301.png")
    text = (tmp_path / "labels.csv").read_text().replace("files/0.png", "files/caf\u00e9.png")
    (tmp_path / "labels.csv").write_text(text)
    assert len(read(tmp_path / "labels.csv").test_images) == 4


def test_numbers_to_test_on_need_not_be_among_those_to_train_on(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 4)):
        lines = ["image,label"]
        for number in range(count):
            save(tmp_path / part / f"{number}.png", pictures(number + 1)[-1])
            lines.append(f"{number}.png,{number if part == 'train' else number + 0.5}")
        (tmp_path / f"{part}.csv").write_text("\n".join(lines))
    assert read(tmp_path, regression=True).test_labels.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert "which has no picture to train on" in refused(tmp_path)


def test_kaggles_folder_has_its_pictures_in_folders_of_the_csvs_names(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 4)):
        lines = ["image,label"]
        for number in range(count):
            save(tmp_path / part / f"{number}.png", pictures(number + 1)[-1])
            lines.append(f"{number}.png,{'ab'[number % 2]}")
        (tmp_path / f"{part}.csv").write_text("\n".join(lines))
    dataset = read(tmp_path)
    assert (len(dataset.images), len(dataset.test_images)) == (20, 4)


def test_kaggles_test_without_labels_is_said_and_not_used(tmp_path: Path) -> None:
    header = ",".join(f"pixel{i}" for i in range(4))
    rows = [f"{i % 2},{i},2,3,4" for i in range(20)]
    (tmp_path / "train.csv").write_text("\n".join([f"label,{header}", *rows]))
    (tmp_path / "test.csv").write_text(f"{header}\n1,2,3,4\n")
    said: list[str] = []
    assert read(tmp_path, said).images.shape == (16, 2, 2, 1)
    assert said[0] == f"{tmp_path / 'test.csv'} has no labels and is not used"
    (tmp_path / "test.csv").write_text(f"label,{header}\n1,9,2,3,4\n")
    assert len(read(tmp_path).test_images) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,label\n", "no picture below the header"),
        ("path,label\nfiles/0.png\n", "line 2: 1 values where the header has 2"),
        ("path,label\nfiles/0.png,\n", "line 2: no file or no label"),
        ("path,label\nno.png,a\nno2.png,b\n", "not there: no.png (line 2), no2.png (line 3);"),
        ("path,kind\nfiles/0.png,a\n", "has no column label or class"),
        ("path,label\nfiles/0.png,a\nfiles/1.png,a\n", "one class only (a)"),
    ],
)
def test_a_csv_that_lists_no_data_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = listed(tmp_path)
    path.write_text(content)
    message = refused(path)
    assert message.startswith(str(path))
    assert said in message


def test_a_csv_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = listed(tmp_path)
    path.write_bytes(b"path,label\n" + b"files/0.png,a\n" * 9 + b"files/\xff.png,a\n")
    assert "line 11 is not UTF-8 (byte 0xff; maybe cp1252); save it as CSV UTF-8" in refused(path)


# Broken files


def test_a_broken_picture_is_named_and_left_out(tmp_path: Path) -> None:
    folder(tmp_path, 50)
    broken = tmp_path / "dogs" / "007.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    said: list[str] = []
    dataset = read(tmp_path, said)
    assert len(dataset.images) + len(dataset.test_images) == 99
    assert said == [f"Left out: {broken}: cannot be read (damaged); copy or save it again"]


def test_what_is_left_out_leaves_no_gap(tmp_path: Path) -> None:
    folder(tmp_path / "some", 100)
    before = read(tmp_path / "some")
    gone = {"cats/000", "dogs/050"}
    for name in gone:
        path = tmp_path / "some" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-40])
    after = read(tmp_path / "some")
    kept = {image.tobytes() for image in (*before.images, *before.test_images)}
    found = [image.tobytes() for image in (*after.images, *after.test_images)]
    assert len({*found}) == len(found) == 198
    assert {*found} < kept


def test_more_than_one_in_a_hundred_broken_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, 50)
    for name in ("cats/001", "dogs/001"):
        (tmp_path / f"{name}.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path / 'cats' / '001.png'}: a Git LFS pointer")
    assert "2 of 100 pictures cannot be read, and at most 1% may be left out" in message
    said: list[str] = []
    with pytest.raises(DataError):
        read(tmp_path, said)
    assert [line.partition(".png")[0] for line in said] == [
        f"Broken: {tmp_path / name}" for name in ("cats/001", "dogs/001")
    ]


def circle_above(root: Path) -> str:
    (root / "self").symlink_to(root, target_is_directory=True)
    return "self: a link to a folder above itself; remove it"


def circle_of_links(root: Path) -> str:
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    return "one: a link that leads nowhere; mend or remove it"


def class_on_a_disk_that_is_not_there(root: Path) -> str:
    (root / "birds").symlink_to("/media/nobody/birds")
    return "birds: a link that leads nowhere; mend or remove it"


def no_text(root: Path) -> str:
    (root / os.fsdecode(b"c\xe9")).mkdir()
    return r"c\xe9: the name of a class that is no UTF-8 text; rename the folder"


def small_class(root: Path) -> str:
    save(root / "birds" / "1.png", pictures(1)[0])
    return "the test part needs 2 images of every class, but the smallest class, birds, has 1"


def nothing_readable(root: Path) -> str:
    for path in root.glob("*/*"):
        path.write_bytes(b"no picture")
    return "20 of 20 pictures cannot be read"


@pytest.mark.parametrize(
    "spoil",
    [
        small_class,
        nothing_readable,
        circle_above,
        circle_of_links,
        class_on_a_disk_that_is_not_there,
        no_text,
    ],
)
def test_a_folder_that_is_no_data_is_refused(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = folder(tmp_path / "some")
    said = spoil(root)
    message = refused(root, cache=tmp_path / "cache")
    assert said in message
    assert str(root) in message
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["a/1.png", "b/notes.txt"], "b: a class folder without pictures"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"],
            "test/c/1.png: is of the class c, which has no picture to train on",
        ),
        (["train/", "a/1.png"], "train: a folder with nothing that is read here; it must hold"),
        (["a/1.png"], "one class folder only (a)"),
        (
            ["train/a/1.png", "train/b/1.png", "Training/a/1.png"],
            "Training and train are for the same purpose",
        ),
        (
            ["a/1.png", "b/1.png", "Testing/a/1.png"],
            "Testing: a folder to test on, without one to train on beside",
        ),
        (
            ["test/a/1.png", "val/a/1.png"],
            "test: a folder to test on, without one to train on beside it",
        ),
        (
            ["in/train/1.png", "in/test/1.png"],
            "in/train: 1 picture and no class folder; put the pictures of",
        ),
        (["images/1.png", "annotations/1.png"], "images: 1 picture and no class folder"),
        (
            ["train/images/1.png", "train/masks/1.png"],
            "train/images: 1 picture and no class folder",
        ),
        (["train/a/1.png"], "train: one class folder only (a)"),
        (["in/the/middle/1.png"], "in/the: one class folder only (middle)"),
        (["1.png"], "1 picture and no class folder"),
    ],
)
def test_a_layout_without_classes_is_refused(tmp_path: Path, places: list[str], said: str) -> None:
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".png"):
            save(path, pictures(1)[0])
        else:
            path.touch() if path.suffix else path.mkdir()
    assert said in refused(tmp_path)


def test_a_file_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "cats" / "000.png").rename(tmp_path / "cats" / os.fsdecode(b"\xe9.png"))
    assert len(read(tmp_path).images) == 16


def test_what_would_not_fit_into_memory_is_refused_with_a_smaller_size(tmp_path: Path) -> None:
    assert "give a space a size" in refused(folder(tmp_path), size=(10_000_000, 1_000_000))


# The cache


def test_what_was_read_is_kept_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "some")
    counted: list[Path] = []
    real = picture.read
    monkeypatch.setattr(
        decode.picture, "read", lambda path, *how: (counted.append(path), real(path, *how))[1]
    )
    monkeypatch.chdir(tmp_path)  # a study is made with the one path and resumed with the other
    Path("link").symlink_to(root)
    first, again, _ = (
        read(path, cache=tmp_path / "cache") for path in (Path("some"), root, Path("link"))
    )
    assert len(counted) == 20
    assert same_content(first, again)
    assert first.fingerprint == again.fingerprint
    assert first.label_names == again.label_names
    assert first.test_files == again.test_files
    save(root / "cats" / "000.png", pictures(7, (SIDE, SIDE, 3))[3])
    assert read(root, cache=tmp_path / "cache").fingerprint != first.fingerprint
    assert len(counted) == 40
    assert len(list((tmp_path / "cache").iterdir())) == 1
    read(root, cache=tmp_path / "cache", size=(4, 4))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_damaged_cache_is_made_anew_and_a_full_disk_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path / "some")
    first = read(root, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    assert same_content(first, read(root, cache=tmp_path / "cache"))
    said: list[str] = []
    (tmp_path / "file").touch()
    assert same_content(first, read(root, said, cache=tmp_path / "file"))
    assert "cannot be kept" in said[-1]


def test_progress_is_told_for_every_picture(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    told = ProgressCallbacks(progress=lambda *how_far: seen.append(how_far))
    load(str(folder(tmp_path)), ImageOptions(callbacks=told))
    steps = ("Looking at pictures", "Reading pictures")
    assert seen == [(step, done, 20) for step in steps for done in range(1, 21)]


def test_a_folder_given_as_a_file_is_named() -> None:
    assert "no such file or folder" in refusal("no-such-folder")
