"""``python -m study`` and the ``study`` command."""

import os
import sys

# `python -m` puts the current folder first on the path, where a typer.py or a folder of pictures
# may be. Modules are imported from there neither here nor in other processes.
_first = sys.path[0] or "."
if not sys.flags.safe_path and os.path.exists(_first) and os.path.samefile(_first, "."):  # noqa: PTH110, PTH121
    del sys.path[0]
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if _HOME not in sys.path:  # a checkout that is not installed: last, it has no modules but this one
    sys.path.append(_HOME)
os.environ["PYTHONSAFEPATH"] = "1"

# Before NumPy is loaded: on a race's small matrices two threads mostly wait for each other, and an
# eighth of the processor time does. Training has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from study.cli.app import app  # noqa: E402
from study.cli.terminal import could_write, guard_streams  # noqa: E402


def main() -> None:
    """Run the command line."""
    guard_streams()
    try:
        app(prog_name="study")
    except SystemExit as end:
        sys.exit(end.code if could_write() else end.code or 1)


if __name__ == "__main__":
    main()
