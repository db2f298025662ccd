"""Writes missing rows of `username_skeletons`: of users from plain SQL, from an import or from an older version.

Called by housekeeping, for a portion of the users at a time; `storage.postgres.users` writes the rows of all other
users. A user has a row for each skeleton of the name, unless another user had the skeleton before. Several nodes may
run it at once.

Tested by tests/operations/test_names.py.
"""

import asyncio
from uuid import UUID

import asyncpg

from scoreboard.domain.skeletons import skeletons
from scoreboard.drivers.stores import Stores

# How long a name is reserved after its user gave it up: people may mistake a new user of that name for the old one.
REST_DAYS = 30
PORTION_USERS = 100  # of a statement: at most some milliseconds of folding on the loop
PORTIONS_PER_RUN = 100  # a million users are checked in 100 runs; no request waits for it
# between two portions: a fifth of a core while there is much to write, a twentieth while there is nothing
PAUSE_SECONDS = 0.1
PRUNE_BATCH_ROWS = 10_000  # rows a statement, to stay far below the statement time-out

LOWEST_ID = UUID(int=0)

END_SQL = "SELECT id FROM users WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1"

# Users whose rows do not match the name: rows of another name, rows by the first rule, or too few.
OUTDATED_SQL = """
SELECT u.id, u.username FROM users AS u CROSS JOIN LATERAL (
    SELECT count(*) AS rows, max(s.skeleton_count) AS wanted, bool_or(s.username <> u.username) AS is_anothers
    FROM username_skeletons AS s WHERE s.user_id = u.id AND s.freed_at IS NULL
) AS held
WHERE u.id > $1 AND u.id <= coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      AND (rows IS DISTINCT FROM wanted OR is_anothers)
ORDER BY u.id"""

# Lock order: users before skeletons, as in a rename or a deletion.
# SKIP LOCKED: a user that is being renamed or deleted is left for the next pass.
# FOR NO KEY UPDATE: a rename waits for this lock before it has locked a skeleton. With FOR KEY SHARE its first lock
# would be granted, and its UPDATE would wait while it holds a skeleton.
LOCK_SQL = """
SELECT u.id, u.username FROM users AS u JOIN unnest($1::uuid[], $2::text[]) AS given(id, username) USING (id, username)
ORDER BY u.id FOR NO KEY UPDATE OF u SKIP LOCKED"""

# Deletes rows by the first rule, when the same name has other skeletons by today's rule. They do not rest, since the
# user has not given up the name.
REPLACE_SQL = """
DELETE FROM username_skeletons AS s USING unnest($1::uuid[], $2::text[]) AS given(id, username)
WHERE s.user_id = given.id AND s.username = given.username AND s.freed_at IS NULL AND s.skeleton_count = 0
      AND (s.user_id, s.skeleton) NOT IN (SELECT * FROM unnest($3::uuid[], $4::text[]))"""

FREE_SQL = """
UPDATE username_skeletons AS s SET freed_at = now() WHERE s.user_id = ANY($1::uuid[]) AND s.freed_at IS NULL
      AND (s.user_id, s.skeleton) NOT IN (SELECT * FROM unnest($2::uuid[], $3::text[]))"""

# A resting skeleton goes to a user who already has the name. A skeleton that another user has stays there and is not
# locked: a rename of that user may hold another skeleton and wait for this row, which would be a deadlock.
CLAIM_SQL = """
INSERT INTO username_skeletons AS s (skeleton, user_id, username, skeleton_count)
SELECT DISTINCT ON (skeleton COLLATE "C") skeleton, id, username, number
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[]) AS given(id, username, skeleton, number)
WHERE NOT EXISTS (
    SELECT FROM username_skeletons AS held
    WHERE held.skeleton = given.skeleton AND held.freed_at IS NULL AND held.user_id IS DISTINCT FROM given.id
)
ORDER BY skeleton COLLATE "C", id
ON CONFLICT (skeleton) DO UPDATE
SET user_id = excluded.user_id, username = excluded.username, skeleton_count = excluded.skeleton_count,
    freed_at = NULL
WHERE s.freed_at IS NOT NULL OR (s.user_id = excluded.user_id
      AND (s.username, s.skeleton_count) IS DISTINCT FROM (excluded.username, excluded.skeleton_count))"""

PRUNE_SQL = f"""
DELETE FROM username_skeletons WHERE skeleton IN (
    SELECT skeleton FROM username_skeletons WHERE freed_at < now() - interval '{REST_DAYS} days'
    LIMIT {PRUNE_BATCH_ROWS})"""  # noqa: S608 – constants


class Backfill:
    """One for the process. It stores the last user that was checked."""

    __slots__ = ("_after",)

    def __init__(self) -> None:
        self._after = LOWEST_ID

    async def run(self, stores: Stores, seconds: float) -> int:
        """One run on a connection of its own. Returns how many rows were written. Raises StorageUnavailable, also after
        `seconds`. Cancelling rolls back the current portion."""
        return await stores.on_own_connection(seconds, self.run_aio)

    async def run_aio(self, conn: asyncpg.Connection) -> int:
        """Checks the next PORTIONS_PER_RUN × PORTION_USERS users; after the last user it starts from the first one.

        Returns how many rows were written. First deletes up to PRUNE_BATCH_ROWS names that have rested for REST_DAYS.
        """
        await conn.execute(PRUNE_SQL)
        written = 0
        for _ in range(PORTIONS_PER_RUN):
            end = await conn.fetchval(END_SQL, self._after, PORTION_USERS - 1)
            written += await _portion_aio(conn, self._after, end)
            self._after = end or LOWEST_ID
            if end is None:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return written


async def _portion_aio(conn: asyncpg.Connection, after: UUID, end: UUID | None) -> int:
    outdated = await conn.fetch(OUTDATED_SQL, after, end)
    if not outdated:
        return 0
    async with conn.transaction():
        rows = await conn.fetch(LOCK_SQL, [row["id"] for row in outdated], [row["username"] for row in outdated])
        ids, names = [row["id"] for row in rows], [row["username"] for row in rows]
        found = [(user, name, skeletons(name)) for user, name in zip(ids, names, strict=True)]
        claims = [(user, name, skeleton, len(wanted)) for user, name, wanted in found for skeleton in wanted]
        claim_ids, claim_names, claimed, numbers = ([claim[column] for claim in claims] for column in range(4))
        await conn.execute(REPLACE_SQL, ids, names, claim_ids, claimed)
        await conn.execute(FREE_SQL, ids, claim_ids, claimed)
        return int((await conn.execute(CLAIM_SQL, claim_ids, claim_names, claimed, numbers)).rpartition(" ")[2])
