"""Arrays of images by a name or from a file: digits, Keras' data sets, `.npz` archives, IDX files.

Nothing is ever unpickled.
"""

from __future__ import annotations

import gzip
import importlib
import io
import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from study.data.backend import imported_quietly
from study.data.reading import RawSplit, Splits, readable, refusal, require_plausible
from study.errors import DataError

_CLASSES = {
    "mnist": "",
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "cifar10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
    "cifar100": (
        "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,"
        "butterfly,camel,can,castle,caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,"
        "crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,forest,fox,girl,hamster,house,"
        "kangaroo,keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,motorcycle,"
        "mountain,mouse,mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,"
        "plain,plate,poppy,porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,"
        "skunk,skyscraper,snail,snake,spider,squirrel,streetcar,sunflower,sweet_pepper,table,tank,"
        "telephone,television,tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,willow_tree,wolf,"
        "woman,worm"
    ),
}

_IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte(?:\.gz)?")
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def digits() -> Splits:
    """The 8x8 digits inside scikit-learn, each pixel three wide and a border of two: 28x28."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return RawSplit(images, labels, "digits", "digits"), None


def _downloaded(name: str) -> Any:
    """The result of Keras' own `load_data`, which downloads data that is not in its cache."""
    with imported_quietly():
        data = importlib.import_module(f"keras.datasets.{name}")
    with redirect_stdout(io.StringIO()):  # a failed download becomes one line below
        return data.load_data()


def keras_data(name: str, load: Callable[[str], Any] = _downloaded) -> Splits:
    """A data set that Keras has, with the names of its classes. Raises `DataError`."""
    try:
        (x_train, y_train), (x_test, y_test) = load(name)
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise DataError(
            f"{name}: cannot be downloaded ({' '.join(str(error).split())}); "
            f"give the path of an .npz file with it instead"
        ) from error
    classes = np.array(_CLASSES[name].split(","))
    if len(classes) > 1:
        y_train, y_test = classes[y_train], classes[y_test]
    return (
        RawSplit(x_train, y_train, f"{name}, x_train", f"{name}, y_train"),
        RawSplit(x_test, y_test, f"{name}, x_test", f"{name}, y_test"),
    )


def npz(path: Path) -> Splits:
    """Arrays x_train, y_train and, as a pair, x_test, y_test. Raises `DataError`."""

    def choose(names: Sequence[str]) -> list[str]:
        wanted = ["x_train", "y_train"]
        if {"x_test", "y_test"} & set(names):
            wanted += ["x_test", "y_test"]
        if missing := sorted(set(wanted) - set(names)):
            raise DataError(
                f"{path}: lacks {', '.join(missing)} (it has {sorted(names)}); "
                f"save it in Keras' layout: x_train, y_train[, x_test, y_test]"
            )
        return wanted

    arrays = read_npz(path, choose)
    splits = [
        RawSplit(arrays[x], arrays[y], f"{path}, {x}", f"{path}, {y}")
        for x, y in (("x_train", "y_train"), ("x_test", "y_test"))
        if x in arrays
    ]
    return splits[0], splits[1] if len(splits) > 1 else None


def read_npz(
    path: Path, choose: Callable[[Sequence[str]], Iterable[str]]
) -> dict[str, NDArray[Any]]:
    """The arrays of an archive that ``choose`` picks from all names in it.

    Raises `DataError` for a file that is unreadable, damaged or pickled; ``choose`` may, too.
    """
    with _archive(path, choose) as (archive, wanted):
        arrays = {name: archive[name] for name in wanted}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise _no_array(path, name)
    return arrays


@contextmanager
def _archive(
    path: Path, choose: Callable[[Sequence[str]], Iterable[str]]
) -> Iterator[tuple[Any, list[str]]]:
    """An archive and the names of arrays that ``choose`` picks; any error becomes `DataError`."""
    try:
        with readable(path), path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            archive = np.load(file, allow_pickle=False)  # given a path, it leaves a bad file open
            wanted = list(choose(_names(path, archive)))
            sizes = {entry.filename: entry.file_size for entry in archive.zip.infolist()}
            require_plausible(path, sum(sizes.get(f"{name}.npy", 0) for name in wanted))
            yield archive, wanted
    except DataError:
        raise
    except Exception as error:  # numpy raises what it likes for a damaged file
        raise _explained(path, error) from error


def _names(path: Path, archive: Any) -> Sequence[str]:
    """The names of the arrays in an archive; `DataError` if it is empty or not an archive."""
    names = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else ()
    if not names:
        raise refusal(path, "holds no named arrays", "save them by name with np.savez")
    return names


def _no_array(path: Path, name: str) -> DataError:
    return DataError(f"{path}: {name} is not an array; save it with np.savez")


@dataclass(frozen=True)
class Rows:
    """The array ``name`` of the archive ``path``, to be read some rows at a time.

    ``like`` has its shape and number type, and zeros. ``whole`` is one that is stored by columns.
    """

    path: Path
    name: str
    like: NDArray[Any]
    whole: NDArray[Any] | None = None

    def read(self, count: int) -> Iterator[NDArray[Any]]:
        """All rows in order, ``count`` at a time; raises `DataError` for a damaged file."""
        if self.whole is not None:
            yield from in_parts(self.whole, count)
            return
        size = math.prod(self.like.shape[1:]) * self.like.itemsize
        try:
            with (
                readable(self.path),
                zipfile.ZipFile(self.path) as archive,
                archive.open(f"{self.name}.npy") as file,
            ):
                _header(file)
                for first in range(0, len(self.like), count):
                    rows = self.like[first : first + count]
                    content = file.read(len(rows) * size)
                    yield np.frombuffer(content, self.like.dtype).reshape(rows.shape)
        except DataError:
            raise
        except Exception as error:  # as in `_archive`
            raise _explained(self.path, error) from error


def in_parts(array: NDArray[Any], count: int) -> Iterator[NDArray[Any]]:
    """The rows of an array in order, ``count`` at a time."""
    for first in range(0, len(array), count):
        yield array[first : first + count]


def npz_rows(path: Path, choose: Callable[[Sequence[str]], Iterable[str]]) -> Rows:
    """The array of an archive that ``choose`` picks first from all names in it.

    Raises `DataError` as `read_npz`; ``choose`` may, too.
    """
    with _archive(path, choose) as (archive, (name, *_)):
        if f"{name}.npy" not in archive.zip.namelist():
            raise _no_array(path, name)
        with archive.zip.open(f"{name}.npy") as file:
            shape, by_columns, dtype = _header(file)
        whole = archive[name] if by_columns or dtype.hasobject else None  # which refuses objects
        return Rows(path, name, np.broadcast_to(np.zeros((), dtype), shape), whole)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is stored by columns, and number type of an array that is saved."""
    version = np.lib.format.read_magic(file)
    kinds = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = kinds[version != (1, 0)](file)
    return shape, by_columns, dtype


def _explained(path: Path, error: Exception) -> DataError:
    """The error of an archive; for a pickle the advice is to save again, not to copy again."""
    with readable(path), path.open("rb") as file:
        start = file.read(1)
    if "Object arrays" in str(error) or start == pickle.PROTO:
        return refusal(
            path, "holds pickled objects, which are never loaded", "save plain number arrays"
        )
    if isinstance(error, MemoryError):
        return refusal(
            path, "damaged, or too large for the memory", "copy it again or save fewer images"
        )
    return refusal(path, "empty, damaged or not an .npz file", "copy, download or save it again")


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """IDX files by part (train, t10k) and kind (images, labels), a plain one before a packed one.

    They are named as MNIST's are, such as train-images-idx3-ubyte[.gz].
    """
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.iterdir()):
        match = _IDX_NAME.fullmatch(file.name)
        if match and file.is_file():
            found.setdefault((match[1], match[2]), file)
    return found


def idx(folder: Path, files: dict[tuple[str, str], Path]) -> Splits:
    """The data of `idx_files`; raises `DataError` naming a file that is damaged or missing."""

    def split(part: str) -> RawSplit:
        for kind in ("images", "labels"):
            if (part, kind) not in files:
                raise DataError(f"{folder}: no file {part}-{kind}-idx*-ubyte[.gz]; add it")
        images, labels = files[part, "images"], files[part, "labels"]
        return RawSplit(_idx_array(images), _idx_array(labels), str(images), str(labels))

    has_test = any(part == "t10k" for part, _ in files)
    return split("train"), split("t10k") if has_test else None


def _idx_array(path: Path) -> NDArray[Any]:
    """One IDX file: two zero bytes, type code, number of axes, sizes (big endian), the data.

    The header is read first, then no more bytes than it announces.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            zeros, code, axes = file.read(2), *file.read(2).ljust(2, b"\0")
            if zeros != b"\0\0" or code not in _IDX_TYPES or not 1 <= axes <= 4:
                raise refusal(path, "empty or not an IDX file", "copy or download it again")
            sizes = file.read(4 * axes)
            if len(sizes) < 4 * axes:
                raise refusal(path, "truncated or damaged", "copy or download it again")
            shape = struct.unpack(f">{axes}I", sizes)
            dtype = np.dtype(_IDX_TYPES[code])
            expected = math.prod(shape) * dtype.itemsize
            if packed:
                require_plausible(path, expected)
            there = expected if packed else path.stat().st_size - 4 - 4 * axes
            content = file.read(expected + 1) if there == expected else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refusal(path, "truncated or not a gzip file", "copy or download it again") from error
    if len(content) != expected:
        wrong = (
            f"does not hold the {expected} bytes that its header announces: truncated or damaged"
        )
        raise refusal(path, wrong, "copy or download it again")
    return np.frombuffer(content, dtype).reshape(shape)
