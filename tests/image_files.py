"""Small image files of every format, good ones; a test damages what it needs damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from study.data.dataset import Dataset, load
from study.errors import DataError

Array = NDArray[Any]

IDX_CODES = {"u1": 0x08, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D}


def pictures(count: int = 40, shape: tuple[int, ...] = (6, 6)) -> Array:
    """Random uint8 images that hold both 0 and 255."""
    images = np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)
    images[0].flat[:2] = 0, 255
    return images


def numbers(count: int = 40, classes: int = 4) -> Array:
    return np.arange(count) % classes


def write_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def npz(folder: Path, **changes: Any) -> str:
    """A good file of 40 training and 8 test images, but for the arrays given."""
    good = {
        "x_train": pictures(),
        "y_train": numbers(),
        "x_test": pictures(8),
        "y_test": numbers(8),
    }
    arrays = {name: array for name, array in (good | changes).items() if array is not None}
    return write_npz(folder / "some.npz", **arrays)


def idx(array: Array, code: str = "u1") -> bytes:
    header = bytes([0, 0, IDX_CODES[code], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(f">{code}").tobytes()


def write_idx(folder: Path, x: Array, y: Array, part: str = "train") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(x))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(y))
    return str(folder)


def csv(x: Array, y: Array) -> list[str]:
    pixels = x.reshape(len(x), -1)
    header = ",".join(["label", *(f"pixel{i}" for i in range(pixels.shape[1]))])
    return [header, *(",".join(map(str, [a, *b])) for a, b in zip(y, pixels.tolist(), strict=True))]


def write_csv(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def save(path: Path, pixels: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def folder(root: Path, per_class: int = 10, ending: str = "png", **classes: int) -> Path:
    """Class folders `cats` and `dogs`, of 8x8 pictures that are all different."""
    for place, (name, count) in enumerate((classes or {"cats": 0, "dogs": 0}).items()):
        for number in range(count or per_class):
            pixels = pictures(1 + number + 100 * place, (8, 8, 3))[-1]
            save(root / name / f"{number:03d}.{ending}", pixels)
    return root


def refusal(source: str) -> str:
    """The message that `source` is refused with: one line that names it."""
    with pytest.raises(DataError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(source)
    return message


def same_content(one: Dataset, other: Dataset) -> bool:
    names = ("images", "labels", "test_images", "test_labels")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
