"""Starts of actions in PostgreSQL: given here, used by storage.postgres.conditions, pruned by the housekeeping.

Every function may raise StorageUnavailable. Tested in tests/operations/test_start_action.py.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import USER_DELETED, too_many_starts
from scoreboard.drivers.stores import Stores

MAX_STARTS_PER_MINUTE = 20  # of a user; more: 429
MAX_OPEN_STARTS = 100  # of a user; the oldest goes
RETENTION_HOURS = 1  # after its end: an action that names it is told that it has expired, or was used

# One user's starts are counted and made by one transaction at a time. FOR NO KEY UPDATE: actions do not wait.
LOCK_SQL = "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE"

# Milliseconds until another start is possible, 0: now.
WAIT_SQL = """
SELECT coalesce((extract(epoch FROM started_at + interval '1 minute' - clock_timestamp()) * 1000)::bigint, 0)
FROM action_starts WHERE user_id = $1 AND started_at > clock_timestamp() - interval '1 minute'
ORDER BY started_at DESC OFFSET $2 LIMIT 1"""

DROP_OLDEST_SQL = """
DELETE FROM action_starts WHERE id IN (
    SELECT id FROM action_starts WHERE user_id = $1 ORDER BY started_at DESC, id OFFSET $2)"""

MAKE_SQL = """
INSERT INTO action_starts (user_id, action_type, expires_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
RETURNING id, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms"""

PRUNE_SQL = "DELETE FROM action_starts WHERE expires_at < now() - make_interval(hours => $1)"


class Start(NamedTuple):
    """A start that was given. `expires_ms`: Unix milliseconds."""

    id: UUID
    expires_ms: int


async def make(stores: Stores, user: UUID, action_type: str, expires: float) -> Start | Refusal:
    """A new start, for `expires` seconds. A Refusal when the user had too many in the last minute, or is gone."""
    return await stores.in_transaction(_make_aio, user, action_type, expires)


async def _make_aio(conn: asyncpg.Connection, user: UUID, action_type: str, expires: float) -> Start | Refusal:
    if not await conn.fetch(LOCK_SQL, user):
        return USER_DELETED
    wait = await conn.fetchval(WAIT_SQL, user, MAX_STARTS_PER_MINUTE - 1)
    if wait:
        return too_many_starts(wait)
    await conn.execute(DROP_OLDEST_SQL, user, MAX_OPEN_STARTS - 1)
    (row,) = await conn.fetch(MAKE_SQL, user, action_type, expires)
    return Start(row["id"], row["expires_ms"])


async def prune(stores: Stores) -> None:
    """Deletes starts that ended more than RETENTION_HOURS ago."""
    await stores.execute(PRUNE_SQL, RETENTION_HOURS)
