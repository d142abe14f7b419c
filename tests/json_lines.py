"""A tracker that writes JSON lines: all that another tracker takes, beside an entry in a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from study.mirror.desired import Artifact, Content, DesiredRun
from study.mirror.tracker import PATIENCE, RemoteRun, StudyFacts, Target, Tracker


class JsonLines(Tracker):
    """Appends what becomes of each run to the file of ``jsonl:///FILE``."""

    def __init__(self, file: Path, uuid: str) -> None:
        self._file = file
        self._uuid = uuid

    @classmethod
    def connect(cls, target: Target, study: StudyFacts | None, patience: float = PATIENCE) -> Self:
        del patience  # nobody is waited for
        return cls(Path(target.uri.removeprefix("jsonl://")), study.uuid if study else "")

    def find(self) -> list[RemoteRun]:
        found: dict[str, RemoteRun] = {}
        for line in self._lines():
            if line["study"] == self._uuid:
                found[line["run"]["id"]] = RemoteRun(**line["run"])
        return [run for run in found.values() if run.state != "deleted"]

    def create(self, run: DesiredRun, parent: RemoteRun | None) -> RemoteRun:
        made = RemoteRun(run.key, run.key, "running", parent=parent.id if parent else None)
        self._write(made, name=run.name)
        return made

    def update(self, remote: RemoteRun, run: DesiredRun, content: Content) -> None:
        remote.mark, remote.state = run.mark, run.state
        self._write(remote, **asdict(content))

    def save(self, remote: RemoteRun) -> None:
        self._write(remote)

    def upload(self, remote: RemoteRun, artifact: Artifact, content: bytes) -> None:
        self._write(remote, artifact=artifact.name, bytes=len(content))

    def delete(self, remote: RemoteRun) -> None:
        remote.state = "deleted"
        self._write(remote)

    def address(self, remote: RemoteRun) -> str:
        return f"{self._file.as_uri()}#{remote.id}"

    def _lines(self) -> Iterator[Any]:
        if self._file.exists():
            yield from map(json.loads, self._file.read_text("utf-8").splitlines())

    def _write(self, run: RemoteRun, **more: Any) -> None:
        with self._file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps({"study": self._uuid, "run": asdict(run), **more}) + "\n")
