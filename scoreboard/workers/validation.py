"""Periodic work for actions that must be proven: decides about those that nobody decided about in time, and deletes old
starts, held actions and evidence.

One task runs on every node; several may do the same at once. A run fails when PostgreSQL can't be used, and the next
one, a minute later, tries again. A warning is logged for the first of several failures in a row.

Tested in tests/operations/test_held_actions.py.
"""

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.operations.held_actions import HeldActions
from scoreboard.storage.postgres import evidence, held_actions, starts

RUN_INTERVAL_SECONDS = 60.0  # times to decide are days, starts are kept for an hour after their end

log = structlog.get_logger()


async def run_validation(
    stores: Stores, held: HeldActions, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """One run a minute, for ever; started before the first. Cancelling leaves what was not decided for the next run,
    on any node."""
    task_status.started()
    has_failed = False
    while True:
        try:
            decided = await held.decide_expired()
            await starts.prune(stores)
            await held_actions.prune(stores)
            await evidence.prune(stores)
        except StorageUnavailable as exc:
            if not has_failed:
                log.warning("validation_failed", condition=exc.condition, why=exc.why)
            has_failed = True
        else:
            if decided or has_failed:
                log.info("validation_done", expired_decided=decided)
            has_failed = False
        await trio.sleep(RUN_INTERVAL_SECONDS)
