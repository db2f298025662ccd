"""A reversal is on every board and with the user's own connections at once."""

import trio

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import Refusal
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.operations.admin.reverse_action import reverse_action, undo_reversal
from scoreboard.storage import bus
from scoreboard.storage.bus import Bus
from scoreboard.storage.postgres import bans
from scoreboard.storage.postgres.reversals import Correction
from tests.operations.admin.test_ban_user import node, redis, refresh, seen, stores
from tests.storage.postgres.moderators import user_with
from tests.storage.seeds import claim, make_users
from tests.storage.two_boards import TwoBoardNode

__all__ = ["node", "redis", "stores"]  # fixtures


async def test_boards_and_the_users_connections_follow_at_once(node: TwoBoardNode, stores: Stores) -> None:
    """`score:personal` has negative points and the new rank. An undo gives both back."""
    mia = await user_with(stores, Role.MODERATOR)
    ann, bob = await make_users(stores, 2)
    await node.submit(claim(ann, points=30, action_id="a1"), claim(bob, points=20))
    hints, heard = Bus(stores), list[bus.Update]()
    subscribed, changed = trio.Event(), trio.Event()

    def hear(payload: bytes) -> None:
        message = hints.decode(payload)
        if isinstance(message, bus.Update) and message.personal:
            heard.append(message)
            changed.set()

    async def next_event() -> bus.Personal:
        nonlocal changed
        with trio.fail_after(5):
            await changed.wait()
        changed = trio.Event()
        (personal,) = heard.pop().personal
        return personal

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hints.listen, subscribed.set, hear)
        await subscribed.wait()
        taken = await reverse_action(stores, refresh(node), ann, "a1", "not played", mia, request_id="r1")
        assert isinstance(taken, Correction)
        assert await seen(node) == [[(bob, 20), (ann, 0)]] * 2
        event = await next_event()
        assert event == bus.Personal(ann, 30, 0, -30, 2, taken.at_ms, "r1")
        given_back = await undo_reversal(stores, refresh(node), ann, "a1", mia, request_id="r2")
        assert isinstance(given_back, Correction)
        assert await seen(node) == [[(ann, 30), (bob, 20)]] * 2
        assert await next_event() == bus.Personal(ann, 0, 30, 30, 1, given_back.at_ms, "r2")
        await bans.put_on(stores, ann, Ban.SHADOW, "a bot", mia)
        await reverse_action(stores, refresh(node), ann, "a1", "not played", mia, request_id="r3")
        assert (await next_event()).rank == 2  # the rank that she would have
        assert await seen(node) == [[(bob, 20)]] * 2
        nursery.cancel_scope.cancel()


async def test_a_refused_reversal_changes_nothing(node: TwoBoardNode, stores: Stores) -> None:
    mia = await user_with(stores, Role.MODERATOR)
    ann, bob = await make_users(stores, 2)
    await node.submit(claim(ann, points=30, action_id="a1"), claim(bob, points=20, action_id="b1"))
    for user, action, actor in ((bob, "a1", mia), (ann, "a2", mia), (ann, "a1", bob), (ann, "a1", ann)):
        refused = await reverse_action(stores, refresh(node), user, action, "no", actor, request_id="r")
        assert isinstance(refused, Refusal)
        assert isinstance(await undo_reversal(stores, refresh(node), user, action, actor, request_id="r"), Refusal)
    assert await seen(node) == [[(ann, 30), (bob, 20)]] * 2
    assert node.caches[LEADERBOARD].newest is not None
