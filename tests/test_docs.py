"""The README and the documentation are true: commands, options, files, make targets, spaces."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from study.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
LOG = ROOT / "docs" / "log"
DOCS = (page for page in (ROOT / "docs").rglob("*.md") if LOG not in page.parents)
PAGES = [ROOT / "README.md", *sorted(DOCS)]
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)
GROUP = typer.main.get_command(app)


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def documented() -> set[str]:
    """Every `study ...` of the pages and of the commands' own help."""
    helps = "".join(str(command.help) for command in GROUP.commands.values())
    lines = [line for block in blocks("(?:sh|text)") for line in block.splitlines()]
    found = [line.strip() for line in lines if re.match(r"(python -m )?study [a-z]", line.strip())]
    found += re.findall(r"`((?:python -m )?study [a-z][^`\n]*)`", helps + TEXT)
    lines = {re.sub(r"^(python -m )?study ", "", line) for line in found}
    return {line for line in lines if not line.startswith("COMMAND")}


@pytest.mark.parametrize("line", sorted(documented()))
def test_every_documented_command_can_be_given(line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    assert name in GROUP.commands
    if words:
        GROUP.commands[name].make_context(name, words)


def test_every_option_of_the_pages_exists() -> None:
    known = {
        name
        for command in (GROUP, *GROUP.commands.values())
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts, "--help")
    }
    study_lines = [line for line in TEXT.splitlines() if "study " in line or line.startswith("|")]
    named = set(re.findall(r"`(--[a-z-]+)", "\n".join(study_lines)))
    others = {"--nworkers", "--no-nanny", "--resources"}  # of Dask
    assert named
    assert named - others <= known


@pytest.mark.parametrize("command", sorted(GROUP.commands))
def test_every_command_is_explained_somewhere(command: str) -> None:
    assert re.search(rf"study {command}\b", TEXT)


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 150


def test_every_room_has_a_line_in_the_tree() -> None:
    lines = blocks("text", README)[-1].splitlines()
    told = {line.split()[0].rstrip("/") for line in lines if line.startswith("  ")}
    rooms = {path.parent.name for path in (ROOT / "study").glob("*/__init__.py")}
    assert told == rooms | {"api.py"}
    assert all(path.stem in "\n".join(lines) for path in (ROOT / "search_spaces").iterdir())


def test_every_make_target_of_the_readme_exists_and_none_is_left_out() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named <= targets
    assert targets <= named


@pytest.mark.parametrize("example", blocks("toml"))
def test_the_examples_of_spaces_are_spaces(example: str, tmp_path: Path) -> None:
    from study.space.file import load

    (tmp_path / "example.toml").write_text(example)
    assert load(tmp_path / "example.toml").hyperparameters


def test_every_linked_file_exists() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
