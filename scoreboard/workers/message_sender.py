"""Sends messages of the outbox, on every node that has a receiver in its settings.

Nodes share the work: each message is claimed by one of them (storage.postgres.outgoing_messages). An outage of
PostgreSQL ends one run; the next one continues. Tested in tests/operations/test_send_messages.py.
"""

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.operations.send_messages import MessageSender
from scoreboard.storage.postgres import outgoing_messages

RUN_INTERVAL_SECONDS = 2.0  # how late a message may be; an alert is for people
PRUNE_INTERVAL_SECONDS = 3600.0

log = structlog.get_logger()


async def run_message_sender(
    stores: Stores, sender: MessageSender, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Sends for ever. Started at once. Cancelling leaves messages at hand to be sent again, by any node."""
    task_status.started()
    pruned, has_failed = -PRUNE_INTERVAL_SECONDS, False
    while True:
        try:
            sent = await sender.send_due()
            if trio.current_time() - pruned >= PRUNE_INTERVAL_SECONDS:
                await outgoing_messages.prune(stores)
                pruned = trio.current_time()
            has_failed = False
        except StorageUnavailable as exc:
            if not has_failed:
                log.warning("messages_not_read", condition=exc.condition, why=exc.why)
            sent, has_failed = 0, True
        if not sent:
            await trio.sleep(RUN_INTERVAL_SECONDS)
