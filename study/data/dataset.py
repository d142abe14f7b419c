"""Labelled images from a name or a path -> a frozen dataset; and the split of one repeat.

Pixels become bytes, or float32 in [0, 1] (`study.data.pixels`); both parts alike.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data import formats, pixels
from study.data.parts import Part, Reading
from study.data.pixels import Images
from study.data.splitting import Labels, Split, split, test_part
from study.errors import DataError

__all__ = ["Dataset", "Split", "load", "split"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (n, height, width, channels) and labels (n,) in 0..classes-1.

    Images are float32 in [0, 1], or uint8 where they came from bytes: `pixels.unit(batch)` makes
    float32 in [0, 1] of either.

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

    def without_test(self) -> "Dataset":
        """The same data, but for its test part: what travels to those who only train."""
        nothing = slice(0, 0)
        images, labels = self.test_images[nothing], self.test_labels[nothing]
        return replace(self, test_images=images, test_labels=labels)

    @property
    def num_classes(self) -> int:
        """How many classes the training part has."""
        return len(self.label_names)


def load(source: str, reading: Reading | None = None) -> Dataset:
    """The dataset that has a name (`digits`, `mnist`, `cifar10`, ...), or the one at a path.

    A path is an `.npz` file in Keras' layout, a CSV, a folder of IDX files or one of class folders
    (`study.data.formats`); ``reading`` says how picture files become images. A source without a
    test part gives up a stratified fifth of its images, the same fifth in every study. Raises
    `DataError`.
    """
    return _dataset(source, *formats.read(source, reading or Reading()))


def _dataset(source: str, train: Part, test: Part | None) -> Dataset:
    """Checks, scales and numbers what was read; draws the test part where there is none."""
    train = _checked(train)
    images = _packed(train)
    names, numbers = np.unique(train.labels, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{train.labels_in}: one class only ({names[0]}); add a second class")
    if test is None:
        drawn = test_part(train.labels, source)
        test_images = pixels.chosen(images, drawn.validation)
        images = pixels.chosen(images, drawn.train)
        numbers, test_numbers = numbers[drawn.train], numbers[drawn.validation]
    else:
        test = _checked(test)
        _require_match(test, train)
        test_images, test_numbers = _packed(test), np.searchsorted(names, test.labels)
    if images.dtype != test_images.dtype:
        images, test_images = pixels.unit(images), pixels.unit(test_images)
    arrays = (images, numbers.astype(np.int32), test_images, test_numbers.astype(np.int32))
    for array in arrays:
        array.setflags(write=False)
    label_names = tuple(names.tolist())
    return Dataset(source, *arrays, label_names, _fingerprint(*arrays, label_names=label_names))


def _checked(part: Part) -> Part:
    """The part with images (n, height, width, channels), not yet scaled, and labels (n,)."""
    images = pixels.as_images(part.images, part.images_in)
    labels = _plain_labels(part.labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{part.labels_in}: an array of {labels.dtype} of shape {labels.shape}; "
            f"labels are one whole number or name an image, or one-hot rows"
        )
    if labels.dtype.kind != "U":
        labels = labels.astype(np.int64)
    if len(labels) != len(images):
        raise DataError(
            f"{part.labels_in}: {len(labels)} labels for the {len(images)} images "
            f"of {part.images_in}; give each image one"
        )
    return replace(part, images=images, labels=labels)


def _plain_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """A column (as in Keras' cifar10) and one-hot rows as (n,); anything else as it is."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim != 2 or labels.dtype.kind not in "biuf":
        return labels
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    return labels.argmax(axis=1) if one_hot else labels


def _divisor(part: Part) -> int:
    return pixels.divisor(part.images, part.images_in)


def _packed(part: Part) -> Images:
    return pixels.packed(part.images, _divisor(part))


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
    if test.labels.dtype.kind != train.labels.dtype.kind:
        raise DataError(
            f"{test.labels_in}: labels are not numbers, or not names, as in {train.labels_in}; "
            f"make them the same"
        )
    unseen = np.setdiff1d(test.labels, train.labels)
    if unseen.size:
        raise DataError(
            f"{test.labels_in}: label {unseen[0]} is not among the training labels; "
            f"remove its images or add some to the training part"
        )


def _fingerprint(*arrays: NDArray[Any], label_names: tuple[int | str, ...]) -> str:
    """The same for bytes as for the floats that they stand for."""
    digest = hashlib.sha256(repr(label_names).encode())
    for array in arrays:
        kind = np.dtype(np.float32) if array.dtype == np.uint8 else array.dtype
        digest.update(f"{array.shape} {kind.str}".encode())
        for some in pixels.batches(array):
            digest.update(np.ascontiguousarray(some).data)
    return digest.hexdigest()
