"""Every tutorial runs as written, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
BLOCK = re.compile(
    r'^```(sh|python|toml|csv)(?: title="([^"]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE
)


def steps(page: Path) -> list[tuple[str, str, str]]:
    """Language, file name (or nothing) and text of each block that a reader would use."""
    return [match.groups(default="") for match in BLOCK.finditer(page.read_text("utf-8"))]


def test_there_are_tutorials_with_something_to_run() -> None:
    assert sum(language == "sh" for page in PAGES for language, _, _ in steps(page)) >= 8


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_written(page: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name[:6] != "STUDY_"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["STUDY_CONFIRM"] = "0"  # half as many runs
    if page.stem != "mlflow":  # or every command starts a process that imports MLflow
        environment["STUDY_MLFLOW"] = "none"
    for language, name, text in steps(page):
        if page.name == "README.md" and language == "sh":  # set-up and long studies; see test_docs
            continue
        if name:
            (tmp_path / name).write_text(text, "utf-8")
            continue
        command = {"sh": ["bash", "-ec", text], "python": [sys.executable, "-c", text]}[language]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
