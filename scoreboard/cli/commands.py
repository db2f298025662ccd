"""The command line. It and `user_commands`, the group `users`, are the only places that call `trio.run`.

Every command reads the settings the same way, so each takes --config, --data-dir and --embedded. What is wrong with a
setting, and a start that can't go on, is one line on standard error and exit 2. Only `serve` and `migrate` make a
database in a data folder that has none.
"""

import signal
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial, wraps
from os import environ
from pathlib import Path
from typing import Any

import click
import trio

from scoreboard import __version__
from scoreboard.app import node as app
from scoreboard.cli import demo
from scoreboard.cli.users import build_users_group
from scoreboard.domain.boards import BOARDS
from scoreboard.domain.errors import SettingsError, StartError, StorageUnavailable
from scoreboard.embedded import stack as embedded_servers
from scoreboard.operations.action_rules import actions_file, load_rules
from scoreboard.operations.admin.verify import differences
from scoreboard.runtime.supervise import leaves
from scoreboard.settings.keys import new_production_keys, write_secrets
from scoreboard.settings.model import Settings, load_settings
from scoreboard.storage.open_stores import stores_of
from scoreboard.storage.postgres import users as user_store
from scoreboard.telemetry import observe
from scoreboard.web.pages.branding import load_branding, shown_accents
from scoreboard.workers import projector

MAX_PRINTED_DIFFERENCES = 20  # differences that `verify` prints; it counts all
EXPECTED = (SettingsError, StartError, StorageUnavailable)
EXIT_FAILED = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells count


class FilePath(click.Path):
    """A path that is not empty: pathlib takes an empty one for the present folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            raise SettingsError(f"{param.opts[0] if param else 'a path'}: must not be empty")
        return super().convert(value, param, ctx)


def configured(*, makes_data: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the shared options to a command and hands it the settings. `makes_data`: whether it may begin in an empty
    data folder."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--config", type=FilePath(path_type=Path), help="A TOML file beside the defaults.")
        @click.option("--embedded/--no-embedded", default=None, help="Start (or join) an own PostgreSQL and Valkey.")
        @click.option(
            "--data-dir", type=FilePath(path_type=Path), help="Where the embedded servers keep their data.  [.data]"
        )
        @wraps(command)
        def run(config: Path | None, embedded: bool | None, data_dir: Path | None, **others: Any) -> None:
            if embedded is None and data_dir is not None:
                embedded = True  # whoever names the folder means the servers in it
            flags = {"embedded.enabled": embedded, "embedded.data_dir": data_dir and str(data_dir)}
            flags |= {f"server.{name}": others.pop(name) for name in ("host", "port") if name in others}
            flags |= {"actions.file": str(actions)} if (actions := others.pop("actions", None)) else {}
            flags |= {"embedded.demo_accounts": False} if others.get("with_demo") is False else {}
            settings = load_settings(config, flags, environ)
            observe.configure(settings.log.level, settings.log.format, version=__version__)
            if (
                settings.embedded.enabled
                and not makes_data
                and not embedded_servers.has_data(settings.embedded.data_dir)
            ):
                raise StartError(
                    f"there is no database in the data folder {settings.embedded.data_dir}: name another (--data-dir), or make one there "
                    f"(`scoreboard migrate --data-dir {settings.embedded.data_dir}`)"
                )
            command(settings, **others)

        return run

    return decorate


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """A real-time leaderboard server."""


def main() -> None:
    """The entry point: what we expect to fail is one line on standard error and exit 2."""
    try:
        cli()
    except BaseException as exc:  # noqa: BLE001 – what is not expected is raised again
        # not inside `except*`: Python 3.11.2 would show the group and this exit as tracebacks
        sys.exit(_exit_code(exc))


def _exit_code(exc: BaseException) -> Any:
    """Writes the line of an expected failure. Raises anything else again."""
    found = list(leaves(exc))
    if not all(isinstance(leaf, (*EXPECTED, SystemExit, KeyboardInterrupt)) for leaf in found):
        raise exc
    for leaf in found:
        if isinstance(leaf, EXPECTED):
            with suppress(OSError):  # nobody reads standard error any more
                click.echo(f"scoreboard: {' '.join(str(leaf).split())}", err=True)
            return EXIT_FAILED
    return next((leaf.code for leaf in found if isinstance(leaf, SystemExit)), EXIT_INTERRUPTED)


# ---- serving --------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--host", help="Address to listen on.  [127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on, 0 for any.  [8000]")
@click.option("--actions", type=FilePath(path_type=Path), help="A file of your own actions.  [config/actions.toml]")
@click.option(
    "--demo/--no-demo", "with_demo", default=None, help="Have demo players move the board; or make none at all."
)
@configured(makes_data=True)
def serve(settings: Settings, with_demo: bool | None) -> None:
    """Run one node of the server."""
    if with_demo and not settings.embedded.enabled:
        raise SettingsError("--demo: demo players live on embedded servers only (--embedded)")
    if with_demo and not settings.embedded.demo_accounts:
        raise SettingsError("--demo: demo players need their accounts (embedded.demo_accounts)")
    load_rules(settings)  # here too: what is wrong with these files is said before any store is started
    load_branding(settings.page, settings.origin)
    node_keys = settings.security.keys(settings.embedded.data_dir)
    trio.run(app.serve, settings, node_keys, partial(_announce, settings, with_demo))


async def _announce(settings: Settings, with_demo: bool | None, node: app.Node, port: int) -> None:
    """Once requests are answered: says where, and on embedded stores brings the demo players. Nothing that they do ends
    the node."""
    url = settings.server.public_url or settings.server.local_url(port)
    if not settings.embedded.enabled:
        observe.announce(f"scoreboard is live: {url}")
        return
    known: Collection[str] = ()
    with demo.failures_logged():
        known = await user_store.known(node.stores, list(demo.HANDLES))
        if settings.embedded.demo_accounts:
            await demo.load(node.accounts, known)
            known = demo.HANDLES
    login = f"\n  log in as {demo.LOGIN} with the password {demo.PASSWORD}" if demo.LOGIN in known else ""
    observe.announce(f"\n  scoreboard is live: {url}{login}\n")
    if known:
        demo.warn_beyond_loopback(settings.server.host, settings.server.public_url)
    with demo.failures_logged():
        opening = not (await node.leaderboard.snapshot()).rows
        if settings.embedded.demo_accounts and (opening or with_demo):
            own = settings.server.local_url(port)
            await demo.play(own, node.accounts, node.rules, opening=opening, for_ever=bool(with_demo))


@cli.command("check-config")
@click.option("--config", type=FilePath(path_type=Path), help="A TOML file beside the defaults.")
@click.option("--actions", type=FilePath(path_type=Path), help="A file of your own actions.")
def check_config(config: Path | None, actions: Path | None) -> None:
    """Check settings, actions and logo without touching the stores; exit 2 and one line that says what is wrong and
    where."""
    settings = load_settings(config, {"actions.file": actions and str(actions)}, environ, needs_stores=False)
    rules, page = load_rules(settings), settings.page
    load_branding(page, settings.origin)
    line = f"the settings are good ({settings.environment}); {len(rules)} action types from {actions_file(settings)}"
    if page.accent:
        light, dark = shown_accents(page.accent)
        line += f"; accent {light} on light, {dark} on dark"
    click.echo(line)


# ---- the stores -----------------------------------------------------------------------------------------------------


@cli.command()
@configured(makes_data=True)
def migrate(settings: Settings) -> None:
    """Bring the database up to date. Safe from two nodes at once."""

    async def run() -> None:
        async with stores_of(settings):
            click.echo("the database is up to date")

    trio.run(run)


@cli.command("rebuild-board")
@configured()
def rebuild_board(settings: Settings) -> None:
    """Rebuild every Redis board from PostgreSQL."""

    async def run() -> None:
        async with stores_of(settings) as stores:
            for board in BOARDS:
                began = time.monotonic()
                version = await projector.rebuild_board(stores, board)
                click.echo(f"{board.id}: rebuilt in {time.monotonic() - began:.2f} s, epoch {version.epoch}")

    trio.run(run)


@cli.command()
@configured()
def verify(settings: Settings) -> None:
    """Compare the action log, the scores and Redis; exit 1 if they differ."""

    async def run() -> bool:
        is_equal = True
        async with stores_of(settings) as stores:
            for board in BOARDS:
                found, users = await differences(stores, board)
                for about, what in list(found.items())[:MAX_PRINTED_DIFFERENCES]:
                    click.echo(f"{about}: {what}")
                if len(found) > MAX_PRINTED_DIFFERENCES:
                    click.echo(f"… and {len(found) - MAX_PRINTED_DIFFERENCES} more")
                click.echo(f"{board.id}: {users} users compared, {len(found)} differences")
                is_equal = is_equal and not found
        return is_equal

    if not trio.run(run):
        sys.exit(1)


# ---- keys -----------------------------------------------------------------------------------------------------------


@cli.group()
def keys() -> None:
    """Make keys for production."""


@keys.command("new")
@click.option(
    "--folder", type=FilePath(path_type=Path, file_okay=False), help="Write the files of a secrets folder instead."
)
@click.option("--env", "as_variables", is_flag=True, help="Print environment variables instead of TOML.")
def new_keys(folder: Path | None, as_variables: bool) -> None:
    """Print a signing key and a master key, as settings for production. All nodes share them, and nothing keeps a
    copy."""
    made = new_production_keys()
    if folder is not None:
        for file in write_secrets(folder, made):
            click.echo(str(file))
    elif as_variables:
        for (section, table, item), value in made.items():
            click.echo(f"SCOREBOARD_{section.upper()}__{table.upper()}__{item}={value}")
    else:
        for (section, table, item), value in made.items():
            click.echo(f'[{section}.{table}]\n{item} = "{value}"\n')


cli.add_command(build_users_group(configured))
