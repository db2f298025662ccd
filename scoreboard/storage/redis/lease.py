"""The lease in Redis for repairing a board: one node at a time, for two seconds, renewed during long work.

Correctness does not depend on it. Two holders, when a lease changes hands, do no harm: the newer epoch wins. Called by
`storage.repair`; coroutines run in asyncio. Tested in tests/workers/test_projector.py.
"""

from time import monotonic

import structlog

from scoreboard.domain.boards import Board
from scoreboard.drivers.bridge import redis_errors
from scoreboard.drivers.stores import Stores
from scoreboard.storage.redis.scripts import load_script

LEASE_MS = 2_000  # after this time another node continues the work of a dead one
RENEWAL_INTERVAL_SECONDS = 0.5  # between two renewals during long work

SHARED_REDIS_HINT = (
    "Another installation uses the same keys of this Redis: this one's boards come from PostgreSQL, and are stale. "
    "Give each installation a redis.prefix or a database of its own."
)

log = structlog.get_logger()


class Lease:
    """A node's lease for one board. `is_shared`: another installation repairs the same keys."""

    __slots__ = ("_acquire", "_renewed_at", "board", "is_shared", "node", "stores")

    def __init__(self, stores: Stores, board: Board, node: str) -> None:
        self.stores, self.board, self.node = stores, board, node
        self.is_shared = False
        self._acquire = stores.redis.register_script(load_script("lease.lua"))
        self._renewed_at = 0.0  # monotonic seconds

    async def acquire_aio(self) -> bool:
        """Acquires or renews the lease; False while another node has it. Raises StorageUnavailable."""
        holder = f"{self.stores.installation}|{self.node}".encode()
        with redis_errors():
            found = await self._acquire(keys=[self.stores.namespace.lease(self.board)], args=[holder, LEASE_MS])
        self._renewed_at = monotonic()
        is_shared = found.rpartition(b"|")[0] != self.stores.installation.encode()
        if is_shared and not self.is_shared:
            log.error("redis_shared", store="redis", board=self.board.id, hint=SHARED_REDIS_HINT)
        self.is_shared = is_shared
        return bool(found == holder)

    async def renew_aio(self) -> bool:
        """Renews the lease when that is due; False when another node has it. Raises StorageUnavailable."""
        return monotonic() < self._renewed_at + RENEWAL_INTERVAL_SECONDS or await self.acquire_aio()
