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
    """Images (n, height, width, channels) and labels (n,): in 0..classes-1, or float32 numbers.

    Images are float32 in [0, 1], or uint8 where they came from bytes: `pixels.unit(batch)` makes
    float32 in [0, 1] of either.

    `labels[i] == k` means the class that the files call `label_names[k]`; numbers have no names.
    The search sees `images` and `labels` alone. All arrays are read-only. `fingerprint` is the
    SHA-256 of all contents, the same whatever file format brought them. `test_files` are the names
    of the files of the test images, where they came from picture files.
    """

    source: str
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels
    label_names: tuple[int | str, ...]
    fingerprint: str
    test_files: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def without_test(self) -> "Dataset":
        """The same data, but for its test part: what travels to those who only train."""
        nothing = slice(0, 0)
        images, labels = self.test_images[nothing], self.test_labels[nothing]
        return replace(self, test_images=images, test_labels=labels, test_files=())

    @property
    def numbers(self) -> bool:
        """Whether labels are numbers, not classes."""
        return not self.label_names

    @property
    def num_classes(self) -> int:
        """How many classes the training part has; 1 where labels are numbers."""
        return len(self.label_names) or 1


def load(source: str, reading: Reading | None = None) -> Dataset:
    """The dataset that has a name (`digits`, `mnist`, `cifar10`, ...), or the one at a path.

    A path is an `.npz` file in Keras' layout, a CSV, a folder of IDX files or one of class folders
    (`study.data.formats`); ``reading`` says how picture files become images. A source without a
    test part gives up a stratified fifth of its images, the same fifth in every study. Raises
    `DataError`.
    """
    reading = reading or Reading()
    return _dataset(source, *formats.read(source, reading), numbers=reading.numbers)


def _dataset(source: str, train: Part, test: Part | None, *, numbers: bool) -> Dataset:
    """Checks and scales what was read, numbers classes; draws the test part where there is none."""
    train = _checked(train, numbers=numbers)
    images, labels = _packed(train), train.labels
    names = np.unique(labels)
    if len(names) < 2:
        what = "one number only" if numbers else "one class only"
        raise DataError(f"{train.labels_in}: {what} ({names[0]}); add a second one")
    if test is None:
        drawn = test_part(labels, source)
        test_images = pixels.chosen(images, drawn.validation)
        images = pixels.chosen(images, drawn.train)
        labels, test_labels = labels[drawn.train], labels[drawn.validation]
    else:
        test = _checked(test, numbers=numbers)
        _require_match(test, train, numbers=numbers)
        test_images, test_labels = _packed(test), test.labels
    if not numbers:
        labels, test_labels = (
            np.searchsorted(names, part).astype(np.int32) for part in (labels, test_labels)
        )
    if images.dtype != test_images.dtype:
        images, test_images = pixels.unit(images), pixels.unit(test_images)
    arrays = (images, labels, test_images, test_labels)
    for array in arrays:
        array.setflags(write=False)
    label_names = () if numbers else tuple(names.tolist())
    return Dataset(
        source,
        *arrays,
        label_names,
        _fingerprint(*arrays, label_names=label_names),
        () if test is None or test.files is None else tuple(test.files.tolist()),
    )


def _checked(part: Part, *, numbers: bool) -> Part:
    """The part with images (n, height, width, channels), not yet scaled, and labels (n,)."""
    images = pixels.as_images(part.images, part.images_in)
    labels = _numbers(part) if numbers else _classes(part)
    if len(labels) != len(images):
        raise DataError(
            f"{part.labels_in}: {len(labels)} labels for the {len(images)} images "
            f"of {part.images_in}; give each image one"
        )
    return replace(part, images=images, labels=labels)


def _numbers(part: Part) -> NDArray[np.float32]:
    """Labels that are numbers, as float32."""
    labels = part.labels[:, 0] if part.labels.shape[1:] == (1,) else part.labels
    if labels.ndim != 1 or labels.dtype.kind not in "iuf":
        raise DataError(
            f"{part.labels_in}: an array of {labels.dtype} of shape {labels.shape}; give each "
            'image one number, or leave task = "regression" out of the space'
        )
    found = labels.astype(np.float32)
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataError(f"{part.labels_in}: label {place} is {labels[place]}; remove its image")
    return found


def _classes(part: Part) -> NDArray[Any]:
    """Labels that are classes: whole numbers, or texts."""
    labels = _plain_labels(part.labels)
    if labels.dtype.kind == "f" and labels.ndim == 1:
        raise DataError(
            f"{part.labels_in}: an array of {labels.dtype} of shape {labels.shape}; number classes "
            'by whole numbers, or give a space task = "regression"'
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{part.labels_in}: an array of {labels.dtype} of shape {labels.shape}; "
            f"labels are one whole number or name an image, or one-hot rows"
        )
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


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


def _require_match(test: Part, train: Part, *, numbers: bool) -> None:
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
    if numbers:
        return
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
