"""Versions of the master key in PostgreSQL: read by every node, changed by `scoreboard keys rotate` and `revoke`.

Each change is one transaction with its audit event, and one at a time. Times are PostgreSQL's. Every function may raise
StorageUnavailable. Tested in tests/operations/test_key_versions.py.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from scoreboard.domain.audit import OPERATOR, AuditEvent, AuditKind
from scoreboard.domain.key_versions import ACTIVATION_SECONDS, StoredVersion, VersionState, verifying_versions
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events

_STATE = """
CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
     WHEN ends_at <= clock_timestamp() THEN 'ended'
     WHEN active_at > clock_timestamp() THEN 'waiting'
     ELSE 'live' END AS state"""
READ_SQL = f"SELECT version, wrapped, wrapped_by, {_STATE} FROM master_keys ORDER BY version"  # noqa: S608 – constants
LIST_SQL = f"""
SELECT version, {_STATE}, wrapped_by, created_at, active_at, ends_at, revoked_at
FROM master_keys ORDER BY version"""  # noqa: S608 – constants

# Conflicts with itself, and lets nodes read. Held for milliseconds.
LOCK_SQL = "LOCK TABLE master_keys IN SHARE ROW EXCLUSIVE MODE"

ADD_SQL = """
INSERT INTO master_keys (version, wrapped, wrapped_by, active_at)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))"""

# $1: versions of the settings, $2: the new version, $3: minutes of the overlap. A version that ends earlier stays so.
END_OLDER_SQL = """
WITH newest AS (SELECT active_at + make_interval(mins => $3) AS ends_at FROM master_keys WHERE version = $2)
INSERT INTO master_keys AS m (version, ends_at)
SELECT version, newest.ends_at FROM newest, (
    SELECT unnest($1::int[]) AS version UNION SELECT version FROM master_keys
) AS older WHERE version <> $2
ON CONFLICT (version) DO UPDATE SET ends_at = least(m.ends_at, excluded.ends_at)"""

REVOKE_SQL = """
INSERT INTO master_keys (version, revoked_at) VALUES ($1, clock_timestamp())
ON CONFLICT (version) DO UPDATE SET revoked_at = clock_timestamp(), wrapped = NULL, wrapped_by = NULL"""

Wrap = Callable[[int], bytes]
"""Makes the encrypted key of a new version."""


class ListedVersion(NamedTuple):
    """A version as an operator sees it. It has no key."""

    version: int
    state: VersionState
    wrapped_by: int | None  # the version of the settings that it is encrypted with; None: it is one of the settings
    created: datetime
    active: datetime
    ends: datetime | None
    revoked: datetime | None


class Revocation(NamedTuple):
    """What `revoke` has done. `successor`: the version that it had to make, or None."""

    revoked: bool
    successor: int | None = None


async def read(stores: Stores) -> list[StoredVersion]:
    """All rows, with their states now."""
    return [_stored(row) for row in await stores.fetch(READ_SQL)]


async def list_versions(stores: Stores) -> list[ListedVersion]:
    """All rows for an operator."""
    rows = await stores.fetch(LIST_SQL)
    return [
        ListedVersion(
            row["version"],
            VersionState(row["state"]),
            row["wrapped_by"],
            row["created_at"],
            row["active_at"],
            row["ends_at"],
            row["revoked_at"],
        )
        for row in rows
    ]


async def rotate(
    stores: Stores, of_settings: Collection[int], wrap: Wrap, wrapped_by: int, overlap_minutes: int
) -> int:
    """Adds a version, and returns it. It is used ACTIVATION_SECONDS later; all older ones verify for `overlap_minutes`
    more."""
    return await stores.in_transaction(_rotate_aio, of_settings, wrap, wrapped_by, overlap_minutes)


async def revoke(
    stores: Stores, version: int, of_settings: Collection[int], wrap: Wrap, wrapped_by: int
) -> Revocation | None:
    """Ends a version for good, and erases its key here. If no other version is in use, another one is made, which is
    used at once. None: there is no such version."""
    return await stores.in_transaction(_revoke_aio, version, of_settings, wrap, wrapped_by)


def _stored(row: asyncpg.Record) -> StoredVersion:
    return StoredVersion(row["version"], VersionState(row["state"]), row["wrapped"], row["wrapped_by"])


async def _read_locked_aio(conn: asyncpg.Connection) -> list[StoredVersion]:
    await conn.execute(LOCK_SQL)
    return [_stored(row) for row in await conn.fetch(READ_SQL)]


async def _rotate_aio(
    conn: asyncpg.Connection, of_settings: Collection[int], wrap: Wrap, wrapped_by: int, overlap_minutes: int
) -> int:
    stored = await _read_locked_aio(conn)
    version = _next_version(of_settings, stored)
    await conn.execute(ADD_SQL, version, wrap(version), wrapped_by, float(ACTIVATION_SECONDS))
    await conn.execute(END_OLDER_SQL, list(of_settings), version, overlap_minutes)
    details = {"version": version, "overlapMinutes": overlap_minutes}
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.MASTER_KEY_ROTATED, OPERATOR, details=details)])
    return version


async def _revoke_aio(
    conn: asyncpg.Connection, version: int, of_settings: Collection[int], wrap: Wrap, wrapped_by: int
) -> Revocation | None:
    stored = await _read_locked_aio(conn)
    known = {each.version: each.state for each in stored}
    if version not in known and version not in of_settings:
        return None
    if known.get(version) is VersionState.REVOKED:
        return Revocation(revoked=False)
    await conn.execute(REVOKE_SQL, version)
    events = [AuditEvent(AuditKind.MASTER_KEY_REVOKED, OPERATOR, details={"version": version})]
    successor = None
    waiting = {each.version for each in stored if each.state is VersionState.WAITING}
    if not verifying_versions(of_settings, stored) - waiting - {version}:
        successor = _next_version(of_settings, stored)
        await conn.execute(ADD_SQL, successor, wrap(successor), wrapped_by, 0.0)
        events.append(AuditEvent(AuditKind.MASTER_KEY_ROTATED, OPERATOR, details={"version": successor}))
    await audit_events.add_aio(conn, events)
    return Revocation(revoked=True, successor=successor)


def _next_version(of_settings: Collection[int], stored: Sequence[StoredVersion]) -> int:
    return max((*of_settings, *(each.version for each in stored)), default=0) + 1
