"""Labelled images from a name or a path -> a frozen dataset.

Pixels become bytes, or float32 in [0, 1] (`study.data.pixels`); both parts alike.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data import arrays, decode, listing, pixels, table
from study.data.pixels import Images, Scales
from study.data.reading import ImageOptions, RawSplit, Splits, readable
from study.data.splitting import Labels, Split, split, test_part
from study.errors import DataError
from study.files import printable
from study.space.search_space import NAMED

__all__ = ["Dataset", "Split", "load", "split"]

ACCEPTED = (
    "an .npz file in Keras' layout, a .csv of digits or of picture files, a folder of IDX files, "
    "or a folder with a folder of pictures for each class"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (n, height, width, channels) and labels (n,): in 0..classes-1, or float32 numbers.

    Images are float32 in [0, 1], or uint8 where they came from bytes: `pixels.to_float01(batch)`
    makes float32 in [0, 1] of either. In place of images there may be their features, the float32
    outputs (n, ...) of a frozen backbone.

    `labels[i] == k` means the class that the files call `label_names[k]`; numbers have no names.
    The search sees `images` and `labels` alone. All arrays are read-only. `fingerprint` is the
    SHA-256 of all contents, the same for every file format and place: data is recognised by it.
    `test_files` are the names of the files of the test images, where they came from picture files.
    `scales` say which stored numbers were black and white. `backbone` is the `.keras` file of the
    network to fine-tune on the images.
    """

    source: str
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels
    label_names: tuple[int | str, ...]
    fingerprint: str
    test_files: tuple[str, ...] = ()
    scales: Scales = field(default_factory=lambda: pixels.BYTES)
    backbone: bytes | None = field(default=None, repr=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image; the shape of its features."""
        return self.images.shape[1:]

    def without_test(self) -> "Dataset":
        """The same data without its test part, for workers."""
        nothing = slice(0, 0)
        images, labels = self.test_images[nothing], self.test_labels[nothing]
        return replace(self, test_images=images, test_labels=labels, test_files=())

    @property
    def regression(self) -> bool:
        """Whether this is regression: labels are numbers, not classes."""
        return not self.label_names

    @property
    def num_classes(self) -> int:
        """Number of classes of the training part; 1 for regression."""
        return len(self.label_names) or 1


def load(source: str, options: ImageOptions | None = None) -> Dataset:
    """The dataset that has a name (`digits`, `mnist`, `cifar10`, ...), or the one at a path.

    A path is an `.npz` file in Keras' layout, a CSV, a folder of IDX files or one of class folders;
    ``options`` say how picture files become images. Data without a test part gives up a stratified
    fifth of its images, the same fifth in every study. Raises `DataError`.
    """
    options = options or ImageOptions()
    train, test = _read(source, options)
    dataset = _dataset(source, train, test, regression=options.regression)
    plain = pixels.PLAIN if train.scales is None else pixels.BYTES  # other pictures lose depth
    for note in (*pixels.notes(dataset.scales, dataset.images, plain), *_repeated(dataset)):
        options.callbacks.say(f"{printable(source)}: {note}")
    return dataset


def _read(source: str, options: ImageOptions) -> Splits:
    """The splits of data with a name (`NAMED`) or at a path (`ACCEPTED`)."""
    if source == "digits":
        return arrays.digits()
    if source in NAMED:
        return arrays.keras_data(source)
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib raises for an unknown ~user
    if not os.path.lexists(path):
        raise DataError(
            f"{printable(path)}: no such file or folder; give {', '.join(NAMED)}, or the path of "
            f"{ACCEPTED}"
        )
    with readable(path):
        if path.is_dir():
            return _folder(path, options)
        if path.suffix.lower() == ".npz":
            return arrays.npz(path)
        if path.suffix.lower() == ".csv":
            return _csvs(path, None, options)
    raise DataError(f"{printable(path)}: not a kind of file that is read here; give {ACCEPTED}")


def _folder(folder: Path, options: ImageOptions) -> Splits:
    """A folder of IDX files, with Kaggle's `train.csv`, or of class folders."""
    if found := arrays.idx_files(folder):
        return arrays.idx(folder, found)
    train, test = folder / "train.csv", folder / "test.csv"
    if train.is_file():
        return _csvs(train, test if test.is_file() else None, options)
    return decode.read(listing.in_folders(folder), folder, options)


def _csvs(train: Path, test: Path | None, options: ImageOptions) -> Splits:
    """CSVs of pixels or of picture files; one to test on that has no labels is not used."""
    notes = []
    if test and not {*listing.LABEL_COLUMNS} & {*table.header(test)}:
        notes, test = [f"{printable(test)} has no labels and is not used"], None
    if {*listing.FILE_COLUMNS} & {*table.header(train)}:
        return decode.read(listing.in_csvs(train, test, notes), train, options)
    for note in notes:
        options.callbacks.say(note)

    def split(path: Path) -> RawSplit:
        images, labels = table.pixels(path, labelled=True, regression=options.regression)
        assert labels is not None
        return RawSplit(images, labels, str(path), f"{path}, column label")

    return split(train), split(test) if test else None


def _dataset(source: str, train: RawSplit, test: RawSplit | None, *, regression: bool) -> Dataset:
    """Checks and scales the splits, numbers classes; draws a test part if there is none."""
    train = _checked(train, regression=regression)
    scales = train.scales or _scales(train)
    images, labels = _scaled(train, scales), train.labels
    names = np.unique(labels)
    if len(names) < 2:
        what = "one number only" if regression else "one class only"
        only = printable(names[0])
        raise DataError(f"{train.labels_in}: {what} ({only}); add a second one")
    if test is None:
        drawn = test_part(labels, source)
        test_images = pixels.take(images, drawn.validation)
        images = pixels.take(images, drawn.train)
        labels, test_labels = labels[drawn.train], labels[drawn.validation]
    else:
        test = _checked(test, regression=regression)
        _require_match(test, train, scales, regression=regression)
        test_images, test_labels = _scaled(test, scales), test.labels
    if not regression:
        labels, test_labels = (
            np.searchsorted(names, part).astype(np.int32) for part in (labels, test_labels)
        )
    if images.dtype != test_images.dtype:
        images, test_images = pixels.to_float01(images), pixels.to_float01(test_images)
    parts = (images, labels, test_images, test_labels)
    for part in parts:
        part.setflags(write=False)
    label_names = () if regression else tuple(names.tolist())
    return Dataset(
        source,
        *parts,
        label_names,
        _fingerprint(*parts, label_names=label_names),
        () if test is None or test.files is None else tuple(test.files.tolist()),
        scales,
    )


def _scales(split: RawSplit) -> Scales:
    kind = pixels.kind_of(split.images)
    found = pixels.extremes(split.images, split.images_in)
    return {kind: pixels.scale_of(kind, found, split.images_in)}


def _scaled(split: RawSplit, scales: Scales) -> Images:
    if split.scales is not None:
        return split.images
    kind = pixels.kind_of(split.images)
    found = pixels.extremes(split.images, split.images_in)
    return pixels.scaled(split.images, pixels.scale_by(scales, kind, found, split.images_in))


def _checked(part: RawSplit, *, regression: bool) -> RawSplit:
    """The part with images (n, height, width, channels), not yet scaled, and labels (n,)."""
    images = pixels.as_images(part.images, part.images_in)
    labels = _numbers(part) if regression else _classes(part)
    if len(labels) != len(images):
        raise DataError(
            f"{part.labels_in}: {len(labels)} labels for the {len(images)} images "
            f"of {part.images_in}; give each image one"
        )
    return replace(part, images=images, labels=labels)


def _numbers(part: RawSplit) -> NDArray[np.float32]:
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


def _classes(part: RawSplit) -> NDArray[Any]:
    """Labels that are classes: whole numbers, or texts."""
    labels = _plain_labels(part.labels)
    if labels.dtype.kind == "U" and labels.ndim == 1:
        written, places = np.unique(labels, return_inverse=True)
        labels = np.array([*listing.class_names(written.tolist()).values()])[places]
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
    """A column (as in Keras' cifar10) and one-hot rows as (n,); anything else unchanged."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim != 2 or labels.dtype.kind not in "biuf":
        return labels
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    return labels.argmax(axis=1) if one_hot else labels


def _require_match(test: RawSplit, train: RawSplit, scales: Scales, *, regression: bool) -> None:
    shape, wanted = test.images.shape[1:], train.images.shape[1:]
    if shape != wanted:
        raise DataError(
            f"{test.images_in}: images of shape {shape}, but {wanted} in {train.images_in}; "
            f"make them the same"
        )
    if test.scales is None and (own := _scales(test)) != scales:
        ((kind, ends),) = own.items()
        trained = scales.get(kind)
        if trained is not None and (kind == "floats" or ends[1] > trained[1]):
            raise DataError(
                f"{test.images_in}: pixels are not scaled as in {train.images_in} (they need the "
                f"range {ends[0]:g} to {ends[1]:g}, not {trained[0]:g} to {trained[1]:g}); save "
                "both alike"
            )
    if regression:
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


def _repeated(dataset: Dataset) -> Iterator[str]:
    """Notes on images that occur more than once, by their content, and on those in both parts."""

    def digests(images: Images) -> list[bytes]:
        return [hashlib.blake2b(image, digest_size=16).digest() for image in images]

    labels: dict[bytes, float] = {}
    train, test = digests(dataset.images), digests(dataset.test_images)
    for digest, label in zip(train, dataset.labels.tolist(), strict=True):
        labels.setdefault(digest, label)
    if repeated := len(train) - len(labels):
        other = sum(labels[d] != label for d, label in zip(train, dataset.labels, strict=True))
        yield (
            f"{repeated} of {len(train)} training images repeat another one"
            f"{f', {other} of them with another label' if other else ''}"
        )
    both = [(d, label) for d, label in zip(test, dataset.test_labels, strict=True) if d in labels]
    if both:
        other = sum(labels[digest] != label for digest, label in both)
        yield (
            f"{len(both)} of {len(test)} test images are training images too"
            f"{f', {other} of them with another label' if other else ''}"
        )
