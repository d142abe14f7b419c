"""Good files with bytes changed, cut out and put in: each is read, or refused in one line.

    python tests/mutations.py --each 10000     every kind of file: part of make torture

A mutation is a function of its kind and number alone, so that one that is found can be made again.
"""

import argparse
import gzip
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import mutated_databases
from image_files import csv, idx, npz, numbers, pictures, write_idx

from study.data import listing, picture
from study.data.dataset import load
from study.errors import StudyError
from study.final import pictures as predicted
from study.final.archive import CARD, Card, read_card
from study.space import file as space_file

SHAPE = (6, 6, 1)
EDITS = 4  # at most, in one file
PIECE = 40  # bytes at most that are cut out or put in at once


@dataclass(frozen=True)
class Kind:
    """A kind of file: where the good one lies, its bytes, and what reads it."""

    path: Path
    good: bytes
    read: Callable[[Path], object]
    mutate: Callable[[bytes, str, int], bytes] | None = None

    def mutated(self, name: str, number: int) -> bytes:
        """The file of mutation ``number``."""
        return (self.mutate or mutated)(self.good, name, number)


def mutated(good: bytes, kind: str, number: int) -> bytes:
    """The file with one to `EDITS` edits, every other time near its beginning."""
    draw = random.Random(f"{kind} {number}")
    content = bytearray(good)
    for _ in range(draw.randint(1, EDITS)):
        reach = min(len(content), 300) if draw.random() < 0.5 else len(content)
        at, length = draw.randint(0, reach), draw.randint(1, PIECE)
        match draw.choice(["change", "change", "cut", "insert", "repeat", "end"]):
            case "change":
                content[at : at + 1] = draw.randbytes(1)
            case "cut":
                del content[at : at + length]
            case "insert":
                content[at:at] = draw.randbytes(length)
            case "repeat":
                content[at:at] = content[at : at + length]
            case "end" if draw.random() < 0.3:
                del content[at:]
    return bytes(content)


def kinds(folder: Path) -> dict[str, Kind]:
    """A good file of every kind, in folders of their own."""
    found = dict(_tables(folder))
    for ending in ("png", "jpg", "bmp", "gif", "webp", "tif"):
        path = folder / f"some.{ending}"
        Image.fromarray(pictures(1, (24, 20, 3))[0]).save(path)
        found[ending] = Kind(path, path.read_bytes(), _look_and_read)
    space = folder / "some.toml"
    shutil.copy(space_file.shipped()["digits"], space)
    found["toml"] = Kind(space, space.read_bytes(), space_file.load)
    found["keras"] = Kind(folder / "some.keras", _model(), read_card)
    (folder / "studies").mkdir()
    (folder / "made").mkdir()
    database = mutated_databases.good(folder / "made")
    path = folder / "studies" / "study.db"
    found["db"] = Kind(path, database, mutated_databases.look)
    found["cell"] = Kind(path, database, mutated_databases.look, mutated_databases.mutated)
    return found


def _tables(folder: Path) -> Iterator[tuple[str, Kind]]:
    packed = Path(npz(folder))
    yield "npz", Kind(packed, packed.read_bytes(), _train_and_predict)
    table = folder / "some.csv"
    lines = "\n".join(csv(pictures(), numbers())).encode()
    yield "csv", Kind(table, lines, _train_and_predict)
    named = "\n".join(["path,label", *(f'{table.name},"class {i % 2}"' for i in range(9))]).encode()
    yield "list", Kind(folder / "list.csv", named, _list)
    for name in ("idx", "gz"):
        home = Path(write_idx(folder / name, pictures(), numbers()))
        path = home / "train-images-idx3-ubyte"
        if name == "gz":
            path.unlink()
            path = path.with_suffix(".gz")
        good = idx(pictures())
        yield (
            name,
            Kind(path, gzip.compress(good, mtime=0) if name == "gz" else good, _train_in_folder),
        )


def _train_in_folder(path: Path) -> None:
    load(str(path.parent))


def _train_and_predict(path: Path) -> None:
    try:
        load(str(path))
    finally:
        list(predicted.read(path, SHAPE))


def _list(path: Path) -> None:
    listing.in_csvs(path, None, [])


def _look_and_read(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        picture.look(path)
        picture.read(path, (8, 8, 3))
        picture.read(path, SHAPE, center=True)


def _model() -> bytes:
    card = Card("seed 1", "some", (3, 7), SHAPE, 0.2, "abc", ("key",))
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("config.json", json.dumps({"layers": [layer]}))
        opened.writestr(CARD, json.dumps(asdict(card)))
        opened.writestr("model.weights.h5", bytes(200))
    return archive.getvalue()


def _require_one_line(error: StudyError) -> None:
    message = str(error)
    message.encode()  # can be printed
    if "\n" in message or not message.strip():
        raise ValueError(f"not one line: {message!r}")


def outcome(kind: Kind, name: str, number: int) -> str:
    """`read` or `refused`; whatever else is raised comes out."""
    for old in kind.path.parent.glob(f"{kind.path.name}*"):  # a database has two more files
        old.unlink()
    kind.path.write_bytes(kind.mutated(name, number))
    try:
        kind.read(kind.path)
    except StudyError as error:
        _require_one_line(error)
        return "refused"
    return "read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=200, help="mutations of each kind")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--kinds", nargs="*", help="of these kinds alone")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        made = kinds(Path(folder))
        for name in given.kinds or made:
            found: Counter[str] = Counter()
            for number in range(given.first, given.first + given.each):
                try:
                    found[outcome(made[name], name, number)] += 1
                except Exception:  # noqa: BLE001 - it is what is looked for
                    found["wrong"] += 1
                    sys.stdout.write(f"{name} {number}: {traceback.format_exc()[-1500:]}\n")
            failed += found["wrong"]
            sys.stdout.write(f"{name}: {dict(found)}\n")
            sys.stdout.flush()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
