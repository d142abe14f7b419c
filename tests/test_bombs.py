"""Files and folders made to exhaust a machine: refused in one line, in seconds, within 1 GB."""

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from image_files import folder, numbers, pictures, refusal, write_idx
from PIL import Image

from study.data.dataset import load
from study.data.listing import walk
from study.data.picture import look, read
from study.errors import DataError, ModelError
from study.final.archive import CARD, Card, read_card

LOADED = """
import re, sys
from pathlib import Path
from study.data.dataset import load
from study.data.reading import ImageOptions
from study.errors import DataError
try:
    load(sys.argv[1], ImageOptions(size=(8, 8)))
    said = "read"
except DataError as error:
    said = str(error)
# Not ru_maxrss: after a fork it counts what the parent has, such as TensorFlow.
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(int(peak[1]) // 1000, said)
"""


def loaded(source: Path) -> tuple[int, str]:
    """The megabytes at most that reading took, and the error; in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, source], capture_output=True, text=True, check=True
    )
    megabytes, _, said = done.stdout.partition(" ")
    assert said.count("\n") == 1
    return int(megabytes), said


def zeros(megabytes: int, start: bytes = b"") -> bytes:
    """Bytes and zeros after them, packed by gzip: one piece again and again."""
    return gzip.compress(start) + gzip.compress(bytes(10**7)) * (megabytes // 10)


def big_png(path: Path, side: int) -> None:
    """A picture of one colour: hundreds of megabytes in a few hundred kilobytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packer, rows = zlib.compressobj(1), io.BytesIO()
    for _ in range(side):
        rows.write(packer.compress(bytes(1 + 3 * side)))
    rows.write(packer.flush())
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows.getvalue()) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def idx_gz(root: Path) -> Path:
    write_idx(root, pictures(), numbers())
    (root / "train-images-idx3-ubyte").unlink()
    header = bytes([0, 0, 8, 3]) + struct.pack(">III", 3000, 1000, 1000)
    (root / "train-images-idx3-ubyte.gz").write_bytes(zeros(3000, header))
    return root


def idx_gz_that_lies(root: Path) -> Path:
    write_idx(root, pictures(), numbers())
    (root / "train-images-idx3-ubyte").unlink()
    header = bytes([0, 0, 8, 3]) + struct.pack(">III", 40, 6, 6)
    (root / "train-images-idx3-ubyte.gz").write_bytes(zeros(1500, header))
    return root


def npz(root: Path) -> Path:
    with (
        zipfile.ZipFile(root / "some.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x_train.npy", "w", force_zip64=True) as file,
    ):
        shape = {"descr": "|u1", "fortran_order": False, "shape": (900, 1000, 1000)}
        np.lib.format.write_array_header_1_0(file, shape)
        for _ in range(900):
            file.write(bytes(10**6))
    with zipfile.ZipFile(root / "some.npz", "a") as archive:
        labels = io.BytesIO()
        np.save(labels, np.arange(900) % 2)
        archive.writestr("y_train.npy", labels.getvalue())
    return root / "some.npz"


def csv_cell(root: Path) -> Path:
    with (root / "some.csv").open("wb") as file:
        file.write(b"label,pixel0\n1,")
        for _ in range(300):
            file.write(b"1" * 10**6)
    return root / "some.csv"


def csv_header(root: Path) -> Path:
    path = csv_cell(root)
    with path.open("r+b") as file:
        file.write(b"1" * 20)
    return path


def list_cell(root: Path) -> Path:
    path = csv_cell(root)
    with path.open("r+b") as file:
        file.write(b"path,label   \na,")
    return path


def pngs(root: Path) -> Path:
    folder(root)
    big_png(root / "big.png", 10_000)
    for number in range(6):
        (root / "cats" / f"big{number}.png").hardlink_to(root / "big.png")
    (root / "big.png").unlink()
    return root


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (idx_gz, "MB that unpack to 3.0 GB, which no images do"),
        (idx_gz_that_lies, "truncated or damaged"),
        (npz, "MB that unpack to 0.9 GB, which no images do"),
        (csv_cell, "a line of more than 16777216 characters"),
        (csv_header, "a line of more than 16777216 characters"),
        (list_cell, "a line of more than 16777216 characters"),
        (pngs, "more than 90 million pixels"),
    ],
)
def test_a_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, made: Callable[[Path], Path], said: str
) -> None:
    megabytes, found = loaded(made(tmp_path))
    assert said in found
    assert megabytes < 1000


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    folder(tmp_path)
    big_png(tmp_path / "cats" / "big0.png", 9000)
    for number in range(1, 3):
        (tmp_path / "dogs" / f"big{number}.png").hardlink_to(tmp_path / "cats" / "big0.png")
    megabytes, found = loaded(tmp_path)
    assert found == "read\n"
    assert megabytes < 1000


def test_a_picture_with_many_frames_costs_what_one_costs(tmp_path: Path) -> None:
    pages = 3000
    first = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(first, "TIFF")
    one = first.getvalue()
    start = struct.unpack("<I", one[4:8])[0]
    entries = struct.unpack("<H", one[start : start + 2])[0]
    directory = one[start : start + 2 + 12 * entries]
    content = bytearray(one[:start])
    for page in range(pages):
        after = len(content) + len(directory) + 4
        content += directory + struct.pack("<I", after if page < pages - 1 else 0)
    path = tmp_path / "many.tif"
    path.write_bytes(content)
    sought: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        from PIL.TiffImagePlugin import TiffImageFile

        real = TiffImageFile._seek
        patch.setattr(TiffImageFile, "_seek", lambda s, n: (sought.append(n), real(s, n))[1])
        assert look(path).shape == (6, 6, 1)
        assert "the first of several frames" in read(path, (6, 6, 1))[1]
    assert max(sought) == 0


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    root = folder(tmp_path / "some", 60)
    os.mkfifo(root / "cats" / "p.png")
    dataset = load(str(root))
    assert len(dataset.images) + len(dataset.test_images) == 120
    for name in ("p.npz", "p.csv", "p.png", "p.keras"):
        os.mkfifo(tmp_path / name)
    for name in ("p.npz", "p.csv"):
        assert "not a regular file" in refusal(str(tmp_path / name))
    with pytest.raises(DataError, match="not a regular file"):
        read(tmp_path / "p.png", (6, 6, 1))
    with pytest.raises(ModelError, match=r"not a \.keras file"):
        read_card(tmp_path / "p.keras")


def test_folders_that_lead_to_one_another_in_many_ways_are_read_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "some")
    (root / "cats" / "again").symlink_to(root / "cats", target_is_directory=True)
    (root / "cats" / "up").symlink_to(root, target_is_directory=True)
    for depth in range(30):
        here = tmp_path / "deep" / str(depth)
        here.mkdir(parents=True)
        for name in "ab":
            (here / name).symlink_to(tmp_path / "deep" / str(depth + 1), target_is_directory=True)
    (tmp_path / "deep" / "30").mkdir()
    Image.fromarray(pictures(3)[-1]).save(tmp_path / "deep" / "30" / "1.png")
    (root / "dogs" / "deep").symlink_to(tmp_path / "deep" / "0", target_is_directory=True)
    assert len(list(walk(root / "dogs"))) == 11
    dataset = load(str(root))
    assert len(dataset.images) + len(dataset.test_images) == 10 + 11


@pytest.mark.parametrize("shape", [[100_000, 100_000, 1], [8, 0, 1], [8, -8, 1], [8, 8, 10**12]])
def test_a_card_with_a_huge_or_empty_input_is_refused(tmp_path: Path, shape: list[int]) -> None:
    card = asdict(Card("seed 1", "fake", (3, 7), (8, 6, 1), 0.2, "abc", ("key",)))
    path = tmp_path / "some.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"layers": []}))
        archive.writestr(CARD, json.dumps({**card, "input_shape": shape}))
    with pytest.raises(ModelError, match=re.escape("its study.json is damaged")):
        read_card(path)


def test_a_set_that_is_packed_well_is_no_bomb(tmp_path: Path) -> None:
    masks = np.zeros((400, 100, 100), np.uint8)
    masks[::2, 20:60, 20:60] = 1
    masks[:, 0, 0] = np.arange(400) % 2
    np.savez_compressed(tmp_path / "masks.npz", x_train=masks, y_train=np.arange(400) % 2)
    packed = gzip.compress(masks.tobytes(), 9)
    assert len(packed) * 100 < masks.size
    assert load(str(tmp_path / "masks.npz")).images.max() == 255
