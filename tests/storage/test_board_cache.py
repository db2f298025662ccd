"""The board as a node reads it: shared reads, own writes, what happens while Redis is away, and one user's standing."""

from collections.abc import AsyncIterator, Iterable, Mapping
from time import monotonic
from uuid import UUID

import pytest
import trio

from scoreboard.domain.boards import LEADERBOARD, READ_SIZE, BoardVersion, Entry, Snapshot
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import LedgerRow, SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import open_stores
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage import board_cache as module
from scoreboard.storage.board_cache import BoardCache, Standing
from scoreboard.storage.profiles import Profile, Profiles
from tests.conftest import OwnValkey
from tests.storage.scored_board import NAMES, ScoredBoard, counted_commands
from tests.storage.seeds import agreed


@pytest.fixture
async def scored(database_url: str, redis_url: str) -> AsyncIterator[ScoredBoard]:
    async with open_stores(database_url, redis_url) as stores:
        scored = ScoredBoard(stores)
        await scored.open_board()
        yield scored


class Nameless(Profiles):
    """No store gives a name in time."""

    async def find_aio(self, users: Iterable[UUID]) -> Mapping[UUID, Profile]:
        return {}


def names(rows: tuple[Entry, ...]) -> list[tuple[int, str, int]]:
    return [(entry.rank, entry.username, entry.score) for entry in rows]


async def until_read(board: BoardCache, *, stale: bool) -> None:
    """Reads until the board is (not) stale; the projector finds nothing that speaks against it."""
    with trio.fail_after(10):
        while (await board.read()).stale is not stale:
            board._agreement.begin_comparison()
            board._agreement.set_stale_reasons(())
            await trio.sleep(0.02)


# ---- reading ---------------------------------------------------------------------------------------------------------


async def test_rows_come_in_order_with_names_and_pictures(scored: ScoredBoard) -> None:
    """Total descending, then the earlier one; names and pictures from PostgreSQL; versions as Redis has them."""
    ann, bob, eve = (
        await scored.user("ann", "https://example.org/a.png"),
        await scored.user("bob"),
        await scored.user("eve"),
    )
    await scored.score(bob, 50)
    await scored.score(ann, 70)
    await scored.score(eve, 50)
    snapshot = await scored.reader().read()
    assert names(snapshot.rows) == [(1, "ann", 70), (2, "bob", 50), (3, "eve", 50)]
    assert (snapshot.rows[0].avatarUrl, snapshot.rows[1].avatarUrl) == ("https://example.org/a.png", None)
    assert (snapshot.board_version, snapshot.position, snapshot.stale) == (BoardVersion(1, 3), "1-3", False)


async def test_an_empty_board_is_a_board(scored: ScoredBoard) -> None:
    """A board without rows is read like any other."""
    snapshot = await scored.reader().read()
    assert (snapshot.rows, snapshot.board_version, snapshot.stale) == ((), BoardVersion(1, 0), False)


async def test_a_read_has_the_first_hundred_and_large_totals_are_exact(scored: ScoredBoard) -> None:
    """A read returns at most READ_SIZE rows, and a total beyond 2^53 − 2 keeps its last digit."""
    rows = await scored.stores.fetch(
        "INSERT INTO users (username, email) SELECT 'u' || n, n || '@example.org' "
        "FROM generate_series(1, $1) n RETURNING id",
        READ_SIZE + 5,
    )
    for place, row in enumerate(rows):
        await scored.score(UUID(bytes=row["id"].bytes), 2**53 - 1 - place)
    snapshot = await scored.reader().read()
    assert [entry.score for entry in snapshot.rows] == [2**53 - 1 - place for place in range(READ_SIZE)]


async def test_when_the_shown_rows_were_last_modified(scored: ScoredBoard) -> None:
    """The second after the change is told once it is over; a position that moves without a change counts, a rebuild is
    no change."""
    await scored.score(await scored.user("ann"), 10)
    board = scored.reader()
    top_at = int(await scored.stores.command("HGET", NAMES.meta, "top_at"))
    assert (await board.read()).last_modified in {0, top_at // 1000 + 1}  # 0 unless the machine took a second
    with trio.fail_after(5):
        while not (read := await board.read()).last_modified:
            await trio.sleep(0.05)
    assert read.last_modified == top_at // 1000 + 1
    assert read.updated_ms == top_at
    # ended longer ago than what people are told
    await scored.stores.command("HSET", NAMES.meta, "top_at", top_at - 60_000)
    board.invalidate()
    assert (await board.read()).last_modified == top_at // 1000 - 59


async def test_a_name_that_comes_late_has_no_date(scored: ScoredBoard) -> None:
    """Until a row's name is known the board has no date: the name comes without a new position."""
    user = await scored.user("ann")
    await scored.score(user, 10)
    await scored.stores.command("HSET", NAMES.meta, "top_at", 1_000)
    board = scored.reader()
    assert (await board.read()).last_modified == 2
    board._entries.clear()
    board._profiles = Nameless(scored.stores)
    board.invalidate()
    read = await board.read()
    assert (names(read.rows), read.last_modified) == ([(1, f"user-{user.hex[:8]}", 10)], 0)


async def test_reads_cost_nothing_while_nothing_changes(scored: ScoredBoard) -> None:
    """A second read within a second is answered without asking Redis."""
    await scored.score(await scored.user("ann"), 10)
    board = scored.reader()
    first = await board.read()
    async with counted_commands(scored.stores) as counts:
        assert await board.read() is first
    assert "evalsha" not in counts


async def test_a_read_is_as_new_as_the_noted_version(scored: ScoredBoard) -> None:
    """Once Redis has answered with a version, no older board is returned, however fresh the last read is."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board = scored.reader()
    await board.read()
    await scored.score(ann, 25)
    assert names((await board.read()).rows) == [(1, "ann", 10)]  # nobody told, and a second has not passed
    board.note_hint(scored.projection.known)
    assert names((await board.read()).rows) == [(1, "ann", 25)]


async def test_a_lost_hint_costs_a_second(scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board is read again when the last read is older than a second, also without a hint."""
    monkeypatch.setattr(module, "MAX_READ_AGE_SECONDS", 0.05)
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board = scored.reader()
    await board.read()
    await scored.score(ann, 25)
    await trio.sleep(0.06)
    assert board.is_due(board.newest)
    assert names((await board.read()).rows) == [(1, "ann", 25)]


async def test_readers_share_one_read(scored: ScoredBoard) -> None:
    """A hundred readers that find the board too old cause one call."""
    await scored.score(await scored.user("ann"), 10)
    board = scored.reader()
    await board.read()
    await scored.score(await scored.user("bob"), 5)
    board.note_hint(scored.projection.known)
    async with counted_commands(scored.stores) as counts, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(board.read)
    assert counts["evalsha"] == 1
    assert board.cached_version == scored.projection.known


async def test_a_cancelled_reader_leaves_the_read_to_the_others(scored: ScoredBoard) -> None:
    """When the reading task is cancelled, a waiting one reads; the lock is released."""
    await scored.score(await scored.user("ann"), 10)
    board = scored.reader()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def cancelled() -> None:
            with scope:
                await board.read()

        nursery.start_soon(cancelled)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(board.read)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert board.cached_version == BoardVersion(1, 1)


async def test_due_only_when_the_top_rose(scored: ScoredBoard) -> None:
    """A viewer of the newest board misses nothing while only rows below the shown ones change."""
    await scored.score(await scored.user("ann"), 10)
    board = scored.reader()
    shown = await board.read()
    assert not board.is_due(shown)
    board.note_hint(BoardVersion(1, 2), shown_version=1)
    assert not board.is_due(shown)
    board.note_hint(BoardVersion(1, 3), shown_version=3)
    assert board.is_due(shown)
    assert board.is_due(None)


async def test_lag_is_measured_from_the_oldest_change_that_was_not_shown(scored: ScoredBoard) -> None:
    """Two changes in one tick count from the first; a change that was reported is not counted again."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board = scored.reader()
    board.oldest_change_at(await board.read())
    before = monotonic()
    board.note_hint(BoardVersion(1, 2), shown_version=2)
    await scored.score(ann, 20)
    between = monotonic()
    await trio.sleep(0.01)
    await scored.score(ann, 30)
    board.note_hint(BoardVersion(1, 3), shown_version=3)
    since = board.oldest_change_at(await board.read())
    assert since is not None
    assert before <= since <= between
    again = board.oldest_change_at(await board.read())
    assert again is not None
    assert again > between - 0.002  # Redis tells whole milliseconds


# ---- Redis has no board, an older one, or is away --------------------------------------------------------------------


async def test_without_a_board_in_redis_postgresql_is_read_and_marked_stale(scored: ScoredBoard) -> None:
    """An emptied Redis: rows, order and names from PostgreSQL, under the last position; the projector is called."""
    ann, bob = await scored.user("ann"), await scored.user("bob")
    await scored.score(ann, 10)
    await scored.score(bob, 10)
    board = scored.reader()
    last = await board.read()
    await scored.stores.command("FLUSHALL")
    await scored.score(bob, 30, in_redis=False)
    board.invalidate()
    snapshot = await board.read()
    assert names(snapshot.rows) == [(1, "bob", 30), (2, "ann", 10)]
    assert snapshot.stale
    assert snapshot.stale_since_ms > 0
    assert (snapshot.position, snapshot.board_version) == (last.position, last.board_version)
    assert snapshot.updated_ms >= last.updated_ms
    assert scored.repair_requests == 1
    assert board.cached_version == last.board_version


async def test_a_rebuilt_board_ends_staleness(scored: ScoredBoard) -> None:
    """The first good read after it serves Redis' board again, under its new epoch."""
    ann = await scored.user("ann")
    board = scored.reader()
    await scored.stores.command("FLUSHALL")
    assert (await board.read()).stale
    await scored.open_board(epoch=2)
    await scored.score(ann, 40)
    await until_read(board, stale=False)
    snapshot = await board.read()
    assert (names(snapshot.rows), snapshot.epoch) == ([(1, "ann", 40)], 2)
    assert board.stale_since_ms == 0


@pytest.mark.parametrize("fields", [{"version": 1}, {"epoch": 0}])
async def test_a_board_that_fell_back_is_not_believed(scored: ScoredBoard, fields: dict[str, int]) -> None:
    """Redis came back with an old file: what is known is not lowered, PostgreSQL is read, the projector is called."""
    ann = await scored.user("ann")
    for total in (10, 20, 30):
        await scored.score(ann, total)
    board = scored.reader()
    known = (await board.read()).board_version
    for name, value in fields.items():
        await scored.stores.command("HSET", NAMES.meta, name, value)
    board.invalidate()
    snapshot = await board.read()
    assert snapshot.stale
    assert names(snapshot.rows) == [(1, "ann", 30)]
    assert (board.cached_version, board.min_version) == (known, known)
    assert scored.repair_requests == 1


async def test_while_redis_is_away_postgresql_is_read_once_a_second(database_url: str, fresh_valkey: OwnValkey) -> None:
    """A killed Redis costs its deadline once or twice, then the breaker; many reads make one query; back, it is read
    again."""
    async with open_stores(database_url, fresh_valkey.url) as stores:
        scored = ScoredBoard(stores)
        await scored.open_board()
        ann = await scored.user("ann")
        await scored.score(ann, 10)
        board = scored.reader()
        await board.read()
        fresh_valkey.kill()
        board.invalidate()
        await until_read(board, stale=True)
        await scored.score(ann, 99, in_redis=False)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(board.read)
        assert names((await board.read()).rows)[0][2] in {10, 99}  # up to a second old
        with trio.fail_after(5):
            while names((await board.read()).rows) != [(1, "ann", 99)]:
                await trio.sleep(0.05)
        fresh_valkey.start()
        await until_read(board, stale=False)


async def test_with_both_stores_away_the_last_board_is_served_or_the_failure_at_once(fresh_valkey: OwnValkey) -> None:
    """A node that has read the board serves it as stale; one that never did raises, and many callers share the
    failure."""
    fresh_valkey.kill()
    async with open_stores("postgresql://nobody@127.0.0.1:1/nothing", fresh_valkey.url) as stores:
        board = ScoredBoard(stores).reader()
        failures = 0

        async def read() -> None:
            nonlocal failures
            try:
                await board.read()
            except StorageUnavailable:
                failures += 1

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(read)
        assert failures == 20
        board.newest = Snapshot("leaderboard", 1, 5, 5, 1, (Entry(1, "u", "ann", 3),))
        await trio.sleep(module.REDIS_RETRY_INTERVAL_SECONDS)
        snapshot = await board.read()
        assert (names(snapshot.rows), snapshot.stale) == ([(1, "ann", 3)], True)


# ---- one user --------------------------------------------------------------------------------------------------------


async def test_standing_is_exact_and_reads_own_writes(scored: ScoredBoard) -> None:
    """Rank and total of any user, however far down; a user without an action has none."""
    users = [await scored.user(f"u{n}") for n in range(5)]
    for place, user in enumerate(users[:4]):
        await scored.score(user, 100 - place)
    board = scored.reader()
    assert await board.standing(users[3]) == Standing(97, 4)
    assert await board.standing(users[4]) == Standing(0, None)
    await scored.score(users[3], 2**53 - 1)
    assert await board.standing(users[3]) == Standing(2**53 - 1, 1)


async def test_a_removed_user_has_no_standing(scored: ScoredBoard) -> None:
    """Whoever was taken from the board is not on it, though registered."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    await run_in_asyncio(
        scored.projection.apply_aio, SequenceRange(1, 2, 2), [LedgerRow(LEADERBOARD, ann, None, 0, 2**62)], []
    )
    assert await scored.reader().standing(ann) == Standing(0, None)


async def test_standing_is_counted_by_postgresql_without_a_board(scored: ScoredBoard) -> None:
    """While Redis has no board the same answer comes from PostgreSQL: ties by who reached it first."""
    ann, bob, eve = await scored.user("ann"), await scored.user("bob"), await scored.user("eve")
    await scored.stores.command("FLUSHALL")
    for user, total in ((ann, 10), (bob, 50), (eve, 10)):
        await scored.score(user, total, in_redis=False)
    board = scored.reader()
    assert [await board.standing(user) for user in (bob, ann, eve)] == [
        Standing(50, 1),
        Standing(10, 2),
        Standing(10, 3),
    ]
    assert await board.standing(await scored.user("zoe")) == Standing(0, None)


async def test_a_standing_older_than_what_is_known_is_counted_by_postgresql(scored: ScoredBoard) -> None:
    """A node that Redis has told of a newer version does not believe an older board about its own user."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    await scored.score(ann, 35, in_redis=False)
    board = scored.reader()
    board.note_version(BoardVersion(1, 9))
    assert await board.standing(ann) == Standing(35, 1)
    assert scored.repair_requests == 1


async def test_an_open_breaker_keeps_redis_alone(scored: ScoredBoard) -> None:
    """While the breaker is open, reads go to PostgreSQL without a Redis call."""
    await scored.score(await scored.user("ann"), 10)
    breaker = Breaker("redis", failures=1, interval=60)
    board = BoardCache(
        LEADERBOARD, scored.stores, scored.node()[1], breaker, agreed(), scored.request_repair, lambda: ""
    )
    breaker.failed(monotonic())
    async with counted_commands(scored.stores) as counts:
        assert (await board.read()).stale
    assert "evalsha" not in counts
