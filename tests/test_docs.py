"""What the README says is so: commands, options, files, make targets, examples."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from study.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def documented() -> Iterator[str]:
    """Every `python -m study ...` of the README, and `study ...` of the commands' own help."""
    helps = "".join(str(command.help) for command in GROUP.commands.values())
    found = re.findall(r"python -m study +([a-z][^`\n|]*)", README)
    found += re.findall(r"`study +([a-z][^`]*)`", helps + README)
    yield from map(str.strip, found)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"python -m study {command}\b", README)


@pytest.mark.parametrize("line", sorted(set(documented())))
def test_every_documented_command_can_be_given(line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    assert GROUP.commands[name].make_context(name, words).info_name == name


def test_every_option_of_the_readme_exists() -> None:
    known = {
        name
        for command in GROUP.commands.values()
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts, "--help")
    }
    named = set(re.findall(r"`(--[a-z-]+)", README))
    assert named
    assert named <= known


def test_every_option_is_in_the_readme() -> None:
    options = {
        name
        for command in GROUP.commands.values()
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }
    assert [name for name in sorted(options) if f"`{name}" not in README] == []


def test_every_room_has_a_line_in_the_tree() -> None:
    lines = blocks("text")[-1].splitlines()
    told = {line.split()[0].rstrip("/") for line in lines if line.startswith("  ")}
    assert told == {path.parent.name for path in (ROOT / "study").glob("*/__init__.py")}
    assert all(path.name in "\n".join(lines) for path in (ROOT / "search_spaces").iterdir())


def test_every_make_target_of_the_readme_exists_and_none_is_left_out() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert named <= targets
    assert targets - {"help"} <= named


@pytest.mark.parametrize("example", blocks("python"))
def test_the_examples_in_python_run(example: str) -> None:
    assert "assert " in example  # it says itself what comes out
    exec(example, {})


@pytest.mark.parametrize("example", blocks("toml"))
def test_the_examples_of_spaces_are_spaces(example: str, tmp_path: Path) -> None:
    from study.space.file import load

    (tmp_path / "example.toml").write_text(example)
    assert load(tmp_path / "example.toml").hyperparameters


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
