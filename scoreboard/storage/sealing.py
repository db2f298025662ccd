"""Seals the log: appends leaves for new rows of action_logs and audit_events to the tree, and keeps signed checkpoints.

1. Only rows with decided order numbers are sealed (storage.postgres.settled), so none can appear before a leaf later.
2. A batch is one transaction: leaves, nodes and checkpoint are there together or not at all.
3. One node at a time seals, by an advisory lock of that transaction. Were two to seal at once, both would add leaves at
   the same place, and the second would fail.
4. A checkpoint is kept when there are new leaves and the last one is a minute old. Others are signed when somebody
   asks, and not kept: they are the same for the same tree.

Called by workers.sealer on every node. Coroutines run in asyncio.
"""

from collections.abc import Callable
from typing import NamedTuple

import asyncpg

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.domain.merkle import Range, append, nodes_of
from scoreboard.drivers.bridge import postgres_errors
from scoreboard.drivers.deadline import bounded_aio
from scoreboard.drivers.postgres_connector import BACKGROUND_LOCK_TIMEOUT_SQL
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import log_leaves, log_tree
from scoreboard.storage.postgres.settled import Settled

ADVISORY_LOCK_KEY = 0x5C0BEB0C  # one sealing session at a time
BATCH_LEAVES = 1024  # about 10 ms of PostgreSQL, and less than a millisecond of this process
CHECKPOINT_SECONDS = 60.0  # between two that are kept: a million in two years
STEP_TIMEOUT_SECONDS = 5.0  # of a batch; a silent PostgreSQL must not keep the lock

LOCK_SQL = "SELECT pg_try_advisory_xact_lock($1)"

Sign = Callable[[int, bytes], str]
"""The signed note for a size and a root."""


class Sealed(NamedTuple):
    """What one step did."""

    leaves: int  # that were added
    size: int  # leaves of the tree
    waiting: float  # seconds that the oldest record waits to be sealed; 0: none does


class Sealing:
    """The steps of one node, on a connection of its own."""

    __slots__ = ("_conn", "_settled", "_stores", "sign")

    def __init__(self, stores: Stores, sign: Sign | None) -> None:
        """`sign` None: this node has no key, and keeps no checkpoints."""
        self._stores, self.sign = stores, sign
        self._conn: asyncpg.Connection | None = None
        self._settled = Settled()

    async def step_aio(self) -> Sealed:
        """Seals at most BATCH_LEAVES records. Nothing, while another node seals or nothing new is decided.

        Raises StorageUnavailable; then the next step starts from what is stored. Cancelling is safe.
        """
        if self._conn is None or self._conn.is_closed():
            self._conn, self._settled = await self._stores.connect_aio(), Settled()
        with postgres_errors():
            return await bounded_aio(self._conn, STEP_TIMEOUT_SECONDS, self._step_aio(self._conn))

    async def _step_aio(self, conn: asyncpg.Connection) -> Sealed:
        below = await self._settled.advance_aio(conn)
        added = 0
        async with conn.transaction():
            await conn.execute(BACKGROUND_LOCK_TIMEOUT_SQL)  # a new user's secret locks the user's row
            if await conn.fetchval(LOCK_SQL, ADVISORY_LOCK_KEY):
                added = await seal_aio(conn, below)
                if self.sign is not None:
                    await keep_checkpoint_aio(conn, self.sign)
        head = await log_tree.head_aio(conn)
        waiting = await conn.fetchval(log_leaves.WAITING_SQL, head.last)
        return Sealed(added, head.size, max(waiting or 0.0, 0.0))

    def close(self) -> None:
        """Ends the connection; the next step makes a new one."""
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


async def seal_aio(conn: asyncpg.Connection, below: int) -> int:
    """Appends the next records with order numbers below `below`, in the caller's transaction. Returns how many.

    Raises StorageUnavailable when a user was erased meanwhile: the next try does without his rows.
    """
    head = await log_tree.head_aio(conn)
    upper = await conn.fetchval(log_leaves.UPPER_SQL, head.last, below, BATCH_LEAVES)
    if upper is None:
        return 0
    try:
        await conn.execute(log_leaves.SECRETS_SQL, head.last, upper)
    except asyncpg.ForeignKeyViolationError as exc:
        raise StorageUnavailable("postgresql", "a user was erased meanwhile", StoreCondition.BUSY) from exc
    rows = await conn.fetch(log_leaves.LEAVES_SQL, head.last, upper)
    if any(row["leaf"] is None for row in rows):
        raise StorageUnavailable("postgresql", "a record came without its secret", StoreCondition.BUSY)
    if not rows:  # all were of users who have just been erased
        return 0
    edge = await log_tree.hashes_aio(conn, nodes_of(Range(0, head.size)))
    made = append(head.size, edge, [row["leaf"] for row in rows])
    await log_tree.add_aio(conn, head.size, [row["order"] for row in rows], [row["subject"] for row in rows], made)
    return len(rows)


async def keep_checkpoint_aio(conn: asyncpg.Connection, sign: Sign) -> None:
    """Signs and keeps a checkpoint, if one is due."""
    size = (await log_tree.head_aio(conn)).size
    last = await conn.fetchrow(log_tree.LAST_CHECKPOINT_SQL)
    if size == 0 or (last is not None and (last["size"] >= size or 0 <= last["age"] < CHECKPOINT_SECONDS)):
        return
    (root,) = await log_tree.roots_aio(conn, [Range(0, size)])
    await conn.execute(log_tree.ADD_CHECKPOINT_SQL, size, sign(size, root))
