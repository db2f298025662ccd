"""Input and output of `scoreboard users …`: passwords, files, texts, and refusals.

A refusal is one line on standard error and exit 1, or exit 2 for an invalid argument. Passwords come from the terminal,
without echo, or from standard input, never from the command line.
Tested by tests/cli/test_users.py and test_user_files.py.
"""

import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any, TypeVar

import click

from scoreboard.domain.account_rules import MAX_PASSWORD_LENGTH
from scoreboard.domain.errors import Refusal

# of standard input: the longest password in UTF-8, a BOM and the line's end
PASSWORD_LINE_BYTES = 4 * MAX_PASSWORD_LENGTH + 16
MAX_IMPORT_BYTES = 256 << 20  # of a file: some millions of users; it is read as a whole
# zero-width non-joiner and joiner: invisible, but parts of words and emoji, so they are printed as they are
JOINERS = "\u200c\u200d"

T = TypeVar("T")

# ---- pure: texts ----------------------------------------------------------------------------------------------------


class CommandRefused(click.ClickException):
    """The command is refused: one line on standard error, exit 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"scoreboard: {printable(self.message)}", file=file, err=file is None)


class BadArgument(CommandRefused):
    """An invalid argument: one line on standard error, exit 2, as for a setting."""

    exit_code = 2


def utf8_text(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuses bytes that are no text in the terminal's encoding, since PostgreSQL can't store them."""
    if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
        is_argument = isinstance(parameter, click.Argument)
        raise BadArgument(f"{parameter.human_readable_name if is_argument else parameter.opts[0]} is not UTF-8")
    return value


def printable(text: str) -> str:
    """The text in one line. Characters that could control a terminal become escapes."""
    return "".join(
        character if character.isprintable() or character in JOINERS else character.encode("unicode_escape").decode()
        for character in text
    )


def accepted(outcome: T | Refusal) -> T:
    """The outcome, unless it is a refusal. Raises CommandRefused."""
    if isinstance(outcome, Refusal):
        raise CommandRefused(outcome.detail)
    return outcome


# ---- I/O: terminal and files ----------------------------------------------------------------------------------------


def read_password() -> str:
    """The password: asked for twice without echo on a terminal, else the first line of standard input.

    Raises CommandRefused and click.Abort.
    """
    if sys.stdin is None:
        raise CommandRefused("no password: standard input is closed")
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="The same again"))
    try:
        line = sys.stdin.buffer.readline(PASSWORD_LINE_BYTES).removeprefix(BOM_UTF8).rstrip(b"\r\n")
    except OSError as exc:  # it is open for writing alone, or broken
        raise CommandRefused(f"no password: standard input can't be read: {reason(exc)}") from None
    if not line:
        raise CommandRefused("no password: the first line of standard input is empty")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise CommandRefused("the password on standard input is not UTF-8") from None


def read_file(name: str) -> bytes:
    """The content of the file; `-`: of standard input. Raises BadArgument when it can't be read, CommandRefused when it
    is too large or closed."""
    try:
        if name == "-":
            if sys.stdin is None:
                raise CommandRefused("no users: standard input is closed")
            raw = sys.stdin.buffer.read(MAX_IMPORT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(MAX_IMPORT_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise BadArgument(f"{shown_name(name)} can't be read: {reason(exc)}") from None
    if len(raw) > MAX_IMPORT_BYTES:
        raise CommandRefused(f"{shown_name(name)} has more than {MAX_IMPORT_BYTES >> 20} MiB: divide it")
    return raw


def reason(exc: Exception) -> str:
    """Why a file can't be read or written, in the system's words."""
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


def shown_name(file: str) -> str:
    """The name of a file in messages."""
    return "standard input" if file == "-" else file or "a file without a name"
