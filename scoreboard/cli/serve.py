"""The commands `serve` and `check-config`: run one node of the server, and check its settings without the stores.

Tested by tests/e2e/test_operating.py.
"""

from functools import partial
from os import environ
from pathlib import Path

import click
import trio

from scoreboard.app.node import Node
from scoreboard.app.node import serve as run_node
from scoreboard.app.outside import check_files
from scoreboard.cli import demo
from scoreboard.cli.options import FilePath, configured
from scoreboard.domain.errors import SettingsError
from scoreboard.drivers.stores import Stores
from scoreboard.operations.action_rules import actions_file, load_rules
from scoreboard.settings.model import Settings, load_settings
from scoreboard.storage.postgres import users as user_store
from scoreboard.telemetry import logging
from scoreboard.web.pages.branding import load_branding, shown_accents


@click.command()
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
    load_rules(settings)  # here too, so that a mistake in these files is reported before any store is started
    load_branding(settings.page, settings.origin)
    check_files(settings)
    node_keys = settings.security.keys(settings.embedded.data_dir)
    trio.run(run_node, settings, node_keys, partial(_announce, settings, with_demo))


async def _announce(settings: Settings, with_demo: bool | None, node: Node, stores: Stores, port: int) -> None:
    """Prints the address once requests are answered. On embedded stores it also starts the demo players, whose failures
    never end the node."""
    url = settings.server.public_url or settings.server.local_url(port)
    if not settings.embedded.enabled:
        logging.announce(f"scoreboard is live: {url}")
        return
    accounts, demo_names = node.account_parts.accounts, set[str]()
    with demo.failures_logged():
        demo_names = set(await user_store.emails_by_name(stores, list(demo.HANDLES)))
        if settings.embedded.demo_accounts:
            await demo.load(accounts, demo_names)
            demo_names = set(demo.HANDLES)
    login = f"\n  log in as {demo.LOGIN} with the password {demo.PASSWORD}" if demo.LOGIN in demo_names else ""
    logging.announce(f"\n  scoreboard is live: {url}{login}\n")
    if demo_names:
        demo.warn_beyond_loopback(settings.server.host, settings.server.public_url)
    with demo.failures_logged():
        is_first_start = not (await node.reads.leaderboard.snapshot()).rows
        if settings.embedded.demo_accounts and (is_first_start or with_demo):
            own_url = settings.server.local_url(port)
            await demo.play(own_url, accounts, node.writes.rules, opening=is_first_start, for_ever=bool(with_demo))


@click.command("check-config")
@click.option("--config", type=FilePath(path_type=Path), help="A TOML file beside the defaults.")
@click.option("--actions", type=FilePath(path_type=Path), help="A file of your own actions.")
def check_config(config: Path | None, actions: Path | None) -> None:
    """Check settings, actions and logo without the stores; exit 2 and one line that says what is wrong and where."""
    settings = load_settings(config, {"actions.file": actions and str(actions)}, environ, needs_stores=False)
    rules, page = load_rules(settings), settings.page
    load_branding(page, settings.origin)
    check_files(settings)
    line = f"the settings are good ({settings.environment}); {len(rules)} action types from {actions_file(settings)}"
    if page.accent:
        light, dark = shown_accents(page.accent)
        line += f"; accent {light} on light, {dark} on dark"
    click.echo(line)
