"""The modules of the house stand in one order, and each imports only from below itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import study

FOLDER = Path(study.__file__).parent

# From the bottom to the top, a room a line. A new module goes after everything that it imports.
FLOORS = """
errors space space_file
recipe formats data model
augment fourier lowering step checkpoint remote_checkpoint training callback
results plan sweep search
sampler pruning objective
settings storage owned lock prepare standing
engine forks worker cluster local_cluster preloaded driver
board board.note
mirror mirror.mflux mirror.target mirror.asking mirror.bucket mirror.projection mirror.artifact kept
mirror.tracking mirror.parents mirror.transfer mirror.sync mirror.aside mirror.follow
doctor tables words summary live dashboard
board.markdown board.pairs board.writer board.follow
final final.records
report report.contents report.figures report.drawing report.numbers report.again report.page
report.write
launch
options ending
final.members final.archive final.export final.measure final.finalize
final.registry final.gallery final.pictures final.predict final.commands
cli __init__ __main__
"""
ORDER = FLOORS.split()


def modules() -> list[str]:
    """All modules of the house; a room with modules of its own is named as a module too."""
    paths = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.py"))
    return sorted(module_of(path) for path in paths)


def module_of(path: Path) -> str:
    own = path.parent if path.name == "__init__.py" and path.parent.name else path
    return ".".join(own.with_suffix("").parts)


def path_of(module: str) -> Path:
    path = FOLDER.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(source: str) -> Iterator[str]:
    """The modules of the house that a source text imports, inside functions too."""
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
                while module and not path_of(module).exists():
                    module = module.rpartition(".")[0]
                yield module or "__init__"


def test_the_order_names_every_module_once() -> None:
    missing = sorted(set(modules()) - set(ORDER))
    assert not missing, f"add {', '.join(missing)} to ORDER, after all that they import"
    gone = sorted(set(ORDER) - set(modules()))
    assert not gone, f"take {', '.join(gone)} out of ORDER: there are no such modules"
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", modules())
def test_imports_run_downwards(module: str) -> None:
    below = ORDER[: ORDER.index(module)] if module in ORDER else ORDER
    found = set(imported(path_of(module).read_text("utf-8")))
    upwards = sorted(found - set(below) - {module})
    assert not upwards, f"{module} imports {', '.join(upwards)}, which stand after it in ORDER"


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
from study import data, load_space
import study.plan as p
def late():
    from study.space import Value
    from study.mirror.target import resolve
if TYPE_CHECKING:
    import study.results, numpy
"""
    assert set(imported(source)) == {
        "data",
        "__init__",
        "plan",
        "space",
        "mirror.target",
        "results",
    }


@pytest.mark.parametrize(
    "names",
    [
        "study",
        "study.errors, study.space, study.data, study.results, study.plan, study.sweep",
        "study.sampler, study.pruning, study.search, study.storage",
        "study.cli",
        "study.training, study.objective",
    ],
)
def test_a_light_import_loads_nothing_heavy(names: str) -> None:
    heavy = {"tensorflow", "keras", "mlflow", "dask", "distributed", "boto3"}
    heavy |= {"optuna_dashboard", "matplotlib", "jinja2", "scipy"}
    code = f"import sys, {names}; print(*sys.modules.keys() & {heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_package_and_the_plan_load_no_optuna() -> None:
    code = "import sys, study, study.sweep, study.search; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
