"""What is installed: a wheel with the spaces inside, and lock files that say every byte."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hatchling import build
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` makes."""
    folder = tmp_path_factory.mktemp("wheel")
    return in_root(lambda: folder / build.build_wheel(str(folder)))


def in_root(make: Callable[[], Path]) -> Path:
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return make()
    finally:
        os.chdir(before)


def pins(lock: str) -> dict[str, set[str]]:
    """Canonical names and the versions they are locked at; a marker can lead to more than one."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if pinned := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line):
            found.setdefault(canonicalize_name(pinned[1]), set()).add(pinned[2])
    return found


def test_the_wheel_holds_every_module_and_every_space(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"study/{path.name}" for path in (ROOT / "study").glob("*.py")}
    spaces = {f"study/search_spaces/{path.name}" for path in (ROOT / "search_spaces").iterdir()}
    assert modules | spaces <= inside
    assert not [name for name in inside if name.startswith("tests")]


def test_an_installed_wheel_finds_its_spaces_and_has_a_command(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "study = study.__main__:main" in archive.read(entries).decode()
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "from study.space import file; print(*file.shipped().values())",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {Path(path).stem for path in told} == {"digits", "mnist", "modern", "smoke"}
    assert all(Path(path).is_relative_to(tmp_path) for path in told)


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 1_000_000


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, and with the dependencies as they are here.

    A line in a .pth file adds the folder of the dependencies, but not what that folder's own .pth
    files add: the checkout.
    """
    home = tmp_path_factory.mktemp("environment") / "env"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    (Path(site.stdout.strip()) / "here.pth").write_text(sysconfig.get_path("purelib"))
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    return home / "bin"


def of_the_wheel(folder: Path, *command: str | Path) -> str:
    """What a command prints that is run outside of the checkout."""
    own = {
        name: value for name, value in os.environ.items() if name[:6] not in {"PYTHON", "STUDY_"}
    }
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_says_its_version(environment: Path, tmp_path: Path) -> None:
    where = of_the_wheel(
        tmp_path, environment / "python", "-c", "import study; print(study.__file__)"
    )
    assert Path(where.strip()).is_relative_to(environment.parent)
    said = of_the_wheel(tmp_path, environment / "study", "--version")
    assert said.startswith(f"mnist-study {PROJECT['project']['version']}, tensorflow ")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_installed_wheel_gives_the_same_first_study_as_the_checkout(
    environment: Path, tmp_path: Path
) -> None:
    run = ("run", "smoke", "--epochs", "1", "--confirm", "0", "--mlflow", "none", "--quiet")
    said = of_the_wheel(tmp_path, environment / "study", *run)
    assert said.startswith("Use k1=3, k2=3, dense=16, filters=")
    told = json.loads(of_the_wheel(tmp_path, environment / "study", "best", "smoke", "--json"))
    here = tmp_path / "checkout"
    here.mkdir()
    checkout = (
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from study.__main__ import main; main()",
    )
    assert of_the_wheel(here, *checkout, *run) == said
    here_told = json.loads(of_the_wheel(here, *checkout, "best", "smoke", "--json"))
    for one in (told, here_told):
        del one["smallest"]["seconds"]
    assert here_told == told


def test_what_builds_the_package_is_locked_with_what_it_needs() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_an_editable_installation_is_a_path_and_a_command_and_needs_no_more(tmp_path: Path) -> None:
    wheel = in_root(lambda: tmp_path / build.build_editable(str(tmp_path)))
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(path).decode().split() == [str(ROOT)]
        assert any(name.endswith("entry_points.txt") for name in archive.namelist())
        assert not [name for name in archive.namelist() if name.endswith(".py")]


@pytest.mark.slow
def test_a_setup_that_fails_says_why_after_one_line_and_is_not_taken_for_done(
    tmp_path: Path,
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text(f"nowhere==1.0 --hash=sha256:{'0' * 64}\n")
    done = subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        | {"PIP_NO_INDEX": "1"},
    )
    assert done.returncode == 2
    assert re.fullmatch(r"Setting up .venv, once: about .* are fetched.*\n", done.stdout)
    assert "No matching distribution found for nowhere==1.0" in done.stderr
    assert not (tmp_path / ".venv/locked").exists()


LOCKS = [
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-bench.lock",
    "requirements-gpu.lock",
]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_hashes_and_neither_addresses_nor_paths(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"(^|\s)(/|\.\.?/|-[a-z]|--(index|extra|find))", text)
    entries = re.split(r"\n(?=\w)", text.partition("\n")[2])[1:]
    assert len(entries) > 50
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_cuda_is_locked_for_a_gpu_alone() -> None:
    cuda = {
        lock: [name for name in pins(lock) if name.startswith(("nvidia-", "jax-cuda"))]
        for lock in LOCKS
    }
    assert [lock for lock, names in cuda.items() if names] == ["requirements-gpu.lock"]
    assert {"nvidia-cudnn-cu12", "jax-cuda12-plugin"} <= set(cuda["requirements-gpu.lock"])


def test_the_lock_files_fit_the_project_and_each_other() -> None:
    locked, dev, bench, gpu = map(pins, LOCKS)
    for other in (dev, bench, gpu):
        assert {name: other[name] for name in locked} == locked
    groups, extras = PROJECT["dependency-groups"], PROJECT["project"]["optional-dependencies"]
    wanted = [(locked, line) for line in PROJECT["project"]["dependencies"] + groups["build"]]
    wanted += [(gpu, line) for line in extras["gpu"] + extras["jax"]]
    for lock, group in ((dev, "dev"), (bench, "bench")):
        assert {"include-group": "build"} in groups[group]
        wanted += [(lock, line) for line in groups[group] if isinstance(line, str)]
    for lock, line in wanted:
        requirement = Requirement(line)
        versions = lock[canonicalize_name(requirement.name)]
        assert all(version in requirement.specifier for version in versions), line
