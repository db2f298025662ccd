"""The command `scoreboard`, and `python -m scoreboard`. Where only the Python client is installed it says in one line
what is missing.

Tested in tests/client/test_installation.py.
"""

import sys


def main() -> None:
    """The entry point."""
    try:
        # not there to be imported without the server's packages
        from scoreboard.cli import main as cli  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] == __package__:
            raise
        print(f"scoreboard: the server is not installed ({exc}): pip install 'scoreboard[server]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
