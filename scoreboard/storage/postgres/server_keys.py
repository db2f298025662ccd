"""Server keys in PostgreSQL. Only digests of keys are stored; each change adds an audit event in its transaction.

Called by operations.server_keys and operations.admin.server_keys. Every function may raise StorageUnavailable.

Tested in tests/operations/test_server_keys.py and tests/cli/test_server_keys.py.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events

MAX_LIVE_KEYS = 1_000  # every node has all of them in memory, some 500 bytes each; at this number none can be made

# A concurrent `create` may have counted the same keys: the bound is exceeded by one then, which does no harm.
CREATE = """
INSERT INTO server_keys (id, name, scopes, secret_sha256, expires_at)
SELECT $1, $2, $3, $4, now() + make_interval(secs => $5::float)
WHERE (SELECT count(*) FROM server_keys WHERE revoked_at IS NULL) < $6
ON CONFLICT DO NOTHING RETURNING id"""
NAME_IS_TAKEN = "SELECT EXISTS (SELECT FROM server_keys WHERE lower(name) = lower($1) AND revoked_at IS NULL)"

# $1: an id or a name; the id goes first, since a name may look like one
FIND = """
SELECT id FROM server_keys WHERE revoked_at IS NULL AND (id = $1 OR lower(name) = lower($1))
ORDER BY id = $1 DESC LIMIT 1"""
ROTATE = """
UPDATE server_keys SET secret_sha256 = $2, rotated_at = now(),
       previous_sha256 = CASE WHEN $3::float > 0 THEN secret_sha256 END,
       previous_until = CASE WHEN $3::float > 0 THEN now() + make_interval(secs => $3::float) END
WHERE id = $1 AND revoked_at IS NULL RETURNING id"""
REVOKE = "UPDATE server_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id"

LIVE = """
SELECT id, scopes, secret_sha256, previous_sha256, extract(epoch FROM previous_until)::float AS previous_until,
       extract(epoch FROM expires_at)::float AS expires_at
FROM server_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""
_LISTED = """
SELECT id, name, scopes, created_at, last_used_at, expires_at, revoked_at, previous_until > now() AS overlaps
FROM server_keys WHERE"""
READ = f"{_LISTED} id = $1"
LIST = f"""{_LISTED} ($1 OR revoked_at IS NULL) AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3))
ORDER BY created_at, id LIMIT $4"""

# Only forward: another node may have noted a later use.
NOTE_USED = """
UPDATE server_keys SET last_used_at = now()
WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < now())"""

PAGE_KEYS = 500  # of a list, for one round trip


class StoredKey(NamedTuple):
    """What a node verifies a key with. Times are Unix seconds by PostgreSQL's clock; None: never."""

    id: str
    scopes: tuple[str, ...]
    secret_sha256: bytes
    previous_sha256: bytes | None  # of the key before the last rotation
    previous_until: float | None
    expires_at: float | None

    def __repr__(self) -> str:
        """Without the digests, which must not be in a log."""
        return f"StoredKey({self.id}, {', '.join(self.scopes)})"


class ListedKey(NamedTuple):
    """A key as an operator reads it: everything but its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    overlaps: bool  # the key before the last rotation is valid too


async def create(
    stores: Stores,
    key_id: str,
    name: str,
    scopes: Sequence[str],
    secret_sha256: bytes,
    seconds: float | None,
    actor: str,
) -> bool:
    """Stores a new key, which expires after `seconds`; None: never. False, and no change: the name is a live key's, or
    there are MAX_LIVE_KEYS."""
    return await stores.in_transaction(_create_aio, key_id, name, scopes, secret_sha256, seconds, actor)


async def _create_aio(
    conn: asyncpg.Connection,
    key_id: str,
    name: str,
    scopes: Sequence[str],
    secret_sha256: bytes,
    seconds: float | None,
    actor: str,
) -> bool:
    made = await conn.fetchval(CREATE, key_id, name, list(scopes), secret_sha256, seconds, MAX_LIVE_KEYS)
    if made is not None:
        await _note_aio(conn, AuditKind.SERVER_KEY_CREATED, actor, {"key": key_id, "scopes": list(scopes)})
    return made is not None


async def is_name_taken(stores: Stores, name: str) -> bool:
    """Whether a live key has this name."""
    return bool(await stores.fetchval(NAME_IS_TAKEN, name))


async def find(stores: Stores, named: str) -> str | None:
    """The id of the live key with this id or name."""
    found: str | None = await stores.fetchval(FIND, named)
    return found


async def rotate(stores: Stores, key_id: str, secret_sha256: bytes, overlap_seconds: float, actor: str) -> bool:
    """Replaces the secret; the old one stays valid for so many seconds. An older one than that is invalid from now on.
    False: there is no such live key."""
    details: dict[str, object] = {"key": key_id, "overlapSeconds": overlap_seconds}
    arguments = (key_id, secret_sha256, overlap_seconds)
    return await stores.in_transaction(_change_aio, ROTATE, arguments, AuditKind.SERVER_KEY_ROTATED, actor, details)


async def revoke(stores: Stores, key_id: str, actor: str) -> bool:
    """Makes the key and its predecessor invalid for good. False: there is no such live key."""
    details: dict[str, object] = {"key": key_id}
    return await stores.in_transaction(_change_aio, REVOKE, (key_id,), AuditKind.SERVER_KEY_REVOKED, actor, details)


async def _change_aio(
    conn: asyncpg.Connection,
    sql: str,
    arguments: Sequence[object],
    kind: AuditKind,
    actor: str,
    details: dict[str, object],
) -> bool:
    if await conn.fetchval(sql, *arguments) is None:
        return False
    await _note_aio(conn, kind, actor, details)
    return True


async def _note_aio(conn: asyncpg.Connection, kind: AuditKind, actor: str, details: dict[str, object]) -> None:
    await audit_events.add_aio(conn, [AuditEvent(kind, actor, None, details)])


async def live(stores: Stores) -> list[StoredKey]:
    """All keys that are neither revoked nor expired."""
    return [
        StoredKey(
            row["id"],
            tuple(row["scopes"]),
            row["secret_sha256"],
            row["previous_sha256"],
            row["previous_until"],
            row["expires_at"],
        )
        for row in await stores.fetch(LIVE)
    ]


async def page(stores: Stores, after: ListedKey | None, *, revoked: bool, size: int = PAGE_KEYS) -> list[ListedKey]:
    """The next `size` keys by their creation; `revoked`: also those that were revoked. `after`: the last key of the
    previous page."""
    cursor = (after.created_at, after.id) if after else (None, "")
    return [_listed(row) for row in await stores.fetch(LIST, revoked, *cursor, size)]


async def read(stores: Stores, key_id: str) -> ListedKey | None:
    """One key, also a revoked one; None when there is none with that id."""
    row = await stores.fetchrow(READ, key_id)
    return None if row is None else _listed(row)


def _listed(row: asyncpg.Record) -> ListedKey:
    return ListedKey(
        row["id"],
        row["name"],
        tuple(row["scopes"]),
        row["created_at"],
        row["last_used_at"],
        row["expires_at"],
        row["revoked_at"],
        bool(row["overlaps"]),
    )


async def note_used(stores: Stores, key_ids: Collection[str]) -> None:
    """Notes that the keys were used now."""
    await stores.execute(NOTE_USED, list(key_ids))
