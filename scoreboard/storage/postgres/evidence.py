"""Evidence in PostgreSQL: blobs that users upload, by user and SHA-256. Pruned by the housekeeping.

Every function may raise StorageUnavailable. Tested in tests/operations/test_evidence.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import USER_DELETED, too_much_evidence
from scoreboard.drivers.stores import Stores

MAX_BYTES_A_DAY = 8_388_608  # of a user and day (UTC); more: 429
UNNAMED_RETENTION_DAYS = 2  # of a blob that no action names: longer than the day that the bound above is about

LOCK_SQL = "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE"
KNOWN_SQL = "SELECT EXISTS (SELECT FROM evidence WHERE user_id = $1 AND sha256 = $2)"
TODAY_SQL = """
SELECT coalesce(sum(length(content)), 0)::bigint AS bytes,
       (extract(epoch FROM day + interval '1 day' - now()) * 1000)::bigint AS rest_of_day_ms
FROM (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS day) d
LEFT JOIN evidence ON user_id = $1 AND uploaded_at >= day
GROUP BY day"""
ADD_SQL = "INSERT INTO evidence (user_id, sha256, content) VALUES ($1, $2, $3)"
READ_SQL = "SELECT content FROM evidence WHERE user_id = $1 AND sha256 = $2"
PRUNE_SQL = """
DELETE FROM evidence e WHERE uploaded_at < now() - make_interval(days => $1)
AND NOT EXISTS (SELECT FROM held_actions h WHERE h.user_id = e.user_id AND h.evidence_sha256 = e.sha256)"""


async def add(stores: Stores, user: UUID, sha256: bytes, content: bytes) -> Refusal | None:
    """Keeps a blob. None: it is there, maybe since before. A Refusal when it is too much for a day, or the user is
    gone."""
    return await stores.in_transaction(_add_aio, user, sha256, content)


async def _add_aio(conn: asyncpg.Connection, user: UUID, sha256: bytes, content: bytes) -> Refusal | None:
    if not await conn.fetch(LOCK_SQL, user):
        return USER_DELETED
    if await conn.fetchval(KNOWN_SQL, user, sha256):
        return None
    (today,) = await conn.fetch(TODAY_SQL, user)
    if today["bytes"] + len(content) > MAX_BYTES_A_DAY:
        return too_much_evidence(today["rest_of_day_ms"])
    await conn.execute(ADD_SQL, user, sha256, content)
    return None


async def read(stores: Stores, user: UUID, sha256: bytes) -> bytes | None:
    """The blob; None when the user has uploaded none with that hash, or it was pruned."""
    content: bytes | None = await stores.fetchval(READ_SQL, user, sha256)
    return content


async def prune(stores: Stores) -> None:
    """Deletes blobs that no action names, when they are older than UNNAMED_RETENTION_DAYS."""
    await stores.execute(PRUNE_SQL, UNNAMED_RETENTION_DAYS)
