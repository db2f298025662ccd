"""Compares a board in Redis with PostgreSQL, and repairs the board when this node holds the lease.

1. Every node compares for itself, and stores the result in the board's agreement. Redis is read first: a batch is
   applied to the board, and acknowledged, only after its commit.
2. A batch younger than SETTLED_SECONDS is not missing: its committer sends it. An older one is replayed.
3. A board that is absent, damaged, or has batches that PostgreSQL does not have, is rebuilt (REBUILD). One that came
   back with an older content gets a new epoch (BUMP_EPOCH). One that is not complete is completed (COMPLETE).
4. Only the holder of the lease repairs. A holder that loses the lease stops between two parts of its work.
5. After a repair the board is still stale. The next comparison, which follows at once, ends that.
6. A writer that could not reach Redis is detached until all boards have what it committed. While Redis is away, its
   node renews the entry in PostgreSQL once a second. A writer whose entry was not renewed for so long as
   outbox.DETACHED_TIMEOUT_SECONDS is dead. Once nothing is missing, the holder of the lease attaches it and resets the
   windows of the rate limits.

Called by `workers.projector`. Coroutines run in asyncio. Tested in tests/workers/test_projector.py.
"""

from collections.abc import Callable
from functools import partial
from time import monotonic

import structlog

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.bridge import postgres_errors
from scoreboard.drivers.deadline import ConnectionDeadline
from scoreboard.drivers.stores import Connection, Stores
from scoreboard.storage.agreement import Agreement, DetachedWriters, StaleReason
from scoreboard.storage.comparison import Comparison, Repair, needed_repair, reasons_of
from scoreboard.storage.postgres import outbox
from scoreboard.storage.postgres.outbox import MissingBatches
from scoreboard.storage.rebuild import Rebuilder, StaleEpoch
from scoreboard.storage.redis.lease import Lease
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.telemetry import metrics

log = structlog.get_logger()

# A committer has this long to send its own batches to the board: longer than a call to Redis may take.
SETTLED_SECONDS = 0.3
DETACHED_INTERVAL_SECONDS = 1.0  # between two renewals of the entries of detached writers
# for a comparison; when PostgreSQL is silent, the next comparison must be able to try a new connection
CHECK_TIMEOUT_SECONDS = 3.0


class BoardRepair:
    """One board's comparisons and repairs on one node, with a PostgreSQL connection of its own."""

    __slots__ = (
        "_conn",
        "_detached_at",
        "agreement",
        "board",
        "lease",
        "limits",
        "projection",
        "stores",
        "writers",
    )

    def __init__(
        self,
        stores: Stores,
        board: Board,
        node: str,
        limits: UserLimits,
        request_repair: Callable[[], None],
        detached: DetachedWriters | None = None,
    ) -> None:
        """`request_repair` makes the next comparison start at once; it must not wait. `detached` is shared by the
        boards of a node."""
        self.stores, self.board, self.limits = stores, board, limits
        self.agreement = Agreement(board, request_repair, detached=detached)
        self.projection = Projection(  # shared with the committers
            stores.redis_direct,
            board,
            request_repair,
            namespace=stores.namespace,
            installation=lambda: stores.installation,
        )
        self.lease = Lease(stores, board, node)
        self.writers: Callable[[], list[int]] = list  # the ids of this node's writers
        self._conn: Connection | None = None
        self._detached_at = 0.0  # monotonic seconds

    async def check_aio(self) -> Repair | None:
        """Compares, and repairs if needed. Returns the repair, or None when there was none.

        Raises StorageUnavailable, StaleEpoch and outbox.BatchesPruned; the next comparison then shows the state.
        Cancelling may leave a repair unfinished; the next one starts from the state that it finds.
        """
        if self._conn is None or self._conn.is_closed():
            self._conn = await self.stores.connect_aio()
        conn = self._conn
        with ConnectionDeadline(conn, CHECK_TIMEOUT_SECONDS) as deadline:
            rebuilder = Rebuilder(self.stores, self.board, partial(self._keep_going_aio, deadline))
            known = self.projection.known  # read before the comparison: the committers may raise it during it
            try:
                seen = await self._compare_aio(conn, rebuilder)
                own = {*self.writers(), *self.agreement.detached.writers}
                was_behind = StaleReason.BEHIND in self.agreement.stale_reasons()
                self.agreement.set_stale_reasons(reasons_of(seen, known, own, was_behind=was_behind))
                await self._attach_aio(conn)
                await self.limits.confirm_windows_aio(conn)
            except StorageUnavailable as exc:
                if exc.store == "redis":
                    await self._stay_detached_aio(conn)
                raise
            repair = needed_repair(seen, known)
            is_needed = repair is not Repair.REPLAY or seen.missing or any(seen.detached.values())
            if is_needed and await self.lease.acquire_aio():
                await self._repair_aio(conn, rebuilder, repair, seen)
                return repair
            return None

    def close(self) -> None:
        """Ends the connection; the next comparison makes a new one."""
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None

    async def _compare_aio(self, conn: Connection, rebuilder: Rebuilder) -> Comparison:
        self.agreement.begin_comparison()
        acknowledged = self.agreement.acknowledged()
        found = await rebuilder.state_aio()
        missing, is_pruned = list[MissingBatches](), False
        with postgres_errors():
            committed, detached = await outbox.last_sequences_and_detached_aio(conn)
            try:
                if found.is_whole:
                    missing = await outbox.missing_aio(conn, self.board, found.applied, committed, SETTLED_SECONDS)
            except outbox.BatchesPruned:
                is_pruned = True
        lost = outbox.lost_batches(found.applied, committed)
        lost_here = outbox.lost_batches(acknowledged, committed)
        if (lost or lost_here) and StaleReason.HISTORY_LOST not in self.agreement.stale_reasons():
            metrics.LOST_BATCHES.inc(sum((lost | lost_here).values()))
            log.error("history_lost", store="postgresql", board=self.board.id, batches=sum((lost | lost_here).values()))
        if found.is_whole:
            held = {writer: sequence for writer, sequence in acknowledged.items() if writer not in lost_here}
            self.agreement.confirm(held, [found.applied.get(writer, 0) for writer in held])
        self.agreement.drop_writers(lost_here, self.writers())
        return Comparison(found, lost, missing, is_pruned, detached)

    async def _repair_aio(self, conn: Connection, rebuilder: Rebuilder, repair: Repair, seen: Comparison) -> None:
        found = seen.found
        match repair:
            case Repair.REPLAY:
                await rebuilder.apply_aio(conn, self.projection, found.epoch, seen.missing)
            case Repair.BUMP_EPOCH:
                await self.limits.reset_windows_aio()  # they have an older content, too
                self.projection.known = await rebuilder.bump_epoch_aio(conn, found.epoch)
            case Repair.COMPLETE:
                self.projection.known = await rebuilder.complete_aio(conn, found.epoch)
            case Repair.REBUILD:
                self.projection.known = await rebuilder.rebuild_aio(conn)
        dead = [writer for writer, is_dead in seen.detached.items() if is_dead]
        if dead and not seen.missing:
            await self.limits.reset_windows_aio()  # the actions that they recorded are in no window
            with postgres_errors():
                await outbox.attach_aio(conn, dead)

    async def _keep_going_aio(self, deadline: ConnectionDeadline) -> None:
        """Called between two parts of long work: extends the deadline and keeps the lease. Raises StaleEpoch when
        another node has the lease."""
        deadline.extend()
        if not await self.lease.renew_aio():
            raise StaleEpoch

    # ---- writers without Redis --------------------------------------------------------------------------------------

    async def _attach_aio(self, conn: Connection) -> None:
        """Attaches this node's writers, now that Redis can be reached, once all boards have what they committed."""
        detached = self.agreement.detached
        if not detached.writers:
            return
        is_projected = StaleReason.UNPROJECTED not in self.agreement.stale_reasons()
        if is_projected and (ready := detached.confirm(self.board)):
            await self.limits.reset_windows_aio()
            with postgres_errors():
                await outbox.attach_aio(conn, ready)
            detached.remove(ready)
        else:
            await self._stay_detached_aio(conn)

    async def _stay_detached_aio(self, conn: Connection) -> None:
        """Renews the entries of this node's detached writers in PostgreSQL, once an interval."""
        writers = self.agreement.detached.writers
        if writers and monotonic() >= self._detached_at + DETACHED_INTERVAL_SECONDS:
            with postgres_errors():
                await outbox.detach_aio(conn, writers)
            self._detached_at = monotonic()
