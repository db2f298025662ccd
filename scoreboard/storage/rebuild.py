"""How a board in Redis is brought back to what PostgreSQL says: by replaying missed turns, or by building it anew beside the live one.

Called by the projector and by `scoreboard rebuild-board`. asyncio-flavoured. Whatever it does may be done twice, by two nodes, or be cut
off at any point: rows go in by version, and a board built aside gets in place only under a newer epoch than the live one's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import asyncpg

from scoreboard.domain.boards import Board, Mark
from scoreboard.domain.ranking import order_key
from scoreboard.storage import ledger, outbox
from scoreboard.storage.bridge import postgres_errors, redis_errors
from scoreboard.storage.projection import UPDATES, BoardKeys, Projection, keys, script

CHUNK = 2_000  # users a pipeline: a few milliseconds of Redis
ASIDE_SECONDS = 600  # a board built aside and never finished goes away by itself
UNHURRIED = "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '60s'"
LOCKED = "SET LOCAL lock_timeout = '2s'; LOCK TABLE commits IN SHARE MODE"  # nobody commits between the last replay and the switch
CLOSE_ENOUGH = 20  # rounds of replay before the lock is taken anyway

SCORES_SQL = "SELECT user_id, total_score, reached, version FROM scores"
EPOCH_SQL = "SELECT nextval('board_epochs')"
RAISE_EPOCH_SQL = "SELECT setval('board_epochs', $1)"


class Superseded(Exception):
    """The board that was being mended is not there any more: emptied again, or another projector was faster."""


class BoardState(NamedTuple):
    """What Redis says of a board and of itself. `epoch` 0: there is no board."""

    epoch: int
    version: int
    run_id: str  # of the server that made the board
    server: str  # run id of the server that answers
    applied: Mapping[int, int]


async def state(client: Any, board: Board) -> BoardState:
    """Raises StorageUnavailable."""
    names = keys(board)
    with redis_errors():
        async with client.pipeline(transaction=True) as pipe:
            pipe.info("server")
            pipe.hgetall(names.meta)
            pipe.hgetall(names.applied)
            info, meta, applied = await pipe.execute()
    return BoardState(
        int(meta.get(b"epoch", 0)),
        int(meta.get(b"version", 0)),
        meta.get(b"run_id", b"").decode(),
        str(info["run_id"]),
        {int(writer): int(turn) for writer, turn in applied.items()},
    )


async def replay(conn: asyncpg.Connection, projection: Projection, epoch: int, applied: Mapping[int, int], settled: float) -> int:
    """Applies the turns that are missing. Returns how many users' rows went out.

    Raises outbox.Pruned, Superseded, StorageUnavailable.
    """
    count = 0
    for lack in await outbox.missing(conn, applied, settled):
        rows = await ledger.standings(conn, lack.users)
        for start in range(0, len(rows), CHUNK):  # only the last part says that the turns are in
            last = start + CHUNK >= len(rows)
            span = lack.span if last else lack.span._replace(last=lack.span.first - 1)
            if isinstance(await projection.call(epoch, span, rows[start : start + CHUNK], []), int):
                raise Superseded
        count += len(rows)
    return count


async def rebuild(conn: asyncpg.Connection, client: Any, board: Board) -> Mark:
    """Builds the board anew from PostgreSQL and puts it in place. Returns its mark.

    Raises Superseded and StorageUnavailable; then the live board is as it was.
    """
    with postgres_errors():
        before = await state(client, board)
        epoch = await _next_epoch(conn, before.epoch)
        aside = _aside(board, epoch)
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(UNHURRIED)
            turns = await outbox.last_turns(conn)
            await _fill(conn, client, aside, epoch, turns)
        return await _close(conn, client, board, aside, before.epoch, epoch)


async def renew(conn: asyncpg.Connection, client: Any, board: Board) -> Mark:
    """Replays what a board that came back old lacks, then gives it a new epoch. As `rebuild`; raises outbox.Pruned too."""
    with postgres_errors():
        before = await state(client, board)
        return await _close(conn, client, board, keys(board), before.epoch, await _next_epoch(conn, before.epoch))


async def _next_epoch(conn: asyncpg.Connection, found: int) -> int:
    """A number that no board had; a PostgreSQL restored from a backup may have forgotten some."""
    epoch = int(await conn.fetchval(EPOCH_SQL))
    return epoch if epoch > found else int(await conn.fetchval(RAISE_EPOCH_SQL, found + 1))


def _aside(board: Board, epoch: int) -> BoardKeys:
    tag = f"{{{board.id}}}:next:{epoch}"
    return BoardKeys(f"{tag}:totals", f"{tag}:order", f"{tag}:entry", f"{tag}:meta", f"{tag}:applied")


async def _fill(conn: asyncpg.Connection, client: Any, aside: BoardKeys, epoch: int, turns: Mapping[int, int]) -> None:
    with redis_errors():
        async with client.pipeline(transaction=False) as pipe:
            pipe.hset(aside.meta, "epoch", epoch)
            if turns:
                pipe.hset(aside.applied, mapping=turns)
            await pipe.execute()
            cursor = await conn.cursor(SCORES_SQL)
            while rows := await cursor.fetch(CHUNK):
                totals, order, entry = {}, {}, {}
                for user, total, reached, version in rows:
                    key = order_key(total, reached)
                    totals[str(user)] = total
                    order[key + user.bytes] = 0
                    entry[user.bytes] = key + version.to_bytes(8, "big")
                pipe.zadd(aside.totals, totals)
                pipe.zadd(aside.order, order)
                pipe.hset(aside.entry, mapping=entry)
                await pipe.execute()
            for name in aside:
                pipe.expire(name, ASIDE_SECONDS)
            await pipe.execute()


async def _close(conn: asyncpg.Connection, client: Any, board: Board, target: BoardKeys, found: int, epoch: int) -> Mark:
    """Replays until little is missing, then the rest and the switch while nobody commits."""
    names = keys(board)
    aside = target != names
    projection = Projection(client, board, lambda: None, target=target, channel=f"{target.meta}:nobody" if aside else UPDATES)
    current = epoch if aside else found
    for _ in range(CLOSE_ENOUGH):
        if not await replay(conn, projection, current, await _applied(client, target), 0.0):
            break
    switch = client.register_script(script("switch.lua"))
    async with conn.transaction():
        await conn.execute(f"{UNHURRIED}; {LOCKED}")
        while await replay(conn, projection, current, await _applied(client, target), 0.0):
            pass
        server = (await state(client, board)).server
        with redis_errors():
            version = await switch(keys=[*names, UPDATES, *(target if aside else ())], args=[epoch, board.id, server, current])
    if not version:
        raise Superseded
    return Mark(epoch, int(version))


async def _applied(client: Any, target: BoardKeys) -> dict[int, int]:
    with redis_errors():
        return {int(writer): int(turn) for writer, turn in (await client.hgetall(target.applied)).items()}
