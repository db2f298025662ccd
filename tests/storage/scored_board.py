"""A board with content for the tests of what reads it, written as a committer would, without a committer."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.profiles import Profiles
from scoreboard.storage.redis.projection import Projection
from tests.storage.seeds import NAMES, agreed, open_board

__all__ = ["NAMES", "ScoredBoard", "counted_commands"]


class ScoredBoard:
    """Users, their scores in both stores, and how a node reads them. Every write is one action of one user."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.projection = Projection(stores.redis_direct, LEADERBOARD, lambda: None)
        self.repair_requests = 0
        self.sequence = 0

    async def user(self, name: str, avatar_url: str | None = None) -> UUID:
        sql = """INSERT INTO users (username, email, avatar_url) VALUES ($1::text, $1::text || '@example.org', $2)
                 RETURNING id"""
        return UUID(bytes=(await self.stores.fetchval(sql, name, avatar_url)).bytes)

    async def open_board(self, epoch: int = 1) -> None:
        await open_board(self.stores, epoch)

    async def score(self, user: UUID, total: int, *, in_redis: bool = True, told: bool = True) -> None:
        """The user's total, in PostgreSQL and, unless that is what fails, in Redis with its message."""
        self.sequence += 1
        sql = """INSERT INTO scores AS s (user_id, total_score, reached, version) VALUES ($1, $2, $3, 1)
                 ON CONFLICT (user_id) DO UPDATE SET total_score = $2, reached = $3, version = s.version + 1
                 RETURNING version"""
        version = await self.stores.fetchval(sql, user, total, self.sequence)
        if in_redis:
            story = [ScoreEvent(str(user), 0, total, total, 1_768_041_000_000, "request", 0)] if told else []
            await run_in_asyncio(
                self.projection.apply_aio,
                SequenceRange(1, self.sequence, self.sequence),
                [LedgerRow(LEADERBOARD, user, total, self.sequence, version)],
                story,
            )

    def reader(self) -> BoardCache:
        """A node's view of the board, with its own caches."""
        return self.node()[0]

    def node(self) -> tuple[BoardCache, Profiles]:
        profiles = Profiles(self.stores)
        self.agreement = agreed()
        breaker, installation = Breaker("redis"), lambda: ""
        return BoardCache(
            LEADERBOARD, self.stores, profiles, breaker, self.agreement, self.request_repair, installation
        ), profiles

    def request_repair(self) -> None:
        self.repair_requests += 1


@asynccontextmanager
async def counted_commands(stores: Stores) -> AsyncIterator[Mapping[str, int]]:
    """Counts Redis' commands in the block; read it after the block."""
    counts: dict[str, int] = {}
    await stores.command("CONFIG", "RESETSTAT")
    yield counts
    for name, values in (await stores.command("INFO", "commandstats")).items():
        counts[name.removeprefix("cmdstat_")] = values["calls"]
