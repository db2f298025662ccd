"""A board in both stores with the projector that repairs it, and a writer whose batches reach it only if a test says
so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.drivers.stores import Stores
from scoreboard.storage.comparison import Repair
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.workers.projector import Projector
from tests.storage.seeds import NAMES, Scribe, connection, order_in_postgres, order_in_redis

WRITER = 7


@asynccontextmanager
async def projectors(stores: Stores, *nodes: str) -> AsyncIterator[list[Projector]]:
    """A projector of each node. None has compared yet."""
    limits = UserLimits(stores.redis_direct, per_minute=10, cooldowns=True)
    made = [Projector(stores, LEADERBOARD, node, limits, lambda *_: None) for node in nodes]
    try:
        yield made
    finally:
        for projector in made:
            projector.close()


async def settle(stores: Stores) -> None:
    """Makes what was committed look older than a committer needs to close its own gap."""
    await stores.execute("UPDATE commits SET committed_at = committed_at - interval '3 seconds'")


async def is_equal(stores: Stores) -> bool:
    """Whether the board has PostgreSQL's users and totals, in its order."""
    return await order_in_redis(stores) == await order_in_postgres(stores)


async def meta(stores: Stores, field: str) -> int:
    """A number of the board's meta; 0 when it is not there."""
    return int(await stores.command("HGET", NAMES.meta, field) or 0)


class RepairedBoard:
    """The board as the projector has built it, and the scribe of a writer of another node."""

    def __init__(self, stores: Stores, projector: Projector, scribe: Scribe) -> None:
        self.stores, self.projector, self.scribe = stores, projector, scribe

    @property
    def projection(self) -> Projection:
        return self.projector.projection

    @property
    def epoch(self) -> int:
        return self.projection.known.epoch

    @property
    def is_stale(self) -> bool:
        return self.projector.agreement.is_stale

    async def record(self, *actions: SubmittedAction) -> Any:
        """Records a batch that does not reach the board. Returns what `project` takes."""
        return await self.scribe.record(actions)

    async def project(self, recorded: Any) -> object:
        """Brings a batch to the board. None: it is missing or can't be trusted."""
        return await self.scribe.project(self.projection, recorded)

    async def score(self, *actions: SubmittedAction) -> object:
        """Records a batch and brings it to the board, as a committer does."""
        return await self.project(await self.record(*actions))

    async def check(self) -> Repair | None:
        """One comparison of the projector, with its repair."""
        return await self.projector.check_once()

    async def settle_and_check(self) -> Repair | None:
        """The same when nobody but the projector will bring what is missing."""
        await settle(self.stores)
        return await self.check()


@asynccontextmanager
async def repaired_board(stores: Stores) -> AsyncIterator[RepairedBoard]:
    async with projectors(stores, "a") as (projector,), connection(stores) as conn:
        await projector.check_once()
        yield RepairedBoard(stores, projector, Scribe(conn, WRITER))
