"""The outbox `commits`: which batches a projection lacks, which PostgreSQL has lost, and which rows can be deleted.

Called by the projector and by housekeeping. A batch is identified by its writer and its sequence, which is the
column `turn`. A writer's sequences have no gap. Coroutines run in asyncio.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import ScoreboardError
from scoreboard.domain.ledger_rows import SequenceRange

RETENTION = "1 hour"  # design: long enough for any replay, short enough to stay small
MAX_PRUNED_ROWS = 10_000  # rows a statement, to stay far below the statement time-out
MAX_REPLAYED_BATCHES = 500  # batches one replay call covers; at most 1000 users each

# A loose index scan: one probe for each writer, however many batches are stored.
WRITERS_SQL = """
WITH RECURSIVE w(writer) AS (
    (SELECT writer FROM commits ORDER BY writer LIMIT 1)
    UNION ALL
    SELECT (SELECT c.writer FROM commits c WHERE c.writer > w.writer ORDER BY c.writer LIMIT 1)
    FROM w WHERE w.writer IS NOT NULL
)
SELECT w.writer, (SELECT max(turn) FROM commits c WHERE c.writer = w.writer) AS last
FROM w WHERE w.writer IS NOT NULL"""

DETACHED_TIMEOUT_SECONDS = 5.0  # a detached writer whose entry was not renewed for this long is dead
WRITERS_AND_DETACHED_SQL = f"""
SELECT writer, last, NULL AS dead FROM ({WRITERS_SQL}) AS writers
UNION ALL
SELECT writer, NULL, seen_at < clock_timestamp() - interval '{DETACHED_TIMEOUT_SECONDS} seconds'
FROM detached_writers"""  # noqa: S608

BATCHES_SQL = """
SELECT turn, id, users, names, $5 = ANY(boards) AS touched,
       extract(epoch FROM clock_timestamp() - committed_at)::float AS age
FROM commits
WHERE writer = $1 AND turn > $2
  AND (committed_at <= clock_timestamp() - $3 * interval '1 second' OR committed_at > clock_timestamp())
ORDER BY turn LIMIT $4"""  # committed_at in the future: PostgreSQL failed over to a server whose clock is behind

PRUNE_SQL = f"""
DELETE FROM commits WHERE (writer, turn) IN (
    SELECT c.writer, c.turn FROM unnest($1::bigint[], $2::bigint[]) AS a(writer, turn)
    JOIN commits c ON c.writer = a.writer AND c.turn <= a.turn
    WHERE c.committed_at < now() - interval '{RETENTION}'
      AND c.turn < (SELECT max(l.turn) FROM commits l WHERE l.writer = c.writer)
    LIMIT {MAX_PRUNED_ROWS})"""  # noqa: S608 – constants

DETACH_SQL = """
INSERT INTO detached_writers (writer) SELECT unnest($1::bigint[])
ON CONFLICT (writer) DO UPDATE SET seen_at = clock_timestamp()"""
ATTACH_SQL = "DELETE FROM detached_writers WHERE writer = ANY($1)"


class MissingBatches(NamedTuple):
    """Batches of one writer that the projection of a board lacks. `users`: those whose totals on that board the
    batches may have changed, each with the id of the last row that names the user."""

    sequences: SequenceRange
    users: Mapping[UUID, int]
    renamed: frozenset[UUID]  # those whose name or picture changed
    age: float  # seconds, of the oldest batch


class BatchesPruned(ScoreboardError):
    """Batches that a projection lacks were pruned: it must be rebuilt."""


async def last_sequences_aio(conn: asyncpg.Connection) -> dict[int, int]:
    """Each writer's last committed sequence."""
    return {row["writer"]: row["last"] for row in await conn.fetch(WRITERS_SQL)}


def lost_batches(held: Mapping[int, int], committed: Mapping[int, int]) -> dict[int, int]:
    """How many batches of each writer are in `held` and not in `committed`: an older database was restored.

    `held`: the last sequence of each writer that a board or a node has. It must have been read before `committed`,
    since a batch is applied, and acknowledged, only after its commit.
    """
    return {
        writer: sequence - committed.get(writer, 0)
        for writer, sequence in held.items()
        if sequence > committed.get(writer, 0)
    }


async def missing_aio(
    conn: asyncpg.Connection, board: Board, applied: Mapping[int, int], committed: Mapping[int, int], settled: float
) -> list[MissingBatches]:
    """The batches that a board with these `applied` sequences lacks: at most MAX_REPLAYED_BATCHES for each writer,
    each older than `settled` seconds. Batches that did not change the board are included, so that a writer's sequences
    have no gap on any board.

    Raises BatchesPruned, and what asyncpg raises.
    """
    found = []
    for writer, last in committed.items():
        done = applied.get(writer, 0)
        if last <= done:
            continue
        rows = await conn.fetch(BATCHES_SQL, writer, done, settled, MAX_REPLAYED_BATCHES, board.id)
        if rows:
            if rows[0]["turn"] != done + 1:
                raise BatchesPruned
            users = {user: row["id"] for row in rows if row["touched"] for user in row["users"]}
            renamed = frozenset(user for row in rows if row["names"] for user in row["users"])
            found.append(
                MissingBatches(SequenceRange(writer, done + 1, rows[-1]["turn"]), users, renamed, rows[0]["age"])
            )
    return found


def applied_everywhere(boards: Sequence[Mapping[int, int]]) -> dict[int, int]:
    """The last sequence of each writer that every board has, from the applied sequences of each."""
    first, *others = boards
    return {
        writer: min(sequence, *(other[writer] for other in others)) if others else sequence
        for writer, sequence in first.items()
        if all(writer in other for other in others)
    }


async def prune_aio(conn: asyncpg.Connection, applied: Mapping[int, int]) -> int:
    """Deletes batches that are older than RETENTION and that every projection has, at most MAX_PRUNED_ROWS. Each
    writer's last batch stays. Returns how many were deleted."""
    writers: Sequence[int] = list(applied)
    return int((await conn.execute(PRUNE_SQL, writers, [applied[writer] for writer in writers])).rpartition(" ")[2])


# ---- writers without Redis ------------------------------------------------------------------------------------------


async def detach_aio(conn: asyncpg.Connection, writers: Sequence[int]) -> None:
    """Lists the writers as unable to reach Redis, or renews their entries. From now on every writer decides on the rate
    limits by the action log, and does not rely on the board's ranks."""
    await conn.execute(DETACH_SQL, list(writers))


async def attach_aio(conn: asyncpg.Connection, writers: Sequence[int]) -> None:
    """Removes the writers' entries: they reach Redis again, and all boards have what they committed."""
    await conn.execute(ATTACH_SQL, list(writers))


async def last_sequences_and_detached_aio(conn: asyncpg.Connection) -> tuple[dict[int, int], dict[int, bool]]:
    """Each writer's last committed sequence; and the detached writers, with whether each is dead."""
    rows = await conn.fetch(WRITERS_AND_DETACHED_SQL)
    return (
        {row["writer"]: row["last"] for row in rows if row["last"] is not None},
        {row["writer"]: row["dead"] for row in rows if row["dead"] is not None},
    )
