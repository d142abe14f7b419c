"""What reaches the terminal: names as text, whatever is in them, on whatever stream there is."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from study.cli.terminal import SafeConsole, progress_bar, say

ROOT = Path(__file__).parents[1]
HOSTILE = "\x1b[31mred\x07\r\u202egnp\x9b2J\n[bold][/x]study: :smile:"


def test_names_are_shown_as_text_in_lines_tables_and_the_live_view() -> None:
    table = Table("name", title=HOSTILE)
    table.add_row(HOSTILE)
    to = io.StringIO()
    console = SafeConsole(file=to, width=200)
    say(console, HOSTILE)
    assert to.getvalue() == "\\x1b[31mred\\x07\\r\\u202egnp\\x9b2J\\n[bold][/x]study: :smile:\n"
    console.print(table)
    with console.status(escape(HOSTILE)):
        pass
    with Live(table, console=console):
        pass
    assert all(sign.isprintable() or sign == "\n" for sign in to.getvalue())
    assert "\\u202egnp" in to.getvalue().splitlines()[-3]


def test_colours_of_the_program_itself_stay() -> None:
    to = io.StringIO()
    console = SafeConsole(file=to, force_terminal=True, color_system="standard")
    say(console, "wrong: \x1b[0m", "bold red")
    assert to.getvalue() == "\x1b[1;31mwrong: \\x1b[0m\x1b[0m\n"


def shown(patience: float, *, terminal: bool) -> str:
    screen = io.StringIO()
    console = SafeConsole(file=screen, force_terminal=terminal, width=80)
    with progress_bar(console, patience) as callbacks:
        callbacks.progress("Looking at pictures", 900, 2_000)
        callbacks.progress("Reading pictures", 1_200, 2_000)
        callbacks.progress("Reading pictures", 2_000, 2_000)
        callbacks.say("Left out: [a].png")
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


PROGRAM = r"""
import os, sys
from study.cli.terminal import could_write, guard_streams
guard_streams()
first = os.open("kept", os.O_RDWR | os.O_CREAT)  # as a database: no stream may have its number
print("97.1 ± 0.2 \u00d7 Käse \u2713 \udcff")
sys.stdout.flush()
print("more")
print("error ±", file=sys.stderr)
sys.exit(0 if could_write() else 1)
"""


def printed(folder: Path, redirection: str, **environment: str) -> tuple[int, str, str]:
    """Run `PROGRAM` by a shell; its exit code, standard output and error."""
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} program.py {redirection}"],
        cwd=folder,
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )
    assert (folder / "kept").read_bytes() == b""
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_what_an_encoding_does_not_have_is_written_in_ascii(tmp_path: Path) -> None:
    code, out, err = printed(tmp_path, "", PYTHONIOENCODING="ascii")
    assert (code, out) == (0, "97.1 +- 0.2 x K\\xe4se \\u2713 \\udcff\nmore\n")
    assert err == "error +-\n"


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("> /dev/full", 1, "study: standard output cannot be written: No space left on device\n"),
        ("| true", 0, ""),
        (">&-", 0, ""),
        ("<&- >&-", 0, ""),
    ],
)
def test_a_stream_that_cannot_be_written_does_not_end_the_program(
    tmp_path: Path, redirection: str, code: int, said: str
) -> None:
    ended, _, err = printed(tmp_path, redirection)
    assert (ended, err) == (code, f"{said}error ±\n")


def test_closed_standard_error_is_nothing_to_end_for(tmp_path: Path) -> None:
    assert printed(tmp_path, "2>&-")[:2] == (0, "97.1 ± 0.2 \u00d7 Käse \u2713 \\udcff\nmore\n")
