"""Work that is due now and then: partitions of the action log ahead of time, old rows of the outbox and of sessions,
missing skeletons of user names.

One task on every node; each job is safe from several nodes at once. When a store can't be used, a lock is held, or a
statement or session is ended, one run fails and the next one, a minute later, tries again. A warning is logged once,
until a run succeeds.
"""

from collections.abc import Sequence

import structlog
import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.postgres import sessions
from scoreboard.storage.postgres.partitions import make_partitions
from scoreboard.storage.postgres.skeletons import Backfill
from scoreboard.storage.prune_commits import prune_commits

# a partition is made three months ahead, a row of the outbox is kept for an hour: neither is urgent
RUN_INTERVAL_SECONDS = 60.0
# for one job of a run; rows that waited for their partition for months are moved in one statement
JOB_TIMEOUT_SECONDS = 300.0

log = structlog.get_logger()


async def run_housekeeping(
    stores: Stores, boards: Sequence[Board], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """One run a minute, for ever; started after the first one. No start waits for the skeletons of names.

    Cancelling rolls back what is under way.
    """
    is_started = has_failed = False
    backfill = Backfill()
    while True:
        try:
            made = await make_partitions(stores, JOB_TIMEOUT_SECONDS)
            pruned = await prune_commits(stores, boards, JOB_TIMEOUT_SECONDS)
            await sessions.prune(stores)
        except StorageUnavailable as exc:
            if not has_failed:
                log.warning("housekeeping_failed", store=exc.store, condition=exc.condition, why=exc.why)
            has_failed = True
        else:
            if made or pruned or has_failed:
                log.info("housekeeping_done", partitions=made, commits_pruned=pruned)
            has_failed = False
        if not is_started:
            is_started = True
            task_status.started()
        try:
            if written := await backfill.run(stores, JOB_TIMEOUT_SECONDS):
                log.info("skeletons_written", rows=written)
        except StorageUnavailable as exc:
            log.debug("skeletons_failed", condition=exc.condition, why=exc.why)  # warned of above, if it lasts
        await trio.sleep(RUN_INTERVAL_SECONDS)
