"""``python -m study`` and the ``study`` command."""

import os

# Before NumPy is loaded: on a race's small matrices two threads mostly wait for each other, and an
# eighth of the processor time does. Training has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from study.cli.app import app
from study.cli.exits import show_cursor


def main() -> None:
    """Run the command line."""
    show_cursor()
    app(prog_name="study")


if __name__ == "__main__":
    main()
