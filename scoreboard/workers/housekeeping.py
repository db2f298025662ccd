"""Periodic work: partitions of the action log ahead of time, old rows of the outbox and of sessions, missing skeletons
of user names.

One task runs on every node; several nodes may run each job at once. A run fails when a store can't be used, a lock is
held, or a statement or session is ended. The next run, a minute later, tries again. A warning is logged for the first
of several failures in a row.
"""

from collections.abc import Sequence

import structlog
import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import sessions
from scoreboard.storage.postgres.partitions import make_partitions
from scoreboard.storage.postgres.skeletons import Backfill
from scoreboard.storage.prune_commits import prune_commits

# Not urgent: a partition is created three months ahead, a row of the outbox is kept for an hour.
RUN_INTERVAL_SECONDS = 60.0
# for one job of a run; rows of months may be moved to their partition in one statement
JOB_TIMEOUT_SECONDS = 300.0

log = structlog.get_logger()


async def run_housekeeping(
    stores: Stores,
    boards: Sequence[Board],
    *,
    session_days: int = sessions.MIN_RETENTION_DAYS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """One run a minute, for ever. Started after the first run, but before its skeletons are written. `session_days`:
    how long the rows of ended sessions are kept.

    Cancelling rolls back the current statement or transaction.
    """
    is_started = has_failed = False
    backfill = Backfill()
    while True:
        try:
            made = await make_partitions(stores, JOB_TIMEOUT_SECONDS)
            pruned = await prune_commits(stores, boards, JOB_TIMEOUT_SECONDS)
            await sessions.prune(stores, session_days)
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
            log.debug("skeletons_failed", condition=exc.condition, why=exc.why)  # if it lasts, the warning above comes
        await trio.sleep(RUN_INTERVAL_SECONDS)
