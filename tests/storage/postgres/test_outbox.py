"""The outbox `commits`: what is written to it, what a projection lacks, and what is pruned."""

import pytest

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import outbox
from tests.storage.seeds import Scribe, claim, connection, make_users


async def test_the_outbox_is_pruned(stores: Stores) -> None:
    """Old batches that the board has go, what it lacks and each writer's last one stay."""
    users = await make_users(stores, 1)
    async with connection(stores) as conn:
        for number in (1, 2):
            scribe = Scribe(conn, number)
            for _ in range(4):
                await scribe.record([claim(users[0])])
        await stores.execute(
            "UPDATE commits SET committed_at = now() - interval '2 hours' WHERE writer = 1 OR turn < 3"
        )
        assert await run_in_asyncio(outbox.prune_aio, conn, {1: 4, 2: 1}) == 4
        kept = await stores.fetch("SELECT writer, turn FROM commits ORDER BY writer, turn")
        assert [tuple(row) for row in kept] == [(1, 4), (2, 2), (2, 3), (2, 4)]
        committed = await run_in_asyncio(outbox.last_sequences_aio, conn)
        missing = await run_in_asyncio(outbox.missing_aio, conn, LEADERBOARD, {1: 4, 2: 1}, committed, 0.0)
        assert [batches.sequences for batches in missing] == [SequenceRange(2, 2, 4)]
        with pytest.raises(outbox.BatchesPruned):
            await run_in_asyncio(outbox.missing_aio, conn, LEADERBOARD, {1: 4}, committed, 0.0)


async def test_a_committers_own_rows_are_noted_once(stores: Stores) -> None:
    """The triggers are for others: a committer's batch has one row in the outbox, under its own number."""
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 3)])
    assert [row["writer"] for row in await stores.fetch("SELECT writer FROM commits")] == [7]
