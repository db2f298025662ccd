"""The commands `scoreboard users …` for one user, and the list: create, change, delete, role, list.

`user_files` has the commands that read or write files of users. Each command opens the stores for its own duration.
`terminal` reads passwords and prints refusals.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

import click
import msgspec
import trio

from scoreboard.app.node import node_name
from scoreboard.app.writes import build_projectors
from scoreboard.cli.options import configured
from scoreboard.cli.run import with_accounts, with_stores
from scoreboard.cli.terminal import CommandRefused, accepted, printable, read_password, utf8_text
from scoreboard.cli.user_files import import_users, make_tokens
from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.boards import BOARDS, rfc3339
from scoreboard.domain.errors import Refusal
from scoreboard.domain.roles import NO_ROLE, Role, read_role
from scoreboard.drivers.stores import Stores
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.admin import users as administration
from scoreboard.settings.model import Settings
from scoreboard.storage.postgres import staff
from scoreboard.storage.postgres import users as user_store
from scoreboard.storage.postgres.users import Listed


@click.group()
def users() -> None:
    """Create, change, delete and list users."""


users.add_command(import_users)
users.add_command(make_tokens)


# ---- one user -------------------------------------------------------------------------------------------------------


@users.command("create")
@configured()
@click.argument("username", callback=utf8_text)
@click.argument("email", callback=utf8_text)
@click.option("--avatar-url", callback=utf8_text, help="An https address of a picture.")
def create_user(settings: Settings, username: str, email: str, avatar_url: str | None) -> None:
    """Create a user, and print the id.

    The password is asked for on a terminal, else it is the first line of standard input.
    """
    password = read_password()

    async def work(stores: Stores, accounts: Accounts) -> str | Refusal:
        created = await accounts.create(username, email, password, avatar_url)
        return created if isinstance(created, Refusal) else str(created[0])

    click.echo(accepted(with_accounts(settings, work)))


@users.command("password")
@configured()
@click.argument("user", callback=utf8_text)
def set_password(settings: Settings, user: str) -> None:
    """Give USER another password, and end all of the user's sessions.

    USER is a name, an e-mail address or an id. The password is asked for on a terminal, else it is the first line of
    standard input.
    """
    password = read_password()

    async def work(stores: Stores, accounts: Accounts) -> str | Refusal:
        found = await administration.find_user(stores, user)
        if isinstance(found, Refusal):
            return found
        ended = await accounts.set_password(found, password)
        if isinstance(ended, Refusal):
            return ended
        return f"{found.username} has another password; sessions ended: {ended}"

    click.echo(printable(accepted(with_accounts(settings, work))))


@users.command("rename")
@configured()
@click.argument("user", callback=utf8_text)
@click.argument("new", callback=utf8_text)
def rename_user(settings: Settings, user: str, new: str) -> None:
    """Call USER by another name, on every board within a second.

    USER is a name, an e-mail address or an id. The rules for names hold; how often the user has changed the name does
    not matter.
    """

    async def work(stores: Stores, accounts: Accounts) -> str | Refusal:
        found = await administration.find_user(stores, user)
        renamed = found if isinstance(found, Refusal) else await accounts.rename(found, new)
        return renamed if isinstance(renamed, Refusal) else f"{user} is called {renamed.username}"

    click.echo(printable(accepted(with_accounts(settings, work))))


@users.command("delete")
@configured()
@click.argument("user", callback=utf8_text)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_user(settings: Settings, user: str, yes: bool) -> None:
    """Delete USER for good: the account, its sessions, its score, and its actions in the action log.

    USER is a name, an e-mail address or an id. The user leaves every board within a second; all others keep their
    points and their order. The log loses the rows of this user, so that it still adds up to the scores. The name rests
    for 30 days before anybody may have it.
    """

    if not yes and sys.stdin is None:
        raise CommandRefused("nobody can be asked: standard input is closed; say --yes to delete without a question")

    async def work(stores: Stores, accounts: Accounts) -> str | Refusal:
        found = await administration.find_user(stores, user)
        if isinstance(found, Refusal):
            return found
        if not yes:
            who = found.username if found.email is None else f"{found.username} <{found.email}>"
            question = f"Delete {printable(who)} and all their actions?"
            ask = partial(click.confirm, question, abort=True, err=True)
            await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        projectors = build_projectors(settings, stores, BOARDS, node=node_name())

        async def check_boards() -> None:
            for projector in projectors:
                await projector.check_once()

        try:
            is_gone = await administration.delete_user(stores, accounts, found, check_boards)
        finally:
            for projector in projectors:
                projector.close()
        if isinstance(is_gone, Refusal):
            return is_gone
        return f"{found.username} is deleted" + (
            "" if is_gone else "; boards follow when Redis answers and a node runs"
        )

    click.echo(printable(accepted(with_accounts(settings, work))))


@users.command("role")
@configured()
@click.argument("user", callback=utf8_text)
@click.argument("role", type=click.Choice([*(role.value for role in Role), NO_ROLE]))
def set_role(settings: Settings, user: str, role: str) -> None:
    """Give USER the role of a viewer, a moderator or an admin for /admin, or take it (none).

    USER is a name, an e-mail address or an id. A viewer reads, a moderator bans and corrects, an admin also gives
    roles. The change is effective with the next request of USER, on every node.
    """

    async def work(stores: Stores) -> str | Refusal:
        found = await administration.find_user(stores, user)
        if isinstance(found, Refusal):
            return found
        changed = await staff.set_role(stores, found.user, read_role(role), OPERATOR)
        if changed is None:
            return administration.no_such_user(user)
        return changed if isinstance(changed, Refusal) else f"{found.username} has the role {changed.after or NO_ROLE}"

    click.echo(printable(accepted(with_stores(settings, work))))


# ---- the list -------------------------------------------------------------------------------------------------------


@users.command("list")
@configured()
@click.option(
    "--query",
    callback=utf8_text,
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
            while page := trio.from_thread.run(user_store.page, stores, after, query):
                yield from (describe(user) + "\n" for user in page)
                after = page[-1].key

        await trio.to_thread.run_sync(_show, lines, abandon_on_cancel=True)

    with_stores(settings, work)


def _show(lines: Callable[[], Iterator[str]]) -> None:
    """Prints the lines, in a pager on a terminal. A pager or pipe that is closed early is no error."""
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
    email, score = user.email or "-", "-" if user.score is None else str(user.score)
    return "\t".join((str(user.user), printable(user.username), printable(email), score, rfc3339(user.created_ms)))


def _as_json(user: Listed) -> str:
    shown = {
        "userId": str(user.user),
        "username": user.username,
        "email": user.email,
        "avatarUrl": user.avatar_url,
        "score": user.score,
    }
    return msgspec.json.encode(shown | {"createdAt": rfc3339(user.created_ms)}).decode()
