"""What must be done now and then: partitions of the action log ahead of time, an outbox and sessions that do not pile
up, names' skeletons.

One task on every node; each job is safe from several nodes at once. A store that is away, a lock that somebody holds, a
statement or a session that somebody ended cost a round, nothing else: they are warned of once, until a round succeeds
again.
"""

from collections.abc import Sequence

import structlog
import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.connections.bridge import postgres_errors, run_in_asyncio
from scoreboard.storage.connections.deadline import bounded
from scoreboard.storage.connections.stores import Connection, Stores
from scoreboard.storage.postgres import outbox, sessions
from scoreboard.storage.postgres.partitions import make_partitions
from scoreboard.storage.postgres.skeletons import Backfill
from scoreboard.storage.rebuild import Rebuilder

ROUND = 60.0  # seconds; a partition is made three months ahead, a turn is kept an hour: neither is urgent
# for the work of a round; rows that waited for their partition for months are moved in one statement
ROUND_SECONDS = 300.0

log = structlog.get_logger()


async def run_housekeeping(
    stores: Stores, boards: Sequence[Board], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """A round a minute, for ever; started after the first, but for the skeletons of names, which no start waits for.

    Cancelling rolls back what is under way.
    """
    started = waits = False
    names = Backfill()
    while True:
        try:
            made, pruned = await run_in_asyncio(_round, stores, boards)
            await sessions.prune(stores)
        except StorageUnavailable as exc:
            if not waits:
                log.warning("housekeeping_waits", store=exc.store, condition=exc.condition, why=exc.why)
            waits = True
        else:
            if made or pruned or waits:
                log.info("house_kept", partitions=made, commits_pruned=pruned)
            waits = False
        if not started:
            started = True
            task_status.started()
        try:
            if written := await run_in_asyncio(_backfill_skeletons, stores, names):
                log.info("skeletons_written", rows=written)
        except StorageUnavailable as exc:
            log.debug("skeletons_wait", condition=exc.condition, why=exc.why)  # warned of above, if it lasts
        await trio.sleep(ROUND)


async def _backfill_skeletons(stores: Stores, names: Backfill) -> int:
    conn = await stores.connect()
    try:
        with postgres_errors():
            return await bounded(conn, ROUND_SECONDS, names.round(conn))
    finally:
        conn.terminate()


async def _round(stores: Stores, boards: Sequence[Board]) -> tuple[list[str], int]:
    conn = await stores.connect()
    try:
        with postgres_errors():
            return await bounded(conn, ROUND_SECONDS, _work(conn, stores, boards))
    finally:
        conn.terminate()


async def _work(conn: Connection, stores: Stores, boards: Sequence[Board]) -> tuple[list[str], int]:
    made = await make_partitions(conn)
    applied = outbox.applied_everywhere([(await Rebuilder(stores, board).state_aio()).applied for board in boards])
    pruned = 0
    while gone := await outbox.prune_aio(conn, applied):
        pruned += gone
    return made, pruned
