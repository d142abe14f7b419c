"""Lists picture files with their labels: from class folders, or from a CSV beside them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.data import picture, table
from study.data.reading import refusal
from study.errors import DataError
from study.files import printable

FILE_COLUMNS = ("path", "filepath", "filename", "image")
LABEL_COLUMNS = ("label", "class")

Listed = Sequence[tuple[Path, str]]
"""Picture files, each with the name of its class."""

_IGNORED = re.compile(  # what operating systems, file servers and notebooks leave in folders
    r"\..*|__macosx|__pycache__|@eadir|#recycle|\$recycle\.bin|lost\+found|"
    r"system volume information|synophoto_thumb_.*|thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)
_PARTS = {
    "train": re.compile(r"train(ing)?(set|data|images)?", re.IGNORECASE),
    "test": re.compile(r"test(ing)?(set|data|images)?", re.IGNORECASE),
    "validation": re.compile(r"(val|valid|validation|dev)(set|data|images)?", re.IGNORECASE),
}
_PICTURES = re.compile(r"(jpeg)?(images?|imgs?|pictures|photos)", re.IGNORECASE)
_ANNOTATIONS = re.compile(r"(annotations?|labels?|masks?|xmls?|bbox(es)?)", re.IGNORECASE)

_NAMED = 10  # files that one message names


@dataclass(frozen=True)
class Listing:
    """The pictures to train on and, if the data has any, to test on; and notes for the user."""

    train: Listed
    test: Listed | None
    notes: list[str] = field(default_factory=list)

    def with_class_names(self, source: Path) -> Listing:
        """The same, where a class that is written in several ways has one name; with notes.

        Raises `DataError` for a single class, or a class that occurs in the test part only.
        """
        names = class_names({label for _, label in (*self.train, *(self.test or ()))})
        train, test = (
            None if part is None else [(path, names[label]) for path, label in part]
            for part in (self.train, self.test)
        )
        written: dict[str, set[str]] = {}
        for label, name in names.items():
            written.setdefault(name, set()).add(label)
        alike = Counter(name.casefold() for name in written)
        notes = [*self.notes]
        for name, ways in sorted(written.items()):
            if len(ways) > 1:
                spelled = " and ".join(sorted(ascii(way) for way in ways))
                notes.append(f"{printable(source)}: {spelled} are one class, {printable(name)}")
            if alike[name.casefold()] > 1:
                notes.append(
                    f"{printable(source)}: the name of class {printable(name)} differs from "
                    "another in capitals only"
                )
        found = Listing(train or [], test, notes)
        found._require_classes(source)
        return found

    def _require_classes(self, source: Path) -> None:
        known = {label for _, label in self.train}
        if len(known) < 2:
            only = printable(min(known))
            raise DataError(f"{printable(source)}: one class only ({only}); add a second class")
        for path, label in self.test or ():
            if label not in known:
                raise DataError(
                    f"{printable(path)}: is of the class {printable(label)}, which has no picture "
                    "to train on; add some, or leave the class out"
                )


def walk(folder: Path) -> Iterator[Path]:
    """The files in a folder, then those below it, by name; what systems leave there is left out.

    Links are followed, but not to a folder above, and every folder is read once, by whichever way
    it is found first: links in a circle end, and those that lead to one folder in many ways cost
    nothing.
    """
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        files, folders = _inside(here)
        yield from files
        waiting += reversed(folders)


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder, each by name."""
    with os.scandir(folder) as entries:
        inside = sorted((e.name, _is_folder(e)) for e in entries if not _IGNORED.fullmatch(e.name))
    files, folders = (
        [folder / name for name, is_folder in inside if is_folder is wanted]
        for wanted in (False, True)
    )
    return files, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle is a file that cannot be read
        return False


def is_picture(file: Path) -> bool:
    """Whether a file's name ends as a picture's does."""
    return file.suffix.lower() in picture.KINDS


def others_in(files: Sequence[Path]) -> str:
    """How many files are no pictures and of which kinds; "" for none."""
    others = [file for file in files if not is_picture(file)]
    kinds = sorted({printable(file.suffix or file.name) for file in others})
    count = "1 file" if len(others) == 1 else f"{len(others)} files"
    return f"{count} of other kinds not used ({', '.join(kinds[:9])})" if others else ""


def in_folders(folder: Path) -> Listing:
    """The pictures of a folder with a folder for each class, or with folders to train and test on.

    Classes are looked for below a folder that holds one folder alone, and in `images` beside
    `annotations`. Raises `DataError` for another layout, and for a class that is empty, alone, or
    whose name is not text.
    """
    notes: list[str] = []
    inner = _descend(folder)
    if inner != folder:
        notes.append(f"{printable(folder)}: the classes are in {printable(inner)}")
    pictures, classes = _inside(inner)
    _require_targets(pictures)
    parts: dict[str, list[Path]] = {}
    for path in classes:
        parts.setdefault(_part_of(path.name) or "class", []).append(path)
    if parts.keys() == {"class"}:
        parts = _named_alike(classes) or parts
    if not classes:
        raise _no_classes(inner, sum(map(is_picture, pictures)))
    train = parts.get("train", [])
    is_class = len(train) == 1 and "class" in parts and any(map(is_picture, _inside(train[0])[0]))
    if not train or is_class:
        if stray := parts.get("test", []) + parts.get("validation", []):
            raise DataError(
                f"{printable(stray[0])}: a folder to test on, without one to train on beside it; "
                "put the folders of the classes into a folder train, or rename it if it is a class"
            )
        listing = Listing(_classes(inner, notes), None, notes)
    else:
        unused = parts.get("class", []) + parts.get("validation", [])
        notes += [f"{printable(path)} is not used" for path in unused]
        test = _only(parts.get("test", []))
        test = test and _descend(test)
        if test and not _inside(test)[1]:
            notes.append(f"{printable(test)} has no class folders and is not used")
            test = None
        listed = _classes(_descend(_only(train) or inner), notes)
        listing = Listing(listed, _classes(test, notes) if test else None, notes)
    return listing


def _require_targets(files: Iterable[Path]) -> None:
    """Raise `DataError` for a link that leads nowhere: it may be that of a class."""
    for path in files:
        if not is_picture(path) and not path.exists():
            raise DataError(f"{printable(path)}: a link that leads nowhere; mend or remove it")


def _descend(folder: Path) -> Path:
    """The folder that holds the classes, if ``folder`` is one above it."""
    seen = {os.path.realpath(folder)}
    while True:
        files, below = _inside(folder)
        named = [path for path in below if _PICTURES.fullmatch(path.name)]
        beside = [path for path in below if _ANNOTATIONS.fullmatch(path.name)]
        if len(below) == 1 and not any(map(is_picture, files)) and _inside(below[0])[1]:
            inner = below[0]
        elif len(named) == 1 and len(beside) == len(below) - 1 > 0:
            inner = named[0]
        else:
            return folder
        if os.path.realpath(inner) in seen:
            return folder
        folder = inner
        seen.add(os.path.realpath(folder))


def _part_of(name: str) -> str | None:
    plain = re.sub(r"[\W_]", "", name)
    return next((part for part, names in _PARTS.items() if names.fullmatch(plain)), None)


def _named_alike(folders: Sequence[Path]) -> dict[str, list[Path]] | None:
    """Folders to train and test on that share the rest of their names, as `seg_train`, `seg_test`.

    None where there are none, and where pictures lie right in the one to train on: it is a class.
    """
    parts: dict[str, list[Path]] = {}
    shared = set()
    for path in folders:
        words = re.split(r"[\W_\d]+", path.name)
        part = next(filter(None, map(_part_of, words)), None)
        parts.setdefault(part or "class", []).append(path)
        if part:
            shared.add(" ".join(word for word in words if word and not _part_of(word)))
    if len(shared) != 1 or not {"train", "test"} <= parts.keys():
        return None
    return None if any(map(is_picture, _inside(parts["train"][0])[0])) else parts


def _only(folders: Sequence[Path]) -> Path | None:
    if len(folders) > 1:
        names = " and ".join(printable(path.name) for path in folders)
        raise DataError(
            f"{printable(folders[0].parent)}: {names} are for the same purpose; leave one of them"
        )
    return folders[0] if folders else None


def _no_classes(folder: Path, pictures: int) -> DataError:
    if pictures:
        count = "1 picture" if pictures == 1 else f"{pictures} pictures"
        return DataError(
            f"{printable(folder)}: {count} and no class folder; put the pictures of each class "
            "into a folder of its name, or list them in a CSV of path,label"
        )
    return DataError(
        f"{printable(folder)}: a folder with nothing that is read here; it must hold a folder of "
        f"pictures for each class, a train.csv, or IDX files (train-images-idx3-ubyte[.gz], ...)"
    )


def _classes(folder: Path, notes: list[str]) -> Listed:
    listed: list[tuple[Path, str]] = []
    everything: list[Path] = []
    files, classes = _inside(folder)
    _require_targets(files)
    for path in classes:
        if any("\ud800" <= char <= "\udfff" for char in path.name):
            raise DataError(
                f"{printable(path)}: the name of a class that is no UTF-8 text; rename the folder"
            )
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path)):
            raise DataError(f"{printable(path)}: a link to a folder above itself; remove it")
        inside = list(walk(path))
        pictures = [file for file in inside if is_picture(file)]
        if not pictures:
            raise DataError(
                f"{printable(path)}: a class folder without pictures "
                f"({', '.join(picture.KINDS)}); add some or remove it"
            )
        listed += [(file, path.name) for file in pictures]
        everything += inside
    if not classes:
        raise _no_classes(folder, sum(map(is_picture, files)))
    if len(classes) < 2:
        raise DataError(
            f"{printable(folder)}: one class folder only ({printable(classes[0].name)}); "
            "give a folder of pictures for each class"
        )
    if stray := sum(map(is_picture, files)):
        notes.append(f"{printable(folder)}: {stray} pictures beside the class folders are not used")
    if others := others_in(everything):
        notes.append(f"{printable(folder)}: {others}")
    if all(file.parent not in classes for file, _ in listed):
        names = ", ".join(printable(path.name) for path in classes[:_NAMED])
        notes.append(
            f"{printable(folder)}: no pictures right in the class folders {names}; is it "
            "a folder too high?"
        )
    return listed


def in_csvs(train: Path, test: Path | None, notes: list[str]) -> Listing:
    """The pictures of one CSV, whose column `split` may name those to test on, or of two.

    Raises `DataError` with the number of a line.
    """
    parts = _in_csv(train)
    if test:
        parts.setdefault("test", []).extend(
            pair for some in _in_csv(test).values() for pair in some
        )
    if unused := parts.get("validation"):
        notes.append(
            f"{printable(train)}: {len(unused)} pictures of the split for validation are not used"
        )
    if not parts.get("train"):
        raise refusal(train, "no picture below the header", "copy or export it again")
    return Listing(parts["train"], parts.get("test"), notes)


def _in_csv(path: Path) -> dict[str, list[tuple[Path, str]]]:
    """The lines of a CSV with a column of files and one of labels, by the part they are for.

    A file is looked for beside the CSV, and in the folders that Kaggle gives it: of the CSV's name,
    with or without `_images`, and `images`.
    """
    columns = table.header(path)
    name, label = (_column(path, columns, names) for names in (FILE_COLUMNS, LABEL_COLUMNS))
    places = [path.parent / folder for folder in ("", path.stem, f"{path.stem}_images", "images")]
    parts: dict[str, list[tuple[Path, str]]] = {}
    missing: list[str] = []
    for where, cells in table.rows(path):
        if not cells[name] or not cells[label]:
            raise DataError(f"{where}: no file or no label; correct or remove the line")
        part = _part_of(cells["split"]) if "split" in columns else "train"
        if part is None:
            raise DataError(f"{where}: split {cells['split']!r}; say train or test")
        spellings = dict.fromkeys(
            [cells[name], *(unicodedata.normalize(form, cells[name]) for form in ("NFC", "NFD"))]
        )
        candidates = [place / spelling for place in places for spelling in spellings]
        file = next((it for it in candidates if os.path.exists(it)), None)  # noqa: PTH110 - never raises
        if file is None:
            missing.append(f"{printable(cells[name])} ({where.rpartition(', ')[2]})")
        else:
            parts.setdefault(part, []).append((file, cells[label]))
    if missing:
        more = len(missing) - _NAMED
        others = f" (and {more} more)" if more > 0 else ""
        raise DataError(
            f"{printable(path)}: not there: {', '.join(missing[:_NAMED])}{others}; give paths "
            "relative to the folder of the CSV"
        )
    return parts


def _column(path: Path, columns: Sequence[str], names: Sequence[str]) -> str:
    for name in names:
        if name in columns:
            return name
    raise refusal(path, f"has no column {' or '.join(names)}", "name one so in the first line")


def class_names(labels: Iterable[str]) -> dict[str, str]:
    """The name of the class of each label: accents as one character, whole numbers without `.0`."""
    names = {label: unicodedata.normalize("NFC", label) for label in labels}
    if any(re.fullmatch(r"-?\d*\.\d*[1-9]\d*", name) for name in names.values()):
        return names  # there are other decimals: they are numbers, not names
    return {label: re.sub(r"^(-?\d+)\.0+$", r"\1", name) for label, name in names.items()}


def numbers_of(listed: Listed) -> Sequence[float]:
    """The labels of pictures as numbers; raises `DataError` for another label."""
    found = []
    for path, label in listed:
        try:
            found.append(float(label))
        except ValueError:
            raise DataError(
                f"{printable(path)}: its label {printable(label)} is not a number; correct it, or "
                'leave task = "regression" out of the space'
            ) from None
    return found


def labels_of(listed: Listed) -> Sequence[str] | Sequence[int]:
    """The classes of pictures: as numbers where all of their names are written as numbers are."""
    names = [name for _, name in listed]
    numbers: Mapping[str, int] = {
        name: int(name) for name in {*names} if name.isascii() and name.lstrip("-").isdigit()
    }
    if all(str(numbers.get(name)) == name for name in {*names}):
        return [numbers[name] for name in names]
    return names
