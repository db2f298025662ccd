"""The commands `scoreboard server-keys …`: keys with which game servers act for their users.

A key is printed alone on standard output, once. `create`, `rotate` and `revoke` end when every node that reaches
PostgreSQL has read the change, so a script may use the new key in its next line.
Tested by tests/cli/test_server_keys.py.
"""

import click
import msgspec
import trio

from scoreboard.cli.options import configured
from scoreboard.cli.run import with_stores
from scoreboard.cli.terminal import accepted, printable, utf8_text
from scoreboard.domain.scopes import Scope
from scoreboard.drivers.stores import Stores
from scoreboard.operations.admin import server_keys as administration
from scoreboard.operations.admin.server_keys import MAX_EXPIRY_DAYS, MAX_OVERLAP_SECONDS, NewKey
from scoreboard.operations.authenticator import REVOCATION_CHECK_SECONDS
from scoreboard.settings.model import Settings
from scoreboard.storage.postgres.server_keys import ListedKey

DEFAULT_OVERLAP_SECONDS = 3600.0  # time to bring the new key to every game server
# Until every node has read a change: the time between two reads, and of the read itself.
PROPAGATION_SECONDS = REVOCATION_CHECK_SECONDS + 0.5


@click.group("server-keys")
def server_keys() -> None:
    """Make, rotate, revoke and list keys of game servers."""


@server_keys.command("create")
@configured()
@click.argument("name", callback=utf8_text)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    required=True,
    help="What the key may do; give it once for each scope.",
)
@click.option("--days", type=click.FloatRange(0, MAX_EXPIRY_DAYS, min_open=True), help="The key expires then.  [never]")
def create(settings: Settings, name: str, scopes: tuple[str, ...], days: float | None) -> None:
    """Make a key NAME, and print it. It is not stored, so this is the only time."""

    async def work(stores: Stores) -> None:
        made = await administration.create_key(stores, name, [Scope(scope) for scope in scopes], days)
        await _print_key(accepted(made))

    with_stores(settings, work)


@server_keys.command("rotate")
@configured()
@click.argument("key", callback=utf8_text)
@click.option(
    "--overlap",
    type=click.FloatRange(0, MAX_OVERLAP_SECONDS),
    default=DEFAULT_OVERLAP_SECONDS,
    show_default=True,
    help="Seconds for which the old key stays valid.",
)
def rotate(settings: Settings, key: str, overlap: float) -> None:
    """Give KEY another secret, and print the new key. KEY is an id or a name.

    The old key stays valid for the overlap. A key that was rotated before that is invalid at once.
    """

    async def work(stores: Stores) -> None:
        await _print_key(accepted(await administration.rotate_key(stores, key, overlap)))

    with_stores(settings, work)


@server_keys.command("revoke")
@configured()
@click.argument("key", callback=utf8_text)
def revoke(settings: Settings, key: str) -> None:
    """End KEY for good, on every node within two seconds. KEY is an id or a name."""

    async def work(stores: Stores) -> str:
        key_id = accepted(await administration.revoke_key(stores, key))
        await trio.sleep(PROPAGATION_SECONDS)
        return key_id

    click.echo(f"{with_stores(settings, work)} is revoked")


@server_keys.command("list")
@configured()
@click.option("--all", "with_revoked", is_flag=True, help="Also those that were revoked.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def list_server_keys(settings: Settings, with_revoked: bool, as_json: bool) -> None:
    """List keys by their age, a line each: id, name, scopes, made, last used, expires, state, separated by tabs.

    The last use is up to a minute old.
    """

    async def work(stores: Stores) -> None:
        async for key in administration.list_keys(stores, revoked=with_revoked):
            click.echo(_as_json(key) if as_json else _as_line(key))

    with_stores(settings, work)


async def _print_key(made: NewKey) -> None:
    click.echo(made.key)
    await trio.sleep(PROPAGATION_SECONDS)


def _state(key: ListedKey) -> str:
    return "revoked" if key.revoked_at else "overlap" if key.overlaps else "live"


def _as_line(key: ListedKey) -> str:
    times = (key.created_at, key.last_used_at, key.expires_at)
    shown = ("-" if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in times)
    return "\t".join((key.id, printable(key.name), ",".join(key.scopes), *shown, _state(key)))


def _as_json(key: ListedKey) -> str:
    times = {"createdAt": key.created_at, "lastUsedAt": key.last_used_at, "expiresAt": key.expires_at}
    times |= {"revokedAt": key.revoked_at}
    shown = {name: None if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in times.items()}
    return msgspec.json.encode(
        {"id": key.id, "name": key.name, "scopes": key.scopes, **shown, "state": _state(key)}
    ).decode()
