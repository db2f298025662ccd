"""Repairs a board in Redis from PostgreSQL: replays missed batches, or rebuilds the board under staging keys.

Called by the projector and by `scoreboard rebuild-board`. Coroutines run in asyncio. No lock is held in either store: a
rebuild that stops half-way, or continues much later, does no harm.

1. A board is built under staging keys from one snapshot of the totals, with each writer's last sequence in that
   snapshot. Missed batches are replayed until few are left.
2. The switch replaces the live board in one step, if the new one is whole and its epoch is newer. The new board is
   marked incomplete: what was committed between the last replay and the switch went to the old board. So ranks are null
   and reads are stale.
3. Missing batches are replayed once more. A commit after the switch already finds the new epoch. So one replay that
   begins after the switch finds everything, and the board is marked complete.

A board that came back with an older content gets a new epoch by steps 2 and 3. So every node drops the newer versions
that it knows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import asyncpg

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import TOP_SIZE, Board, BoardVersion
from scoreboard.domain.errors import ScoreboardError
from scoreboard.drivers.bridge import postgres_errors, redis_errors
from scoreboard.drivers.deadline import ended_connection
from scoreboard.drivers.namespace import BoardKeys
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import ledger, outbox
from scoreboard.storage.postgres.outbox import MissingBatches
from scoreboard.storage.postgres.totals import for_board
from scoreboard.storage.profiles import announce_aio
from scoreboard.storage.redis.projection import REMOVED_KEY, Projection
from scoreboard.storage.redis.scripts import load_board_script, load_script

CHUNK_USERS = 2_000  # users a pipeline: about 10 ms of Redis
STAGING_TTL_SECONDS = 60  # staging keys expire this long after the last chunk
UNLIMITED_SQL = (
    "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; "
    "SET LOCAL idle_in_transaction_session_timeout = '60s'"
)
MAX_REPLAYS = 10  # before a switch; each is much shorter than the previous one, and step 3 replays the rest

# PostgreSQL encodes the columns for Redis: a UUID or an integer made in Python would cost more than the row. Rows come
# in the board's order: Redis appends a member to a sorted set several times faster than it inserts one.
SCORES_SQL = """
SELECT user_id::text::bytea, total_score::text::bytea,
       int8send(9223372036854775807 - total_score) || int8send(reached) AS key,
       int8send(version), uuid_send(user_id), banned.ban
FROM {totals} LEFT JOIN (SELECT id, ban FROM users WHERE ban <> 0) AS banned ON banned.id = s.user_id
ORDER BY total_score DESC, s.reached"""
# Unix milliseconds; NULL when nobody has a score.
LAST_CHANGE_SQL = f"""
SELECT max((extract(epoch FROM updated_at) * 1000)::bigint)
FROM (SELECT updated_at FROM {{shown}} ORDER BY total_score DESC, reached LIMIT {TOP_SIZE}) AS shown"""  # noqa: S608 – a constant
# Redis keeps names and pictures for five minutes.
RENAMED_SQL = (
    "SELECT DISTINCT unnest(users) AS user_id FROM commits WHERE names AND committed_at > now() - interval '10 minutes'"
)
EPOCH_SQL = "SELECT nextval('board_epochs')"
RAISE_EPOCH_SQL = "SELECT setval('board_epochs', $1)"


class StaleEpoch(ScoreboardError):
    """The board that was being repaired is gone: Redis was emptied again, or another projector was faster."""


class BoardState(NamedTuple):
    """The state of a board in Redis. `is_whole`: it is this installation's, and all its keys belong together."""

    is_whole: bool
    epoch: int  # 0: there is none
    version: int
    run_id: str  # of the server that made the board
    server: str  # run id of the server that answered
    is_incomplete: bool
    applied: Mapping[int, int]  # of a whole board


class Rebuilder:
    """Repairs one board. `renew_lease` is called between two chunks of long work; it raises StaleEpoch when the lease
    is lost."""

    __slots__ = ("_complete", "_names_changed", "_state", "_switch", "board", "namespace", "renew_lease", "stores")

    def __init__(self, stores: Stores, board: Board, renew_lease: Callable[[], Awaitable[None]] | None = None) -> None:
        self.stores, self.board, self.namespace, self.renew_lease = stores, board, stores.namespace, renew_lease
        self._names_changed = stores.redis.register_script(load_script("profile_changed.lua"))
        self._state = stores.redis.register_script(load_board_script("state.lua"))
        self._switch = stores.redis_bulk.register_script(load_board_script("switch.lua"))
        self._complete = stores.redis.register_script(load_board_script("complete.lua"))

    async def state_aio(self, keys: BoardKeys | None = None) -> BoardState:
        """The state of the board under these keys; None: the live board. Raises StorageUnavailable."""
        with redis_errors():
            info = await self.stores.redis.info("server")
            whole, epoch, version, run_id, incomplete, applied = await self._state(
                keys=list(keys or self.namespace.board(self.board)), args=[self.stores.installation]
            )
        sequences = {int(writer): int(sequence) for writer, sequence in zip(applied[::2], applied[1::2], strict=True)}
        return BoardState(
            bool(whole), epoch, version, run_id.decode(), str(info["run_id"]), bool(incomplete), sequences
        )

    async def apply_aio(
        self, conn: asyncpg.Connection, projection: Projection, epoch: int, missing: list[MissingBatches]
    ) -> int:
        """Replays missed batches on a board of that epoch. Returns how many rows were sent. Raises StaleEpoch and
        StorageUnavailable. Cancelling leaves a part of the batches missing; the next repair replays them."""
        count = 0
        for batches in missing:
            with postgres_errors():
                await announce_aio(self.stores, conn, self._names_changed, self.board, list(batches.renamed))
                rows = await ledger.current_rows_aio(conn, self.board, batches.users)
            for start in range(0, max(1, len(rows)), CHUNK_USERS):  # the last chunk alone has their sequences
                last = start + CHUNK_USERS >= len(rows)
                sequences = batches.sequences if last else batches.sequences._replace(last=batches.sequences.first - 1)
                if isinstance(await projection.call_aio(epoch, sequences, rows[start : start + CHUNK_USERS], []), int):
                    raise StaleEpoch
                await self._keep_lease_aio()
            count += len(rows)
        return count

    async def rebuild_aio(self, conn: asyncpg.Connection) -> BoardVersion:
        """Rebuilds the board from PostgreSQL and replaces the live one. Returns its version.

        Raises StaleEpoch, outbox.BatchesPruned and StorageUnavailable. Then, and after a cancellation, the live board
        is unchanged, or the new one is in place and marked incomplete.
        """
        with postgres_errors():
            epoch = await self._next_epoch_aio(conn)
            staging = self.namespace.next_board(self.board, epoch)
            await self._clear_staging_aio(epoch)
            renamed = [row["user_id"] for row in await conn.fetch(RENAMED_SQL)]
            await announce_aio(self.stores, conn, self._names_changed, self.board, renamed)
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                await conn.execute(UNLIMITED_SQL)
                sequences = await outbox.last_sequences_aio(conn)
                await self._fill_aio(conn, staging, epoch, sequences)
            projection = self._projection(staging, channel=f"{staging.meta}:updates")
            for _ in range(MAX_REPLAYS):
                if not await self._replay_aio(conn, projection, epoch, staging):
                    break
            await self._put_in_place_aio(epoch, epoch, staging)
            return await self.complete_aio(conn, epoch)

    async def bump_epoch_aio(self, conn: asyncpg.Connection, found: int) -> BoardVersion:
        """Gives the live board, whose epoch is `found`, a new epoch, and replays what it lacks. Returns its version.

        Raises as `rebuild_aio`.
        """
        with postgres_errors():
            epoch = await self._next_epoch_aio(conn)
            await self._put_in_place_aio(epoch, found)
            return await self.complete_aio(conn, epoch)

    async def complete_aio(self, conn: asyncpg.Connection, epoch: int) -> BoardVersion:
        """Replays what was committed before the switch, and marks the board as complete. Returns its version. Raises
        outbox.BatchesPruned, StaleEpoch and StorageUnavailable."""
        live = self.namespace.board(self.board)
        with postgres_errors():
            await self._replay_aio(conn, self._projection(live), epoch, live)
        with redis_errors():
            version = await self._complete(
                keys=[*live, self.namespace.updates], args=[self.stores.installation, epoch, self.board.id]
            )
        if not version:
            raise StaleEpoch
        return BoardVersion(epoch, int(version))

    async def _replay_aio(self, conn: asyncpg.Connection, projection: Projection, epoch: int, keys: BoardKeys) -> int:
        """Replays until the board has all that was committed before the call. Returns how many rows were sent."""
        committed, count = await outbox.last_sequences_aio(conn), 0
        while True:
            found = await self.state_aio(keys)
            if not found.is_whole or found.epoch != epoch:
                raise StaleEpoch
            missing = await outbox.missing_aio(conn, self.board, found.applied, committed, 0.0)
            if not missing:
                return count
            count += await self.apply_aio(conn, projection, epoch, missing)

    def _projection(self, keys: BoardKeys, channel: str = "") -> Projection:
        return Projection(
            self.stores.redis_bulk,
            self.board,
            lambda: None,
            namespace=self.namespace,
            installation=lambda: self.stores.installation,
            target=keys,
            channel=channel,
        )

    async def _next_epoch_aio(self, conn: asyncpg.Connection) -> int:
        """An epoch that no board has had. The sequence of a PostgreSQL restored from a backup may be behind; then it is
        raised."""
        found = (await self.state_aio()).epoch
        epoch = int(await conn.fetchval(EPOCH_SQL))
        return epoch if epoch > found else int(await conn.fetchval(RAISE_EPOCH_SQL, found + 1))

    async def _clear_staging_aio(self, epoch: int) -> None:
        """Deletes the staging keys of an unfinished board, and only then stores the epoch of the new one. So at most
        one staging board exists."""
        name = self.namespace.building(self.board)
        with redis_errors():
            before = await self.stores.redis_bulk.get(name)
            if before is not None:
                await self.stores.redis_bulk.unlink(*self.namespace.next_board(self.board, int(before)))
            await self.stores.redis_bulk.set(name, epoch)

    async def _put_in_place_aio(self, epoch: int, expected: int, staging: BoardKeys | None = None) -> None:
        server = (await self.state_aio()).server
        keys = [*self.namespace.board(self.board), self.namespace.updates, *(staging or ())]
        with redis_errors():
            if not await self._switch(
                keys=keys, args=[self.stores.installation, epoch, self.board.id, server, expected]
            ):
                raise StaleEpoch

    async def _fill_aio(
        self, conn: asyncpg.Connection, staging: BoardKeys, epoch: int, sequences: Mapping[int, int]
    ) -> None:
        """Sends a chunk to Redis while the next one is read from PostgreSQL. The sizes are written last: until then the
        board is not whole."""
        size = removed = 0
        sending: asyncio.Task[None] | None = None
        try:
            sql, args = for_board(SCORES_SQL, self.board)
            cursor = await conn.cursor(sql, *args)
            while rows := await cursor.fetch(CHUNK_USERS):
                totals: list[bytes] = []
                order: list[Any] = []
                entry: list[bytes] = []
                for user, total, key, version, raw, ban in rows:
                    if ban is None:
                        totals += (total, user)
                        order += (0, key + raw)
                        entry += (raw, key + version)
                    else:  # registered, so that no row from before the ban can bring the user in
                        entry += (raw, REMOVED_KEY + version + (key if ban == Ban.SHADOW else b""))
                size += len(totals) // 2
                removed += len(rows) - len(totals) // 2
                if sending is not None:
                    await sending
                    await self._keep_lease_aio()
                sending = asyncio.ensure_future(self._send_aio(staging, totals, order, entry))
            if sending is not None:
                await sending
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        sql, args = for_board(LAST_CHANGE_SQL, self.board)
        updated = await conn.fetchval(sql, *args) or 0
        with redis_errors():
            async with self.stores.redis_bulk.pipeline(transaction=True) as pipe:
                if sequences:
                    pipe.hset(staging.applied, mapping=sequences)
                meta = {
                    "epoch": epoch,
                    "installation": self.stores.installation,
                    "size": size,
                    "removed": removed,
                    "writers": len(sequences),
                }
                pipe.hset(staging.meta, mapping={**meta, "updated": updated})
                for name in staging:
                    pipe.expire(name, STAGING_TTL_SECONDS)
                await pipe.execute()

    async def _send_aio(self, staging: BoardKeys, totals: list[bytes], order: list[Any], entry: list[bytes]) -> None:
        with redis_errors():
            # one transaction, so that every key has an expiry
            async with self.stores.redis_bulk.pipeline(transaction=True) as pipe:
                if totals:
                    pipe.execute_command("ZADD", staging.totals, *totals)
                    pipe.execute_command("ZADD", staging.order, *order)
                pipe.execute_command("HSET", staging.entry, *entry)
                for name in (staging.totals, staging.order, staging.entry):
                    pipe.expire(name, STAGING_TTL_SECONDS)
                await pipe.execute()

    async def _keep_lease_aio(self) -> None:
        if self.renew_lease is not None:
            await self.renew_lease()


async def rebuild_board_aio(stores: Stores, board: Board) -> BoardVersion:
    """Rebuilds the board, also when it is sound. Returns its version. Raises StorageUnavailable, StaleEpoch and
    outbox.BatchesPruned."""
    conn = await stores.connect_aio()
    try:
        with ended_connection(conn):
            return await Rebuilder(stores, board).rebuild_aio(conn)
    finally:
        conn.terminate()
