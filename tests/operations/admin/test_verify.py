"""`scoreboard verify`: the differences between both stores, by user."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import BOARDS, LEADERBOARD
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations.admin.verify import corrections, differences
from scoreboard.storage.postgres import bans, reversals
from tests.storage.postgres.moderators import user_with
from tests.storage.repaired_board import projectors
from tests.storage.seeds import NAMES, Scribe, claim, connection, make_users


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    async with open_stores(database_url, redis_url) as opened:
        yield opened


async def test_verify_tells_each_kind_of_difference(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums, totals, order and strangers: what is wrong is named by user, and nothing is when all agree."""
    monkeypatch.setattr("scoreboard.operations.admin.verify.COMPARISON_INTERVAL_SECONDS", 0.01)
    users = await make_users(stores, 4)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        for n, user in enumerate(users):
            await scribe.record([claim(user, points=100 - n)])
    async with projectors(stores, "a") as (projector,):
        await projector.check_once()
    assert await differences(stores, LEADERBOARD) == ({}, 4)

    await stores.execute("UPDATE action_logs SET points_awarded = 1 WHERE user_id = $1", users[3])
    await stores.command("ZINCRBY", NAMES.totals, 5, str(users[2]))
    (first, second) = await stores.command("ZRANGE", NAMES.order, 0, 1)
    await stores.command("ZREM", NAMES.order, first)
    found, _ = await differences(stores, LEADERBOARD)
    assert "action log adds up to 1" in found[str(users[3])]
    assert "board's total is 103" in found[str(users[2])]
    assert f"the board has {UUID(bytes=second[16:])} there" in found[str(users[0])]
    assert "3 users, the scores 4" in found["leaderboard:order"]

    await stores.command("FLUSHALL")
    found, _ = await differences(stores, LEADERBOARD)
    assert "leaderboard" in found


async def test_verify_counts_what_it_leaves_out(stores: Stores) -> None:
    """Users who are banned now, and actions that are reversed now."""
    mia = await user_with(stores, Role.MODERATOR)
    ann, bob = await make_users(stores, 2)
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(ann, action_id="a1"), claim(ann, action_id="a2"), claim(bob)])
    assert await corrections(stores) == (0, 0)
    await bans.put_on(stores, bob, Ban.SHADOW, "a bot", mia)
    for action in ("a1", "a2"):
        await reversals.reverse(stores, BOARDS, ann, action, "not played", mia)
    await reversals.undo(stores, ann, "a2", mia)
    assert await corrections(stores) == (1, 1)
    async with projectors(stores, "a") as (projector,):
        await projector.check_once()
    assert await differences(stores, LEADERBOARD) == ({}, 2)
