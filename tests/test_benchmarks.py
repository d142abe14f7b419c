"""Benchmarks still run, count what they say they count, and go on where they were stopped."""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
COMMANDS = sorted(
    path.name
    for path in FOLDER.glob("*.py")
    if "argparse" in path.read_text() and path.stem != "task"
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def benchmark(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *words],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )


HELP = """if True:
    import contextlib, io, pathlib, runpy, sys
    for file in map(pathlib.Path, sys.argv[1:]):
        sys.argv = [str(file), "--help"]
        sys.path[0] = str(file.parent)
        said = io.StringIO()
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
            runpy.run_path(str(file), run_name="__main__")
        print(said.getvalue().split()[:2])
"""


def test_every_benchmark_says_how_it_is_used() -> None:
    files = [str(FOLDER / name) for name in COMMANDS]
    told = subprocess.run(
        [sys.executable, "-c", HELP, *files], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == [str(["usage:", name]) for name in COMMANDS]


def test_of_single_members_the_interval_is_student_s() -> None:
    from mnist_accuracy import averaged

    rng = np.random.default_rng(3)
    labels = np.arange(200) % 3
    said = rng.random((6, 200, 3)) + 2 * (np.eye(3)[labels] > rng.random((6, 200, 1)))
    right = [float((one.argmax(1) == labels).mean()) for one in said]
    found = averaged(said, labels, 1)
    assert found["mean"] == pytest.approx(statistics.fmean(right))
    error = statistics.stdev(right) / math.sqrt(6)
    assert found["half interval"] == pytest.approx(2.5706 * error, rel=1e-4)
    assert (averaged(said, labels, 6)["choices"], averaged(said, labels, 5)["choices"]) == (1, 6)


@pytest.mark.slow
def test_tutorial_and_study_are_compared_once_and_told_again(tmp_path: Path) -> None:
    words = ["--space", "smoke", "--images", "300", "--epochs", "1", "--log", "without"]
    words += ["--contender", "tutorial", "--contender", "study", "--seeds", "0"]
    words += ["--work", str(tmp_path / "work"), "--records", str(tmp_path / "records.jsonl")]
    first = benchmark("peers", *words)
    assert "round 1: tutorial" in first.stdout
    tutorial, study = map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines())
    assert (tutorial["runs"], tutorial["passes"]) == (10, 10 * 200)  # two thirds of the images
    assert 0 < study["passes"] <= study["runs"] * 200
    for record in (tutorial, study):
        assert "failed" not in record
        assert set(record["configuration"]) == {"filters", "dropout"}
        assert record["seconds"] > 0
        assert record["threads"]
    again = benchmark("peers", *words)
    assert "round 1" not in again.stdout
    assert again.stdout.strip() in first.stdout


QUICKLY = "--xla_backend_optimization_level=0"  # what is compiled is run a few times


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_benchmark_of_a_gpu_runs_on_the_processor(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "--small", "--record", str(tmp_path / "gpu.json")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XLA_FLAGS": QUICKLY},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found == json.loads(done.stdout)
    assert found["runs"] == 3
    assert found["in groups"]["epochs a second"] > 0
    assert found["one by one"]["epochs a second"] > 0


def test_the_benchmark_of_a_gpu_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        benchmark("gpu")
    assert refused.value.returncode == 2
    assert refused.value.stderr.startswith("gpu.py: ")
    assert refused.value.stderr.count("\n") == 1
