"""``python -m study`` and the ``study`` command."""

from study.cli.app import app
from study.cli.exits import show_cursor


def main() -> None:
    """Run the command line."""
    show_cursor()
    app(prog_name="study")


if __name__ == "__main__":
    main()
