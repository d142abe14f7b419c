"""Labelled images from a name or a path -> a frozen dataset; and the split of one repeat.

Pixels become float32 in [0, 1] (`study.data.pixels`); both parts are scaled alike.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.data import formats, pixels
from study.data.parts import Part
from study.errors import DataError

if TYPE_CHECKING:
    from study.space.search_space import Validation

Images = NDArray[np.float32]
Labels = NDArray[np.int32]
Indices = NDArray[np.int64]

TEST_FRACTION = 0.2  # given up by data that brings no test part
TEST_SEED = 20  # fixed: no study may see the test images of another study of the same data
HOLDOUT, FOLDS = 1, 2  # keep the random numbers of the two ways to validate apart


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (n, height, width, channels) in [0, 1] and labels (n,) in 0..classes-1.

    `labels[i] == k` means the class that the files call `label_names[k]`. The search sees
    `images` and `labels` alone. All arrays are read-only. `fingerprint` is the SHA-256 of all
    contents, the same whatever file format brought them.
    """

    source: str
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels
    label_names: tuple[int | str, ...]
    fingerprint: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """How many classes the training part has."""
        return len(self.label_names)


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted indices into a dataset's images: those to train on and those to validate on."""

    train: Indices
    validation: Indices


def load(source: str) -> Dataset:
    """The dataset called `digits` or `mnist`, or the one stored at a path.

    A path is an `.npz` file in Keras' layout, a digit CSV or a folder of IDX files
    (`study.data.formats`). A source without a test part gives up a stratified fifth of its images,
    the same fifth in every study. Raises `DataError`.
    """
    return _dataset(source, *formats.read(source))


def split(
    labels: Labels, validation: "Validation", seed: int, repeat: int, source: str = "the data"
) -> Split:
    """What a repeat trains and validates on: a function of its arguments alone.

    A holdout is drawn from (seed, repeat), stratified. Of folds, repeat r validates on fold
    r modulo their number; every further round of folds is shuffled anew. A seed of the validation
    itself stands in the place of both. `seed` and `repeat` are not negative. Raises `DataError`,
    beginning with `source`, for classes that are too small.
    """
    if validation.kind == "none":
        return Split(np.arange(len(labels)), np.arange(0))
    if validation.seed is not None:
        seed, repeat = validation.seed, 0
    if validation.kind == "holdout":
        drawn_with = _derive(seed, repeat, HOLDOUT)
        return _draw(labels, validation.fraction, drawn_with, f"{source}: validation")
    return _fold(labels, validation.folds, seed, repeat, source)


def _dataset(source: str, train: Part, test: Part | None) -> Dataset:
    """Checks, scales and numbers what was read; draws the test part where there is none."""
    train = _checked(train)
    images = _scaled(train)
    names, numbers = np.unique(train.labels, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{train.labels_in}: one class only ({names[0]}); add a second class")
    if test is None:
        drawn = _draw(train.labels, TEST_FRACTION, TEST_SEED, f"{source}: the test part")
        test_images, test_numbers = images[drawn.validation], numbers[drawn.validation]
        images, numbers = images[drawn.train], numbers[drawn.train]
    else:
        test = _checked(test)
        _require_match(test, train)
        test_images, test_numbers = _scaled(test), np.searchsorted(names, test.labels)
    arrays = (images, numbers.astype(np.int32), test_images, test_numbers.astype(np.int32))
    for array in arrays:
        array.setflags(write=False)
    label_names = tuple(names.tolist())
    return Dataset(source, *arrays, label_names, _fingerprint(*arrays, label_names=label_names))


def _checked(part: Part) -> Part:
    """The part with images (n, height, width, channels), not yet scaled, and labels (n,)."""
    images = pixels.as_images(part.images, part.images_in)
    labels = _plain_labels(part.labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{part.labels_in}: an array of {labels.dtype} of shape {labels.shape}; "
            f"labels are one whole number an image, or one-hot rows"
        )
    if len(labels) != len(images):
        raise DataError(
            f"{part.labels_in}: {len(labels)} labels for the {len(images)} images "
            f"of {part.images_in}; give each image one"
        )
    return replace(part, images=images, labels=labels.astype(np.int64))


def _plain_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """A column (as in Keras' cifar10) and one-hot rows as (n,); anything else as it is."""
    if labels.ndim != 2 or labels.dtype.kind not in "biuf":
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0]
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    return labels.argmax(axis=1) if one_hot else labels


def _divisor(part: Part) -> int:
    return pixels.divisor(part.images, part.images_in)


def _scaled(part: Part) -> Images:
    divisor = np.float32(_divisor(part))
    return np.ascontiguousarray(part.images, dtype=np.float32) / divisor


def _require_match(test: Part, train: Part) -> None:
    shape, wanted = test.images.shape[1:], train.images.shape[1:]
    if shape != wanted:
        raise DataError(
            f"{test.images_in}: images of shape {shape}, but {wanted} in {train.images_in}; "
            f"make them the same"
        )
    if _divisor(test) != _divisor(train):
        raise DataError(
            f"{test.images_in}: pixels are not scaled as in {train.images_in} (one part lies "
            f"within [0, 1], the other reaches further); save both alike"
        )
    unseen = np.setdiff1d(test.labels, train.labels)
    if unseen.size:
        raise DataError(
            f"{test.labels_in}: label {unseen[0]} is not among the training labels; "
            f"remove its images or add some to the training part"
        )


def _fingerprint(*arrays: NDArray[Any], label_names: tuple[int | str, ...]) -> str:
    digest = hashlib.sha256(repr(label_names).encode())
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _derive(seed: int, number: int, purpose: int) -> int:
    """A seed for scikit-learn, the same on every machine and with every numpy."""
    return int(np.random.SeedSequence([seed, number, purpose]).generate_state(1)[0])


def _draw(labels: NDArray[Any], fraction: float, seed: int, what: str) -> Split:
    """A stratified `fraction` as the validation part; no class is missing from the rest."""
    from sklearn.model_selection import train_test_split

    _require(labels, 2, what)
    total, classes = len(labels), len(np.unique(labels))
    drawn = math.ceil(fraction * total)
    if min(drawn, total - drawn) >= classes:
        rest, taken = train_test_split(
            np.arange(total), test_size=drawn, random_state=seed, stratify=labels
        )
        if len(np.unique(labels[rest])) == classes:
            return Split(np.sort(rest), np.sort(taken))
    raise DataError(
        f"{what}: {drawn} of {total} images cannot be drawn with all {classes} classes "
        f"on both sides; add images"
    )


def _fold(labels: Labels, folds: int, seed: int, repeat: int, source: str) -> Split:
    from sklearn.model_selection import StratifiedKFold

    _require(labels, folds, f"{source}: validation by {folds} folds")
    state = _derive(seed, repeat // folds, FOLDS)
    parts = StratifiedKFold(folds, shuffle=True, random_state=state).split(labels, labels)
    train, validation = next(islice(parts, repeat % folds, None))
    return Split(np.sort(train), np.sort(validation))


def _require(labels: NDArray[Any], images: int, what: str) -> None:
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if fewest < images:
        raise DataError(
            f"{what} needs {images} images of every class, but the smallest class has "
            f"{fewest}; add images or leave the class out"
        )
