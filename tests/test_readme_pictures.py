"""The README's pictures show what the program shows now."""

import json
import re
import runpy
from pathlib import Path

import pytest

from study.text.view import COLUMNS

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
MADE = json.loads((PICTURES / "shown.json").read_text())


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    return runpy.run_path(str(ROOT / "docs" / "pictures.py"))["shown"]()


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_picture_is_of_the_present_program(name: str, shown: dict[str, str]) -> None:
    assert shown[name] == MADE[name], (
        f"{name} shows what the program does not any more: make pictures"
    )


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_picture_is_small_and_stands_in_the_documentation(name: str) -> None:
    assert 1000 < (PICTURES / name).stat().st_size < 200_000
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(f"pictures/{name})" in page.read_text("utf-8") for page in pages)


def test_the_terminal_is_in_the_middle_of_a_study_and_has_every_column() -> None:
    text = re.sub(r"<[^>]+>", " ", (PICTURES / "terminal.svg").read_text()).replace("&#160;", " ")
    for words in (*COLUMNS, "(open)", "is selected", "epochs a second", "Ctrl-C stops"):
        assert words in text
