"""MkDocs hooks: the pages that are made from the command line and from the README."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill the page of commands and the table of the first page."""
    if page.file.src_path == "index.md":
        return markdown.replace("<!-- table of README.md -->", _table())
    if page.file.src_path == "reference/commands.md":
        return f"{markdown}\n{_commands()}"
    return markdown


def _table() -> str:
    """What to read for which task; links to files outside docs/ have no page and are left out."""
    section = README.read_text("utf-8").split("\n## If you want")[1].split("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", section, re.MULTILINE)
    return "\n".join(row.replace("](docs/", "](") for row in rows if not _elsewhere(row))


def _elsewhere(row: str) -> bool:
    return "](" in row and "](docs/" not in row


def _commands() -> str:
    """Typer's own description of every command."""
    command = [sys.executable, "-m", "typer", "study.cli.app", "utils", "docs", "--name", "study"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return made.stdout.partition("\n")[2]  # without its own heading
