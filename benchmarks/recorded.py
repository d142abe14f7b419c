"""What stands beside a number so that it can be compared, and records that survive a kill."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine(*packages: str) -> dict[str, Any]:
    """The machine, its load now, the commit and the versions of these packages."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": " ".join(["python", *map(_relative, sys.argv)]),
        "commit": commit.stdout.strip() or None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load average": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: _version(name) for name in packages},
    }


def _relative(word: str) -> str:
    """A word of a command without the folders of this machine."""
    return Path(word).name if Path(word).is_absolute() else word


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line of JSON to a file; on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.write(json.dumps(record) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of such a file; one that a kill cut short is left out."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def read_whole(path: Path) -> dict[str, Any] | None:
    """What `write_whole` wrote, None where it did not."""
    return json.loads(path.read_text()) if path.exists() else None


def write_whole(path: Path, value: object) -> None:
    """Write JSON so that a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    aside.replace(path)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    return text.partition("model name\t: ")[2].partition("\n")[0] or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
