"""The limits of a container count besides the machine's own; its cgroups are pretended here."""

from pathlib import Path

import psutil
import pytest

from study.workers import machine

V1 = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n"


def tree(folder: Path, group: str, **files: str) -> Path:
    """A root with /proc/self/cgroup and files of /sys/fs/cgroup."""
    for name, content in {"proc/self/cgroup": group, **files}.items():
        path = folder / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # as in a container
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a\n", {"a/cpu.max": "6400000 100000\n"}, 8),
        (
            V1,
            {"cpu/docker/a/cpu.cfs_quota_us": "400000", "cpu/docker/a/cpu.cfs_period_us": "100000"},
            4,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("0::/gone\n", {}, 8),
    ],
)
def test_a_quota_limits_the_cores(
    group: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "affinity", lambda: tuple(range(8)))
    assert machine.cores(tree(tmp_path, group, **files)) == cores


def test_without_cgroups_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "affinity", lambda: (3, 5))
    assert machine.cores(tmp_path) == 2


@pytest.mark.parametrize(
    ("group", "files", "memory"),
    [
        ("0::/\n", {"memory.max": "1073741824\n"}, 2**30),
        ("0::/\n", {"memory.max": "max\n"}, None),
        (V1, {"memory/docker/a/memory.limit_in_bytes": "1073741824"}, 2**30),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_a_limit_of_memory_counts(
    group: str, files: dict[str, str], memory: int | None, tmp_path: Path
) -> None:
    total = psutil.virtual_memory().total
    assert machine.memory(tree(tmp_path, group, **files)) == (memory or total)
