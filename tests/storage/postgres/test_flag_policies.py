"""What policies do with a flag, and how a decision ends it; and races with batches, moderators and roles."""

import asyncio
from uuid import UUID

import asyncpg
import pytest
import trio

from scoreboard.domain.anomalies import AnomalyPolicy, AnomalyRule
from scoreboard.domain.bans import Ban
from scoreboard.domain.flags import Flag, FlagDraft, Verdict
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.operations.flags import decide
from scoreboard.operations.held_users import HeldUsers
from scoreboard.storage.flagging import open_flags_aio
from scoreboard.storage.postgres import bans, flag_policies
from tests.storage.seeds import make_users

JUMP, RATE = AnomalyRule.POINTS_JUMP, AnomalyRule.ACTION_RATE
HOLD, BLOCK = {JUMP: AnomalyPolicy.HOLD, RATE: AnomalyPolicy.HOLD}, {JUMP: AnomalyPolicy.BLOCK}


async def flagged(stores: Stores, policies: dict[AnomalyRule, AnomalyPolicy], *drafts: FlagDraft) -> list[Flag]:
    return (await stores.in_transaction(open_flags_aio, drafts, alerts=False, policies=policies)).flags


def draft(user: UUID, rule: AnomalyRule = JUMP) -> FlagDraft:
    return FlagDraft(rule, user, {"points": 2000}, 5)


async def ban_of(stores: Stores, user: UUID) -> int:
    return int(await stores.fetchval("SELECT ban FROM users WHERE id = $1", user))


async def events(stores: Stores) -> list[tuple[str, str]]:
    rows = await stores.fetch("SELECT kind, actor FROM audit_events ORDER BY id")
    return [(row["kind"], row["actor"]) for row in rows]


async def test_a_flag_alone_does_nothing(stores: Stores) -> None:
    """The default of every rule."""
    (user,) = await make_users(stores, 1)
    assert len(await flagged(stores, {}, draft(user))) == 1
    assert await ban_of(stores, user) == Ban.NONE
    assert await flag_policies.held_users(stores) == frozenset()


async def test_a_hold_lasts_until_the_decision(stores: Stores) -> None:
    """Of two flags until the last of them is decided, whatever the verdict."""
    (user,) = await make_users(stores, 1)
    first, second = await flagged(stores, HOLD, draft(user), draft(user, RATE))
    assert await flag_policies.held_users(stores) == {user}
    await decide(stores, first.id, Verdict.APPROVE, "moderator", "")
    assert await flag_policies.held_users(stores) == {user}
    await decide(stores, second.id, Verdict.REVOKE, "moderator", "")
    assert await flag_policies.held_users(stores) == frozenset()


async def test_a_node_learns_of_a_hold_and_of_its_end(stores: Stores) -> None:
    """By reading PostgreSQL, each."""
    (user,) = await make_users(stores, 1)
    held = HeldUsers(stores)
    async with trio.open_nursery() as nursery:
        await nursery.start(held.watch)
        assert held.ids == frozenset()
        (flag,) = await flagged(stores, HOLD, draft(user))
        with trio.fail_after(10):  # bounds a hang
            while user not in held.ids:
                await trio.sleep(0.01)
        await decide(stores, flag.id, Verdict.APPROVE, "moderator", "")
        with trio.fail_after(10):  # bounds a hang
            while user in held.ids:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_block_is_a_ban_that_an_approval_lifts(stores: Stores) -> None:
    """Each with its audit event: the ban by the system, its end by the moderator. A revocation leaves it."""
    first, second = await make_users(stores, 2)
    flags = {flag.user: flag for flag in await flagged(stores, BLOCK, draft(first), draft(second))}
    assert [await ban_of(stores, user) for user in (first, second)] == [Ban.FULL, Ban.FULL]
    assert await events(stores) == [("user_banned", "system")] * 2
    await decide(stores, flags[first].id, Verdict.APPROVE, "moderator", "")
    await decide(stores, flags[second].id, Verdict.REVOKE, "moderator", "")
    assert [await ban_of(stores, user) for user in (first, second)] == [Ban.NONE, Ban.FULL]
    assert (await events(stores))[2:] == [
        ("flag_decided", "moderator"),
        ("ban_lifted", "moderator"),
        ("flag_decided", "moderator"),
    ]


@pytest.mark.parametrize("role", ["viewer", "moderator", "admin"])
async def test_no_rule_bans_staff(stores: Stores, role: str) -> None:
    """A moderator who tries the game out is flagged, and can go on deciding."""
    (user,) = await make_users(stores, 1)
    await stores.execute("UPDATE users SET role = $2 WHERE id = $1", user, role)
    assert len(await flagged(stores, BLOCK, draft(user))) == 1
    assert await ban_of(stores, user) == Ban.NONE


async def test_a_moderators_own_ban_outlives_the_approval_of_a_flag(stores: Stores) -> None:
    """Only the ban that the flag has put on is lifted."""
    user, moderator = await make_users(stores, 2)
    await stores.execute("UPDATE users SET role = 'moderator' WHERE id = $1", moderator)
    (flag,) = await flagged(stores, BLOCK, draft(user))
    assert isinstance(await bans.lift(stores, user, moderator), int)
    assert isinstance(await bans.put_on(stores, user, Ban.FULL, "a worse thing", moderator), int)
    await decide(stores, flag.id, Verdict.APPROVE, str(moderator), "")
    assert await ban_of(stores, user) == Ban.FULL


async def test_a_ban_of_before_is_left_alone(stores: Stores) -> None:
    """A shadow ban that a moderator has put on stays a shadow ban."""
    user, moderator = await make_users(stores, 2)
    await stores.execute("UPDATE users SET role = 'moderator' WHERE id = $1", moderator)
    await bans.put_on(stores, user, Ban.SHADOW, "looks odd", moderator)
    (flag,) = await flagged(stores, BLOCK, draft(user))
    assert await ban_of(stores, user) == Ban.SHADOW
    await decide(stores, flag.id, Verdict.APPROVE, str(moderator), "")
    assert await ban_of(stores, user) == Ban.SHADOW


async def test_a_block_waits_for_the_users_batch(stores: Stores) -> None:
    """So the batch can't bring the user back to a board afterwards."""
    (user,) = await make_users(stores, 1)

    async def in_batch_aio() -> tuple[bool, int]:
        conn = await stores.connect_aio()
        try:
            await conn.execute("BEGIN")
            await conn.execute("SELECT FROM users WHERE id = $1 FOR KEY SHARE", user)

            async def flag_aio(other: asyncpg.Connection) -> None:
                async with other.transaction():
                    await open_flags_aio(other, [draft(user)], alerts=False, policies=BLOCK)

            banning = asyncio.create_task(stores.pool.call_aio(flag_aio))
            await asyncio.sleep(0.3)
            waits = not banning.done()
            await conn.execute("COMMIT")
            await banning
            return waits, await conn.fetchval("SELECT ban FROM users WHERE id = $1", user)
        finally:
            conn.terminate()

    assert await run_in_asyncio(in_batch_aio) == (True, Ban.FULL)


async def test_rules_and_moderators_at_once(stores: Stores) -> None:
    """They lock the user first, so none of them ends in a deadlock."""
    users = await make_users(stores, 5)
    for flag in await flagged(stores, BLOCK, *map(draft, users)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(decide, stores, flag.id, Verdict.APPROVE, "moderator", "")
            nursery.start_soon(flagged, stores, BLOCK, *map(draft, users))
    assert await stores.fetchval("SELECT count(*) FROM flags WHERE state = 'approved'") == 5
    assert await stores.fetchval("SELECT count(*) FROM bans WHERE lifted_at IS NULL") == await stores.fetchval(
        "SELECT count(*) FROM users WHERE ban <> 0"
    )
