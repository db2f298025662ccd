"""The projector: gaps, old boards, damaged and absent boards, a restored older database, and two projectors at once."""

from collections.abc import AsyncIterator
from random import Random
from uuid import UUID, uuid4

import pytest
import trio
import trio_asyncio

from scoreboard.domain.boards import LEADERBOARD, NEVER, BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.namespace import BoardKeys
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations.admin.verify import differences
from scoreboard.storage import rebuild
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.comparison import BEHIND_SECONDS, Comparison, Repair, needed_repair, reasons_of
from scoreboard.storage.postgres import outbox
from scoreboard.storage.postgres.outbox import MissingBatches
from scoreboard.storage.profiles import Profiles
from scoreboard.storage.rebuild import BoardState, Rebuilder, StaleEpoch
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.workers.housekeeping import run_housekeeping
from scoreboard.workers.projector import Projector
from tests.storage.seeds import (
    NAMES,
    Scribe,
    claim,
    complete_windows,
    connection,
    make_users,
    order_in_postgres,
    order_in_redis,
)

MADE: list[Projector] = []  # by a test, closed at its end


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    async with open_stores(database_url, redis_url) as opened:
        await complete_windows(opened)
        yield opened
        while MADE:
            MADE.pop().close()


def projector_of(stores: Stores, node: str = "a") -> Projector:
    made = Projector(
        stores, LEADERBOARD, node, UserLimits(stores.redis_direct, per_minute=10, cooldowns=True), lambda *_: None
    )
    MADE.append(made)
    return made


def rebuilder_of(stores: Stores) -> Rebuilder:
    return Rebuilder(stores, LEADERBOARD)


def projection_of(stores: Stores) -> Projection:
    return Projection(stores.redis_direct, LEADERBOARD, lambda: None, installation=lambda: stores.installation)


async def settle(stores: Stores) -> None:
    """Makes what was committed look older than a committer needs to close its own gap."""
    await stores.execute("UPDATE commits SET committed_at = committed_at - interval '3 seconds'")


def state(
    epoch: int, version: int, run_id: str = "s", *, is_whole: bool = True, is_incomplete: bool = False
) -> BoardState:
    return BoardState(is_whole, epoch, version, run_id, "s", is_incomplete, {})


def missing(age: float) -> MissingBatches:
    return MissingBatches(SequenceRange(7, 1, 1), {}, frozenset(), age)


@pytest.mark.parametrize(
    ("seen", "known", "expected", "reasons"),
    [
        (Comparison(state(0, 0, is_whole=False), {}, [], False, {}), NEVER, Repair.REBUILD, {StaleReason.MISSING}),
        (
            Comparison(state(3, 9, is_whole=False), {}, [], False, {}),
            BoardVersion(3, 9),
            Repair.REBUILD,
            {StaleReason.MISSING},
        ),
        (Comparison(state(1, 5), {}, [], False, {}), BoardVersion(1, 5), Repair.REPLAY, set()),
        (
            Comparison(state(1, 5, "before"), {}, [], False, {}),
            BoardVersion(1, 5),
            Repair.BUMP_EPOCH,
            {StaleReason.OLD},
        ),
        (Comparison(state(1, 4), {}, [], False, {}), BoardVersion(1, 5), Repair.BUMP_EPOCH, {StaleReason.OLD}),
        (Comparison(state(1, 9), {}, [], False, {}), BoardVersion(2, 1), Repair.BUMP_EPOCH, {StaleReason.OLD}),
        (Comparison(state(2, 1), {}, [], False, {}), BoardVersion(1, 9), Repair.REPLAY, set()),
        (
            Comparison(state(2, 1, is_incomplete=True), {}, [], False, {}),
            BoardVersion(1, 9),
            Repair.COMPLETE,
            {StaleReason.INCOMPLETE},
        ),
        (
            Comparison(state(1, 5), {7: 2}, [], False, {}),
            BoardVersion(1, 5),
            Repair.REBUILD,
            {StaleReason.HISTORY_LOST},
        ),
        (Comparison(state(1, 5), {}, [], True, {}), BoardVersion(1, 5), Repair.REBUILD, {StaleReason.BEHIND}),
        (
            Comparison(state(1, 5), {}, [missing(BEHIND_SECONDS / 2)], False, {}),
            BoardVersion(1, 5),
            Repair.REPLAY,
            set(),
        ),
        (
            Comparison(state(1, 5), {}, [missing(BEHIND_SECONDS * 2)], False, {}),
            BoardVersion(1, 5),
            Repair.REPLAY,
            {StaleReason.BEHIND},
        ),
        (Comparison(state(1, 5), {}, [], False, {7: False}), BoardVersion(1, 5), Repair.REPLAY, {StaleReason.DETACHED}),
        (Comparison(state(1, 5), {}, [], False, {7: True, 8: False}), BoardVersion(1, 5), Repair.REPLAY, set()),
    ],
)
def test_what_a_comparison_leads_to(
    seen: Comparison, known: BoardVersion, expected: Repair, reasons: set[StaleReason]
) -> None:
    """A part missing, a lost history: built anew. A restarted server, a fallen version: renumbered. An old gap puts a
    board in doubt."""
    assert needed_repair(seen, known) is expected
    assert reasons_of(seen, known, {8}) == reasons


async def test_an_absent_board_is_built(stores: Stores) -> None:
    """The first comparison with an empty Redis builds the board from PostgreSQL under a first epoch."""
    users = await make_users(stores, 30)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 1)
        for user in users:
            await scribe.record([claim(user, points=10 + user.int % 3)])
    projector = projector_of(stores)
    assert await projector.check_once() is Repair.REBUILD
    assert projector.projection.known > NEVER
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    assert projector.agreement.is_stale, "only the next comparison proves that they agree"
    assert (await projector.check_once(), projector.agreement.is_stale) == (None, False)
    assert await stores.command("KEYS", "*:next:*") == []
    assert await stores.command("TTL", NAMES.order) == -1, "the board itself must not expire"


async def test_a_board_without_users_is_built(stores: Stores) -> None:
    """A service that nobody has used yet has an empty board, not an absent one, and the first action goes in."""
    projector = projector_of(stores)
    await projector.check_once()
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 1)
        applied = await scribe.project(projector.projection, await scribe.record([claim(user)]))
    assert applied is not None
    assert await order_in_redis(stores) == [(str(user), 10)]


async def test_a_dead_writers_batches_are_replayed(stores: Stores) -> None:
    """What a killed node committed and never brought to the board goes in, once it is old enough to be nobody's."""
    users = await make_users(stores, 5)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(users[0])]))
        for user in users[1:]:
            await scribe.record([claim(user, points=20)])
    await projector.check_once()
    assert len(await order_in_redis(stores)) == 1, "a committer has a moment to close its own gap"
    await settle(stores)
    before = projector.projection.known
    assert await projector.check_once() is Repair.REPLAY
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    assert projector.projection.known.epoch == before.epoch
    assert (await run_in_asyncio(rebuilder_of(stores).state_aio)).applied == {7: 5}


# ---- damaged boards -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", NAMES)
async def test_a_board_of_which_a_key_is_lost_is_built_anew(stores: Stores, key: str) -> None:
    """Whichever of the five: nothing is written to the rest, no rank is told, and the board is whole again under a new
    epoch."""
    users = await make_users(stores, 12)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user) for user in users[:11]]))
        await stores.command("DEL", key)
        assert await scribe.project(projector.projection, await scribe.record([claim(users[11], points=99)])) is None
    epoch = projector.projection.known.epoch
    assert await projector.check_once() is Repair.REBUILD
    assert projector.projection.known.epoch > epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)


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
async def test_a_board_that_does_not_add_up_is_built_anew(stores: Stores, damage: tuple[str, ...]) -> None:
    """One member taken out or put in by hand, a key of another type, another installation's board."""
    users = await make_users(stores, 3)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user) for user in users]))
        (member,) = await stores.command("ZRANGE", NAMES.order, 1, 1)
        named = {"user": str(UUID(bytes=member[16:])), "member": member, "raw": member[16:]}
        await stores.command(*(named.get(part, part) for part in damage))
        assert await scribe.project(projector.projection, await scribe.record([claim(users[0])])) is None
    assert await projector.check_once() is Repair.REBUILD
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    await projector.check_once()
    assert not projector.agreement.is_stale


# ---- changes by others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["DELETE FROM users WHERE id = $1", "DELETE FROM scores WHERE user_id = $1"])
async def test_whoever_is_deleted_by_hand_leaves_the_board(stores: Stores, statement: str) -> None:
    """Another client of the database deletes a user or a score: the entry goes and does not come back with a late
    row."""
    users = await make_users(stores, 2)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        late = await scribe.record([claim(user) for user in users])
        await scribe.project(projector.projection, late)
        await stores.execute(statement, users[0])
        await settle(stores)
        await projector.check_once()
        assert [user for user, _ in await order_in_redis(stores)] == [str(users[1])]
        await scribe.project(projector.projection, late)
    assert [user for user, _ in await order_in_redis(stores)] == [str(users[1])]


async def test_whose_score_was_deleted_comes_back_with_the_next_action(stores: Stores) -> None:
    """The new score's version is newer than the removal."""
    users = await make_users(stores, 2)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user, points=50) for user in users]))
        for _ in range(5):
            await scribe.project(projector.projection, await scribe.record([claim(users[0])]))
        await stores.execute("DELETE FROM scores WHERE user_id = $1", users[0])
        await settle(stores)
        await projector.check_once()
        await scribe.project(projector.projection, await scribe.record([claim(users[0], points=3)]))
    assert await order_in_redis(stores) == [(str(users[1]), 50), (str(users[0]), 3)]


async def test_scores_written_by_hand_are_on_the_board(stores: Stores) -> None:
    """An operator corrects a total, and copies a deleted score back: both are newer than anything the board has."""
    users = await make_users(stores, 3)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user, points=50) for user in users]))
    await stores.execute("UPDATE scores SET total_score = 7 WHERE user_id = $1", users[0])
    await stores.execute("CREATE TABLE copy AS SELECT * FROM scores WHERE user_id = $1", users[1])
    await stores.execute("DELETE FROM scores WHERE user_id = $1", users[1])
    await settle(stores)
    await projector.check_once()
    await stores.execute("INSERT INTO scores SELECT * FROM copy")
    await settle(stores)
    await projector.check_once()
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    assert len(await order_in_redis(stores)) == 3


async def test_truncated_scores_leave_an_empty_board(stores: Stores) -> None:
    """TRUNCATE names no rows, so the board is rebuilt."""
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(
            projector.projection, await scribe.record([claim(user) for user in await make_users(stores, 3)])
        )
    await stores.execute("TRUNCATE scores")
    await settle(stores)
    assert await projector.check_once() is Repair.REBUILD
    assert await order_in_redis(stores) == []
    await projector.check_once()
    assert not projector.agreement.is_stale


async def test_a_committers_own_rows_are_noted_once(stores: Stores) -> None:
    """The triggers are for others: a committer's batch has one row in the outbox, under its own number."""
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 3)])
    assert [row["writer"] for row in await stores.fetch("SELECT writer FROM commits")] == [7]


async def test_a_rename_while_redis_was_away_is_on_the_board(stores: Stores) -> None:
    """Redis comes back with the old name in its cache: it goes before the board agrees, and every node reads the name
    anew."""
    (user,) = await make_users(stores, 1)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user)]))
    profile = stores.namespace.profile(user)
    await stores.command("HSET", profile, "username", "old", "avatarUrl", "")
    await stores.execute("UPDATE users SET username = 'new' WHERE id = $1", user)
    await settle(stores)
    names = int(await stores.command("HGET", NAMES.meta, "names") or 0)
    assert await projector.check_once() is Repair.REPLAY
    assert StaleReason.BEHIND in projector.agreement.stale_reasons()
    assert await stores.command("EXISTS", profile) == 0
    assert int(await stores.command("HGET", NAMES.meta, "names")) > names
    await projector.check_once()
    assert not projector.agreement.is_stale


async def test_a_rename_that_was_written_through_is_not_announced_again(stores: Stores) -> None:
    """The projector finds it in the outbox, and that Redis has it: the board stays as it is, and no viewer gets a
    second frame."""
    (user,) = await make_users(stores, 1)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user)]))
    profiles = Profiles(stores)
    await stores.execute("UPDATE users SET username = 'new' WHERE id = $1", user)
    await profiles.write_through(user, "new", None)
    fields = ("version", "top", "names")
    content = await stores.command("HMGET", NAMES.meta, *fields)
    await settle(stores)
    assert await projector.check_once() is Repair.REPLAY
    assert await stores.command("HMGET", NAMES.meta, *fields) == content
    assert await stores.command("HGET", stores.namespace.profile(user), "username") == b"new"


async def test_of_two_writes_that_overtook_each_other_the_last_commit_counts(stores: Stores) -> None:
    """Redis has the older name, and says that it was told: PostgreSQL says otherwise, so all nodes read it anew."""
    (user,) = await make_users(stores, 1)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user)]))
    profiles = Profiles(stores)
    for name in ("first", "second"):
        await stores.execute("UPDATE users SET username = $2 WHERE id = $1", user, name)
    for name in ("second", "first"):
        await profiles.write_through(user, name, None)
    names = int(await stores.command("HGET", NAMES.meta, "names"))
    await settle(stores)
    assert await projector.check_once() is Repair.REPLAY
    assert await stores.command("EXISTS", stores.namespace.profile(user)) == 0
    assert int(await stores.command("HGET", NAMES.meta, "names")) > names


# ---- histories ------------------------------------------------------------------------------------------------------


async def test_an_old_board_is_renewed(stores: Stores) -> None:
    """A Redis that came back with an older content gets what it lacks and a new epoch; no node uses it before."""
    users = await make_users(stores, 12)
    projector = projector_of(stores)
    board = projector.projection
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(board, await scribe.record([claim(user) for user in users]))
        dump = {name: await stores.command("DUMP", name) for name in NAMES}
        for user in users[:6]:
            await scribe.project(board, await scribe.record([claim(user, points=5)]))
        known = board.known
        for name, content in dump.items():
            await stores.command("RESTORE", name, 0, content, "REPLACE")
        answer = await scribe.project(board, await scribe.record([claim(users[6], points=99)]))
        assert answer is None, "a rank on a board that fell back may be wrong"
    assert await projector.check_once() is Repair.BUMP_EPOCH
    assert board.known.epoch > known.epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_a_history_that_went_back_is_noticed_without_anybody_acting(stores: Stores) -> None:
    """An older database was restored: the board has batches that PostgreSQL does not know, and is built anew under a
    new epoch."""
    users = await make_users(stores, 3)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(projector.projection, await scribe.record([claim(user) for user in users]))
        await stores.execute("CREATE TABLE old_scores AS TABLE scores; CREATE TABLE old_commits AS TABLE commits")
        await scribe.project(projector.projection, await scribe.record([claim(users[0], points=1000)]))
    await stores.execute("ALTER TABLE scores DISABLE TRIGGER USER")  # a restored database has no rows of its own making
    await stores.execute(
        "UPDATE scores s SET total_score = o.total_score, reached = o.reached, version = o.version"
        " FROM old_scores o WHERE o.user_id = s.user_id"
    )
    await stores.execute(
        "DELETE FROM commits c WHERE NOT EXISTS "
        "(SELECT FROM old_commits o WHERE o.writer = c.writer AND o.turn = c.turn)"
    )
    epoch = projector.projection.known.epoch
    assert await projector.check_once() is Repair.REBUILD
    assert StaleReason.HISTORY_LOST in projector.agreement.stale_reasons()
    assert projector.projection.known.epoch > epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    await projector.check_once()
    assert not projector.agreement.is_stale


async def test_batches_that_were_acknowledged_and_lost_are_not_waited_for(stores: Stores) -> None:
    """A node that had answered for a batch that is gone says so once, and its board agrees again when the history is
    settled."""
    projector = projector_of(stores)
    projector.agreement.acknowledge(7, 3)
    await projector.check_once()
    await projector.check_once()
    assert not projector.agreement.is_stale
    assert projector.agreement.acknowledged() == {}


async def test_another_database_is_another_installation(stores: Stores) -> None:
    """A board of another installation counts as missing."""
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.record([claim(user) for user in await make_users(stores, 2)])
    projector = projector_of(stores)
    await projector.check_once()
    await stores.execute("UPDATE installation SET id = $1", uuid4())
    another = projector_of(stores, "b")
    await stores.command("DEL", stores.namespace.lease(LEADERBOARD))
    assert await another.check_once() is Repair.REBUILD
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_a_board_that_another_installation_repairs_is_left_alone(stores: Stores) -> None:
    """Two installations without prefixes on one database: whoever comes second finds no board, never takes the other's,
    and says so."""
    projector = projector_of(stores)
    await projector.check_once()
    before = await stores.command("HGETALL", NAMES.meta)
    await stores.execute("UPDATE installation SET id = $1", uuid4())
    second = projector_of(stores, "b")
    assert await second.check_once() is None
    assert second.repair.lease.is_shared
    assert second.agreement.stale_reasons() == {StaleReason.MISSING}
    assert await stores.command("HGETALL", NAMES.meta) == before


async def test_a_board_older_than_the_outbox_is_rebuilt(stores: Stores) -> None:
    """When the batches that a board lacks are no longer kept, it is built anew."""
    users = await make_users(stores, 3)
    projector = projector_of(stores)
    await projector.check_once()
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        for user in users:
            await scribe.record([claim(user)])
    await stores.execute("DELETE FROM commits WHERE turn < 3")
    await settle(stores)
    epoch = projector.projection.known.epoch
    assert await projector.check_once() is Repair.REBUILD
    assert projector.projection.known.epoch > epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_an_epoch_is_never_used_again(stores: Stores) -> None:
    """A PostgreSQL restored from a backup, whose sequence is behind, gives no epoch twice."""
    await projector_of(stores).check_once()
    await stores.command("HSET", NAMES.meta, "epoch", 1_000)
    async with connection(stores) as conn:
        mark = await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
    assert mark.epoch == 1_001


# ---- rebuilding -----------------------------------------------------------------------------------------------------


async def test_what_is_put_in_place_has_not_changed(stores: Stores) -> None:
    """The time of the last change is the rows': a board that is renewed keeps it, one that is built anew has
    PostgreSQL's."""

    async def updated() -> int:
        return int(await stores.command("HGET", NAMES.meta, "updated"))

    async with connection(stores) as conn:
        users = await make_users(stores, 12)
        await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
        begun = await updated()  # of a board without rows: when it was made
        scribe = Scribe(conn, 7)
        await scribe.record([claim(user, points=100 if user in users[:10] else 1) for user in users])
        await stores.execute("UPDATE scores SET updated_at = '2026-01-02T03:04:05.678Z' WHERE total_score = 100")
        await stores.command("DEL", *NAMES)
        mark = await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
        assert await updated() == 1767323045678 < begun, "the shown rows' last, not that of those below"
        renewed = await run_in_asyncio(rebuilder_of(stores).bump_epoch_aio, conn, mark.epoch)
        assert renewed.epoch > mark.epoch
        assert await updated() == 1767323045678
        await stores.command("HSET", NAMES.meta, "updated", 1767323049000)  # a name has changed since
        await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
        assert await updated() == 1767323049000
        await stores.command("HSET", NAMES.meta, "installation", "another's")
        await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
        assert await updated() == 1767323045678, "when another installation's rows changed says nothing of ours"
        assert int(await stores.command("HGET", NAMES.meta, "top_at")) >= begun


async def test_two_rebuild_at_once(stores: Stores) -> None:
    """Two projectors that build at the same time end with one whole board under the newer epoch."""
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 200)])

    async def build() -> None:
        async with connection(stores) as conn:
            try:
                await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
            except (StaleEpoch, StorageUnavailable):
                # the second: a busy machine; the projector below finishes what none of them did
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(build)
    projector = projector_of(stores)
    with trio.fail_after(10):
        while await projector.check_once() or projector.agreement.is_stale:  # none of them may have come through
            await trio.sleep(0.01)
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_an_unfinished_board_is_cleared_by_the_next_and_expires(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped rebuilds leave the staging keys of one board at most, and these expire."""
    monkeypatch.setattr(rebuild, "CHUNK_USERS", 2)
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 5)])
        for _ in range(4):
            rebuilder = rebuilder_of(stores)

            async def stop() -> None:
                raise StaleEpoch

            rebuilder.renew_lease = stop
            with pytest.raises(StaleEpoch):
                await run_in_asyncio(rebuilder.rebuild_aio, conn)
        left = await stores.command("KEYS", "*:next:*")
        assert 0 < len(left) <= 5
        assert min([await stores.command("TTL", key) for key in left]) > 0
        await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
    assert await stores.command("KEYS", "*:next:*") == []


async def test_a_holder_that_wakes_up_late_changes_nothing(stores: Stores) -> None:
    """A projector that was stopped between building and switching finds a newer board in place, and leaves it there."""
    users = await make_users(stores, 4)
    async with connection(stores) as conn, connection(stores) as late_conn:
        scribe = Scribe(conn, 7)
        await scribe.record([claim(user) for user in users])
        woken, stopped = trio.Event(), trio.Event()

        class Stopped(Rebuilder):
            async def _put_in_place_aio(self, epoch: int, expected: int, aside: BoardKeys | None = None) -> None:
                stopped.set()
                await trio_asyncio.trio_as_aio(woken.wait)()
                await super()._put_in_place_aio(epoch, expected, aside)

        late = Stopped(stores, LEADERBOARD)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def build_late() -> None:
                    with pytest.raises(StaleEpoch):
                        await run_in_asyncio(late.rebuild_aio, late_conn)

                nursery.start_soon(build_late)
                await stopped.wait()
                mark = await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
                woken.set()
    assert int(await stores.command("HGET", NAMES.meta, "epoch")) == mark.epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_writes_during_a_rebuild(stores: Stores) -> None:
    """Whatever is committed while the board is built is on it when it is in place, and never on half a board."""
    users = await make_users(stores, 300)
    boards = [projection_of(stores), projection_of(stores)]
    random = Random(5)
    done = trio.Event()

    async def write(number: int) -> None:
        async with connection(stores) as conn:
            scribe = Scribe(conn, number)
            while not done.is_set():
                picked = random.sample(users, 20)
                await scribe.project(
                    boards[number],
                    await scribe.record([claim(user, points=random.randrange(1, 50)) for user in picked]),
                )

    async def rebuild_twice() -> None:
        async with connection(stores) as conn:
            for _ in range(3):
                await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
                await stores.command("UNLINK", *NAMES)
                await run_in_asyncio(rebuilder_of(stores).rebuild_aio, conn)
        done.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 0)
            nursery.start_soon(write, 1)
            await rebuild_twice()
    await settle(stores)
    await projector_of(stores).check_once()
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_one_projector_at_a_time(stores: Stores) -> None:
    """The lease is one node's until it stops renewing it."""
    first, second = projector_of(stores, "a"), projector_of(stores, "b")
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
    projector = projector_of(stores)
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


async def test_verify_tells_each_kind_of_difference(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums, totals, order and strangers: what is wrong is named by user, and nothing is when all agree."""
    monkeypatch.setattr("scoreboard.operations.admin.verify.COMPARISON_INTERVAL_SECONDS", 0.01)
    users = await make_users(stores, 4)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        for n, user in enumerate(users):
            await scribe.record([claim(user, points=100 - n)])
    await projector_of(stores).check_once()
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
        lacks = await run_in_asyncio(outbox.missing_aio, conn, LEADERBOARD, {1: 4, 2: 1}, committed, 0.0)
        assert [lack.sequences for lack in lacks] == [SequenceRange(2, 2, 4)]
        with pytest.raises(outbox.BatchesPruned):
            await run_in_asyncio(outbox.missing_aio, conn, LEADERBOARD, {1: 4}, committed, 0.0)


async def test_housekeeping_makes_partitions(stores: Stores) -> None:
    """This month and three ahead have partitions; rows that had landed in DEFAULT are in their month's afterwards."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        await Scribe(conn, 1).record([claim(user)])
    assert await stores.fetchval("SELECT count(*) FROM action_logs_default") == 1
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(run_housekeeping, stores, (LEADERBOARD,))
            nursery.cancel_scope.cancel()
    assert await stores.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'action_logs'::regclass") == 5
    assert await stores.fetchval("SELECT count(*) FROM action_logs_default") == 0
    assert await stores.fetchval("SELECT count(*) FROM action_logs") == 1
    async with connection(stores) as conn:
        await Scribe(conn, 2).record([claim(user, points=1)])
