"""Bans and their ends are on every board at once, without waiting for the projector."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations.admin.ban_user import ban_user, lift_ban
from scoreboard.storage.board_cache import Standing
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.postgres.migrate import migrate
from tests.storage.postgres.moderators import user_with
from tests.storage.proxy import Proxy, proxy_before
from tests.storage.seeds import claim, make_users
from tests.storage.two_boards import BOARDS, TwoBoardNode


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy_before(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def stores(database_url: str, redis: Proxy) -> AsyncIterator[Stores]:
    await migrate(database_url)
    async with open_stores(database_url, redis.url) as opened:
        yield opened


@pytest.fixture
async def node(stores: Stores) -> AsyncIterator[TwoBoardNode]:
    made = TwoBoardNode(stores)
    await made.converge()
    yield made
    made.close()


def refresh(node: TwoBoardNode) -> BoardRefresh:
    return BoardRefresh(node.stores, [projector.projection for projector in node.projectors.values()], node.breaker)


async def seen(node: TwoBoardNode) -> list[list[tuple[UUID, int]]]:
    """The users of both boards, as the message of a change makes them be read."""
    for cache in node.caches.values():
        cache.invalidate()
    return [await node.shown(board) for board in BOARDS]


@pytest.mark.parametrize("kind", [Ban.SHADOW, Ban.FULL])
async def test_a_ban_and_its_end_are_on_every_board_at_once(node: TwoBoardNode, kind: Ban) -> None:
    mia = await user_with(node.stores, Role.MODERATOR)
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=30), claim(bob, points=20))
    boards = refresh(node)
    ban = await ban_user(node.stores, boards, ann, kind, "a bot", mia, is_reason_shown=False)
    assert isinstance(ban, int)
    assert await seen(node) == [[(bob, 20)]] * 2
    expected = Standing(30, 1) if kind is Ban.SHADOW else Standing(0, None)
    assert await node.caches[LEADERBOARD].standing(ann) == expected
    assert await lift_ban(node.stores, boards, ann, mia) == ban
    assert await seen(node) == [[(ann, 30), (bob, 20)]] * 2


async def test_a_refused_ban_changes_no_board(node: TwoBoardNode) -> None:
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=30), claim(bob, points=20))
    for actor in (ann, bob):
        refused = await ban_user(node.stores, refresh(node), ann, Ban.FULL, "a bot", actor, is_reason_shown=False)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.FORBIDDEN
    assert await seen(node) == [[(ann, 30), (bob, 20)]] * 2


async def test_a_ban_without_redis_holds_and_follows_later(node: TwoBoardNode, redis: Proxy) -> None:
    """The decision is made; the projector brings it to the boards when Redis is back."""
    mia = await user_with(node.stores, Role.MODERATOR)
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=30), claim(bob, points=20))
    redis.refuse = True
    redis.cut()
    outcome = await ban_user(node.stores, refresh(node), ann, Ban.FULL, "a bot", mia, is_reason_shown=False)
    assert isinstance(outcome, int)
    redis.refuse = False
    await node.stores.execute("UPDATE commits SET committed_at = committed_at - interval '3 seconds'")
    await node.converge()
    assert await seen(node) == [[(bob, 20)]] * 2


async def test_a_user_without_a_score_is_banned_too(node: TwoBoardNode) -> None:
    mia = await user_with(node.stores, Role.MODERATOR)
    (ann,) = await make_users(node.stores, 1)
    assert isinstance(
        await ban_user(node.stores, refresh(node), ann, Ban.FULL, "a bot", mia, is_reason_shown=False), int
    )
    (outcome,) = await node.submit(claim(ann))
    assert isinstance(outcome, Refusal)
    assert await seen(node) == [[], []]
