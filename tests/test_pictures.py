"""Folders and lists of picture files become datasets; what cannot is named in one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import numbers, pictures, refusal, same_content, write_npz
from PIL import Image

from study.data import decode, picture
from study.data.dataset import Dataset, load
from study.data.reading import ImageOptions, ProgressCallbacks
from study.errors import DataError

SIDE = 8


def save(path: Path, pixels: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def folder(root: Path, per_class: int = 10, ending: str = "png", **classes: int) -> Path:
    """Class folders `cats` and `dogs`, of pictures that are all different."""
    for place, (name, count) in enumerate((classes or {"cats": 0, "dogs": 0}).items()):
        for number in range(count or per_class):
            pixels = pictures(1 + number + 100 * place, (SIDE, SIDE, 3))[-1]
            save(root / name / f"{number:03d}.{ending}", pixels)
    return root


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


def test_train_and_test_may_stand_above_the_classes(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "test", 3)
    (tmp_path / "valid").mkdir()
    said: list[str] = []
    dataset = read(tmp_path, said)
    assert (len(dataset.images), len(dataset.test_images)) == (20, 6)
    assert said[0] == f"{tmp_path / 'valid'} is not used"


def test_a_test_folder_without_classes_is_said_and_not_used(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    save(tmp_path / "test" / "1.png", pictures(1)[0])
    said: list[str] = []
    assert len(read(tmp_path, said).test_images) == 4
    assert said == [f"{tmp_path / 'test'} has no class folders and is not used"]


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
    (line,) = said
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


def test_a_turned_photograph_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = save(tmp_path / "turned.jpg", np.zeros((20, 60, 3)), exif=exif)
    assert picture.look(path).shape == (60, 20, 3)
    assert picture.read(path, (60, 20, 3))[1] == []


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


def empty_class(root: Path) -> str:
    (root / "birds").mkdir()
    (root / "birds" / "notes.txt").touch()
    return "birds: a class folder without pictures"


def one_class(root: Path) -> str:
    for path in (root / "dogs").iterdir():
        path.unlink()
    (root / "dogs").rmdir()
    return "one class folder only (cats); give a folder of pictures for each class"


def empty_train(root: Path) -> str:
    (root / "train").mkdir()
    return "train: a folder with nothing that is read here; it must hold a folder of pictures"


def no_class_folder(root: Path) -> str:
    for path in list(root.glob("*/*")):
        path.rename(root / f"{path.parent.name}-{path.name}")
    for path in list(root.glob("*/")):
        path.rmdir()
    return "20 pictures and no class folder; put the pictures of each class into a folder of its"


def unknown_class(root: Path) -> str:
    folder(root / "train")
    save(root / "test" / "birds" / "1.png", pictures(1)[0])
    save(root / "test" / "cats" / "1.png", pictures(1)[0])
    return "test/birds/1.png: is of the class birds, which has no picture to train on"


def small_class(root: Path) -> str:
    save(root / "birds" / "1.png", pictures(1)[0])
    return "the test part needs 2 images of every class, but the smallest class, birds, has 1"


def nothing_readable(root: Path) -> str:
    for path in root.glob("*/*"):
        path.write_bytes(b"no picture")
    return "20 of 20 pictures cannot be read"


def circle_above(root: Path) -> str:
    (root / "self").symlink_to(root, target_is_directory=True)
    return "self: a link to a folder above itself; remove it"


def circle_of_links(root: Path) -> str:
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    return "cannot be read (Too many levels of symbolic links)"


def no_text(root: Path) -> str:
    (root / os.fsdecode(b"c\xe9")).mkdir()
    return r"c\xe9: the name of a class that is no UTF-8 text; rename the folder"


@pytest.mark.parametrize(
    "spoil",
    [
        empty_class,
        one_class,
        empty_train,
        no_class_folder,
        unknown_class,
        small_class,
        nothing_readable,
        circle_above,
        circle_of_links,
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
