"""UserLimits stay exact when nodes lose Redis: the log decides under the user's row lock, whichever of two nodes still
has Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import trio
from redis.asyncio import ConnectionPool

from scoreboard.domain.outcomes import Outcome, Recorded
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.generation import Generation
from scoreboard.drivers.redis_client import DirectClient
from scoreboard.drivers.redis_pool import make_pool
from scoreboard.drivers.stores import REDIS_SECONDS, Stores, open_stores
from scoreboard.storage.commit import Commit
from tests.storage.proxy import proxy_before
from tests.storage.seeds import claim, make_users, open_board
from tests.storage.test_commit import CommitterNode

PER_MINUTE = 10
BATCHES, BATCH = 5, 10  # of each of four committers: 200 actions in all
COOLDOWN_MS = 30_000


@asynccontextmanager
async def two_nodes(database_url: str, redis_url: str) -> AsyncIterator[list[CommitterNode]]:
    """Two nodes, each with connections and a way to Redis of its own, on one loop."""
    async with (
        proxy_before(redis_url) as first,
        proxy_before(redis_url) as second,
        open_stores(database_url, first.url) as stores,
    ):
        direct = DirectClient(
            make_pool(ConnectionPool, second.url, Generation("redis"), socket_timeout=None), REDIS_SECONDS
        )
        other = Stores(
            stores.postgres,
            second.url,
            stores.pool,
            stores.redis,
            stores.redis_bulk,
            direct,
            redis_generation=None,
        )
        await open_board(stores)
        nodes = [CommitterNode(stores, first), CommitterNode(other, second)]
        yield nodes
        for commit in nodes[0].made + nodes[1].made:
            commit.writer.close()
        await run_in_asyncio(direct.close_aio)


async def burst(nodes: list[CommitterNode], user: UUID, *, during: list[CommitterNode]) -> list[Outcome]:
    """200 actions of one user over two committers of each node; those `during` lose Redis in the middle of it."""
    outcomes: list[Outcome] = []
    sent = 0

    async def send(commit: Commit, name: str) -> None:
        nonlocal sent
        for turn in range(BATCHES):
            claims = [claim(user, action_id=f"{name}-{turn}-{number}") for number in range(BATCH)]
            outcomes.extend((await run_in_asyncio(commit.run_aio, claims)).outcomes)
            sent += 1
            if sent == 2:
                for node in during:
                    node.redis.cut()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for place, node in enumerate(nodes):
                for which in range(2):
                    nursery.start_soon(send, node.committer(per_minute=PER_MINUTE), f"{place}-{which}")
    return outcomes


@pytest.mark.parametrize(("before", "during"), [((0, 1), ()), ((0,), ()), ((), (0, 1)), ((), (1,)), ((0,), (1,))])
async def test_two_nodes_without_redis(
    database_url: str, redis_url: str, before: tuple[int, ...], during: tuple[int, ...]
) -> None:
    """Whichever nodes have none, or lose it under the burst: ten of 200 actions are recorded, and as many are in the
    log."""
    async with two_nodes(database_url, redis_url) as nodes:
        (user,) = await make_users(nodes[0].stores, 1)
        for node in before:
            nodes[node].redis.cut()
        outcomes = await burst(nodes, user, during=[nodes[node] for node in during])
        assert len(outcomes) == 4 * BATCHES * BATCH
        assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == PER_MINUTE
        assert await nodes[0].stores.fetchval("SELECT count(*) FROM action_logs WHERE user_id = $1", user) == PER_MINUTE


async def test_a_cooldown_on_two_nodes_without_redis(database_url: str, redis_url: str) -> None:
    """Of a pair at the same time exactly one is recorded, for each of twenty users."""
    async with two_nodes(database_url, redis_url) as nodes:
        users = await make_users(nodes[0].stores, 20)
        outcomes: list[Outcome] = []

        async def send(node: CommitterNode) -> None:
            claims = [claim(user, cooldown_ms=COOLDOWN_MS) for user in users]
            outcomes.extend((await run_in_asyncio(node.committer().run_aio, claims)).outcomes)

        for node in nodes:
            node.redis.cut()
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(send, node)
        assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == len(users)
        rows = await nodes[0].stores.fetch("SELECT count(*) AS n FROM action_logs GROUP BY user_id")
        assert [row["n"] for row in rows] == [1] * len(users)
