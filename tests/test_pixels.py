"""Black and white are found by one rule, whatever type, depth and file pixels are stored in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import csv, npz, numbers, pictures, write_csv, write_npz
from PIL import Image

from study.data.dataset import Dataset, load
from study.data.picture import look
from study.data.pixels import kind_of, to_float01
from study.data.reading import ImageOptions, ProgressCallbacks
from study.errors import DataError
from study.final.pictures import read

X, Y = pictures(), numbers()  # bytes of 0 to 255
FRACTIONS = (X / 255).astype(np.float32)


def loaded(source: str) -> tuple[Dataset, list[str]]:
    said: list[str] = []
    dataset = load(source, ImageOptions(callbacks=ProgressCallbacks(said.append)))
    return dataset, said


def by_npz(folder: Path, images: Any) -> str:
    return write_npz(folder / "some.npz", x_train=images, y_train=Y)


def by_csv(folder: Path, images: Any) -> str:
    return write_csv(folder / "some.csv", csv(images, Y))


def by_files(folder: Path, images: Any) -> str:
    ending = "png" if images.dtype in (np.uint8, np.uint16, bool) else "tif"
    for number, (image, label) in enumerate(zip(images, Y, strict=True)):
        place = folder / "some" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        plain = np.squeeze(image)
        Image.fromarray(plain).save(place / f"{number:02d}.{ending}")
    return str(folder / "some")


STORED = [
    ("bytes", X, X / 255, ""),
    ("masks as bytes", X % 2, X % 2, "pixels are bytes, from 0 (black) to 1 (white)"),
    ("masks as integers", (X % 2).astype(np.int32), X % 2, "from 0 (black) to 1 (white)"),
    ("masks as floats", (X % 2).astype(np.float32), X % 2, ""),
    ("8 bits as uint16", X.astype(np.uint16), X / 255, ""),
    ("8 bits as int32", X.astype(np.int32), X / 255, ""),
    ("12 bits as uint16", X.astype(np.uint16) * 16, X * 16.0 / 4095, "4095 (white)"),
    ("16 bits", X.astype(np.uint16) * 257, X / 255, "65535 (white)"),
    ("16 bits as int32", X.astype(np.int32) * 257, X / 255, "65535 (white)"),
    ("floats of 0 to 1", FRACTIONS, X / 255, ""),
    ("floats of 0 to 255", X.astype(np.float32), X / 255, "255 (white)"),
    ("floats of 0 to 65535", X.astype(np.float32) * 257, X / 255, "65535 (white)"),
    ("floats of -1 to 1", FRACTIONS * 2 - 1, X / 255, "from -1 (black) to 1 (white)"),
    ("floats above 1 by resampling", FRACTIONS * np.float32(1 + 1e-7), X / 255, ""),
    ("signed bytes", X.astype(np.int32) - 128, X / 255, "from -128 (black) to 127"),
]


@pytest.mark.parametrize("by", [by_npz, by_csv, by_files])
@pytest.mark.parametrize(
    ("images", "wanted", "note"),
    [case[1:] for case in STORED],
    ids=[case[0] for case in STORED],
)
def test_black_and_white_are_found_however_pixels_are_stored(
    tmp_path: Path, by: Any, images: Any, wanted: Any, note: str
) -> None:
    dataset, said = loaded(by(tmp_path, images))
    found = np.sort(
        np.concatenate([to_float01(dataset.images), to_float01(dataset.test_images)]).ravel()
    )
    step = 1 / 255 if by is by_files else 1e-6  # pictures become bytes
    assert np.abs(found - np.sort(wanted.ravel())).max() <= step
    assert note in " ".join(said)
    if by is by_files and images.dtype.itemsize > 1:
        assert f"pixels are {kind_of(images)}, from " in said[0]


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (FRACTIONS - np.float32(0.1), "within [-0.1, 0.9]"),
        ((FRACTIONS - np.float32(0.5)) * 6, "within [-3, 3]"),
        (X.astype(np.int32) - 1024, "within [-1024, -769]"),
        (X.astype(np.int32) * 1000, "within [0, 255000]"),
        (np.where(X == 7, np.nan, FRACTIONS).astype(np.float32), "NaN or infinite"),
        (np.where(X == 7, np.inf, FRACTIONS).astype(np.float32), "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("by", [by_npz, by_files])
def test_numbers_that_are_no_pixels_are_refused(
    tmp_path: Path, by: Any, images: Any, problem: str
) -> None:
    with pytest.raises(DataError, match="pixels") as error:
        loaded(by(tmp_path, images))
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("images", "warned"),
    [
        (X // 16, True),  # 4 bits in bytes
        (FRACTIONS * np.float32(3), True),
        (np.full_like(X, 200), True),
        (np.zeros_like(X), True),
        (X // 4 + 90, False),
        (X, False),
    ],
)
def test_a_set_that_uses_little_of_its_range_is_warned_of(
    tmp_path: Path, images: Any, warned: bool
) -> None:
    said = loaded(by_npz(tmp_path, images))[1]
    assert any("Warning: nearly all pixels are alike" in line for line in said) is warned


def test_images_saved_on_another_scale_than_the_others_are_warned_of(tmp_path: Path) -> None:
    source = by_files(tmp_path, X.astype(np.float32))
    assert not any("Warning" in line for line in loaded(source)[1])
    for file in sorted(Path(source).glob("*/*.tif"))[::4]:
        Image.fromarray(np.asarray(Image.open(file)) / np.float32(255)).save(file)
    said = loaded(source)[1]
    assert any("of 32 images use less than 1% of the range" in line for line in said)


def test_masks_may_be_bools(tmp_path: Path) -> None:
    """As an array; as 1-bit pictures they are black and white anyway."""
    masks = X % 2 == 1
    for dataset in (loaded(by_npz(tmp_path, masks))[0], loaded(by_files(tmp_path, masks))[0]):
        assert {*np.unique(dataset.images)} == {0, 255}


def test_bytes_and_deeper_pictures_may_be_mixed(tmp_path: Path) -> None:
    source = Path(by_files(tmp_path, X))
    for number in range(0, 40, 3):
        file = next(source.glob(f"*/{number:02d}.png"))
        deep = np.asarray(Image.open(file)).astype(np.uint16) * 16
        Image.fromarray(deep).save(file)
        assert look(file).kind == "integers"
    dataset, _ = loaded(str(source))
    assert dataset.scales == {"bytes": (0, 255), "integers": (0, 4095)}
    plain, _ = loaded(by_npz(tmp_path, X))
    both = [np.concatenate([d.images, d.test_images]).astype(int) for d in (dataset, plain)]
    assert np.abs(np.sort(both[0], axis=None) - np.sort(both[1], axis=None)).max() <= 1


@pytest.mark.parametrize("by", [by_npz, by_csv, by_files])
@pytest.mark.parametrize(("images"), [case[1] for case in STORED], ids=[c[0] for c in STORED])
def test_an_image_is_predicted_on_the_scale_of_the_training(
    tmp_path: Path, by: Any, images: Any
) -> None:
    """Even one that is so dark that its own numbers would say something else."""
    source = by(tmp_path, images)
    scales = loaded(source)[0].scales
    whole = images.astype(float)
    black, white = scales[next(iter(scales))]
    dark = np.clip(whole, None, black + (white - black) / 8).astype(images.dtype)[:5]
    (tmp_path / "dark").mkdir()
    if by is by_csv:
        dark_source = write_csv(tmp_path / "dark.csv", csv(dark, Y[:5]))
    elif by is by_npz:
        dark_source = write_npz(tmp_path / "dark.npz", x_test=dark)
    else:
        Image.fromarray(np.squeeze(dark[0])).save(path := Path(source) / "0" / "dark.tif")
        dark_source, dark = str(path), dark[:1]
    (batch,) = read(Path(dark_source), (6, 6, 1), scales=scales)
    wanted = (dark.astype(float) - black) / (white - black) * 255
    assert np.abs(batch.pixels[..., 0] - np.squeeze(wanted)).max() <= 0.51


def test_other_numbers_than_in_training_are_on_their_own_scale() -> None:
    def levels(images: Any, scales: Any) -> float:
        np.savez("other.npz", x_test=images)
        (batch,) = read(Path("other.npz"), (6, 6, 1), scales=scales)
        return float(batch.pixels.max())

    for scales in ({"bytes": (0, 255)}, {"floats": (0, 1)}, {"integers": (0, 4095)}):
        for images in (X, X.astype(np.int64), FRACTIONS, X * 257.0, X.astype(np.uint16) * 257):
            wide_in_deep = images.dtype == np.int64 and "integers" in scales
            assert levels(images, scales) == pytest.approx(
                255 * 255 / 4095 if wide_in_deep else 255
            )


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_test_part_on_another_scale_is_refused(tmp_path: Path) -> None:
    deep = X.astype(np.uint16) * 16
    source = npz(tmp_path, x_train=deep, y_train=Y, x_test=deep[:8] * 16)
    with pytest.raises(DataError, match=r"need the range 0 to 65535, not 0 to 4095"):
        load(source)
    assert load(npz(tmp_path, x_train=deep, x_test=deep[:8] // 2)).scales == {"integers": (0, 4095)}
