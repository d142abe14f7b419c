"""Where a study's things are: its database, and every file and folder that is named after it.

Made once, at the start of a command, and handed down: nothing else parses the address of a
database or makes up a name beside it. For a file ``DB`` these lie in its folder, for a server in
the current one, where ``DB`` is ``DATABASE@HOST,PORT``:

- ``DB.UUID.lock``, ``DB.checkpoints/``, ``DB.images/``, ``DB.features/``, ``DB.mirror/`` and
  ``DB.models/``, the program's own;
- ``NAME-report/`` and ``NAME-models/`` beside ``study.db``, and in ``DB.studies/`` for any other,
  so that studies of one name in two databases share nothing;
- ``mlflow.db`` and ``mlflow-artifacts/``, one store for the folder: MLflow keeps studies apart.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from study.errors import StorageError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

DEFAULT = "sqlite:///study.db"


@dataclass(frozen=True)
class Database:
    """A database of studies, by its address (of a file: its absolute path); opened once."""

    address: URL = field(repr=False)  # SQLAlchemy would show a password in its query

    @classmethod
    def at(cls, url: str) -> Database:
        """The database that ``--storage`` names; ``StorageError`` if that is not an address."""
        try:
            # psycopg is the client that is installed with this program; SQLAlchemy takes another.
            address = make_url(re.sub("^postgres(ql)?://", "postgresql+psycopg://", url))
        except (ArgumentError, ValueError):  # ValueError: a port that is not a number
            address = None
        scheme, _, rest = url.partition("://")
        if not scheme.startswith("sqlite") and rest.partition("?")[0].count("@") > 1:
            raise StorageError(
                "--storage: user or password contains an @, which ends them; write it as %40"
            )
        if address is None:
            raise StorageError("--storage: is no database URL; write sqlite:///FILE")
        if address.get_backend_name() != "sqlite":
            return cls(address)
        name = address.database or ":memory:"
        if name == ":memory:" or name.startswith("file:") or "\0" in name:
            raise StorageError(f"--storage {url}: a study is kept in a file; write sqlite:///FILE")
        return cls(address.set(database=os.path.realpath(name)))

    @property
    def url(self) -> str:
        """The address with its password: never to be shown."""
        return self.address.render_as_string(hide_password=False)

    @property
    def shown(self) -> str:
        """The address as a person may see it."""
        query = {name: "***" if _secret(name) else v for name, v in self.address.query.items()}
        return self.address.set(query=query).render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None where a server holds it."""
        sqlite = self.address.get_backend_name() == "sqlite"
        return Path(str(self.address.database)) if sqlite else None

    @property
    def log(self) -> Path | None:
        """The write-ahead log of a SQLite database, which is there while it is open."""
        return None if self.file is None else self.file.with_name(f"{self.file.name}-wal")

    @property
    def exists(self) -> bool:
        """Whether the database is there already; a server always is."""
        return self.file is None or self.file.exists()

    @cached_property
    def folder(self) -> Path:
        """The folder of a database file; the current one for a server."""
        return Path.cwd() if self.file is None else self.file.parent

    @property
    def label(self) -> str:
        """The beginning of every name that belongs to this database alone."""
        if self.file is not None:
            return self.file.name
        host = self.address.host or self.address.query.get("host") or "localhost"
        port = "" if self.address.port is None else f",{self.address.port}"
        return file_name(f"{self.address.database}@{host}{port}")

    @property
    def images(self) -> Path:
        """The folder of what was made of picture files; shared by the studies of a database."""
        return self.folder / f"{self.label}.images"

    @property
    def features(self) -> Path:
        """The folder of the outputs of backbones; shared by the studies of a database."""
        return self.folder / f"{self.label}.features"

    @property
    def mlflow_store(self) -> Path:
        """The local MLflow store; its artifacts lie in ``mlflow-artifacts`` beside it."""
        return self.folder / "mlflow.db"

    def check(self) -> None:
        """Refuse, before anything is made, a file that cannot be written; ``StorageError``."""
        path = self.file
        if path is None:
            return
        if path.is_dir():
            raise StorageError(f"{path}: is a folder; name a file in it with --storage")
        if not path.parent.is_dir():
            raise StorageError(f"{path.parent}: no such folder; make it or name another --storage")
        target = path if path.exists() else path.parent
        if not os.access(path.parent, os.W_OK) or not os.access(target, os.W_OK | os.R_OK):
            raise StorageError(
                f"{path}: cannot be written; check the permissions of file and folder"
            )

    def open(self, *, create: bool = False) -> RDBStorage:
        """The storage, the same one every time; any thread may use it.

        With ``create`` a missing SQLite file is made, and one that cannot be written is a
        ``StorageError``; without it such a file is read. A missing file, one that is no database
        and a server that does not answer are a ``StorageError``; it never shows a password.
        """
        if create or not self.exists or (self.file and self.file.is_dir()):
            self.check()
        if not self.exists:
            if not create:
                raise StorageError(
                    f"{self.file}: no such database; start a study with: {self.command('run')}"
                )
            from study.storage.connection import make

            make(self.address, self.shown)
        return self._storage

    @cached_property
    def _storage(self) -> RDBStorage:
        from study.storage.connection import connect  # Optuna: who only asks where needs none

        return connect(self.address, self.shown)

    def flush(self) -> None:
        """Write what was committed to the disk, and to the file itself, where it is SQLite's."""
        from study.storage.connection import flush

        flush(self.open())

    def close(self) -> None:
        """Close this thread's connections, at the end of a command."""
        if "_storage" in vars(self):
            self._storage.remove_session()
            self._storage.engine.dispose()

    def study(self, name: str) -> Location:
        return Location(self, name)

    def command(
        self, command: str, *options: str, name: str | None = None, needs: Sequence[str] = ()
    ) -> str:
        """What to type, in any folder, for ``study COMMAND NAME`` with this database.

        The one maker of every command that is printed. No password is in it: a variable that has
        to be set is named in brackets behind it, as are ``needs``.
        """
        words = [command]
        dashed = name is not None and name.startswith("-")
        if name is not None and not dashed:
            words.append(name)
        words += options
        needs = list(needs)
        if self.address.password is not None or any(map(_secret, self.address.query)):
            needs.insert(0, f"STUDY_STORAGE set to {self.shown} and its password")
        else:
            words += ["--storage", self.url]
        if dashed:
            words += ["--", str(name)]
        line = typed(*words)
        if self.file is None:  # its models and checkpoints are in this folder
            line = f"cd {shlex.quote(str(self.folder))} && {line}"
        return f"{line} (with {' and '.join(needs)})" if needs else line


@dataclass(frozen=True)
class Location:
    """A study by its database and name, and the places of everything that belongs to it."""

    database: Database
    name: str

    def lock(self, identity: str) -> Path:
        """The file that the driver of the study with this UUID locks."""
        return self.database.folder / f"{self.database.label}.{identity[:12]}.lock"

    @property
    def checkpoints(self) -> Path:
        """The folder of unfinished runs; shared by the studies of a database, as runs may be."""
        return self.database.folder / f"{self.database.label}.checkpoints"

    def models(self, identity: str) -> Path:
        """The folder of kept models; the study's UUID ``identity`` outlasts its name."""
        return self.database.folder / f"{self.database.label}.models" / identity

    def mirror(self, identity: str) -> Path:
        """The file that says where a tracker shows the study of the UUID ``identity``."""
        return (
            self.database.folder / f"{self.database.label}.mirror" / f"{file_name(identity)}.json"
        )

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self._own("report")

    @property
    def final_models(self) -> Path:
        """The folder of final models."""
        return self._own("models")

    def _own(self, what: str) -> Path:
        home, file = self.database.folder, self.database.file
        if file is None or file.name != "study.db":
            home /= f"{self.database.label}.studies"
        return home / f"{file_name(self.name)}-{what}"

    def command(self, command: str, *options: str, needs: Sequence[str] = ()) -> str:
        """What to type, in any folder, for ``study COMMAND`` with this study."""
        return self.database.command(command, *options, name=self.name, needs=needs)


def file_name(text: str) -> str:
    """A text as the name of a file: characters that it cannot have as %XX, at most 150 bytes.

    Two texts have two names: a long one ends in its hash.
    """
    name = re.sub(r'[/\\:*?"<>|%\x00-\x1f\x7f]|^[.]', lambda sign: f"%{ord(sign[0]):02X}", text)
    if len(name.encode()) <= 150:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{name.encode()[:133].decode(errors='ignore')}-{digest}"


def typed(*words: str) -> str:
    """What to type for ``study WORDS``: its path where the shell would find another, or none."""
    installed = shutil.which("study", path=str(Path(sys.executable).parent))
    if installed is None:
        return shlex.join([sys.executable, "-m", "study", *words])
    found = shutil.which("study")
    known = found is not None and Path(found).resolve() == Path(installed).resolve()
    return shlex.join(["study" if known else installed, *words])


def _secret(name: str) -> bool:
    """Whether a query's field is secret."""
    return "password" in name.lower()
