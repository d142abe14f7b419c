"""``python -m study`` and the ``study`` command."""

from study.cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="study")


if __name__ == "__main__":
    main()
