"""Tables of recorded learning curves: every configuration of a grid with the same repeats.

The format is described in `tables/README.md`. A `Table` holds it as arrays; whatever is wrong
with a file ends in a ``TableError`` of one line.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from study.errors import SpaceError, StudyError
from study.plan.results import Configuration
from study.space.keys import Value, hint, shown
from study.space.search_space import SearchSpace

FOLDER = Path(__file__).resolve().parent / "tables"
_MOST_IMAGES = 100_000

Floats = NDArray[np.float64]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class TableError(StudyError):
    """A table of curves cannot be read or is not whole."""


@dataclass(frozen=True)
class Table:
    """A grid's curves: arrays of (configurations, repeats, epochs), accuracies as fractions.

    ``space`` lists each hyperparameter's options, numbers in ascending order, others as the file
    first has them. ``val_loss`` and ``seconds`` (of an epoch) are None where the file has none.
    ``pool`` is how many images the validation parts are drawn from; None: the file does not say.
    """

    name: str
    space: SearchSpace
    configurations: tuple[Configuration, ...]
    val_acc: Floats
    test_acc: Floats
    val_loss: Floats | None = None
    seconds: Floats | None = None
    pool: int | None = None

    @property
    def repeats(self) -> int:
        return int(self.val_acc.shape[1])

    @property
    def epochs(self) -> int:
        return int(self.val_acc.shape[2])

    @cached_property
    def index(self) -> Mapping[Configuration, int]:
        """The place of each configuration."""
        return {configuration: place for place, configuration in enumerate(self.configurations)}

    @cached_property
    def truth(self) -> Floats:
        """The mean test accuracy of each configuration over all repeats."""
        return self.test_acc.mean(axis=1)

    @cached_property
    def images(self) -> int | None:
        """Validation images of the smallest repeat: the fewest that explain its accuracies."""
        found = [_images(self.val_acc[:, repeat].ravel()) for repeat in range(self.repeats)]
        return min(filter(None, found)) if all(found) else None

    @cached_property
    def test_images(self) -> int | None:
        """The fewest test images that explain the test accuracies; None where no number does."""
        return _images(self.test_acc.ravel())

    def started(self, start: Configuration, repeats: int) -> SearchSpace:
        """The space of the table, to be searched from ``start``."""
        values = dict(start)
        parameters = [replace(p, start=values[p.name]) for p in self.space.hyperparameters]
        return replace(self.space, hyperparameters=tuple(parameters), repeats=repeats)

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]], name: str) -> Self:
        """The table of these lines; raises ``TableError`` for what is missing or contradictory."""
        cells: dict[tuple[tuple[Value, ...], int], _Line] = {}
        names: tuple[str, ...] = ()
        for number, raw in enumerate(lines, 1):
            line = _checked(raw, f"line {number}")
            names = names or tuple(line.params)
            if set(line.params) != set(names):
                other = ", ".join(line.params)
                raise TableError(f"line {number}: params: {other}; line 1 has {', '.join(names)}")
            key = tuple(line.params[one] for one in names), line.repeat
            if key in cells:
                raise TableError(f"line {number}: {_cell(names, *key)} is there twice")
            cells[key] = line
        if not cells:
            raise TableError("holds no line; a table has a line of JSON for each run")
        return cls._whole(name, names, cells)

    @classmethod
    def _whole(
        cls,
        name: str,
        names: tuple[str, ...],
        cells: Mapping[tuple[tuple[Value, ...], int], _Line],
    ) -> Self:
        options = [_ordered([values[place] for values, _ in cells]) for place in range(len(names))]
        repeats = range(1 + max(repeat for _, repeat in cells))
        grid = list(itertools.product(*options))
        epochs = len(next(iter(cells.values())).val_acc)
        for values, repeat in itertools.product(grid, repeats):
            cell = _cell(names, values, repeat)
            if (values, repeat) not in cells:
                raise TableError(f"{cell} is missing; a table has every run of its grid")
            for key in ("val_acc", "val_loss", "seconds"):
                curve = getattr(cells[values, repeat], key)
                if curve is not None and len(curve) != epochs:
                    raise TableError(f"{cell}: {key} has {len(curve)} epochs, not {epochs}")

        def array(key: str) -> Floats:
            runs = [[getattr(cells[values, repeat], key) for repeat in repeats] for values in grid]
            return np.array(runs, dtype=float)

        def given(key: str) -> Floats | None:
            missing = any(getattr(line, key) is None for line in cells.values())
            return None if missing else array(key)

        titles = _identifiers(names)
        tables = {
            title: {"options": list(held), "start": held[0]}
            for title, held in zip(titles, options, strict=True)
        }
        sizes = {"epochs": epochs, "batch_size": 1, "repeats": len(repeats)}
        space = SearchSpace.from_dict({"name": name, **sizes, "hyperparameters": tables})
        # The space may have made numbers of one type: its options are what a plan asks for.
        held_options = [parameter.options for parameter in space.hyperparameters]
        configurations = [
            tuple(zip(titles, values, strict=True)) for values in itertools.product(*held_options)
        ]
        curves = array("val_acc"), array("test_acc"), given("val_loss"), given("seconds")
        pools = {line.pool for line in cells.values()}
        if len(pools) > 1:
            raise TableError("pool: differs from line to line; a table has one")
        table = cls(name, space, tuple(configurations), *curves, pool=pools.pop())
        if table.pool is None and name.startswith("lcdb-") and table.images:
            # Mohr and others (2022) validate on a tenth of what they do not test on.
            return replace(table, pool=10 * table.images)
        return table


def load(path: str | Path) -> Table:
    """Read a table: a path, or the name of one in `tables/`. Raises ``TableError``."""
    path = Path(path)
    for shipped in (FOLDER / f"{path}.jsonl.gz", FOLDER / f"{path}.jsonl"):
        if shipped.exists() and not path.exists():
            path = shipped
    try:
        return Table.of(_lines(path), path.name.partition(".")[0] or "table")
    except (TableError, SpaceError) as error:
        raise TableError(f"{path}: {error}") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        known = ", ".join(sorted(one.name.partition(".")[0] for one in FOLDER.glob("*.jsonl*")))
        raise TableError(f"{path}: {reason.lower()}; give a table, or one of {known}") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    compressed = path.suffix == ".gz"
    with gzip.open(path, "rt") if compressed else path.open() as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise TableError(f"line {number} is not JSON: {line[:40].strip()!r}") from None


class _Line(BaseModel):
    """A run, as a line of a table gives it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    params: Annotated[dict[str, int | float | str | bool], Field(min_length=1)]
    repeat: Annotated[int, Field(ge=0)]
    val_acc: Annotated[list[_Fraction], Field(min_length=1)]
    test_acc: _Fraction
    val_loss: list[float] | None = None
    seconds: list[float] | None = None
    pool: Annotated[int, Field(ge=1)] | None = None


KEYS = tuple(_Line.model_fields)


def _checked(line: object, where: str) -> _Line:
    """Raise ``TableError`` for the first key or value that a line cannot have."""
    try:
        return _Line.model_validate(line)
    except ValidationError as error:
        mistake = error.errors()[0]
    key = ".".join(str(part) for part in mistake["loc"][:2])
    if mistake["type"] == "extra_forbidden":
        raise TableError(f"{where}: {key}: unknown key; {hint(key, KEYS)}")
    if mistake["type"] == "missing":
        raise TableError(f"{where}: {key} is missing; a line has {', '.join(KEYS)}")
    reason = mistake["msg"].removeprefix("Input ")
    raise TableError(f"{where}: {key}: {shown(mistake['input'])} {reason}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ordered(values: list[Value]) -> list[Value]:
    """The different values: numbers in ascending order, others as they first come."""
    found = list(dict.fromkeys(values))
    return sorted(found) if all(map(_number, found)) else found


def _identifiers(names: tuple[str, ...]) -> list[str]:
    """Names that a search space may have: what is no letter or digit becomes an underscore."""
    titles = [re.sub(r"\W|^(?=\d)", "_", name) or "_" for name in names]
    return [
        title if titles.count(title) == 1 else f"{title}_{place}"
        for place, title in enumerate(titles)
    ]


def _cell(names: tuple[str, ...], values: tuple[Value, ...], repeat: int) -> str:
    pairs = zip(names, values, strict=True)
    return f"repeat {repeat} of " + ", ".join(f"{name}={value}" for name, value in pairs)


def _images(accuracies: Floats) -> int | None:
    """The fewest images of which these accuracies are whole numbers; None where none do."""
    some = np.unique(accuracies)
    some = some[:: max(1, len(some) // 200)]
    for chunk in np.split(np.arange(1, _MOST_IMAGES + 1), 100):
        correct = some * chunk[:, None]
        off = np.abs(correct - np.rint(correct)).max(axis=1)
        if len(fits := chunk[off < 0.02]):
            return int(fits[0])
    return None
