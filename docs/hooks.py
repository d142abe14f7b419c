"""MkDocs hook: the page of commands is made from the command line itself."""

import subprocess
import sys
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Append Typer's own description of every command to the page of commands."""
    if page.file.src_path != "reference/commands.md":
        return markdown
    command = [sys.executable, "-m", "typer", "study.cli.app", "utils", "docs", "--name", "study"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    _, _, text = made.stdout.partition("\n")  # without its own heading
    return f"{markdown}\n{text}"
