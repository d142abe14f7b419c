"""How many cores and how much memory this process may use, limits of its container included."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

_ROOT = Path("/")


def affinity() -> tuple[int, ...]:
    """The numbers of the cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cores(root: Path = _ROOT) -> int:
    """How many cores this process may use: of its affinity mask, and of its cgroup's quota.

    A quota of 1.5 cores counts as 2. ``root`` is where /proc and /sys are found.
    """
    quotas = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([len(affinity()), *quotas]))


def memory(root: Path = _ROOT) -> int:
    """The bytes of memory that this process may use at most: the machine's, or its cgroup's."""
    limits = [_number(text) for text in _settings(root, "memory.max", "memory.limit_in_bytes")]
    return int(min([psutil.virtual_memory().total, *filter(None, limits)]))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's cgroup and those above it, in cores; none if unlimited."""
    for text in _settings(root, "cpu.max", None):
        quota, _, period = text.partition(" ")
        if _number(quota) and _number(period):
            yield _number(quota) / _number(period)
    texts = (_settings(root, None, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    for quota, period in zip(*texts, strict=False):
        if _number(quota) and _number(period):
            yield _number(quota) / _number(period)


def _settings(root: Path, unified: str | None, legacy: str | None) -> Iterator[str]:
    """The contents of a setting's files in cgroup v2 (``unified``) and v1 (``legacy``).

    A limit of any group above this process's own counts too. In a container the path of the group
    may be the host's, of which only the root is there.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        name = legacy if controllers else unified
        controller = name.partition(".")[0] if name and controllers else ""
        if name is None or controller not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            with suppress(OSError):
                yield (root / "sys/fs/cgroup" / controller / folder / name).read_text().strip()


def _number(text: str) -> float:
    """The number, 0 where there is no limit: "max", or -1."""
    return max(0.0, float(text)) if text.lstrip("-").isdigit() else 0.0
