"""The projector: gaps, old boards, absent boards, and two of it at once."""

from collections.abc import AsyncIterator
from random import Random
from uuid import UUID

import pytest
import trio

from scoreboard.domain.boards import LEADERBOARD, NEVER, Mark
from scoreboard.operations.housekeeping import keep_house
from scoreboard.operations.projector import Projector, Remedy, hold, mend, remedy
from scoreboard.operations.verify import differences
from scoreboard.storage import outbox, rebuild
from scoreboard.storage.bridge import crossing
from scoreboard.storage.connections import Stores, open_stores
from scoreboard.storage.projection import Projection, Span
from scoreboard.storage.rebuild import BoardState
from tests.storage.worlds import NAMES, Scribe, claim, connection, make_users, order_in_postgres, order_in_redis


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    async with open_stores(database_url, redis_url) as opened:
        yield opened


def projection(stores: Stores) -> Projection:
    return Projection(stores.redis_direct, LEADERBOARD, lambda: None)


async def look(stores: Stores, projection: Projection) -> Remedy:
    async with connection(stores) as conn:
        return await crossing(mend, conn, stores, LEADERBOARD, projection)


async def settle(stores: Stores) -> None:
    """Makes what was committed look older than a committer needs to close its own gap."""
    await stores.execute("UPDATE commits SET committed_at = committed_at - interval '3 seconds'")


@pytest.mark.parametrize(
    ("found", "known", "expected"),
    [
        (BoardState(0, 0, "", "a", {}), NEVER, Remedy.REBUILD),
        (BoardState(1, 5, "a", "a", {}), Mark(1, 5), Remedy.REPLAY),
        (BoardState(1, 5, "a", "b", {}), Mark(1, 5), Remedy.RENEW),
        (BoardState(1, 4, "a", "a", {}), Mark(1, 5), Remedy.RENEW),
        (BoardState(1, 9, "a", "a", {}), Mark(2, 1), Remedy.RENEW),
        (BoardState(2, 1, "a", "a", {}), Mark(1, 9), Remedy.REPLAY),
    ],
)
def test_remedy(found: BoardState, known: Mark, expected: Remedy) -> None:
    """No board is built anew; a restarted server or a fallen version is renewed; anything else has gaps at most."""
    assert remedy(found, known) is expected


async def test_an_absent_board_is_built(stores: Stores) -> None:
    """The first look at an empty Redis builds the board from PostgreSQL under a first epoch."""
    users = await make_users(stores, 30)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 1)
        for user in users:
            await scribe.record([claim(user, points=10 + user.int % 3)])
    board = projection(stores)
    assert await look(stores, board) is Remedy.REBUILD
    assert board.known > NEVER
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    assert await look(stores, board) is Remedy.REPLAY
    assert await stores.command("KEYS", "*:next:*") == []
    assert await stores.command("TTL", NAMES.order) == -1, "the board itself must not expire"


async def test_a_board_without_users_is_built(stores: Stores) -> None:
    """A service that nobody has used yet has an empty board, not an absent one, and the first action goes in."""
    board = projection(stores)
    await look(stores, board)
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 1)
        applied = await scribe.project(board, await scribe.record([claim(user)]))
    assert applied is not None
    assert await order_in_redis(stores) == [(str(user), 10)]


async def test_a_dead_writers_turns_are_replayed(stores: Stores) -> None:
    """What a killed node committed and never brought to the board goes in, once it is old enough to be nobody's."""
    users = await make_users(stores, 5)
    board = projection(stores)
    await look(stores, board)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.project(board, await scribe.record([claim(users[0])]))
        for user in users[1:]:
            await scribe.record([claim(user, points=20)])
    await look(stores, board)
    assert len(await order_in_redis(stores)) == 1, "a committer has two seconds to close its own gap"
    await settle(stores)
    before = board.known
    assert await look(stores, board) is Remedy.REPLAY
    assert await order_in_redis(stores) == await order_in_postgres(stores)
    assert board.known.epoch == before.epoch
    assert (await crossing(rebuild.state, stores.redis, LEADERBOARD)).applied == {7: 5}


async def test_a_deleted_user_leaves_the_board(stores: Stores) -> None:
    """Whoever deletes a user notes it in the outbox; the entry goes and does not come back with a late row."""
    users = await make_users(stores, 2)
    board = projection(stores)
    await look(stores, board)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        late = await scribe.record([claim(user) for user in users])
        await scribe.project(board, late)
        await stores.execute("DELETE FROM users WHERE id = $1", users[0])
        await stores.execute("INSERT INTO commits (id, writer, turn, users) VALUES (nextval('commit_ids'), 99, 1, $1)", [users[0]])
        await settle(stores)
        await look(stores, board)
        assert [user for user, _ in await order_in_redis(stores)] == [str(users[1])]
        await scribe.project(board, late)
    assert [user for user, _ in await order_in_redis(stores)] == [str(users[1])]


async def test_an_old_board_is_renewed(stores: Stores) -> None:
    """A Redis that came back with an older content gets what it lacks and a new epoch; nobody trusts it before."""
    users = await make_users(stores, 12)
    board = projection(stores)
    await look(stores, board)
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
    assert await look(stores, board) is Remedy.RENEW
    assert board.known.epoch > known.epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_a_board_older_than_the_outbox_is_rebuilt(stores: Stores) -> None:
    """When the turns that a board lacks are no longer kept, it is built anew."""
    users = await make_users(stores, 3)
    board = projection(stores)
    await look(stores, board)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        for user in users:
            await scribe.record([claim(user)])
    await stores.execute("DELETE FROM commits WHERE turn < 3")
    await settle(stores)
    epoch = board.known.epoch
    assert await look(stores, board) is Remedy.REBUILD
    assert board.known.epoch > epoch
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_an_epoch_is_never_used_again(stores: Stores) -> None:
    """A PostgreSQL restored from a backup that has forgotten epochs does not hand them out twice."""
    board = projection(stores)
    await look(stores, board)
    await stores.command("HSET", NAMES.meta, "epoch", 1_000)
    async with connection(stores) as conn:
        mark = await crossing(rebuild.rebuild, conn, stores.redis, LEADERBOARD)
    assert mark.epoch == 1_001


async def test_two_rebuild_at_once(stores: Stores) -> None:
    """Two projectors that build at the same time end with one whole board under the newer epoch."""
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 200)])

    async def build() -> None:
        async with connection(stores) as conn:
            try:
                await crossing(rebuild.rebuild, conn, stores.redis, LEADERBOARD)
            except rebuild.Superseded:
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(build)
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_writes_during_a_rebuild(stores: Stores) -> None:
    """Whatever is committed while the board is built is on it when it is in place, and never on half a board."""
    users = await make_users(stores, 300)
    boards = [projection(stores), projection(stores)]
    random = Random(5)
    done = trio.Event()

    async def write(number: int) -> None:
        async with connection(stores) as conn:
            scribe = Scribe(conn, number)
            while not done.is_set():
                picked = random.sample(users, 20)
                await scribe.project(boards[number], await scribe.record([claim(user, points=random.randrange(1, 50)) for user in picked]))

    async def rebuild_twice() -> None:
        async with connection(stores) as conn:
            for _ in range(3):
                await crossing(rebuild.rebuild, conn, stores.redis, LEADERBOARD)
                await stores.command("UNLINK", *NAMES)
                await crossing(rebuild.rebuild, conn, stores.redis, LEADERBOARD)
        done.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 0)
            nursery.start_soon(write, 1)
            await rebuild_twice()
    await settle(stores)
    await look(stores, projection(stores))
    assert await order_in_redis(stores) == await order_in_postgres(stores)


async def test_one_projector_at_a_time(stores: Stores) -> None:
    """The lease is one node's until it stops renewing it."""
    assert await crossing(hold, stores, LEADERBOARD, "a")
    assert not await crossing(hold, stores, LEADERBOARD, "b")
    assert await crossing(hold, stores, LEADERBOARD, "a")


async def test_the_task_mends_an_emptied_redis(stores: Stores) -> None:
    """An emptied Redis heals by itself as soon as somebody suspects it."""
    heard: list[Mark] = []
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user)])
    projector = Projector(stores, LEADERBOARD, "a", heard.append)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(projector.run)
            assert len(await order_in_redis(stores)) == 1
            await stores.command("FLUSHALL")
            projector.suspect()
            while len(heard) < 2:
                await trio.sleep(0.01)
            assert await order_in_redis(stores) == [(str(user), 10)]
            nursery.cancel_scope.cancel()
    assert heard[1] > heard[0]


async def test_verify_tells_each_kind_of_difference(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums, totals, order and strangers: what is wrong is named by user, and nothing is when all agree."""
    monkeypatch.setattr("scoreboard.operations.verify.PAUSE", 0.01)
    users = await make_users(stores, 4)
    board = projection(stores)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        for n, user in enumerate(users):
            await scribe.record([claim(user, points=100 - n)])
    await look(stores, board)
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
    """Old turns that the board has go, what it lacks and each writer's last one stay."""
    users = await make_users(stores, 1)
    async with connection(stores) as conn:
        for number in (1, 2):
            scribe = Scribe(conn, number)
            for _ in range(4):
                await scribe.record([claim(users[0])])
        await stores.execute("UPDATE commits SET committed_at = now() - interval '2 hours' WHERE writer = 1 OR turn < 3")
        assert await crossing(outbox.prune, conn, {1: 4, 2: 1}) == 4
        kept = await stores.fetch("SELECT writer, turn FROM commits ORDER BY writer, turn")
        assert [tuple(row) for row in kept] == [(1, 4), (2, 2), (2, 3), (2, 4)]
        lacks = await crossing(outbox.missing, conn, {1: 4, 2: 1}, 0.0)
        assert [lack.span for lack in lacks] == [Span(2, 2, 4)]
        with pytest.raises(outbox.Pruned):
            await crossing(outbox.missing, conn, {1: 4}, 0.0)


async def test_housekeeping_makes_partitions(stores: Stores) -> None:
    """This month and three ahead have partitions; rows that had landed in DEFAULT are in their month's afterwards."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        await Scribe(conn, 1).record([claim(user)])
    assert await stores.fetchval("SELECT count(*) FROM action_logs_default") == 1
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_house, stores, LEADERBOARD)
            nursery.cancel_scope.cancel()
    assert await stores.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'action_logs'::regclass") == 5
    assert await stores.fetchval("SELECT count(*) FROM action_logs_default") == 0
    assert await stores.fetchval("SELECT count(*) FROM action_logs") == 1
    async with connection(stores) as conn:
        await Scribe(conn, 2).record([claim(user, points=1)])
