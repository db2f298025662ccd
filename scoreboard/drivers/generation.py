"""Generations of the connections to one store: only those of the current generation may still be used.

A reply that means "not here" is true for every connection that was opened before it. So all are replaced: an idle one
before its next use, the subscription at once, one in use when its call has ended. Plain methods may be called from
anywhere on the loop.

Tested in tests/drivers/test_redis_pool.py and tests/drivers/test_postgres_pool.py.
"""

import asyncio

import structlog

from scoreboard.domain.errors import Store
from scoreboard.telemetry import metrics

# At most one replacement in this time, since the address itself may lead to the wrong server.
REPLACE_INTERVAL_SECONDS = 1.0

log = structlog.get_logger()


class Generation:
    """The current generation's number. A connection stores it when it is opened."""

    __slots__ = ("_replaced", "_replaced_at", "number", "reconnects", "store")

    def __init__(self, store: Store) -> None:
        self.store: Store = store
        self.number = 0
        self.reconnects = 0  # connections that were opened again after they had ended, for any reason
        self._replaced: asyncio.Event | None = None
        self._replaced_at = float("-inf")

    def replace(self, why: str, *, at_once: bool = False) -> None:
        """Ends the current generation, unless the last one ended less than REPLACE_INTERVAL_SECONDS ago. `at_once`: in
        any case."""
        now = asyncio.get_running_loop().time()
        if not at_once and now - self._replaced_at < REPLACE_INTERVAL_SECONDS:
            return
        self._replaced_at = now
        self.number += 1
        metrics.CONNECTIONS_REPLACED.labels(self.store).inc()
        # debug: it comes once a second for as long as the address leads to the wrong server
        (log.info if at_once else log.debug)("connections_replaced", store=self.store, why=why)
        if self._replaced is not None:
            self._replaced.set()
            self._replaced = None

    async def wait_ended_aio(self) -> None:
        """Returns when the current generation has ended. Cancelling changes nothing."""
        if self._replaced is None:
            self._replaced = asyncio.Event()
        await self._replaced.wait()
