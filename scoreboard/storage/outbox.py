"""The outbox `commits`: which turns a projection lacks, and which nobody needs any more.

Called by the projector and by housekeeping. asyncio-flavoured; a turn is known by its writer and its number, and a writer's turns have
no gap.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.storage.projection import Span

KEPT = "1 hour"  # design: long enough for any replay, short enough to stay small
PRUNED_AT_ONCE = 10_000  # rows a statement, to stay far below the statement time-out
TURNS_AT_ONCE = 500  # turns one replay call covers; at most 256 users each

# A loose index scan: one probe a writer, however many turns are kept.
WRITERS_SQL = """
WITH RECURSIVE w(writer) AS (
    (SELECT writer FROM commits ORDER BY writer LIMIT 1)
    UNION ALL
    SELECT (SELECT c.writer FROM commits c WHERE c.writer > w.writer ORDER BY c.writer LIMIT 1) FROM w WHERE w.writer IS NOT NULL
)
SELECT w.writer, (SELECT max(turn) FROM commits c WHERE c.writer = w.writer) AS last FROM w WHERE w.writer IS NOT NULL"""

TURNS_SQL = """
SELECT turn, users FROM commits
WHERE writer = $1 AND turn > $2 AND committed_at <= clock_timestamp() - $3 * interval '1 second' ORDER BY turn LIMIT $4"""

PRUNE_SQL = f"""
DELETE FROM commits WHERE (writer, turn) IN (
    SELECT c.writer, c.turn FROM unnest($1::bigint[], $2::bigint[]) AS a(writer, turn)
    JOIN commits c ON c.writer = a.writer AND c.turn <= a.turn
    WHERE c.committed_at < now() - interval '{KEPT}' AND c.turn < (SELECT max(l.turn) FROM commits l WHERE l.writer = c.writer)
    LIMIT {PRUNED_AT_ONCE})"""  # noqa: S608 – constants


class Missing(NamedTuple):
    """Turns of one writer that a projection lacks, and the users they concern."""

    span: Span
    users: frozenset[UUID]


class Pruned(Exception):
    """Turns that a projection lacks are no longer kept: it must be rebuilt."""


async def last_turns(conn: asyncpg.Connection) -> dict[int, int]:
    """Each writer's last committed turn."""
    return {row["writer"]: row["last"] for row in await conn.fetch(WRITERS_SQL)}


async def missing(conn: asyncpg.Connection, applied: Mapping[int, int], settled: float) -> list[Missing]:
    """What a projection with these applied turns lacks, at most TURNS_AT_ONCE turns a writer, each older than `settled` seconds.

    Raises Pruned.
    """
    found = []
    for writer, last in (await last_turns(conn)).items():
        done = applied.get(writer, 0)
        if last <= done:
            continue
        rows = await conn.fetch(TURNS_SQL, writer, done, settled, TURNS_AT_ONCE)
        if rows:
            if rows[0]["turn"] != done + 1:
                raise Pruned
            found.append(Missing(Span(writer, done + 1, rows[-1]["turn"]), frozenset(user for row in rows for user in row["users"])))
    return found


async def prune(conn: asyncpg.Connection, applied: Mapping[int, int]) -> int:
    """Deletes old turns that every projection has; each writer's last one stays, as the start of the next. Returns how many went."""
    writers: Sequence[int] = list(applied)
    return int((await conn.execute(PRUNE_SQL, writers, [applied[writer] for writer in writers])).rpartition(" ")[2])
