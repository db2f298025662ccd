"""The commands `scoreboard users …`: they make accounts, change, delete and list them, for whoever runs the server.

`cli` adds the group, and hands in the options that all commands share. Each command opens the stores for its own
duration. What a command refuses is one line on standard error and exit 1, or 2 for an argument that can't be meant;
passwords come from the terminal, without echo, or from standard input, never from the command line.
"""

import os
import sys
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import trio

from scoreboard import __version__
from scoreboard.app import node as app
from scoreboard.domain.account_rules import PASSWORD_LONGEST
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal, SettingsError
from scoreboard.operations.admin import provisioning
from scoreboard.operations.admin import users as administration
from scoreboard.operations.admin.import_files import decode, looks_like_csv, read_people
from scoreboard.operations.admin.provisioning import Imported
from scoreboard.security.tokens import TokenKeys
from scoreboard.settings.model import Settings
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.open_stores import stores_of
from scoreboard.storage.postgres import sessions, users
from scoreboard.storage.postgres.users import Listed
from scoreboard.telemetry import observe

# of standard input: the longest password in UTF-8, a BOM and the line's end
PASSWORD_LINE_BYTES = 4 * PASSWORD_LONGEST + 16
IMPORT_BYTES = 256 << 20  # of a file: some millions of users; it is read as a whole
REASON_CHARACTERS = 300  # of why a line is refused: parts of the line may be in it
# invisible, but parts of words and emoji: the only ones of their kind that a terminal is given
JOINERS = "\u200c\u200d"

Command = Callable[..., None]
T = TypeVar("T")


def build_users_group(configured: Callable[[], Callable[[Command], Command]]) -> click.Group:
    """The group. `configured` adds the shared options to a command and hands it the settings."""
    group = click.Group("users", help="Create, change, delete and list users.")
    for name, command in COMMANDS.items():
        group.command(name)(configured()(command))
    return group


# ---- pure: texts ----------------------------------------------------------------------------------------------------


class CommandRefused(click.ClickException):
    """What the command was asked for is refused: one line, exit 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"scoreboard: {printable(self.message)}", file=file, err=file is None)


class BadArgument(CommandRefused):
    """An argument that can't be meant: one line, exit 2, as for a setting."""

    exit_code = 2


def text(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuses bytes that are no text in the terminal's encoding: no database takes them."""
    if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
        raise BadArgument(
            f"{parameter.human_readable_name if isinstance(parameter, click.Argument) else parameter.opts[0]} is not UTF-8"
        )
    return value


def printable(text: str) -> str:
    """In one line, and without what would command a terminal: such characters as escapes."""
    return "".join(
        character if character.isprintable() or character in JOINERS else character.encode("unicode_escape").decode()
        for character in text
    )


def accepted(outcome: T | Refusal) -> T:
    """What is no refusal. Raises CommandRefused."""
    if isinstance(outcome, Refusal):
        raise CommandRefused(outcome.detail)
    return outcome


# ---- I/O: terminal and stores ---------------------------------------------------------------------------------------


def read_password() -> str:
    """LiveRequest for twice without echo on a terminal, else the first line of standard input. Raises CommandRefused,
    click.Abort."""
    if sys.stdin is None:
        raise CommandRefused("no password: standard input is closed")
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="The same again"))
    try:
        line = sys.stdin.buffer.readline(PASSWORD_LINE_BYTES).removeprefix(BOM_UTF8).rstrip(b"\r\n")
    except OSError as exc:  # it is open for writing alone, or broken
        raise CommandRefused(f"no password: standard input can't be read: {_reason(exc)}") from None
    if not line:
        raise CommandRefused("no password: the first line of standard input is empty")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise CommandRefused("the password on standard input is not UTF-8") from None


def read_file(name: str) -> bytes:
    """The whole file, - for standard input. Raises BadArgument when it can't be read, CommandRefused when it is too
    large or closed."""
    try:
        if name == "-":
            if sys.stdin is None:
                raise CommandRefused("no users: standard input is closed")
            raw = sys.stdin.buffer.read(IMPORT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(IMPORT_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise BadArgument(f"{_shown_name(name)} can't be read: {_reason(exc)}") from None
    if len(raw) > IMPORT_BYTES:
        raise CommandRefused(f"{_shown_name(name)} has more than {IMPORT_BYTES >> 20} MiB: divide it")
    return raw


def _reason(exc: Exception) -> str:
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


def _shown_name(file: str) -> str:
    return "standard input" if file == "-" else file or "a file without a name"


def _with_stores(settings: Settings, work: Callable[[Stores], Awaitable[T]]) -> T:
    """Runs it, and takes what it raises out of the groups that nurseries put round it. Ctrl-C is click.Abort.

    Standard output is for what the command says alone: logs go to standard error, and only warnings unless more is
    asked for.
    """
    level = "warning" if settings.log.level == "info" else settings.log.level
    observe.configure(level, settings.log.format, version=__version__, stream=sys.stderr)
    outcomes: list[T] = []

    async def run() -> None:
        async with stores_of(settings) as stores:
            outcomes.append(await work(stores))

    interrupted = False
    try:
        trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)  # none within asyncio
    except* (KeyboardInterrupt, click.Abort):
        interrupted = True
    if interrupted:
        raise click.Abort
    return outcomes[0]


def _with_node(settings: Settings, work: Callable[[app.Node], Awaitable[T]]) -> T:
    """The same with a node that serves nobody."""

    async def run(stores: Stores) -> T:
        return await work(app.Node(settings, settings.security.keys(settings.embedded.data_dir), stores))

    return _with_stores(settings, run)


# ---- one user -------------------------------------------------------------------------------------------------------


@click.argument("username", callback=text)
@click.argument("email", callback=text)
@click.option("--avatar-url", callback=text, help="An https address of a picture.")
def create_user(settings: Settings, username: str, email: str, avatar_url: str | None) -> None:
    """Create a user, and print the id.

    The password is asked for on a terminal, else it is the first line of standard input.
    """
    password = read_password()

    async def work(node: app.Node) -> str | Refusal:
        created = await node.accounts.create(username, email, password, avatar_url)
        return created if isinstance(created, Refusal) else str(created[0])

    click.echo(accepted(_with_node(settings, work)))


@click.argument("user", callback=text)
def set_password(settings: Settings, user: str) -> None:
    """Give USER another password, and end all of the user's sessions.

    USER is a name, an e-mail address or an id. The password is asked for on a terminal, else it is the first line of
    standard input.
    """
    password = read_password()

    async def work(node: app.Node) -> str | Refusal:
        found = await administration.find_user(node.stores, user)
        if isinstance(found, Refusal):
            return found
        ended = await node.accounts.set_password(found, password)
        if isinstance(ended, Refusal):
            return ended
        return f"{found.username} has another password; sessions ended: {ended}"

    click.echo(printable(accepted(_with_node(settings, work))))


@click.argument("user", callback=text)
@click.argument("new", callback=text)
def rename_user(settings: Settings, user: str, new: str) -> None:
    """Call USER by another name, on every board within a second.

    USER is a name, an e-mail address or an id. The rules for names hold; how often the user has changed the name does
    not matter.
    """

    async def work(node: app.Node) -> str | Refusal:
        found = await administration.find_user(node.stores, user)
        renamed = found if isinstance(found, Refusal) else await node.accounts.rename(found, new)
        return renamed if isinstance(renamed, Refusal) else f"{user} is called {renamed.username}"

    click.echo(printable(accepted(_with_node(settings, work))))


@click.argument("user", callback=text)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_user(settings: Settings, user: str, yes: bool) -> None:
    """Delete USER for good: the account, its sessions, its score, and its actions in the action log.

    USER is a name, an e-mail address or an id. The user leaves every board within a second; all others keep their
    points and their order. The log loses the rows of this user, so that it still adds up to the scores. The name rests
    for 30 days before anybody may have it.
    """

    if not yes and sys.stdin is None:
        raise CommandRefused("nobody can be asked: standard input is closed; say --yes to delete without a question")

    async def work(node: app.Node) -> str | Refusal:
        found = await administration.find_user(node.stores, user)
        if isinstance(found, Refusal):
            return found
        if not yes:
            question = f"Delete {printable(f'{found.username} <{found.email}>')} and all their actions?"
            ask = partial(click.confirm, question, abort=True, err=True)
            await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        try:
            is_gone = await administration.delete_user(node.stores, node.accounts, found, node.check_boards)
        finally:
            node.close_projectors()
        if isinstance(is_gone, Refusal):
            return is_gone
        return f"{found.username} is deleted" + (
            "" if is_gone else "; boards follow when Redis answers and a node runs"
        )

    click.echo(printable(accepted(_with_node(settings, work))))


# ---- many users -----------------------------------------------------------------------------------------------------


@click.option(
    "--query",
    callback=text,
    default="",
    help="Only those who have this in their name or address, in any case, or as their id.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def list_users(settings: Settings, query: str, as_json: bool) -> None:
    """List users by name, a line each: id, name, e-mail address, score and when they came, separated by tabs.

    On a terminal they are shown in a pager.
    """
    describe = _as_json if as_json else _as_line

    async def work(stores: Stores) -> None:
        def lines() -> Iterator[str]:
            after = None
            while page := trio.from_thread.run(users.page, stores, after, query):
                yield from (describe(user) + "\n" for user in page)
                after = page[-1].key

        await trio.to_thread.run_sync(_show, lines, abandon_on_cancel=True)

    _with_stores(settings, work)


def _show(lines: Callable[[], Iterator[str]]) -> None:
    """In a pager on a terminal. A reader who has seen enough is no error, and neither is nobody who reads."""
    if sys.stdout is None:
        return
    try:
        if sys.stdout.isatty():
            click.echo_via_pager(lines())
            return
        for line in lines():
            click.echo(line, nl=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush of the interpreter


def _as_line(user: Listed) -> str:
    score = "-" if user.score is None else str(user.score)
    return "\t".join((str(user.user), printable(user.username), printable(user.email), score, rfc3339(user.created_ms)))


def _as_json(user: Listed) -> str:
    shown = {
        "userId": str(user.user),
        "username": user.username,
        "email": user.email,
        "avatarUrl": user.avatar_url,
        "score": user.score,
    }
    return msgspec.json.encode(shown | {"createdAt": rfc3339(user.created_ms)}).decode()


@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "json"]),
    help="What FILE is, if its name and its content do not tell.",
)
@click.option(
    "--encoding", callback=text, help="How FILE's text is encoded, e.g. latin-1.  [UTF-8, or as the file shows]"
)
def import_users(settings: Settings, file: str, kind: str | None, encoding: str | None) -> None:
    """Create users from FILE, - for standard input: CSV, JSON Lines, a JSON array or one JSON object.

    CSV has a header (username, email, password, avatarUrl), and commas, semicolons or tabs. Whoever is there already,
    with this name and this e-mail address, stays as they are, so an import may be repeated. Of two lines with one name
    or one address the first counts. Each user who is not created is told on standard error, with the line; then the
    command ends with 1, and also when FILE has no users.
    """
    raw, name = read_file(file), _shown_name(file)
    decoded = accepted(decode(raw, encoding))
    if decoded.is_guessed:
        click.echo(
            f"{printable(name)} is not UTF-8; read as {decoded.encoding}. If names come out wrong, say --encoding.",
            err=True,
        )
    people = accepted(read_people(decoded.text, is_csv=kind == "csv" if kind else looks_like_csv(name, decoded.text)))
    if people.ignored:
        click.echo(printable(f"columns that are not read: {', '.join(people.ignored)}"), err=True)
    first = next(people.lines, None)
    if first is None:
        raise CommandRefused(f"there are no users in {name}")
    lines = chain([first], people.lines)
    done = Imported()
    try:
        _with_node(settings, lambda node: provisioning.import_users(node.stores, node.accounts, lines, done))
    except click.Abort:
        raise CommandRefused(
            f"interrupted: {done.created} created, {done.existing} were there; the same import again goes on"
        ) from None
    click.echo(f"{done.created} created, {done.existing} were there, {len(done.refused)} refused")
    for number, why in done.refused:
        click.echo(f"{people.unit} {number}: {printable(why[:REASON_CHARACTERS])}", err=True)
    if done.refused:
        sys.exit(1)


@click.option("--count", type=click.IntRange(1, 1_000_000), required=True, help="How many users.")
@click.option(
    "--output",
    type=click.Path(allow_dash=True),
    required=True,
    help="Lines of userId, accessToken, actionSecret, keyVersion.",
)
def make_tokens(settings: Settings, count: int, output: str) -> None:
    """Make users with ready tokens for load tests. Refused in production."""
    if settings.production:
        raise SettingsError("environment: tokens for load tests are not made in production")
    keys = settings.security.keys(settings.embedded.data_dir)

    async def work(stores: Stores) -> list[provisioning.DevelopmentToken]:
        return await provisioning.development_tokens(
            stores,
            count,
            keys=TokenKeys.from_private(keys.signing, keys.current_signing),
            masters=keys.master,
            master=keys.current_master,
            issuer=settings.issuer,
            now=await sessions.now(stores),  # the nodes judge these tokens by PostgreSQL's clock
            lifetime=settings.security.access_token_seconds,
        )

    lines = "".join(token.line for token in _with_stores(settings, work))
    if output == "-":
        click.echo(lines, nl=False)
        return
    try:
        Path(output).write_text(lines, encoding="utf-8")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise BadArgument(f"{output} can't be written: {_reason(exc)}") from None


COMMANDS: dict[str, Command] = {
    "create": create_user,
    "password": set_password,
    "rename": rename_user,
    "delete": delete_user,
    "list": list_users,
    "import": import_users,
    "tokens": make_tokens,
}
