"""The commands `scoreboard users …`: they make accounts and change them, for whoever runs the server.

`cli` adds the group, and hands in the options that all commands share. Each command opens the stores for its own duration.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click
import trio

from scoreboard import app
from scoreboard.domain.errors import Refusal, SettingsError, StartError
from scoreboard.operations import provisioning
from scoreboard.runtime.settings import Settings
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage import sessions
from scoreboard.storage.opening import stores_of

Command = Callable[..., None]


def build_users_group(configured: Callable[[], Callable[[Command], Command]]) -> click.Group:
    """The group. `configured` adds the shared options to a command and hands it the settings."""
    group = click.Group("users", help="Create users.")
    for name, command in COMMANDS.items():
        group.command(name)(configured()(command))
    return group


def _with_node(settings: Settings, work: Callable[[app.Node], Awaitable[None]]) -> None:
    async def run() -> None:
        async with stores_of(settings) as stores:
            await work(app.Node(settings, settings.security.keys(settings.embedded.data_dir), stores))

    trio.run(run)


@click.argument("username")
@click.argument("email")
@click.option("--avatar-url", help="An https address of a picture.")
def create_user(settings: Settings, username: str, email: str, avatar_url: str | None) -> None:
    """Create a user; the password is read from standard input."""
    password = sys.stdin.readline().rstrip("\r\n")

    async def work(node: app.Node) -> None:
        created = await node.accounts.create(username, email, password, avatar_url)
        if isinstance(created, Refusal):
            raise StartError(created.detail)
        click.echo(str(created[0]))

    _with_node(settings, work)


@click.argument("file", type=click.File("r", encoding="utf-8"))
def import_users(settings: Settings, file: Any) -> None:
    """Create users from FILE: JSON Lines, or CSV with a header (username, email, password, avatarUrl)."""
    text = file.read()

    async def work(node: app.Node) -> None:
        done = await provisioning.import_users(node.stores, node.accounts, text, is_csv=str(file.name).endswith(".csv"))
        click.echo(f"{done.created} created, {done.existing} were there, {len(done.refused)} refused")
        for line, why in done.refused:
            click.echo(f"line {line}: {why}", err=True)
        if done.refused:
            sys.exit(1)

    _with_node(settings, work)


@click.option("--count", type=click.IntRange(1, 1_000_000), required=True, help="How many users.")
@click.option(
    "--output", type=click.File("w", encoding="utf-8"), required=True, help="Lines of userId, accessToken, actionSecret, keyVersion."
)
def make_tokens(settings: Settings, count: int, output: Any) -> None:
    """Make users with ready tokens for load tests. Refused in production."""
    if settings.production:
        raise SettingsError("environment: tokens for load tests are not made in production")
    keys = settings.security.keys(settings.embedded.data_dir)

    async def run() -> None:
        async with stores_of(settings) as stores:
            made = await provisioning.development_tokens(
                stores,
                count,
                keys=TokenKeys.from_private(keys.signing, keys.current_signing),
                masters=keys.master,
                master=keys.current_master,
                issuer=settings.issuer,
                now=await sessions.now(stores),  # the nodes judge these tokens by PostgreSQL's clock
                lifetime=settings.security.access_token_seconds,
            )
            output.writelines(token.line for token in made)

    trio.run(run)


COMMANDS: dict[str, Command] = {"create": create_user, "import": import_users, "tokens": make_tokens}
