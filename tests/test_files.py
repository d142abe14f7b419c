"""Texts from outside reach terminals and spreadsheets as texts, not as commands."""

import os

import pytest

from study.files import csv_cell, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Käse 中文.png", "Käse 中文.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("\u2028\u200f\x9b31m", r"\u2028\u200f\x9b31m"),
        (os.fsdecode(b"c\xe9.png"), r"c\xe9.png"),
    ],
)
def test_a_text_from_outside_is_one_line_without_commands(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_text_that_a_spreadsheet_would_run_is_marked_as_text(start: str) -> None:
    assert csv_cell(f'{start}HYPERLINK("http://x")') == f'\'{start}HYPERLINK("http://x")'


def test_other_cells_stay_as_they_are() -> None:
    assert [csv_cell(value) for value in (-1.5, 3, "cat", "a=b", True)] == [
        -1.5,
        3,
        "cat",
        "a=b",
        True,
    ]
    assert csv_cell("\t=1") == r"\t=1"
