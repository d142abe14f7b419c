"""Pictures that take a while to read are counted on the screen; quick ones leave no trace."""

import io

from rich.console import Console

from study.cli.reading import told


def shown(patience: float, *, terminal: bool) -> str:
    screen = io.StringIO()
    with told(Console(file=screen, force_terminal=terminal, width=80), patience) as reading:
        reading.progress("Looking at pictures", 900, 2_000)
        reading.progress("Reading pictures", 1_200, 2_000)
        reading.progress("Reading pictures", 2_000, 2_000)
        reading.say("Left out: [a].png")
    return screen.getvalue()


def test_what_is_read_at_once_is_not_counted() -> None:
    assert shown(60, terminal=False) == "Left out: [a].png\n"
    assert shown(60, terminal=True) == "Left out: [a].png\n"


def test_what_takes_longer_is_counted_in_lines_or_by_a_bar() -> None:
    lines = shown(-1, terminal=False).splitlines()
    assert lines[:2] == ["Looking at pictures: 900 of 2,000", "Reading pictures: 1,200 of 2,000"]
    bar = shown(-1, terminal=True)
    assert "Reading pictures" in bar
    assert "2000/2000" in bar
    assert bar.endswith("Left out: [a].png\n")  # it is gone when all of them are read
