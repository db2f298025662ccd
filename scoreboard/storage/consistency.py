"""Compares the totals that three places hold: the action log, the totals of a board, and that board in Redis.

Called by `scoreboard verify`. Only reads. Tables are read in chunks; memory holds one row a user. Coroutines run in
asyncio.

Tested in tests/operations/admin/test_verify.py.
"""

from typing import Any
from uuid import UUID

import asyncpg

from scoreboard.domain.boards import Board
from scoreboard.domain.ranking import read_member
from scoreboard.drivers.bridge import postgres_errors, redis_errors
from scoreboard.drivers.deadline import ended_connection
from scoreboard.drivers.namespace import BoardKeys
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.totals import for_board

CHUNK_ROWS = 5_000  # rows a round trip
UNLIMITED_SQL = (
    "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; "
    "SET LOCAL idle_in_transaction_session_timeout = 0"
)

# $1: the types of actions that count for the board; NULL: all.
_LEDGER = """
SELECT s.user_id, s.total_score, s.reached, coalesce(l.points, 0) AS logged,
       EXISTS (SELECT FROM users u WHERE u.id = s.user_id AND u.ban <> 0) AS is_hidden
FROM {totals} LEFT JOIN (
    SELECT user_id, sum(points_awarded)::bigint AS points FROM action_logs l
    WHERE ($1::text[] IS NULL OR action_type = ANY($1)) AND {counts} GROUP BY user_id
) l USING (user_id)
ORDER BY s.total_score DESC, s.reached"""
_UNSCORED = """
SELECT user_id, sum(points_awarded)::bigint AS logged FROM action_logs l
WHERE ($1::text[] IS NULL OR action_type = ANY($1)) AND {counts}
  AND NOT EXISTS (SELECT FROM {totals} WHERE s.user_id = l.user_id)
GROUP BY user_id"""
# Whether an action of the log (l) counts: no reversal of it is in force.
_COUNTS = "NOT EXISTS (SELECT FROM reversals r WHERE r.user_id = l.user_id AND r.seq = l.seq AND r.undone_at IS NULL)"
LEDGER_SQL, UNSCORED_SQL = (sql.replace("{counts}", _COUNTS) for sql in (_LEDGER, _UNSCORED))


CORRECTIONS_SQL = """
SELECT (SELECT count(*) FROM users WHERE ban <> 0) AS banned,
       (SELECT count(*) FROM reversals WHERE undone_at IS NULL) AS reversed"""


class Differences(dict[str, str]):
    """Differences by what they are about: a user id, or the name of a key."""

    def note(self, about: object, what: str) -> None:
        name = str(about)
        self[name] = f"{self[name]}; {what}" if name in self else what


async def compare_stores_aio(stores: Stores, board: Board) -> tuple[Differences, int]:
    """`differences_aio` on a connection of its own. Raises StorageUnavailable."""
    conn = await stores.connect_aio()
    try:
        with ended_connection(conn):
            return await differences_aio(conn, stores.redis, board, stores.namespace.board(board))
    finally:
        conn.terminate()


async def differences_aio(
    conn: asyncpg.Connection, client: Any, board: Board, keys: BoardKeys
) -> tuple[Differences, int]:
    """What differs, and how many users were compared. Raises StorageUnavailable."""
    found = Differences()
    shown: list[tuple[UUID, int, int]] = []
    users = 0
    types = None if board.action_types is None else sorted(board.action_types)
    (totals_sql, args), (unscored_sql, _) = for_board(LEDGER_SQL, board, 1), for_board(UNSCORED_SQL, board, 1)
    with postgres_errors():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(UNLIMITED_SQL)
            async for user, total, reached, logged, is_hidden in conn.cursor(
                totals_sql, types, *args, prefetch=CHUNK_ROWS
            ):
                users += 1
                if not is_hidden:
                    shown.append((user, total, reached))
                if total != logged:
                    found.note(user, f"total_score is {total}, the action log adds up to {logged}")
            async for user, logged in conn.cursor(unscored_sql, types, *args, prefetch=CHUNK_ROWS):
                found.note(user, f"has no score, the action log adds up to {logged}")
    with redis_errors():
        await _compare_board_aio(client, board, keys, shown, found)
    return found, users


async def _compare_board_aio(
    client: Any, board: Board, keys: BoardKeys, shown: list[tuple[UUID, int, int]], found: Differences
) -> None:
    if await client.hget(keys.meta, "epoch") is None:
        found.note(board.id, "the board is not in Redis (being rebuilt?)")
        return
    for start in range(0, len(shown), CHUNK_ROWS):
        chunk = shown[start : start + CHUNK_ROWS]
        totals = await client.zmscore(keys.totals, [str(user) for user, _, _ in chunk])
        order = await client.zrange(keys.order, start, start + CHUNK_ROWS - 1)
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
    for name, size in (("totals", await client.zcard(keys.totals)), ("order", await client.zcard(keys.order))):
        if size != len(shown):
            found.note(f"{board.id}:{name}", f"has {size} users, the scores {len(shown)}")
