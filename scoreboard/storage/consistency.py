"""Compares what the stores say of the same scores: the action log, the scores, and a board in Redis.

Called by `scoreboard verify`. Reads only; asyncio-flavoured; whole tables in chunks, so memory holds one set of users
per store.
"""

from typing import Any
from uuid import UUID

import asyncpg

from scoreboard.domain.boards import Board
from scoreboard.domain.ranking import read_member
from scoreboard.storage.connections.bridge import postgres_errors, redis_errors
from scoreboard.storage.connections.namespace import BoardKeys

CHUNK = 5_000  # rows a round trip
UNHURRIED = "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"

LEDGER_SQL = """
SELECT s.user_id, s.total_score, s.reached, coalesce(l.points, 0) AS logged
FROM scores s LEFT JOIN (SELECT user_id, sum(points_awarded)::bigint AS points FROM action_logs GROUP BY user_id) l USING (user_id)
ORDER BY s.total_score DESC, s.reached"""
UNSCORED_SQL = """
SELECT user_id, sum(points_awarded)::bigint AS logged FROM action_logs l
WHERE NOT EXISTS (SELECT FROM scores s WHERE s.user_id = l.user_id) GROUP BY user_id"""


class Differences(dict[str, str]):
    """What differs, by what it is about: a user id, mostly."""

    def note(self, about: object, what: str) -> None:
        name = str(about)
        self[name] = f"{self[name]}; {what}" if name in self else what


async def differences(conn: asyncpg.Connection, client: Any, board: Board, names: BoardKeys) -> tuple[Differences, int]:
    """What differs, and how many users were compared. Raises StorageUnavailable."""
    found = Differences()
    ledger: list[tuple[UUID, int, int]] = []
    with postgres_errors():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(UNHURRIED)
            async for user, total, reached, logged in conn.cursor(LEDGER_SQL, prefetch=CHUNK):
                ledger.append((user, total, reached))
                if total != logged:
                    found.note(user, f"total_score is {total}, the action log adds up to {logged}")
            async for user, logged in conn.cursor(UNSCORED_SQL, prefetch=CHUNK):
                found.note(user, f"has no score, the action log adds up to {logged}")
    with redis_errors():
        await _board(client, board, names, ledger, found)
    return found, len(ledger)


async def _board(
    client: Any, board: Board, names: BoardKeys, ledger: list[tuple[UUID, int, int]], found: "Differences"
) -> None:
    if await client.hget(names.meta, "epoch") is None:
        found.note(board.id, "the board is not in Redis (being rebuilt?)")
        return
    for start in range(0, len(ledger), CHUNK):
        chunk = ledger[start : start + CHUNK]
        totals = await client.zmscore(names.totals, [str(user) for user, _, _ in chunk])
        order = await client.zrange(names.order, start, start + CHUNK - 1)
        for at, ((user, total, reached), score) in enumerate(zip(chunk, totals, strict=True)):
            there = read_member(order[at]) if at < len(order) else None
            if score is None or int(score) != total:
                found.note(
                    user, f"total_score is {total}, the board's total is {'missing' if score is None else int(score)}"
                )
            if there is None or there[0] != user:
                found.note(
                    user, f"ranks {start + at + 1}, the board has {'nobody' if there is None else there[0]} there"
                )
            elif there[1:] != (total, reached):
                found.note(user, f"is ordered by {(total, reached)}, on the board by {there[1:]}")
    for name, size in (("totals", await client.zcard(names.totals)), ("order", await client.zcard(names.order))):
        if size != len(ledger):
            found.note(f"{board.id}:{name}", f"has {size} users, the scores {len(ledger)}")
