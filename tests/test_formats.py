"""Every kind of image file is read alike, and every bad one is refused in one line."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import (
    csv,
    idx,
    npz,
    numbers,
    pictures,
    refusal,
    same_content,
    write_csv,
    write_idx,
)

from study.data import arrays
from study.data.dataset import load
from study.errors import DataError

# What is read


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_what_keras_has_comes_through_keras_with_the_names_of_its_classes(name: str) -> None:
    def fetch(asked: str) -> Any:
        assert asked == name
        return (pictures(), numbers()), (pictures(8), numbers(8)[:, np.newaxis])

    train, test = arrays.keras_data(name, fetch)
    assert train.images.shape == (40, 6, 6)
    assert test is not None
    first = {"mnist": 1, "fashion_mnist": "Trouser", "cifar10": "automobile"}
    assert train.labels[1] == first.get(name, "aquarium_fish")
    assert test.labels[1] == train.labels[1]
    classes = {"mnist": 1, "cifar100": 100}  # MNIST's are numbers, and Keras counts from 0 as well
    assert len({*arrays._CLASSES[name].split(",")}) == classes.get(name, 10)


def test_a_failed_download_says_to_give_a_path() -> None:
    def fetch(name: str) -> Any:
        raise Exception("URL fetch failure:\nName or service not known")  # noqa: TRY002 - as Keras does

    said = r"^cifar10: cannot be downloaded .*known.*path.*\.npz"
    with pytest.raises(DataError, match=said) as it:
        arrays.keras_data("cifar10", fetch)
    assert "\n" not in str(it.value)


def test_an_idx_folder_may_be_packed_dotted_and_bring_a_test_part(tmp_path: Path) -> None:
    plain = write_idx(tmp_path / "plain", pictures(), numbers())
    write_idx(tmp_path / "plain", pictures(8), numbers(8), "t10k")
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in Path(plain).iterdir():
        name = file.name.replace("-idx", ".idx") + ".gz"
        (packed / name).write_bytes(gzip.compress(file.read_bytes()))
    one, other = load(plain), load(str(packed))
    assert len(one.test_images) == 8
    assert one.fingerprint == other.fingerprint == load(npz(tmp_path)).fingerprint


def test_an_idx_file_of_another_number_type_is_read(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "idx", pictures(), numbers())
    uint8 = load(folder).fingerprint
    for code in ("i2", "i4", "f4"):
        (tmp_path / "idx" / "train-images-idx3-ubyte").write_bytes(idx(pictures(), code))
        assert load(folder).fingerprint == uint8


def test_a_colour_csv_is_read_with_the_channel_last(tmp_path: Path) -> None:
    x = pictures(shape=(5, 5, 3))
    from_csv = load(write_csv(tmp_path / "colour.csv", csv(x, numbers())))
    assert same_content(from_csv, load(npz(tmp_path, x_train=x, x_test=None, y_test=None)))


def test_a_csv_from_another_editor_is_read(tmp_path: Path) -> None:
    lines = csv(pictures(), numbers())
    plain = load(write_csv(tmp_path / "plain.csv", lines))
    other = tmp_path / "OTHER.CSV"
    lines[0] = lines[0].replace("label", '"Label"')
    other.write_text("\r\n".join([*lines, "", ""]), encoding="utf-8-sig", newline="")
    assert load(str(other)).fingerprint == plain.fingerprint


def test_a_csv_may_hold_fractions(tmp_path: Path) -> None:
    x = pictures() / 256
    from_csv = load(write_csv(tmp_path / "fractions.csv", csv(x, numbers())))
    assert same_content(from_csv, load(npz(tmp_path, x_train=x, x_test=None, y_test=None)))


# Refusals: the path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("fashion", "give digits, mnist, fashion_mnist, cifar10, cifar100, or the path"),
        ("~nobody-of-this-name/some.npz", "no such file"),
        ("/none.npz", "no such file"),
        ("x" * 5000, "no such file"),
        (__file__, "not a kind of file that is read here; give an .npz"),
    ],
)
def test_a_source_that_is_no_data_is_refused(source: str, said: str) -> None:
    assert said in refusal(source)


def test_a_folder_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    assert "a folder with nothing that is read here" in refusal(str(tmp_path))


# Refusals: the file


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = Path(npz(tmp_path))
    good = path.read_bytes()
    unsplit = good.replace(b"{'descr'", b'{""""scr\'')
    for content in (b"", b"<html>Not found</html>", b"PK\x03\x04", good[:-30], unsplit):
        path.write_bytes(content)
        assert "empty, damaged or not an .npz" in refusal(str(path))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 11490434\n"


@pytest.mark.parametrize("name", ["some.npz", "some.csv", "idx/train-images-idx3-ubyte"])
def test_a_git_lfs_pointer_is_named_with_its_cure(tmp_path: Path, name: str) -> None:
    folder = write_idx(tmp_path / "idx", pictures(), numbers())
    (tmp_path / name).write_bytes(POINTER)
    source = folder if "/" in name else str(tmp_path / name)
    assert "a Git LFS pointer and not the file itself; fetch it with: git lfs pull" in refusal(
        source
    )


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickled_array_is_refused_and_never_loaded(tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")] * 40, dtype=object)
    assert "pickled" in refusal(npz(tmp_path, x_train=trap))
    (tmp_path / "some.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "pickled" in refusal(str(tmp_path / "some.npz"))
    assert not (tmp_path / "sprung").exists()


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", pictures())
    (tmp_path / "some.npy").rename(tmp_path / "some.npz")
    assert "np.savez" in refusal(str(tmp_path / "some.npz"))


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(tmp_path: Path, missing: str) -> None:
    assert f"lacks {missing} " in refusal(npz(tmp_path, **{missing: None}))


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_missing_idx_file_is_named(tmp_path: Path, kind: str) -> None:
    folder = write_idx(tmp_path, pictures(), numbers())
    next(tmp_path.glob(f"train-{kind}*")).unlink()
    assert f"train-{kind}" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        *(("", content, "not an IDX file") for content in (b"", b"\0\0", b"label,pixel0\n")),
        ("", b"\0\0\x08\x07" + b"\0" * 40, "not an IDX file"),
        *(("", idx(pictures())[:cut], "truncated or damaged") for cut in (-1, 6)),
        ("", idx(pictures()) + b"1", "truncated or damaged"),
        *(
            (".gz", content, "a gzip file")
            for content in (b"no gzip", gzip.compress(b"", mtime=0)[:-9])
        ),
        (".gz", gzip.compress(idx(pictures()), mtime=0)[:-9], "truncated or not a gzip file"),
        (".gz", gzip.compress(idx(pictures())[:-9], mtime=0), "truncated or damaged"),
        (".gz", b"", "not an IDX file"),
    ],
)
def test_a_file_that_is_no_idx_is_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    folder = write_idx(tmp_path, pictures(), numbers())
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / f"train-images-idx3-ubyte{name}").write_bytes(content)
    message = refusal(folder)
    assert said in message
    assert f"train-images-idx3-ubyte{name}" in message


@pytest.mark.parametrize(
    ("line", "number", "problem"),
    [
        ("1,2,3", 5, "3 values where the header has 37"),
        (",".join(["1"] * 38), 2, "38 values"),
        (",".join(["1"] * 36 + ["x"]), 5, "'x' is not a number"),
        (",".join(["1"] * 36 + [""]), 5, "'' is not a number"),
        (",".join(["1"] * 36 + ["nan"]), 3, "'nan' is not"),
    ],
)
def test_a_bad_csv_line_is_named(tmp_path: Path, line: str, number: int, problem: str) -> None:
    lines = csv(pictures(), numbers())
    lines[number - 1] = line
    assert f", line {number}: {problem}" in refusal(write_csv(tmp_path / "some.csv", lines))


def test_a_csv_line_is_counted_as_an_editor_counts(tmp_path: Path) -> None:
    header, *lines = csv(pictures(), numbers())
    path = write_csv(tmp_path / "some.csv", [header, "", lines[0], "", "1,2", *lines])
    assert ", line 5: 2 values" in refusal(path)


def test_a_csv_whose_lines_all_differ_from_the_header_is_refused(tmp_path: Path) -> None:
    lines = csv(pictures(), numbers())
    lines[1:] = [f"{line},0" for line in lines[1:]]
    assert ", line 2: 38 values" in refusal(write_csv(tmp_path / "some.csv", lines))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "without a label column"),
        (b"pixel0,pixel1\n1,2\n", "without a label column"),
        (b"file,kind\ncat.png,cat\n", "or, of a list of pictures, path,label"),
        (b"label,a,b\n1,2,3\n", "2 pixels a line make no square"),
        (b"label\n1\n", "0 pixels a line"),
        (b"label,pixel0\n\n", "no image below the header"),
        (b"label,pixel0\n0.5,1\n", "label 0.5 is not a whole number"),
        (b"label,pixel0\n1e300,1\n", "label 1e+300 is not a whole number"),
        (b"label,pixel0\n1,99999999999\n", "pixels lie within [1e+11"),
        (b"label,pixel0\n1,1e999\n", "too large"),
        (b"\x89PNG\r\n\xff\xfe", "line 1 is not UTF-8"),
        (b"label,pixel0\n1,\xff\xfe\n", "line 2 is not UTF-8 (byte 0xff; maybe cp1252)"),
        (b"PK\x03\x04\0\0", "not a text file"),
    ],
)
def test_a_csv_that_holds_no_images_is_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "some.csv").write_bytes(content)
    assert problem in refusal(str(tmp_path / "some.csv"))
