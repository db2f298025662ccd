"""Rebuilding a board: epochs, times, staging keys, two at once, one that wakes up late, and writes meanwhile."""

from random import Random

import asyncpg
import pytest
import trio
import trio_asyncio

from scoreboard.domain.boards import LEADERBOARD, BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.namespace import BoardKeys
from scoreboard.drivers.stores import Stores
from scoreboard.storage import rebuild
from scoreboard.storage.rebuild import Rebuilder, StaleEpoch
from scoreboard.storage.redis.projection import Projection
from tests.storage.repaired_board import is_equal, meta, projectors, settle
from tests.storage.seeds import NAMES, Scribe, claim, connection, make_users


async def rebuilt(stores: Stores, conn: asyncpg.Connection) -> BoardVersion:
    """Rebuilds the board. Returns its version."""
    return await run_in_asyncio(Rebuilder(stores, LEADERBOARD).rebuild_aio, conn)


async def test_an_epoch_is_never_used_again(stores: Stores) -> None:
    """A PostgreSQL restored from a backup, whose sequence is behind, gives no epoch twice."""
    async with connection(stores) as conn:
        await rebuilt(stores, conn)
        await stores.command("HSET", NAMES.meta, "epoch", 1_000)
        assert (await rebuilt(stores, conn)).epoch == 1_001


async def test_what_is_put_in_place_has_not_changed(stores: Stores) -> None:
    """The time of the last change is the rows': a board that is renewed keeps it, one that is built anew has
    PostgreSQL's."""

    async with connection(stores) as conn:
        users = await make_users(stores, 12)
        await rebuilt(stores, conn)
        begun = await meta(stores, "updated")  # of a board without rows: when it was made
        scribe = Scribe(conn, 7)
        await scribe.record([claim(user, points=100 if user in users[:10] else 1) for user in users])
        await stores.execute("UPDATE scores SET updated_at = '2026-01-02T03:04:05.678Z' WHERE total_score = 100")
        await stores.command("DEL", *NAMES)
        mark = await rebuilt(stores, conn)
        assert await meta(stores, "updated") == 1767323045678 < begun, "the shown rows' last, not that of those below"
        renewed = await run_in_asyncio(Rebuilder(stores, LEADERBOARD).bump_epoch_aio, conn, mark.epoch)
        assert renewed.epoch > mark.epoch
        assert await meta(stores, "updated") == 1767323045678
        await stores.command("HSET", NAMES.meta, "updated", 1767323049000)  # a name has changed since
        await rebuilt(stores, conn)
        assert await meta(stores, "updated") == 1767323049000
        await stores.command("HSET", NAMES.meta, "installation", "another's")
        await rebuilt(stores, conn)
        assert await meta(stores, "updated") == 1767323045678, (
            "when another installation's rows changed says nothing of ours"
        )
        assert await meta(stores, "top_at") >= begun


async def test_two_rebuild_at_once(stores: Stores) -> None:
    """Two projectors that build at the same time end with one whole board under the newer epoch."""
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 200)])

    async def build() -> None:
        async with connection(stores) as conn:
            try:
                await rebuilt(stores, conn)
            except (StaleEpoch, StorageUnavailable):
                # the second: a busy machine; the projector below finishes what none of them did
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(build)
    async with projectors(stores, "a") as (projector,):
        with trio.fail_after(10):
            while await projector.check_once() or projector.agreement.is_stale:  # none of them may have come through
                await trio.sleep(0.01)
    assert await is_equal(stores)


async def test_an_unfinished_board_is_cleared_by_the_next_and_expires(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped rebuilds leave the staging keys of one board at most, and these expire."""
    monkeypatch.setattr(rebuild, "CHUNK_USERS", 2)
    async with connection(stores) as conn:
        await Scribe(conn, 7).record([claim(user) for user in await make_users(stores, 5)])
        for _ in range(4):
            rebuilder = Rebuilder(stores, LEADERBOARD)

            async def stop() -> None:
                raise StaleEpoch

            rebuilder.renew_lease = stop
            with pytest.raises(StaleEpoch):
                await run_in_asyncio(rebuilder.rebuild_aio, conn)
        left = await stores.command("KEYS", "*:next:*")
        assert 0 < len(left) <= 5
        assert min([await stores.command("TTL", key) for key in left]) > 0
        await rebuilt(stores, conn)
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
                mark = await rebuilt(stores, conn)
                woken.set()
    assert await meta(stores, "epoch") == mark.epoch
    assert await is_equal(stores)


async def test_writes_during_a_rebuild(stores: Stores) -> None:
    """Whatever is committed while the board is built is on it when it is in place, and never on half a board."""
    users = await make_users(stores, 300)
    boards = [
        Projection(stores.redis_direct, LEADERBOARD, lambda: None, installation=lambda: stores.installation)
        for _ in range(2)
    ]
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
                await rebuilt(stores, conn)
                await stores.command("UNLINK", *NAMES)
                await rebuilt(stores, conn)
        done.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 0)
            nursery.start_soon(write, 1)
            await rebuild_twice()
    await settle(stores)
    async with projectors(stores, "a") as (projector,):
        await projector.check_once()
    assert await is_equal(stores)
