"""A good database of studies, and what may be done to one cell of it.

A mutation is a function of its number alone, so that one that is found can be made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mirror_fakes
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel
from optuna.storages._rdb.storage import _VersionManager
from rich.console import Console

from study.cli import summary
from study.errors import StudyError
from study.report import contents
from study.report.write import runs_csv
from study.space.settings import Settings
from study.storage import database as storage
from study.storage.connection import explained
from study.storage.database import create, names
from study.storage.location import Database

STUDIES = ("sweep", "race", "random")
"""The names of the studies, each of the sampler of that name."""

CELLS = (None, "", "x", "\x1b[31m", b"\xff", -1, 0, 1, 10**9, 2**63 - 1, -(2**63), 0.5, 1e308)
VALUES = (*CELLS[:4], *CELLS[5:], True, False, float("nan"), 1e999, [], {}, [1, "x"], {"a": None})
JSON = ("value_json", "distribution_json")


def good(folder: Path) -> bytes:
    """A database of three studies, each with runs in every state."""
    made = mirror_fakes.make(folder, STUDIES[0])
    opened = Database.at(made.url).open()
    others = [create(opened, name, _settings(name)) for name in STUDIES[1:]]
    for optuna_study in (made.study, *others):
        study = replace(made, study=optuna_study)
        for repeat in range(2):
            study.add(study.start(), repeat)
        study.add(study.option(filters=8), 0, (0.5, 0.6), "pruned")
        study.add(study.option(filters=8), 1, (0.5,), "failed", attributes={"failure": "NaN"})
        study.add(study.option(filters=8), 1, (0.5,), "running")
    Database.at(made.url).flush()
    content = bytearray((folder / "study.db").read_bytes())
    content[18:20] = b"\1\1"  # without a write-ahead log, which SQLite cannot have in memory
    return bytes(content)


def _settings(sampler: str) -> Settings:
    return mirror_fakes.settings(sampler=sampler, pruner="none", configurations=4, seed=1)


def mutated(content: bytes, _: str, number: int) -> bytes:
    """The database with another value in one cell, or without one row."""
    draw = random.Random(number)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        connection.execute("PRAGMA ignore_check_constraints=ON")
        while not connection.total_changes:
            try:
                _change(connection, draw)
            except sqlite3.IntegrityError:
                continue
        connection.commit()
        return bytes(connection.serialize())


def _change(connection: sqlite3.Connection, draw: random.Random) -> None:
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    table = draw.choice([name for (name,) in connection.execute(tables)])
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    if not rows:
        return
    row, column = draw.choice(rows), draw.choice([*columns, *set(columns) & {*JSON}] * 2)
    if draw.random() < 0.05:
        connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
        return
    value: Any = draw.choice(CELLS)
    if column in JSON and draw.random() < 0.9:
        found = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,))
        value = json.dumps(_changed(json.loads(found.fetchone()[0]), draw))
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))


def _changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with another one somewhere in it, or without a key."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(VALUES)
    place = draw.choice([*value] if isinstance(value, dict) else [*range(len(value))])
    if draw.random() < 0.1:
        del value[place]
    else:
        value[place] = _changed(value[place], draw)
    return value


_shown: set[bytes] = set()  # studies that were looked at without a mistake: mutations change one


def look(path: Path) -> None:
    """What `list`, `status`, `best` and `report` read, of each study; raises the last mistake."""
    mistake: StudyError | None = None
    with (
        closing(Database.at(f"sqlite:///{path}")) as database,
        explained(database.shown),
        patch.object(_VersionManager, "get_head_version", return_value=_head()),
    ):
        for name in names(database.open()):
            try:
                _look(database, name)
            except StudyError as error:
                mistake = error
    if mistake is not None:
        raise mistake


@cache
def _head() -> str:
    """The version of Optuna's tables, for which it imports its eleven migrations each time."""
    return RDBStorage("sqlite://").get_head_version()


def _digest(database: Database, name: str) -> bytes:
    """Of all rows of a study."""
    of_study = "(SELECT study_id FROM studies WHERE study_name = ?)"
    of_trials = f"(SELECT trial_id FROM trials WHERE study_id IN {of_study})"
    found = []
    with database.open().engine.connect() as connection:
        for table in BaseModel.metadata.sorted_tables:
            key, among = "study_id", of_study
            if key not in table.c:
                key, among = "trial_id", of_trials
            if key in table.c:
                rows = f"SELECT * FROM {table.name} WHERE {key} IN {among} ORDER BY rowid"
                found.append(connection.exec_driver_sql(rows, (name,)).fetchall())
    return hashlib.sha256(repr(found).encode(errors="replace")).digest()


def _look(database: Database, name: str) -> None:
    stored = _digest(database, name)
    if stored in _shown:
        return
    found = storage.read(database, name)
    json.dumps(summary.status(found))
    console = Console(file=io.StringIO(), width=100)
    summary.print_status(console, found)
    summary.print_best(console, found)
    contents.read(database, name)
    runs_csv(found.trials, found.settings.metric)
    _shown.add(stored)
