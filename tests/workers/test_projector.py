"""The projector: gaps, old boards, damaged and absent boards, a restored older database, and two projectors at once."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.domain.boards import LEADERBOARD, NEVER, BoardVersion
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.comparison import Repair
from scoreboard.storage.profiles import Profiles
from scoreboard.storage.rebuild import Rebuilder
from tests.storage.repaired_board import RepairedBoard, is_equal, meta, projectors, repaired_board
from tests.storage.seeds import NAMES, Scribe, claim, complete_windows, connection, make_users, order_in_redis


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    async with open_stores(database_url, redis_url) as opened:
        await complete_windows(opened)
        yield opened


@pytest.fixture
async def board(stores: Stores) -> AsyncIterator[RepairedBoard]:
    """A board without users, which the projector has built."""
    async with repaired_board(stores) as made:
        yield made


async def test_an_absent_board_is_built(stores: Stores) -> None:
    """The first comparison with an empty Redis builds the board from PostgreSQL under a first epoch."""
    users = await make_users(stores, 30)
    async with connection(stores) as conn, projectors(stores, "a") as (projector,):
        scribe = Scribe(conn, 1)
        for user in users:
            await scribe.record([claim(user, points=10 + user.int % 3)])
        assert await projector.check_once() is Repair.REBUILD
        assert projector.projection.known > NEVER
        assert await is_equal(stores)
        assert projector.agreement.is_stale, "only the next comparison proves that they agree"
        assert (await projector.check_once(), projector.agreement.is_stale) == (None, False)
    assert await stores.command("KEYS", "*:next:*") == []
    assert await stores.command("TTL", NAMES.order) == -1, "the board itself must not expire"


async def test_a_board_without_users_is_built(stores: Stores, board: RepairedBoard) -> None:
    """A service that nobody has used yet has an empty board, not an absent one, and the first action goes in."""
    (user,) = await make_users(stores, 1)
    assert await board.score(claim(user)) is not None
    assert await order_in_redis(stores) == [(str(user), 10)]


async def test_a_dead_writers_batches_are_replayed(stores: Stores, board: RepairedBoard) -> None:
    """What a killed node committed and never brought to the board goes in, once it is old enough to be nobody's."""
    first, *others = await make_users(stores, 5)
    await board.score(claim(first))
    for user in others:
        await board.record(claim(user, points=20))
    await board.check()
    assert len(await order_in_redis(stores)) == 1, "a committer has a moment to close its own gap"
    epoch = board.epoch
    assert await board.settle_and_check() is Repair.REPLAY
    assert await is_equal(stores)
    assert board.epoch == epoch
    assert (await run_in_asyncio(Rebuilder(stores, LEADERBOARD).state_aio)).applied == {7: 5}


# ---- damaged boards -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", NAMES)
async def test_a_board_of_which_a_key_is_lost_is_built_anew(stores: Stores, board: RepairedBoard, key: str) -> None:
    """Whichever of the five: nothing is written to the rest, no rank is told, and the board is whole again under a new
    epoch."""
    last, *users = await make_users(stores, 12)
    await board.score(*map(claim, users))
    await stores.command("DEL", key)
    assert await board.score(claim(last, points=99)) is None
    epoch = board.epoch
    assert await board.check() is Repair.REBUILD
    assert board.epoch > epoch
    assert await is_equal(stores)


@pytest.mark.parametrize(
    "damage",
    [
        ("ZREM", NAMES.totals, "user"),
        ("ZREM", NAMES.order, "member"),
        ("HDEL", NAMES.entry, "raw"),
        ("HDEL", NAMES.meta, "size"),
        ("HDEL", NAMES.applied, "7"),
        ("ZADD", NAMES.totals, "1", "somebody else"),
        ("SET", NAMES.order, "another type"),
        ("SET", NAMES.meta, "another type"),
        ("HSET", NAMES.meta, "installation", "another"),
    ],
)
async def test_a_board_that_does_not_add_up_is_built_anew(
    stores: Stores, board: RepairedBoard, damage: tuple[str, ...]
) -> None:
    """One member taken out or put in by hand, a key of another type, another installation's board."""
    users = await make_users(stores, 3)
    await board.score(*map(claim, users))
    (member,) = await stores.command("ZRANGE", NAMES.order, 1, 1)
    named = {"user": str(UUID(bytes=member[16:])), "member": member, "raw": member[16:]}
    await stores.command(*(named.get(part, part) for part in damage))
    assert await board.score(claim(users[0])) is None
    assert await board.check() is Repair.REBUILD
    assert await is_equal(stores)
    await board.check()
    assert not board.is_stale


# ---- changes by others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["DELETE FROM users WHERE id = $1", "DELETE FROM scores WHERE user_id = $1"])
async def test_whoever_is_deleted_by_hand_leaves_the_board(
    stores: Stores, board: RepairedBoard, statement: str
) -> None:
    """Another client of the database deletes a user or a score: the entry goes and does not come back with a late
    row."""
    users = await make_users(stores, 2)
    late = await board.record(*map(claim, users))
    await board.project(late)
    await stores.execute(statement, users[0])
    await board.settle_and_check()
    assert [user for user, _ in await order_in_redis(stores)] == [str(users[1])]
    await board.project(late)
    assert [user for user, _ in await order_in_redis(stores)] == [str(users[1])]


async def test_whose_score_was_deleted_comes_back_with_the_next_action(stores: Stores, board: RepairedBoard) -> None:
    """The new score's version is newer than the removal."""
    users = await make_users(stores, 2)
    await board.score(*(claim(user, points=50) for user in users))
    for _ in range(5):
        await board.score(claim(users[0]))
    await stores.execute("DELETE FROM scores WHERE user_id = $1", users[0])
    await board.settle_and_check()
    await board.score(claim(users[0], points=3))
    assert await order_in_redis(stores) == [(str(users[1]), 50), (str(users[0]), 3)]


async def test_scores_written_by_hand_are_on_the_board(stores: Stores, board: RepairedBoard) -> None:
    """An operator corrects a total, and copies a deleted score back: both are newer than anything the board has."""
    users = await make_users(stores, 3)
    await board.score(*(claim(user, points=50) for user in users))
    await stores.execute("UPDATE scores SET total_score = 7 WHERE user_id = $1", users[0])
    await stores.execute("CREATE TABLE copy AS SELECT * FROM scores WHERE user_id = $1", users[1])
    await stores.execute("DELETE FROM scores WHERE user_id = $1", users[1])
    await board.settle_and_check()
    await stores.execute("INSERT INTO scores SELECT * FROM copy")
    await board.settle_and_check()
    assert await is_equal(stores)
    assert len(await order_in_redis(stores)) == 3


async def test_truncated_scores_leave_an_empty_board(stores: Stores, board: RepairedBoard) -> None:
    """TRUNCATE names no rows, so the board is rebuilt."""
    await board.score(*map(claim, await make_users(stores, 3)))
    await stores.execute("TRUNCATE scores")
    assert await board.settle_and_check() is Repair.REBUILD
    assert await order_in_redis(stores) == []
    await board.check()
    assert not board.is_stale


async def test_a_rename_while_redis_was_away_is_on_the_board(stores: Stores, board: RepairedBoard) -> None:
    """Redis comes back with the old name in its cache: it goes before the board agrees, and every node reads the name
    anew."""
    (user,) = await make_users(stores, 1)
    await board.score(claim(user))
    profile = stores.namespace.profile(user)
    await stores.command("HSET", profile, "username", "old", "avatarUrl", "")
    await stores.execute("UPDATE users SET username = 'new' WHERE id = $1", user)
    names = await meta(stores, "names")
    assert await board.settle_and_check() is Repair.REPLAY
    assert StaleReason.BEHIND in board.projector.agreement.stale_reasons()
    assert await stores.command("EXISTS", profile) == 0
    assert await meta(stores, "names") > names
    await board.check()
    assert not board.is_stale


async def test_a_rename_that_was_written_through_is_not_announced_again(stores: Stores, board: RepairedBoard) -> None:
    """The projector finds it in the outbox, and that Redis has it: the board stays as it is, and no viewer gets a
    second frame."""
    (user,) = await make_users(stores, 1)
    await board.score(claim(user))
    await stores.execute("UPDATE users SET username = 'new' WHERE id = $1", user)
    await Profiles(stores).write_through(user, "new", None)
    fields = ("version", "top", "names")
    content = await stores.command("HMGET", NAMES.meta, *fields)
    assert await board.settle_and_check() is Repair.REPLAY
    assert await stores.command("HMGET", NAMES.meta, *fields) == content
    assert await stores.command("HGET", stores.namespace.profile(user), "username") == b"new"


async def test_of_two_writes_that_overtook_each_other_the_last_commit_counts(
    stores: Stores, board: RepairedBoard
) -> None:
    """Redis has the older name, and says that it was told: PostgreSQL says otherwise, so all nodes read it anew."""
    (user,) = await make_users(stores, 1)
    await board.score(claim(user))
    profiles = Profiles(stores)
    for name in ("first", "second"):
        await stores.execute("UPDATE users SET username = $2 WHERE id = $1", user, name)
    for name in ("second", "first"):
        await profiles.write_through(user, name, None)
    names = await meta(stores, "names")
    assert await board.settle_and_check() is Repair.REPLAY
    assert await stores.command("EXISTS", stores.namespace.profile(user)) == 0
    assert await meta(stores, "names") > names


# ---- histories ------------------------------------------------------------------------------------------------------


async def test_an_old_board_is_renewed(stores: Stores, board: RepairedBoard) -> None:
    """A Redis that came back with an older content gets what it lacks and a new epoch; no node uses it before."""
    users = await make_users(stores, 12)
    await board.score(*map(claim, users))
    dump = {name: await stores.command("DUMP", name) for name in NAMES}
    for user in users[:6]:
        await board.score(claim(user, points=5))
    epoch = board.epoch
    for name, content in dump.items():
        await stores.command("RESTORE", name, 0, content, "REPLACE")
    assert await board.score(claim(users[6], points=99)) is None, "a rank on a board that fell back may be wrong"
    assert await board.check() is Repair.BUMP_EPOCH
    assert board.epoch > epoch
    assert await is_equal(stores)


async def test_a_history_that_went_back_is_noticed_without_anybody_acting(stores: Stores, board: RepairedBoard) -> None:
    """An older database was restored: the board has batches that PostgreSQL does not know, and is built anew under a
    new epoch."""
    users = await make_users(stores, 3)
    await board.score(*map(claim, users))
    await stores.execute("CREATE TABLE old_scores AS TABLE scores; CREATE TABLE old_commits AS TABLE commits")
    await board.score(claim(users[0], points=1000))
    await stores.execute("ALTER TABLE scores DISABLE TRIGGER USER")  # a restored database has no rows of its own making
    await stores.execute(
        "UPDATE scores s SET total_score = o.total_score, reached = o.reached, version = o.version"
        " FROM old_scores o WHERE o.user_id = s.user_id"
    )
    await stores.execute(
        "DELETE FROM commits c WHERE NOT EXISTS "
        "(SELECT FROM old_commits o WHERE o.writer = c.writer AND o.turn = c.turn)"
    )
    epoch = board.epoch
    assert await board.check() is Repair.REBUILD
    assert StaleReason.HISTORY_LOST in board.projector.agreement.stale_reasons()
    assert board.epoch > epoch
    assert await is_equal(stores)
    await board.check()
    assert not board.is_stale


async def test_batches_that_were_acknowledged_and_lost_are_not_waited_for(stores: Stores) -> None:
    """A node that had answered for a batch that is gone says so once, and its board agrees again when the history is
    settled."""
    async with projectors(stores, "a") as (projector,):
        projector.agreement.acknowledge(7, 3)
        await projector.check_once()
        await projector.check_once()
        assert not projector.agreement.is_stale
        assert projector.agreement.acknowledged() == {}


async def test_another_database_is_another_installation(stores: Stores, board: RepairedBoard) -> None:
    """A board of another installation counts as missing."""
    await board.record(*map(claim, await make_users(stores, 2)))
    await stores.execute("UPDATE installation SET id = $1", uuid4())
    await stores.command("DEL", stores.namespace.lease(LEADERBOARD))
    async with projectors(stores, "b") as (another,):
        assert await another.check_once() is Repair.REBUILD
    assert await is_equal(stores)


async def test_a_board_that_another_installation_repairs_is_left_alone(stores: Stores, board: RepairedBoard) -> None:
    """Two installations without prefixes on one database: whoever comes second finds no board, never takes the other's,
    and says so."""
    before = await stores.command("HGETALL", NAMES.meta)
    await stores.execute("UPDATE installation SET id = $1", uuid4())
    async with projectors(stores, "b") as (second,):
        assert await second.check_once() is None
        assert second.repair.lease.is_shared
        assert second.agreement.stale_reasons() == {StaleReason.MISSING}
    assert await stores.command("HGETALL", NAMES.meta) == before


async def test_a_board_older_than_the_outbox_is_rebuilt(stores: Stores, board: RepairedBoard) -> None:
    """When the batches that a board lacks are no longer kept, it is built anew."""
    for user in await make_users(stores, 3):
        await board.record(claim(user))
    await stores.execute("DELETE FROM commits WHERE turn < 3")
    epoch = board.epoch
    assert await board.settle_and_check() is Repair.REBUILD
    assert board.epoch > epoch
    assert await is_equal(stores)


# ---- the task -------------------------------------------------------------------------------------------------------


async def test_one_projector_at_a_time(stores: Stores) -> None:
    """The lease is one node's until it stops renewing it."""
    async with projectors(stores, "a", "b") as (first, second):
        assert await first.check_once() is Repair.REBUILD
        await stores.command("DEL", NAMES.order, NAMES.meta)
        assert await second.check_once() is None
        assert not second.repair.lease.is_shared
        assert await first.check_once() is Repair.REBUILD


async def test_the_task_mends_an_emptied_redis(stores: Stores) -> None:
    """An emptied Redis is repaired as soon as a repair is requested."""
    heard: list[BoardVersion] = []
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user)])
    async with projectors(stores, "a") as (projector,):
        projector.on_board_changed = lambda _, version: heard.append(version)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(projector.run)
                assert len(await order_in_redis(stores)) == 1
                await stores.command("FLUSHALL")
                projector.request_repair()
                while len(heard) < 2:
                    await trio.sleep(0.01)
                assert await order_in_redis(stores) == [(str(user), 10)]
                nursery.cancel_scope.cancel()
    assert heard[1] > heard[0]
