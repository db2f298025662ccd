"""Users with a ban: they are on no board that others see, whatever comes late, and each sees what he may.

Also tests the scripts apply.lua and standing.lua, {shown} of storage/postgres/totals, and storage/consistency.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import trio

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.domain.outcomes import Duplicate, Recorded, SubmittedAction
from scoreboard.domain.roles import Role
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Connection, Stores, open_stores
from scoreboard.operations.admin.verify import differences
from scoreboard.storage.board_cache import Standing
from scoreboard.storage.postgres import bans, ledger
from tests.storage.postgres.moderators import user_with
from tests.storage.proxy import Proxy, proxy_before
from tests.storage.seeds import NAMES, Scribe, claim, connection, make_users
from tests.storage.two_boards import BOARDS, DAILY, TwoBoardNode, settle


@asynccontextmanager
async def open_node(stores: Stores, name: str) -> AsyncIterator[TwoBoardNode]:
    made = TwoBoardNode(stores, name)
    try:
        await made.converge()
        yield made
    finally:
        made.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy_before(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def node(database_url: str, redis: Proxy) -> AsyncIterator[TwoBoardNode]:
    async with open_stores(database_url, redis.url) as stores, open_node(stores, "a") as made:
        yield made


async def ban(stores: Stores, user: UUID, kind: Ban, **others: bool) -> int:
    """By a new moderator."""
    outcome = await bans.put_on(stores, user, kind, "a bot", await user_with(stores, Role.MODERATOR), **others)
    assert isinstance(outcome, int), outcome
    return outcome


async def lift(stores: Stores, user: UUID) -> None:
    outcome = await bans.lift(stores, user, await user_with(stores, Role.MODERATOR))
    assert isinstance(outcome, int), outcome


async def follow(node: TwoBoardNode) -> None:
    """Has the node bring what was written by others to its boards."""
    await settle(node.stores)
    await node.converge()


async def assert_shown(node: TwoBoardNode, *expected: tuple[UUID, int]) -> None:
    """Both boards show exactly these, and `scoreboard verify` finds no difference."""
    for board in BOARDS:
        assert await node.shown(board) == list(expected)
        assert (await differences(node.stores, board))[0] == {}


@pytest.mark.parametrize("kind", [Ban.SHADOW, Ban.FULL])
async def test_a_banned_user_leaves_every_board_and_comes_back_with_all_points(node: TwoBoardNode, kind: Ban) -> None:
    """Everybody below moves up. The ledger keeps the total, and the plain sorted set for others' use loses it too."""
    ann, bob, cid = await make_users(node.stores, 3)
    await node.submit(claim(ann, points=30), claim(bob, points=20), claim(cid, points=10))
    await ban(node.stores, bob, kind)
    await follow(node)
    await assert_shown(node, (ann, 30), (cid, 10))
    assert await node.stores.command("ZSCORE", NAMES.totals, str(bob)) is None
    assert await node.caches[LEADERBOARD].standing(cid) == Standing(10, 2)
    assert await node.stores.fetchval("SELECT total_score FROM scores WHERE user_id = $1", bob) == 20
    await lift(node.stores, bob)
    await follow(node)
    await assert_shown(node, (ann, 30), (bob, 20), (cid, 10))


async def test_a_user_with_a_shadow_ban_sees_the_rank_that_he_would_have(node: TwoBoardNode) -> None:
    """In the answer to an action, of a duplicate, and on reading; actions count as always, for nobody else to see."""
    ann, bob, cid = await make_users(node.stores, 3)
    await node.submit(claim(ann, points=30), claim(bob, points=20), claim(cid, points=10))
    await ban(node.stores, bob, Ban.SHADOW)
    await follow(node)
    assert await node.caches[LEADERBOARD].standing(bob) == Standing(20, 2)
    action = claim(bob, points=15)
    (outcome,) = await node.submit(action)
    assert isinstance(outcome, Recorded)
    assert (outcome.previous, outcome.new, outcome.rank) == (20, 35, 1)
    (again,) = await node.submit(action)
    assert isinstance(again, Duplicate)
    assert again.original is not None
    assert (again.original.new, again.original.rank) == (35, 1)
    for board in BOARDS:
        assert await node.caches[board].standing(bob) == Standing(35, 1)
        assert await node.caches[board].standing(ann) == Standing(30, 1)
    await assert_shown(node, (ann, 30), (cid, 10))
    (lower,) = await node.submit(claim(ann, points=10))
    assert isinstance(lower, Recorded)
    assert await node.caches[LEADERBOARD].standing(bob) == Standing(35, 2)
    await lift(node.stores, bob)
    await follow(node)
    await assert_shown(node, (ann, 40), (bob, 35), (cid, 10))


async def test_a_first_action_under_a_shadow_ban_is_hidden_too(node: TwoBoardNode) -> None:
    ann, bob = await make_users(node.stores, 2)
    await ban(node.stores, bob, Ban.SHADOW)
    outcomes = await node.submit(claim(bob, points=20), claim(ann, points=5), claim(bob, points=1))
    assert [(each.new, each.rank) for each in outcomes if isinstance(each, Recorded)] == [(20, 1), (5, 1), (21, 1)]
    await assert_shown(node, (ann, 5))
    await lift(node.stores, bob)
    await follow(node)
    await assert_shown(node, (bob, 21), (ann, 5))


async def test_a_banned_user_submits_nothing_and_has_no_rank(node: TwoBoardNode) -> None:
    """403, with the reason only if the moderator lets the user read it. Others in the batch are not touched, and what
    was recorded before is answered as a duplicate."""
    ann, bob, cid = await make_users(node.stores, 3)
    before = claim(bob, points=20)
    await node.submit(claim(ann, points=30), before)
    await ban(node.stores, bob, Ban.FULL, is_reason_shown=True)
    await ban(node.stores, cid, Ban.FULL)
    outcomes = await node.submit(claim(bob, points=5), claim(ann, points=1), claim(cid), before)
    assert outcomes[0] == Refusal(Code.FORBIDDEN, "This account is banned: a bot")
    assert isinstance(outcomes[1], Recorded)
    assert outcomes[2] == Refusal(Code.FORBIDDEN, "This account is banned.")
    assert isinstance(outcomes[3], Duplicate)
    assert outcomes[3].original is not None
    assert (outcomes[3].original.new, outcomes[3].original.rank) == (20, None)
    await follow(node)
    assert await node.caches[LEADERBOARD].standing(bob) == Standing(0, None)
    assert await node.stores.fetchval("SELECT count(*) FROM action_logs") == 3
    await assert_shown(node, (ann, 31))


@pytest.mark.parametrize("kind", [Ban.SHADOW, Ban.FULL])
async def test_a_row_from_before_the_ban_that_comes_late_changes_nothing(node: TwoBoardNode, kind: Ban) -> None:
    """Neither on the board that has seen the ban, nor on one that was built anew afterwards: both know its version."""
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=30))
    async with connection(node.stores) as conn:
        span, recording = await Scribe(conn, 77).record([claim(bob, points=50)])
        await ban(node.stores, bob, kind)
        await follow(node)
        projection = node.projectors[LEADERBOARD].projection
        for _ in range(2):
            for late in (span, SequenceRange(77, 1, 0)):
                await run_in_asyncio(projection.apply_aio, late, recording.rows, recording.events)
            assert await node.shown(LEADERBOARD) == [(ann, 30)]
            await node.stores.command("FLUSHALL")
            await node.converge()
    assert (await differences(node.stores, LEADERBOARD))[0] == {}


async def test_redis_is_lost_and_rebuilt_without_the_hidden(node: TwoBoardNode) -> None:
    """The new board knows what each of them may see. It is rebuilt also when nobody is on it."""
    ann, bob, cid = await make_users(node.stores, 3)
    await node.submit(claim(ann, points=30), claim(bob, points=20), claim(cid, points=10))
    await ban(node.stores, bob, Ban.SHADOW)
    await ban(node.stores, ann, Ban.FULL)
    await node.stores.command("FLUSHALL")
    await node.converge()
    await assert_shown(node, (cid, 10))
    assert await node.caches[LEADERBOARD].standing(bob) == Standing(20, 1)
    assert await node.caches[LEADERBOARD].standing(ann) == Standing(0, None)
    await ban(node.stores, cid, Ban.FULL)
    await node.stores.command("FLUSHALL")
    await node.converge()
    await assert_shown(node)
    for user in (ann, bob, cid):
        await lift(node.stores, user)
    await follow(node)
    await assert_shown(node, (ann, 30), (bob, 20), (cid, 10))


async def test_without_redis_postgresql_hides_them_too(node: TwoBoardNode, redis: Proxy) -> None:
    """The board and everybody's own rank, while actions are recorded without Redis."""
    ann, bob, cid = await make_users(node.stores, 3)
    await node.submit(claim(ann, points=30), claim(bob, points=20), claim(cid, points=10))
    await ban(node.stores, bob, Ban.SHADOW)
    await ban(node.stores, ann, Ban.FULL)
    redis.refuse = True
    redis.cut()
    (outcome,) = await node.submit(claim(bob, points=1))
    assert isinstance(outcome, Recorded)
    assert outcome.rank is None
    for board in BOARDS:
        snapshot = await node.caches[board].read()
        assert snapshot.stale
        assert [(UUID(entry.userId), entry.score) for entry in snapshot.rows] == [(cid, 10)]
        assert await node.caches[board].standing(bob) == Standing(21, 1)
        assert await node.caches[board].standing(cid) == Standing(10, 1)
        assert await node.caches[board].standing(ann) == Standing(0, None)


async def test_a_ban_during_batches_of_two_nodes_holds(stores: Stores) -> None:
    """Whatever is under way: no action is recorded after the ban, and when all is quiet the user is on no board. The
    same with a shadow ban, under which all actions count."""
    async with open_node(stores, "a") as first, open_node(stores, "b") as second:
        for kind in (Ban.FULL, Ban.SHADOW) * 3:
            ann, bob = await make_users(stores, 2)
            batches: list[list[SubmittedAction]] = [[claim(bob, points=1), claim(ann, points=1)] for _ in range(16)]
            decided = list[int]()

            async def decide(user: UUID = bob, how: Ban = kind, into: list[int] = decided) -> None:
                into.append(await ban(stores, user, how))

            async def submit(by: TwoBoardNode, own: list[list[SubmittedAction]]) -> None:
                for batch in own:
                    await by.submit(*batch)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit, first, batches[:8])
                nursery.start_soon(submit, second, batches[8:])
                nursery.start_soon(decide)
            logged = await stores.fetch("SELECT seq FROM action_logs WHERE user_id = $1", bob)
            if kind is Ban.FULL:
                assert all(row["seq"] < decided[0] for row in logged)
            else:
                assert len(logged) == 16
            await settle(stores)
            for node in (first, second):
                await node.converge()
                for board in BOARDS:
                    assert bob not in dict(await node.shown(board))
                    assert dict(await node.shown(board))[ann] == 16
                    assert (await differences(stores, board))[0] == {}


async def test_a_ban_by_plain_sql_follows_too(node: TwoBoardNode) -> None:
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=30), claim(bob, points=20))
    await node.stores.execute("UPDATE users SET ban = 1 WHERE id = $1", ann)
    await follow(node)
    await assert_shown(node, (bob, 20))
    assert await node.caches[DAILY].standing(ann) == Standing(30, 1)


# Without the lock that bans.put_on takes first: the key of users_id_ban alone makes it exact.
PLAIN_BAN_SQL = "UPDATE users SET ban = $2 WHERE id = $1"


async def test_a_ban_waits_for_the_batch_that_is_under_way(stores: Stores) -> None:
    """Also for a first action, of which nobody else sees a row yet."""
    (bob,) = await make_users(stores, 1)
    order = list[str]()

    async def decide() -> None:
        await stores.execute(PLAIN_BAN_SQL, bob, Ban.SHADOW)
        order.append("ban")

    async with connection(stores) as conn, trio.open_nursery() as nursery:
        await run_in_asyncio(conn.execute, "BEGIN")
        await Scribe(conn, 77).record([claim(bob)])
        nursery.start_soon(decide)
        await wait_for_lock(stores)
        order.append("batch")
        await run_in_asyncio(conn.execute, "COMMIT")
    assert order == ["batch", "ban"]
    async with connection(stores) as conn:
        (row,) = await run_in_asyncio(ledger.current_rows_aio, conn, LEADERBOARD, {bob: 0})
    recorded = await stores.fetchval("SELECT max(seq) FROM action_logs")
    assert (row.total, row.ban) == (10, Ban.SHADOW)
    assert row.version > recorded


@pytest.mark.parametrize("kind", [Ban.SHADOW, Ban.FULL])
async def test_a_batch_that_began_before_the_ban_and_locks_after_it_sees_it(stores: Stores, kind: Ban) -> None:
    """Its snapshot is older than the ban; the lock reads the newest row nevertheless."""
    ann, bob = sorted(await make_users(stores, 2))
    recordings = list[ledger.Recording]()

    async def record(conn: Connection) -> None:
        _, recording = await Scribe(conn, 77).record([claim(ann), claim(bob)])
        recordings.append(recording)

    async with connection(stores) as holder, connection(stores) as conn, trio.open_nursery() as nursery:
        await run_in_asyncio(holder.execute, "BEGIN")
        await run_in_asyncio(holder.fetch, "SELECT FROM users WHERE id = $1 FOR UPDATE", ann)
        nursery.start_soon(record, conn)
        await wait_for_lock(stores)
        await stores.execute(PLAIN_BAN_SQL, bob, kind)
        await run_in_asyncio(holder.execute, "COMMIT")
    (recording,) = recordings
    if kind is Ban.FULL:
        assert recording.outcomes[1] == Refusal(Code.FORBIDDEN, "This account is banned.")
        assert [row.subject for row in recording.rows] == [ann]
    else:
        assert [(row.subject, row.ban) for row in recording.rows] == [(ann, Ban.NONE), (bob, Ban.SHADOW)]


async def wait_for_lock(stores: Stores) -> None:
    """Until a session of this database waits for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with trio.fail_after(5):
        while not await stores.fetchval(sql):
            await trio.sleep(0.01)
