"""The connections to one store that may still be used: those of the present generation.

A reply that means "not here" tells of every connection that was opened before it, so all are replaced: the idle ones
before their next use, the subscription at once, one in use when its call has ended. Plain methods may be called from
anywhere on the loop.

Tested in tests/storage/connections/test_redis_pool.py and tests/storage/connections/test_postgres_pool.py.
"""

import asyncio

import structlog

from scoreboard.domain.errors import Store
from scoreboard.telemetry import metrics

# at most one replacement in this time, while the address itself leads to the wrong server
REPLACE_INTERVAL_SECONDS = 1.0

log = structlog.get_logger()


class Generation:
    """A number that connections take when they are opened."""

    __slots__ = ("_replaced", "_replaced_at", "number", "reconnects", "store")

    def __init__(self, store: Store) -> None:
        self.store: Store = store
        self.number = 0
        self.reconnects = 0  # connections that had ended and were made anew, for whatever reason
        self._replaced: asyncio.Event | None = None
        self._replaced_at = float("-inf")

    def replace(self, why: str, *, at_once: bool = False) -> None:
        """Ends the present generation. `at_once`: also when the last one ended less than REPLACE_INTERVAL_SECONDS
        ago."""
        now = asyncio.get_running_loop().time()
        if not at_once and now - self._replaced_at < REPLACE_INTERVAL_SECONDS:
            return
        self._replaced_at = now
        self.number += 1
        metrics.CONNECTIONS_REPLACED.labels(self.store).inc()
        (log.info if at_once else log.debug)(
            "connections_replaced", store=self.store, why=why
        )  # else once a second for as long as it lasts
        if self._replaced is not None:
            self._replaced.set()
            self._replaced = None

    async def wait_ended_aio(self) -> None:
        """Returns when the present generation has ended."""
        if self._replaced is None:
            self._replaced = asyncio.Event()
        await self._replaced.wait()
