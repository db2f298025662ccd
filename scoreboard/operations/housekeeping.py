"""What must be done now and then: partitions of the action log ahead of time, an outbox and sessions that do not pile up.

One task on every node; each job is safe from several nodes at once. A store that is away costs a round, nothing else.
"""

import structlog
import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage import outbox, sessions
from scoreboard.storage.bridge import crossing, postgres_errors
from scoreboard.storage.connections import Stores
from scoreboard.storage.partitions import make_partitions
from scoreboard.storage.rebuild import Rebuilder

ROUND = 60.0  # seconds; a partition is made three months ahead, a turn is kept an hour: neither is urgent

log = structlog.get_logger()


async def keep_house(stores: Stores, board: Board, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """A round a minute, for ever; started after the first. Cancelling rolls back what is under way."""
    started = False
    while True:
        try:
            made, pruned = await crossing(_round, stores, board)
            await sessions.prune(stores)
        except StorageUnavailable as exc:
            log.warning("housekeeping_waits", why=exc.why)
        else:
            if made or pruned:
                log.info("house_kept", partitions=made, commits_pruned=pruned)
        if not started:
            started = True
            task_status.started()
        await trio.sleep(ROUND)


async def _round(stores: Stores, board: Board) -> tuple[list[str], int]:
    conn = await stores.connect()
    try:
        made = await make_partitions(conn)
        applied = (await Rebuilder(stores.redis, board, stores.namespace, lambda: stores.installation).state()).applied
        pruned = 0
        with postgres_errors():
            while gone := await outbox.prune(conn, applied):
                pruned += gone
        return made, pruned
    finally:
        conn.terminate()
