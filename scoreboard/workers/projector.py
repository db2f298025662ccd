"""Compares a board with PostgreSQL several times a second, and repairs it when this node holds the lease.

Runs on every node, once for each board. Committers close their own gaps. The projector closes those that remain: of
dead writers, of outages, of changes by plain SQL. `storage.repair` has the rules of comparison and repair. Never sends
anything to clients.
"""

from collections.abc import Callable

import structlog
import trio

from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.storage.agreement import Agreement, DetachedWriters
from scoreboard.storage.comparison import Repair
from scoreboard.storage.postgres.outbox import BatchesPruned
from scoreboard.storage.rebuild import StaleEpoch, rebuild_board_aio
from scoreboard.storage.redis.lease import SHARED_REDIS_HINT
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.storage.repair import BoardRepair

log = structlog.get_logger()

# between two comparisons, of a millisecond each: two of them find a change within a second
CHECK_INTERVAL_SECONDS = 0.4
MIN_INTERVAL_SECONDS = 0.05  # between two comparisons, however often `request_repair` is called
REBUILD_TRIES = 5  # of the command, while nodes rebuild the board too


class Projector:
    """One for each board of a node. `request_repair` may be called from anywhere on the loop; it makes the next
    comparison start at once."""

    __slots__ = ("_last_error", "_woken", "board", "on_board_changed", "repair")

    def __init__(
        self,
        stores: Stores,
        board: Board,
        node: str,
        limits: UserLimits,
        on_board_changed: Callable[[Board, BoardVersion], None],
        detached: DetachedWriters | None = None,
    ) -> None:
        """`detached` is shared by the projectors of a node, one for each board."""
        self.board, self.on_board_changed = board, on_board_changed
        self.repair = BoardRepair(stores, board, node, limits, self.request_repair, detached)
        self._woken = trio.Event()
        self._last_error = ""  # why the last comparison failed; logged once

    @property
    def agreement(self) -> Agreement:
        return self.repair.agreement

    @property
    def projection(self) -> Projection:
        """Shared with the committers."""
        return self.repair.projection

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should change, in sentences."""
        return (SHARED_REDIS_HINT,) if self.repair.lease.is_shared else ()

    def request_repair(self) -> None:
        self._woken.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compares and repairs, for ever. Started after the first comparison.

        Cancelling may leave an unfinished board under its staging keys, which expire.
        """
        started = False
        try:
            while True:
                self._woken = trio.Event()
                await self.check_once()
                if not started:
                    started = True
                    task_status.started()
                await trio.sleep(MIN_INTERVAL_SECONDS)
                with trio.move_on_after(CHECK_INTERVAL_SECONDS - MIN_INTERVAL_SECONDS):
                    await self._woken.wait()
        finally:
            self.close()

    async def check_once(self) -> Repair | None:
        """Compares both stores, and repairs the board if this node holds the lease. Returns the repair, or None.

        Never raises StorageUnavailable: a failure is logged and makes the board stale. Cancelling is safe.
        """
        known = self.projection.known
        try:
            done = await run_in_asyncio(self.repair.check_aio)
        except (StorageUnavailable, StaleEpoch, BatchesPruned) as exc:  # the next comparison shows the state
            self._note_failure(exc)
            return None
        self._last_error = ""
        if done is None:
            return None
        if done is not Repair.REPLAY:
            log.info("board_repaired", board=self.board.id, repair=done.name.lower(), epoch=self.projection.known.epoch)
        if self.projection.known > known:
            self.on_board_changed(self.board, self.projection.known)
        self.request_repair()  # compare again at once: the board is stale until a comparison finds nothing
        return done

    def _note_failure(self, exc: StorageUnavailable | StaleEpoch | BatchesPruned) -> None:
        store = exc.store if isinstance(exc, StorageUnavailable) else None
        if store == "postgresql":
            self.close()
        if str(exc) != self._last_error:
            self._last_error = str(exc)
            log.warning("board_check_failed", board=self.board.id, why=str(exc))
        if store == "redis":
            self.agreement.mark_unchecked()
        self.agreement.refresh()

    def close(self) -> None:
        """Ends the connection to PostgreSQL; the next comparison makes a new one."""
        self.repair.close()


async def rebuild_board(stores: Stores, board: Board) -> BoardVersion:
    """Rebuilds the board, also when it is sound, for `scoreboard rebuild-board`. Returns its version. Raises
    StorageUnavailable."""
    for _ in range(REBUILD_TRIES):
        try:
            return await run_in_asyncio(rebuild_board_aio, stores, board)
        except (StaleEpoch, BatchesPruned):  # a running node was faster, or TRUNCATE came in between
            await trio.sleep(MIN_INTERVAL_SECONDS)
    raise StorageUnavailable("redis", "others build the board at the same time", StoreCondition.BUSY)
