"""A name or a path -> plain arrays: the embedded digits, MNIST, .npz, IDX folders, digit CSVs.

A reader answers for the file (there, whole, of its format); what the arrays hold is judged by
`study.data.dataset`. Every failure is a `DataError` of one line that names the file.
"""

import gzip
import math
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError

ACCEPTED = "an .npz file in Keras' layout, a digit .csv, or a folder of IDX files"

IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte(?:\.gz)?")
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,10}\s*", re.ASCII)
NPZ_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels as stored, and where each was found, for the messages about them."""

    images: NDArray[Any]
    labels: NDArray[Any]
    images_in: str
    labels_in: str


Parts = tuple[Part, Part | None]
"""The training part, and the test part where the files bring one."""


def read(source: str) -> Parts:
    """The parts of `digits` or `mnist`, or of what is stored at a path: see `ACCEPTED`.

    Raises `DataError` for a path that is missing, unreadable, damaged or of another format.
    """
    named = {"digits": digits, "mnist": mnist}
    if source in named:
        return named[source]()
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib raises for an unknown ~user
    try:
        if path.is_dir():
            return read_idx(path)
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder; give digits, mnist, or the path of {ACCEPTED}"
            )
        suffix = path.suffix.lower()
        if suffix not in (".npz", ".csv"):
            raise DataError(f"{path}: not a kind of file that is read here; give {ACCEPTED}")
        return read_npz(path) if suffix == ".npz" else read_csv(path)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror or error}); "
            f"check that it is whole and that you may read it"
        ) from error


def _through_keras() -> Any:
    from keras.datasets import mnist as keras_mnist

    return keras_mnist.load_data()


def mnist(download: Callable[[], Any] = _through_keras) -> Parts:
    """MNIST through Keras, which keeps a verified copy once it has been downloaded.

    Raises `DataError` where `download` fails for whatever reason.
    """
    try:
        (x_train, y_train), (x_test, y_test) = download()
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise DataError(
            f"mnist: cannot be downloaded ({' '.join(str(error).split())}); "
            f"give the path of an mnist.npz instead"
        ) from error
    return (
        Part(x_train, y_train, "mnist, x_train", "mnist, y_train"),
        Part(x_test, y_test, "mnist, x_test", "mnist, y_test"),
    )


def digits() -> Parts:
    """The 8x8 digits inside scikit-learn, each pixel three wide and a border of two: 28x28."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return Part(images, labels, "digits", "digits"), None


def read_npz(path: Path) -> Parts:
    """Arrays x_train, y_train and, as a pair, x_test, y_test. Never unpickles."""
    try:
        with path.open("rb") as file:  # given a path, numpy leaves a damaged file open
            return _npz_parts(path, np.load(file, allow_pickle=False))
    except NPZ_DAMAGE as error:
        _refuse_npz(path, error)


def _npz_parts(path: Path, archive: Any) -> Parts:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: holds a single array; save x_train and y_train with np.savez")
    names = set(archive.files)
    pairs = [("x_train", "y_train")]
    if names & {"x_test", "y_test"}:
        pairs.append(("x_test", "y_test"))
    missing = sorted({name for pair in pairs for name in pair} - names)
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)} (it has {sorted(names)}); "
            f"save it in Keras' layout: x_train, y_train[, x_test, y_test]"
        )
    arrays = {name: archive[name] for pair in pairs for name in pair}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: {name} is no array; save it with np.savez")
    parts = [Part(arrays[x], arrays[y], f"{path}, {x}", f"{path}, {y}") for x, y in pairs]
    return parts[0], parts[1] if len(parts) > 1 else None


def _refuse_npz(path: Path, error: BaseException) -> NoReturn:
    """A pickle is named as such: its cure is to save again, not to copy again."""
    with path.open("rb") as file:
        start = file.read(1)
    if "Object arrays" in str(error) or start == pickle.PROTO:
        wrong, cure = "holds pickled objects, which are never loaded", "save plain number arrays"
    elif isinstance(error, MemoryError):
        wrong, cure = "damaged, or too large for the memory", "copy it again or save fewer images"
    else:
        wrong, cure = "empty, damaged or not an .npz file", "copy, download or save it again"
    raise DataError(f"{path}: {wrong}; {cure}") from error


def read_idx(folder: Path) -> Parts:
    """Files such as train-images-idx3-ubyte, plain or .gz, the dotted spelling too.

    Where a file is there both plain and packed, the plain one is read.
    """
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.iterdir()):
        match = IDX_NAME.fullmatch(file.name)
        if match and file.is_file():
            found.setdefault((match[1], match[2]), file)
    if not found:
        raise DataError(
            f"{folder}: a folder without IDX files; it must hold train-images-idx3-ubyte[.gz] "
            f"and train-labels-idx1-ubyte[.gz]"
        )
    has_test = any(part == "t10k" for part, _ in found)
    return _idx_part(folder, found, "train"), (
        _idx_part(folder, found, "t10k") if has_test else None
    )


def _idx_part(folder: Path, found: dict[tuple[str, str], Path], part: str) -> Part:
    for kind in ("images", "labels"):
        if (part, kind) not in found:
            raise DataError(f"{folder}: no file {part}-{kind}-idx*-ubyte[.gz]; add it")
    images, labels = found[part, "images"], found[part, "labels"]
    return Part(_idx_array(images), _idx_array(labels), str(images), str(labels))


def _idx_array(path: Path) -> NDArray[Any]:
    """One IDX file: two zero bytes, type code, number of axes, sizes (big endian), the data."""
    content = _idx_bytes(path)
    zeros, code, axes = content[:2], *content[2:4].ljust(2, b"\0")
    if zeros != b"\0\0" or code not in IDX_TYPES or not 1 <= axes <= 4:
        raise DataError(f"{path}: empty or not an IDX file; copy or download it again")
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:start].ljust(4 * axes, b"\0"))
    dtype = np.dtype(IDX_TYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(
            f"{path}: holds {len(content)} bytes where its header says {expected}: "
            f"truncated or damaged; copy or download it again"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _idx_bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as packed:
            return packed.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: truncated or not a gzip file; copy or download it again"
        ) from error


def read_csv(path: Path) -> Parts:
    """Kaggle's layout: a header `label,pixel0,...`, then a line of whole numbers an image.

    The side follows from the number of pixels: n * n of them, or n * n * 3, channel last.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            columns = lines.readline().rstrip("\n").split(",")
            shape = _csv_image_shape(path, columns)
            table = _csv_table(path, lines, len(columns))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file; give a CSV with a header line") from error
    images, labels = table[:, 1:].reshape(-1, *shape), table[:, 0]
    return Part(images, labels, str(path), f"{path}, column label"), None


def _csv_image_shape(path: Path, columns: list[str]) -> tuple[int, int, int]:
    if columns[0].strip().strip('"').lower() != "label":
        raise DataError(
            f"{path}: empty or without a label column; the first line must be label,pixel0,..."
        )
    pixels = len(columns) - 1
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side > 0 and side * side * channels == pixels:
            return side, side, channels
    raise DataError(
        f"{path}: {pixels} pixels a line make no square image of 1 or 3 channels; "
        f"give one column a pixel"
    )


def _csv_table(path: Path, lines: TextIO, columns: int) -> NDArray[np.int32]:
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: no image below the header; copy or export it again")
    lines.seek(0)
    lines.readline()
    try:
        table = np.loadtxt(lines, dtype=np.int32, delimiter=",", comments=None, ndmin=2)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        _refuse_csv(path, columns, error)
    if table.shape[1] != columns:
        _refuse_csv(path, columns, None)
    return table


def _refuse_csv(path: Path, columns: int, error: ValueError | None) -> NoReturn:
    """Reads once more, slowly, for the line: numpy counts neither the header nor empty lines."""
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            cells = line.rstrip("\n").split(",")
            if number == 1 or not line.strip():
                continue
            if len(cells) != columns:
                raise DataError(
                    f"{path}, line {number}: {len(cells)} values where the header "
                    f"has {columns}; correct or remove the line"
                ) from error
            wrong = next((cell for cell in cells if not WHOLE_NUMBER.fullmatch(cell)), None)
            if wrong is not None:
                raise DataError(
                    f"{path}, line {number}: {wrong[:20]!r} is not a whole number; "
                    f"correct or remove the line"
                ) from error
    raise DataError(f"{path}: holds a number too large for a label or a pixel; correct it")
