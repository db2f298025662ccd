"""The commands `keys …`: keys for production, and versions of the master key for action secrets.

Tested by tests/cli/test_keys.py.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click

from scoreboard.app.accounts import build_issuer
from scoreboard.cli.options import FilePath, configured
from scoreboard.cli.run import with_stores
from scoreboard.cli.terminal import BadArgument, CommandRefused
from scoreboard.domain.key_versions import ACTIVATION_SECONDS, DEFAULT_OVERLAP_MINUTES, VersionState, current_version
from scoreboard.drivers.stores import Stores
from scoreboard.operations import key_versions
from scoreboard.security.issuer import Issuer
from scoreboard.settings.keys import new_production_keys, new_signing_key, write_secrets
from scoreboard.settings.model import Settings
from scoreboard.storage.postgres import master_keys
from scoreboard.storage.postgres.master_keys import ListedVersion, Revocation

MAX_OVERLAP_MINUTES = 60 * 24 * 365  # a year

T = TypeVar("T")


@click.group()
def keys() -> None:
    """Make keys for production; rotate and revoke those of action secrets."""


@keys.command("new")
@click.option(
    "--folder", type=FilePath(path_type=Path, file_okay=False), help="Write the files of a secrets folder instead."
)
@click.option("--signing", is_flag=True, help="Only a signing key, to put beside the present one.")
@click.option("--env", "as_variables", is_flag=True, help="Print environment variables instead of TOML.")
def new_keys(folder: Path | None, signing: bool, as_variables: bool) -> None:
    """Print a signing key and a master key, as settings for production. All nodes share them, and nothing keeps a
    copy."""
    made = new_signing_key() if signing else new_production_keys()
    if folder is not None:
        for file in write_secrets(folder, made, beside_others=signing):
            click.echo(str(file))
    elif as_variables:
        for (section, table, item), value in made.items():
            click.echo(f"SCOREBOARD_{section.upper()}__{table.upper()}__{item}={value}")
    else:
        for (section, table, item), value in made.items():
            click.echo(f'[{section}.{table}]\n{item} = "{value}"\n')


@keys.command("rotate")
@configured()
@click.option(
    "--overlap-minutes",
    type=click.IntRange(1, MAX_OVERLAP_MINUTES),
    default=DEFAULT_OVERLAP_MINUTES,
    show_default=True,
    help="How long secrets of older versions stay valid.",
)
def rotate_keys(settings: Settings, overlap_minutes: int) -> None:
    """Make a new version of the master key while nodes run.

    Each session gets a secret of it with its next refresh. Secrets of older versions stay valid for the overlap, which
    is at least as long as an access token.
    """
    least = -(-settings.security.access_token_seconds // 60) + 1
    if overlap_minutes < least:
        raise BadArgument(
            f"--overlap-minutes: must be at least {least}: sessions get the new secret when their access token is "
            "renewed; `keys revoke` ends a version at once"
        )
    version = _run(settings, lambda stores, issuer: key_versions.rotate(stores, issuer, overlap_minutes))
    click.echo(
        f"version {version} is used in {ACTIVATION_SECONDS} s; older ones are valid for {overlap_minutes} minutes more"
    )


@keys.command("revoke")
@configured()
@click.argument("version", type=click.IntRange(1, 2**31 - 1))
def revoke_key(settings: Settings, version: int) -> None:
    """End VERSION of the master key at once, on every node within 2 s.

    Actions signed with a secret of it are refused; clients renew their session, which stays open, and send the action
    again. If no other version is in use, a new one is made.
    """
    done: Revocation | None = _run(settings, lambda stores, issuer: key_versions.revoke(stores, issuer, version))
    if done is None:
        raise CommandRefused(f"there is no version {version} of the master key")
    if not done.revoked:
        click.echo(f"version {version} was revoked before")
    elif done.successor is None:
        click.echo(f"version {version} is revoked")
    else:
        click.echo(f"version {version} is revoked; version {done.successor} is used from now on")


@keys.command("list")
@configured()
def list_keys(settings: Settings) -> None:
    """Print the versions of the master key: state, origin, and until when they are valid. Never a key."""

    async def work(stores: Stores, issuer: Issuer) -> tuple[int, dict[int, ListedVersion | None]]:
        stored, listed = await master_keys.read(stores), await master_keys.list_versions(stores)
        rows = dict[int, ListedVersion | None](dict.fromkeys(issuer.master_keys)) | {
            each.version: each for each in listed
        }
        return current_version(issuer.master_keys, issuer.current_version, stored), rows

    current, rows = _run(settings, work)
    for version in sorted(rows):
        row = rows[version]
        state = row.state if row else VersionState.LIVE
        origin = f"made {_minute(row.created)}" if row and row.wrapped_by else "of the settings"
        if row and row.state is VersionState.REVOKED and row.revoked:
            origin = f"revoked {_minute(row.revoked)}"
        ends = f", valid until {_minute(row.ends)}" if row and row.ends and state.verifies else ""
        click.echo(f"{version}  {'current' if version == current else state}  {origin}{ends}")


def _run(settings: Settings, work: Callable[[Stores, Issuer], Awaitable[T]]) -> T:
    issuer = build_issuer(settings, settings.security.keys(settings.embedded.data_dir))
    return with_stores(settings, lambda stores: work(stores, issuer))


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")
