"""Datasets come out alike whatever brought them, bad contents are refused, splits are stable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    Array,
    csv,
    npz,
    numbers,
    pictures,
    refusal,
    same_content,
    write_csv,
    write_idx,
    write_npz,
)

from study.data.dataset import load, split
from study.data.pixels import batches, brightness, to_float01
from study.errors import DataError
from study.space.search_space import Validation

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist.npz"


# What is read


def test_digits_are_embedded_and_fit_the_tutorials_network() -> None:
    digits = load("digits")
    assert digits.input_shape == (28, 28, 1)
    assert digits.label_names == tuple(range(10))
    assert (len(digits.images), len(digits.test_images)) == (1437, 360)
    assert digits.images.dtype == np.float32
    assert digits.labels.dtype == np.int32
    assert (digits.images.min(), digits.images.max()) == (0, 1)


def test_a_digits_pixel_is_three_wide_inside_a_border_of_two() -> None:
    images = load("digits").images[..., 0]
    inner = images[:, 2:-2, 2:-2].reshape(-1, 8, 3, 8, 3)
    assert (inner == inner[:, :, :1, :, :1]).all()
    assert images.sum() == inner.sum()


def test_data_without_a_test_part_gives_up_a_stratified_fifth(tmp_path: Path) -> None:
    dataset = load(npz(tmp_path, x_test=None, y_test=None))
    assert np.bincount(dataset.test_labels).tolist() == [2, 2, 2, 2]
    assert np.bincount(dataset.labels).tolist() == [8, 8, 8, 8]
    both = np.concatenate([dataset.images, dataset.test_images])
    assert len(np.unique(both, axis=0)) == 40


def test_the_same_fifth_is_given_up_every_time() -> None:
    one, other = load("digits"), load("digits")
    assert same_content(one, other)
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint.startswith("9c52503205c8ab6e")


@pytest.mark.skipif(not MNIST.exists(), reason=f"there is no {MNIST.name} beside the checkout")
def test_the_real_mnist_is_read_from_a_path() -> None:
    mnist = load(str(MNIST))
    assert mnist.images.shape == (60000, 28, 28, 1)
    assert mnist.test_images.shape == (10000, 28, 28, 1)
    assert mnist.label_names == tuple(range(10))
    drawn = split(mnist.labels, Validation("holdout", fraction=0.1), seed=0, repeat=0)
    assert (len(drawn.train), len(drawn.validation)) == (54000, 6000)


def test_the_same_content_has_the_same_fingerprint_in_every_format(tmp_path: Path) -> None:
    x, y = pictures(), numbers()
    folder = write_idx(tmp_path / "idx", x, y)
    sources = [
        npz(tmp_path, x_test=None, y_test=None),
        write_npz(tmp_path / "floats.npz", x_train=x / np.float64(255), y_train=y.astype("u1")),
        write_npz(tmp_path / "wide.npz", x_train=x.astype(float)[..., None], y_train=y[:, None]),
        write_npz(tmp_path / "one_hot.npz", x_train=x.astype("i8"), y_train=np.eye(4)[y]),
        folder,
        write_csv(tmp_path / "some.csv", csv(x, y)),
    ]
    datasets = [load(source) for source in sources]
    assert all(same_content(datasets[0], other) for other in datasets)
    assert len({dataset.fingerprint for dataset in datasets}) == 1


def test_any_other_content_has_another_fingerprint(tmp_path: Path) -> None:
    brighter = pictures()
    brighter[3, 2, 2] ^= 1
    swapped = numbers()
    swapped[[0, 1]] = swapped[[1, 0]]
    changes: list[dict[str, Any]] = [
        {},
        {"x_train": brighter},
        {"y_train": swapped},
        {"y_train": numbers() + 1, "y_test": numbers(8) + 1},
        {"x_test": pictures(12)[:8]},
        {"x_train": pictures().reshape(40, 4, 9), "x_test": pictures(8).reshape(8, 4, 9)},
        {"x_test": None, "y_test": None},
    ]
    prints = {load(npz(tmp_path, **change)).fingerprint for change in changes}
    assert len(prints) == len(changes)


@pytest.mark.parametrize("shape", [(5, 9), (7, 7, 1), (4, 6, 3)])
def test_any_size_and_one_or_three_channels_are_read(tmp_path: Path, shape: Any) -> None:
    dataset = load(npz(tmp_path, x_train=pictures(shape=shape), x_test=pictures(8, shape=shape)))
    assert dataset.input_shape == (*shape[:2], shape[2] if len(shape) > 2 else 1)


def test_any_whole_numbers_are_labels_and_keep_their_names(tmp_path: Path) -> None:
    names = np.array([-5, 3, 1000, 7])
    dataset = load(npz(tmp_path, y_train=names[numbers()], y_test=names[numbers(8)]))
    assert dataset.label_names == (-5, 3, 7, 1000)
    assert dataset.num_classes == 4
    assert dataset.labels[:4].tolist() == [0, 1, 3, 2]
    assert dataset.test_labels[:4].tolist() == [0, 1, 3, 2]


def test_labels_may_be_names(tmp_path: Path) -> None:
    names = np.array(["owl", "ant", "cat", "bee"])
    dataset = load(npz(tmp_path, y_train=names[numbers()], y_test=names[numbers(8)]))
    assert dataset.label_names == ("ant", "bee", "cat", "owl")
    assert dataset.labels[:4].tolist() == [3, 0, 2, 1]
    message = refusal(npz(tmp_path, y_train=names[numbers()]))
    assert "labels are not numbers, or not names, as in" in message


def test_bytes_stay_bytes_and_stand_for_what_division_gives(tmp_path: Path) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 8, 8).repeat(10, axis=0)
    kept = load(npz(tmp_path, x_train=x, x_test=x[:8])).images
    assert kept.dtype == np.uint8
    divided = x.astype(np.float32)[..., np.newaxis] / np.float32(255)
    assert np.array_equal(to_float01(kept), divided)
    assert np.array_equal(np.concatenate(list(batches(kept))), divided)
    assert brightness(kept) == pytest.approx(divided.mean())


def test_one_part_that_is_no_bytes_makes_both_fractions(tmp_path: Path) -> None:
    test = pictures(8) / 255
    test[0, 0, 0] = 0.3
    dataset = load(npz(tmp_path, x_train=pictures() / 255, x_test=test))
    assert dataset.images.dtype == dataset.test_images.dtype == np.float32


def test_a_dataset_cannot_be_changed(tmp_path: Path) -> None:
    dataset = load(npz(tmp_path))
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0] = 0


# Refusals: the content


def with_pixel(value: float, dtype: str = "f4") -> Array:
    images = (pictures() / 255).astype(dtype)
    images[3, 2, 1] = value
    return images


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (with_pixel(np.nan), "1 pixels are NaN"),
        (with_pixel(np.inf, "f8"), "1 pixels are NaN or infinite"),
        (with_pixel(-0.1), "within [-0.1"),
        (with_pixel(-3, "i4"), "within [-3, 1]"),
        (with_pixel(-2000, "i2"), "within [-2000, 1]"),
        (with_pixel(70000, "u4"), "70000]"),
        (pictures().astype("c8"), "pixels of type complex64"),
        (pictures().astype(str), "pixels of type <U3"),
        (pictures()[:0], "no images"),
        (pictures()[:, :0], "no images"),
        (pictures(shape=(6,)), "shape (40, 6)"),
        (pictures(shape=(6, 6, 2)), "1 or 3 channels"),
        (pictures(shape=(3, 6, 6)), "1 or 3 channels"),
        (np.uint8(7), "shape ()"),
        (pictures(39), "40 labels for the 39 images"),
    ],
)
def test_unusable_pixels_are_refused(tmp_path: Path, images: Array, problem: str) -> None:
    message = refusal(npz(tmp_path, x_train=images))
    assert problem in message
    assert "x_train" in message


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.zeros(40, int), "one class only (0)"),
        (np.ones((40, 1), int), "one class only (1)"),
        (numbers().astype(float), "float64"),
        (numbers().astype("S"), "|S"),
        (numbers() > 1, "bool"),
        (np.int64(3), "shape ()"),
        (np.full((40, 4), 0.25), "shape (40, 4)"),
        (np.zeros((40, 4), int), "one-hot"),
        (np.zeros((40, 2, 2), int), "one-hot"),
        (numbers(41), "41 labels for the 40 images"),
    ],
)
def test_unusable_labels_are_refused(tmp_path: Path, labels: Array, problem: str) -> None:
    message = refusal(npz(tmp_path, y_train=labels))
    assert problem in message
    assert "y_train" in message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"x_test": pictures(8, shape=(5, 6))}, "shape (5, 6, 1), but (6, 6, 1)"),
        ({"x_test": pictures(8, shape=(6, 6, 3))}, "shape (6, 6, 3), but (6, 6, 1)"),
        ({"x_train": pictures() * 1.0, "x_test": pictures(8) / 255}, "not scaled as in"),
        ({"x_train": pictures() % 2}, "need the range 0 to 255, not 0 to 1); save both alike"),
        ({"x_test": pictures(7)}, "8 labels for the 7 images"),
        ({"y_test": numbers(8) + 1}, "label 4 is not among the training labels"),
        ({"x_test": pictures(8)[:0], "y_test": numbers(0)}, "no images"),
    ],
)
def test_a_test_part_that_does_not_match_is_refused(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    message = refusal(npz(tmp_path, **changes))
    assert problem in message
    assert "_test" in message


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([0] * 30 + [1], "the smallest class, 1, has 1"),
        ([0, 0, 1, 1, 2, 2], "2 of 6 images cannot be drawn with all 3 classes"),
    ],
)
def test_too_few_images_for_a_test_part_are_refused(
    tmp_path: Path, labels: list[int], problem: str
) -> None:
    x, y = pictures(len(labels)), np.array(labels)
    assert problem in refusal(write_npz(tmp_path / "few.npz", x_train=x, y_train=y))


# Splits


@pytest.mark.parametrize("validation", [Validation("holdout", fraction=0.2), Validation("folds")])
def test_a_split_is_a_function_of_seed_and_repeat(validation: Validation) -> None:
    labels = numbers(120).astype(np.int32)
    drawn = {
        (seed, repeat): split(labels, validation, seed, repeat).validation.tobytes()
        for seed in range(3)
        for repeat in range(5)
    }
    again = split(labels, validation, seed=2, repeat=4).validation.tobytes()
    assert drawn[2, 4] == again
    assert len(set(drawn.values())) == len(drawn)


@settings(max_examples=25, deadline=None)
@given(
    validation=st.builds(Validation, st.just("holdout"), fraction=st.floats(0.1, 0.9))
    | st.builds(Validation, st.just("folds"), folds=st.integers(2, 8)),
    seed=st.integers(0, 2**63),
    repeat=st.integers(0, 50),
)
def test_a_split_uses_every_image_once_and_keeps_the_proportions(
    validation: Validation, seed: int, repeat: int
) -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [20, 40, 60])
    parts = split(labels, validation, seed, repeat)
    assert np.union1d(parts.train, parts.validation).tolist() == list(range(120))
    assert len(parts.train) + len(parts.validation) == 120
    for part in (parts.train, parts.validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        share = np.bincount(labels[part], minlength=3) - len(part) * np.array([1, 2, 3]) / 6
        assert np.abs(share).max() < 2


def test_a_round_of_folds_validates_on_every_image_once() -> None:
    labels, folds = numbers(30).astype(np.int32), Validation("folds", folds=3)
    rounds = [[split(labels, folds, 7, 3 * n + f).validation for f in range(3)] for n in range(2)]
    for parts in rounds:
        assert np.sort(np.concatenate(parts)).tolist() == list(range(30))
    assert not any(np.array_equal(one, other) for one in rounds[0] for other in rounds[1])


def test_splits_are_the_same_on_every_machine() -> None:
    labels = numbers(12, classes=3).astype(np.int32)
    holdout = split(labels, Validation("holdout", fraction=0.25), seed=1, repeat=2)
    fold = split(labels, Validation("folds", folds=4), seed=1, repeat=2)
    assert holdout.validation.tolist() == [0, 1, 11]
    assert fold.validation.tolist() == [0, 1, 8]


@pytest.mark.parametrize(
    ("labels", "validation", "problem"),
    [
        ([0] * 9 + [1] * 3, Validation("folds", folds=4), "needs 4 images of every class"),
        ([0] * 9 + [1], Validation("holdout", fraction=0.5), "needs 2 images of every class"),
        ([0, 0, 1, 1, 2, 2], Validation("holdout", fraction=0.1), "1 of 6 images"),
        ([0] * 20 + [1] * 2, Validation("holdout", fraction=0.9), "on both sides"),
    ],
)
def test_too_few_images_for_a_split_are_refused(
    labels: list[int], validation: Validation, problem: str
) -> None:
    with pytest.raises(DataError, match=f"^some.npz: validation.*{problem}"):
        split(np.array(labels, np.int32), validation, 0, 0, source="some.npz")
