"""The rooms of the house stand in one order, and each imports only from those below itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import study

FOLDER = Path(study.__file__).parent

ROOMS = [
    "cli",
    "report",
    "final",
    "running",
    "dashboard",
    "mirror",
    "workers",
    "tuning",
    "storage",
    "training",
    "text",
    "plan",
    "data",
    "space",
]
"""From the top to the bottom; `errors`, `files`, `limits` lie below them all, `__main__` above."""


def modules() -> list[str]:
    """All modules inside rooms, dotted, without the name of the package."""
    inside = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.py"))
    return sorted(".".join(path.with_suffix("").parts) for path in inside if path.parent.name)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imported(source: str) -> Iterator[str]:
    """The modules and names of the house that a source text imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write absolute imports"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == "study":
                yield module or "__init__"


def test_every_module_lies_in_a_room() -> None:
    flat = {path.stem for path in FOLDER.glob("*.py")}
    assert flat == {"__init__", "__main__", "api", "errors", "files", "limits"}
    assert {room_of(module) for module in modules()} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room: str) -> None:
    assert len(ast.get_docstring(ast.parse((FOLDER / room / "__init__.py").read_text())) or "") > 60


@pytest.mark.parametrize("module", modules())
def test_imports_run_downwards(module: str) -> None:
    allowed = {*ROOMS[ROOMS.index(room_of(module)) :], "errors", "files", "limits"}
    source = FOLDER.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
    upwards = sorted(name for name in imported(source) if room_of(name) not in allowed)
    assert not upwards, f"{module} imports {', '.join(upwards)} from rooms above its own"


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
from study import load_space
from study.data import dataset as data
import study.plan.plan as p
def late():
    from study.space.search_space import Value
    from study.mirror.tracker import resolve
if TYPE_CHECKING:
    import study.plan.results, numpy
"""
    assert set(imported(source)) == {
        "load_space",
        "data.dataset",
        "plan.plan",
        "space.search_space.Value",
        "mirror.tracker.resolve",
        "plan.results",
    }


@pytest.mark.parametrize(
    "names",
    [
        "study",
        "study.errors, study.space.settings, study.data.dataset, study.plan.sweep",
        "study.tuning.pruning, study.plan.search, study.storage.database",
        "study.cli.app",
        "study.training.run, study.tuning.objective",
        "study.workers.jax.engine, study.workers.engines, study.workers.devices",
    ],
)
def test_a_light_import_loads_nothing_heavy(names: str) -> None:
    heavy = {"tensorflow", "keras", "jax", "mlflow", "dask", "distributed", "boto3"}
    heavy |= {"optuna_dashboard", "matplotlib", "jinja2", "scipy"}
    code = f"import sys, {names}; print(*sys.modules.keys() & {heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_package_and_the_plan_load_no_optuna() -> None:
    code = "import sys, study, study.plan.sweep, study.plan.search; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
