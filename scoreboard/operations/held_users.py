"""Users whose actions wait for a moderator because a rule has flagged them, as this node knows them.

`watch` reads them from PostgreSQL, so a hold is effective on every node within two seconds, and so is its end. Without
PostgreSQL nothing is recorded, whoever is held. Tested in tests/storage/postgres/test_flag_policies.py.
"""

from uuid import UUID

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import flag_policies

CHECK_SECONDS = 1.5  # between two reads, as for ended sessions

log = structlog.get_logger()


class HeldUsers:
    """The held users of one node. `ids` is replaced as a whole."""

    __slots__ = ("_stores", "ids")

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.ids: frozenset[UUID] = frozenset()

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reads for ever. Started when the first read is done or has failed. Cancelling changes nothing."""
        failing = False
        while True:
            try:
                self.ids, failing = await flag_policies.held_users(self._stores), False
            except StorageUnavailable as exc:
                if not failing:
                    log.warning("held_users_read_failed", error=str(exc))
                failing = True
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(CHECK_SECONDS)
