"""Which picture files there are and what is on each: by class folders, or by a CSV beside them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.data import picture
from study.data.files import refusal, shown
from study.errors import DataError

FILE_COLUMNS = ("path", "filepath", "filename", "image")
LABEL_COLUMNS = ("label", "class")

Listed = Sequence[tuple[Path, str]]
"""Picture files, each with the name of its class."""


@dataclass(frozen=True)
class Listing:
    """The pictures to train on and, where there are any, to test on; what else is to be said."""

    train: Listed
    test: Listed | None
    notes: Sequence[str] = ()

    def require_classes(self, source: Path) -> None:
        """Raise `DataError` for one class alone, or one to test on that is not trained on."""
        known = {label for _, label in self.train}
        if len(known) < 2:
            raise DataError(f"{shown(source)}: one class only ({min(known)}); add a second class")
        for path, label in self.test or ():
            if label not in known:
                raise DataError(
                    f"{shown(path)}: is of the class {label}, which has no picture to train on; "
                    "add some, or leave the class out"
                )


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder in order of their names, hidden ones left out."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir() and not _is_hidden(e.name)]
    return [folder / name for name in sorted(names)]


def in_folders(folder: Path) -> Listing:
    """A folder for each class, as Keras' `image_dataset_from_directory` has it; or `train`, `test`.

    Raises `DataError` for a class that is empty, alone, or whose name is no text.
    """
    below = {path.name: path for path in class_folders(folder)}
    train, test, notes = folder, None, []
    if "train" in below:
        train, test = below.pop("train"), below.pop("test", None)
        notes = [f"{shown(path)} is not used" for path in below.values()]
        if test and not class_folders(test):
            notes.append(f"{shown(test)} has no class folders and is not used")
            test = None
    return Listing(_classes(train, notes), _classes(test, notes) if test else None, notes)


def _classes(folder: Path, notes: list[str]) -> Listed:
    listed: list[tuple[Path, str]] = []
    others: list[Path] = []
    classes = class_folders(folder)
    for path in classes:
        if not _is_text(path.name):
            raise DataError(
                f"{shown(path)}: the name of a class that is no UTF-8 text; rename the folder"
            )
        files = list(_files(path, (os.path.realpath(folder),)))
        pictures = [file for file in files if _is_picture(file.name)]
        if not pictures:
            raise DataError(
                f"{shown(path)}: a class folder without pictures ({', '.join(picture.KINDS)}); "
                f"add some or remove it"
            )
        listed += [(file, path.name) for file in pictures]
        others += [file for file in files if not _is_picture(file.name)]
    if len(classes) < 2:
        there = (
            f"one class folder only ({shown(classes[0].name)})" if classes else "no class folder"
        )
        raise DataError(f"{shown(folder)}: {there}; give a folder of pictures for each class")
    if others:
        kinds = sorted({shown(file.suffix or file.name) for file in others})
        count = "1 file" if len(others) == 1 else f"{len(others)} files"
        notes.append(f"{shown(folder)}: {count} of other kinds not used ({', '.join(kinds[:9])})")
    return listed


def _files(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """The files of a folder, then those below it; links are followed, in a circle refused."""
    real = os.path.realpath(folder)
    if real in above:
        raise DataError(f"{shown(folder)}: a link in a circle; remove it")
    with os.scandir(folder) as entries:
        inside = sorted((e.name, e.is_dir()) for e in entries if not _is_hidden(e.name))
    for name, is_folder in inside:
        if not is_folder:
            yield folder / name
    for name, is_folder in inside:
        if is_folder:
            yield from _files(folder / name, (*above, real))


def pictures_in(folder: Path) -> int:
    """How many pictures lie in a folder itself."""
    with os.scandir(folder) as entries:
        return sum(_is_picture(e.name) for e in entries if not _is_hidden(e.name))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in picture.KINDS


def _is_hidden(name: str) -> bool:
    """Also what macOS puts into archives: `._1.jpg` has the ending of a picture and is none."""
    return name.startswith(".") or name == "__MACOSX"


def _is_text(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)


def header(path: Path) -> Sequence[str]:
    """The names of a CSV's columns in small letters; of what is no CSV there are none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _names(next(csv.reader(file), []))
    except (UnicodeDecodeError, csv.Error):
        return ()


def in_csv(path: Path) -> Listed:
    """The lines of a CSV with a column of files and one of labels.

    A file is looked for beside the CSV, and in the folders that Kaggle gives it: of the CSV's name,
    with or without `_images`, and `images`. Raises `DataError` with the number of a line.
    """
    places = [path.parent / name for name in ("", path.stem, f"{path.stem}_images", "images")]
    listed: list[tuple[Path, str]] = []
    missing: list[str] = []
    for where, name, label in _lines(path):
        found = next((p / name for p in places if os.path.isfile(p / name)), None)  # noqa: PTH113 - never raises
        if found:
            listed.append((found, label))
        else:
            missing.append(f"{where}: {shown(name)}")
    if missing:
        more = f" (and {len(missing) - 1} more lines like it)" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0]} is not there{more}; give paths as seen from the folder of the CSV"
        )
    if not listed:
        raise refusal(path, "no picture below the header", "copy or export it again")
    return listed


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Of each line below the header: where it is, for messages, its file and its label."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            columns = _names(next(lines, []))
            wanted = [_column(path, columns, names) for names in (FILE_COLUMNS, LABEL_COLUMNS)]
            for cells in filter(None, lines):
                where = f"{shown(path)}, line {lines.line_num}"
                if len(cells) != len(columns):
                    raise DataError(
                        f"{where}: {len(cells)} values where the header has {len(columns)}; "
                        f"correct or remove the line"
                    )
                name, label = (cells[column].strip() for column in wanted)
                if not name or not label:
                    raise DataError(f"{where}: no file or no label; correct or remove the line")
                yield where, name, label
    except (UnicodeDecodeError, csv.Error) as error:
        raise refusal(path, "not a text file", "give a CSV with a header line") from error


def _names(cells: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _column(path: Path, columns: Sequence[str], names: Sequence[str]) -> int:
    for name in names:
        if name in columns:
            return columns.index(name)
    raise refusal(path, f"has no column {' or '.join(names)}", "name one so in the first line")


def numbers_of(listed: Listed) -> Sequence[float]:
    """The labels of pictures as numbers; raises `DataError` where one is none."""
    found = []
    for path, label in listed:
        try:
            found.append(float(label))
        except ValueError:
            raise DataError(
                f"{shown(path)}: its label {shown(label)} is no number; correct it, or leave "
                'task = "regression" out of the space'
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
