"""Keeps a board in Redis what PostgreSQL says: fills gaps, mends a board that came back old, builds one that is gone.

Runs on every node, works on one at a time (a lease in Redis; correctness does not rest on it). Committers close their own gaps; what is
left after two seconds (dead writers, outages) is filled here. Never talks to clients.
"""

from collections.abc import Callable
from enum import Enum, auto

import structlog
import trio

from scoreboard.domain.boards import Board, Mark
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage import outbox, rebuild
from scoreboard.storage.bridge import crossing, redis_errors
from scoreboard.storage.connections import Connection, Stores
from scoreboard.storage.projection import Projection, keys
from scoreboard.storage.rebuild import BoardState, Superseded

log = structlog.get_logger()

ROUND = 1.0  # seconds between two looks
AT_LEAST = 0.1  # seconds between two looks, however often it is woken
SETTLED = 2.0  # seconds a committer has to close its own gap
LEASE_MS = 5_000  # a dead node's work is taken over after this


# ---- pure: decides ------------------------------------------------------------------------------------------------


class Remedy(Enum):
    """What a board needs."""

    REPLAY = auto()  # it is sound: fill gaps, if any
    RENEW = auto()  # it came back with an older content: fill, then a new epoch, so that everybody forgets the newer marks
    REBUILD = auto()  # there is none


def remedy(found: BoardState, known: Mark) -> Remedy:
    """`known` is the newest mark that this node ever saw of the board."""
    if found.epoch == 0:
        return Remedy.REBUILD
    if found.run_id != found.server or Mark(found.epoch, found.version) < known:
        return Remedy.RENEW
    return Remedy.REPLAY


# ---- I/O: acts ----------------------------------------------------------------------------------------------------


async def mend(conn: Connection, stores: Stores, board: Board, projection: Projection) -> Remedy:
    """asyncio-flavoured: one look and what follows from it. Raises StorageUnavailable."""
    known = projection.known  # before the look: the committers may learn of more during it
    found = await rebuild.state(stores.redis, board)
    needed = remedy(found, known)
    try:
        if needed is Remedy.REPLAY:
            await rebuild.replay(conn, projection, found.epoch, found.applied, SETTLED)
        elif needed is Remedy.RENEW:
            projection.known = await rebuild.renew(conn, stores.redis, board)
    except outbox.Pruned:
        needed = Remedy.REBUILD
    except Superseded:
        return needed  # the next look tells
    if needed is Remedy.REBUILD:
        try:
            projection.known = await rebuild.rebuild(conn, stores.redis, board)
        except Superseded:
            return needed
    if needed is not Remedy.REPLAY:
        log.info("board_mended", board=board.id, remedy=needed.name.lower(), epoch=projection.known.epoch)
    return needed


class Projector:
    """`suspect` may be called from anywhere on the loop: the next look comes at once."""

    __slots__ = ("_woken", "board", "node", "on_mark", "projection", "stores")

    def __init__(self, stores: Stores, board: Board, node: str, on_mark: Callable[[Mark], None]) -> None:
        self.stores, self.board, self.node, self.on_mark = stores, board, node, on_mark
        self._woken = trio.Event()
        self.projection = Projection(stores.redis_direct, board, self.suspect)  # shared with the node's committers

    def suspect(self) -> None:
        self._woken.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Looks once a round, for ever; started after the first look.

        Cancelling leaves a half-built board aside, which goes away by itself.
        """
        conn: Connection | None = None
        started = False
        try:
            while True:
                self._woken = trio.Event()
                try:
                    if conn is None or conn.is_closed():
                        conn = await crossing(self.stores.connect)
                    await self._look(conn)
                except StorageUnavailable as exc:
                    log.warning("projector_waits", board=self.board.id, why=exc.why)
                if not started:
                    started = True
                    task_status.started()
                await trio.sleep(AT_LEAST)
                with trio.move_on_after(ROUND - AT_LEAST):
                    await self._woken.wait()
        finally:
            if conn is not None:
                conn.terminate()

    async def _look(self, conn: Connection) -> None:
        if await crossing(hold, self.stores, self.board, self.node):
            before = self.projection.known
            await crossing(mend, conn, self.stores, self.board, self.projection)
            if self.projection.known > before:
                self.on_mark(self.projection.known)


async def hold(stores: Stores, board: Board, node: str) -> bool:
    """asyncio-flavoured: takes or keeps the lease. Two holders at the turn of a lease do no harm: the newer epoch wins."""
    name = f"{keys(board).meta}:projector"
    with redis_errors():
        if await stores.redis.set(name, node, nx=True, px=LEASE_MS):
            return True
        if await stores.redis.get(name) != node.encode():
            return False
        await stores.redis.pexpire(name, LEASE_MS)
        return True


async def rebuild_board(stores: Stores, board: Board) -> Mark:
    """Builds the board anew whatever it looks like, for `scoreboard rebuild-board`. Raises StorageUnavailable, Superseded."""

    async def run() -> Mark:
        conn = await stores.connect()
        try:
            return await rebuild.rebuild(conn, stores.redis, board)
        finally:
            conn.terminate()

    return await crossing(run)
