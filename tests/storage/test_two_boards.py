"""Two boards by hand-made definitions, through the whole path: submit, commit, projection, read, message, rebuild,
verify. Also tests storage/postgres/totals, storage/board_writer, and the triggers of migration 0007."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import trio

from scoreboard.domain.boards import LEADERBOARD, NEVER, Board
from scoreboard.domain.outcomes import Recorded
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations.admin.verify import differences
from scoreboard.storage import bus
from scoreboard.storage.bus import Bus
from scoreboard.storage.comparison import Repair
from scoreboard.storage.postgres import outbox
from scoreboard.workers.housekeeping import run_housekeeping
from scoreboard.workers.projector import rebuild_board
from tests.storage.proxy import Proxy, proxy_before
from tests.storage.seeds import claim, connection, make_users
from tests.storage.two_boards import BOARDS, DAILY, OTHER_TYPE, TwoBoardNode, settle


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy_before(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def node(database_url: str, redis: Proxy) -> AsyncIterator[TwoBoardNode]:
    async with open_stores(database_url, redis.url) as stores:
        made = TwoBoardNode(stores)
        try:
            await made.converge()
            yield made
        finally:
            made.close()


async def totals(stores: Stores) -> dict[UUID, int]:
    rows = await stores.fetch("SELECT subject, total FROM board_scores")
    return {UUID(bytes=row["subject"].bytes): row["total"] for row in rows}


async def test_the_id_of_a_board_is_the_same_in_code_and_sql(node: TwoBoardNode) -> None:
    """It names keys, channel and position in the code, and the boards of a row of `commits`."""
    assert (LEADERBOARD.id, DAILY.id, Board("country", segment="de").id) == (
        "leaderboard",
        "daily:2026-11-25:de",
        "country:de",
    )
    for board in (*BOARDS, Board("weekly", period="2026-W48"), Board("country", segment="de")):
        assert await node.stores.fetchval("SELECT board_id($1, $2, $3)", *board[:3]) == board.id


async def test_one_action_counts_for_each_board_that_it_feeds(node: TwoBoardNode) -> None:
    """One statement records all totals; each board has its own order, and outcomes tell of the leaderboard."""
    ann, bob = await make_users(node.stores, 2)
    outcomes = await node.submit(
        claim(ann, points=50, action_type=OTHER_TYPE), claim(ann, points=1), claim(bob, points=20), claim(bob, points=5)
    )
    assert [(each.new, each.rank) for each in outcomes if isinstance(each, Recorded)] == [
        (50, 1),
        (51, 1),
        (20, 2),
        (25, 2),
    ]
    assert await node.shown(LEADERBOARD) == [(ann, 51), (bob, 25)]
    assert await node.shown(DAILY) == [(bob, 25), (ann, 1)]
    assert await totals(node.stores) == {ann: 1, bob: 25}
    assert {board for board, _ in node.changes[-2:]} == set(BOARDS)
    standing = await node.caches[DAILY].standing(ann)
    assert (standing.score, standing.rank) == (1, 2)
    assert await node.converge() == set()
    for board in BOARDS:
        assert await differences(node.stores, board) == ({}, 2)


async def test_a_row_of_the_outbox_says_which_boards_it_touched(node: TwoBoardNode) -> None:
    """An action that does not feed a board leaves that board alone, and yet its batch counts as applied there."""
    (ann,) = await make_users(node.stores, 1)
    await node.submit(claim(ann, action_type=OTHER_TYPE))
    version = node.projectors[DAILY].projection.known
    await node.submit(claim(ann))
    rows = await node.stores.fetch("SELECT boards FROM commits ORDER BY id")
    assert [row["boards"] for row in rows] == [["leaderboard"], ["leaderboard", DAILY.id]]
    assert version.version < node.projectors[DAILY].projection.known.version
    async with connection(node.stores) as conn:
        committed = await run_in_asyncio(outbox.last_sequences_aio, conn)
    for board in BOARDS:
        applied = await node.stores.command("HGETALL", node.stores.namespace.board(board).applied)
        assert {int(writer): int(sequence) for writer, sequence in applied.items()} == committed


async def test_a_message_names_its_board(node: TwoBoardNode) -> None:
    """Each board that changed has a message of its own; what an action gave stands in the leaderboard's."""
    (ann,) = await make_users(node.stores, 1)
    hints, heard = Bus(node.stores), list[bus.BusMessage | None]()
    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(hints.listen, ready.set, lambda payload: heard.append(hints.decode(payload)))
        await ready.wait()
        await node.submit(claim(ann, points=7))
        with trio.fail_after(5):
            while len(heard) < 2:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    first, second = heard
    assert isinstance(first, bus.Update)
    assert isinstance(second, bus.Update)
    assert (first.board, second.board) == ("leaderboard", DAILY.id)
    assert [(one.user, one.new, one.rank) for one in first.personal] == [(ann, 7, 1)]
    assert second.personal == ()


async def test_each_board_is_rebuilt_from_its_own_totals(node: TwoBoardNode) -> None:
    """Emptied keys, and the command: both boards come back as they were."""
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=9), claim(bob, points=30, action_type=OTHER_TYPE))
    await node.stores.command("FLUSHALL")
    assert await node.converge() == {Repair.REBUILD}
    assert await node.shown(LEADERBOARD) == [(bob, 30), (ann, 9)]
    assert await node.shown(DAILY) == [(ann, 9)]
    for board in BOARDS:
        assert await rebuild_board(node.stores, board) > NEVER
    assert await node.shown(DAILY) == [(ann, 9)]
    assert await differences(node.stores, LEADERBOARD) == ({}, 2)
    assert await differences(node.stores, DAILY) == ({}, 1)


async def test_a_gap_is_closed_on_every_board(node: TwoBoardNode, redis: Proxy) -> None:
    """Recorded while Redis was away: the projector brings each board what it lacks, and only then the node is called
    attached again."""
    (ann,) = await make_users(node.stores, 1)
    redis.cut()
    await node.submit(claim(ann, points=3))
    assert node.detached.writers != []
    redis.restore()
    await settle(node.stores)
    await node.projectors[LEADERBOARD].check_once()
    await node.projectors[LEADERBOARD].check_once()
    assert node.detached.writers, "the daily board lacks the batch still"
    await node.converge()
    assert node.detached.writers == []
    assert await node.stores.fetchval("SELECT count(*) FROM detached_writers") == 0
    assert await node.shown(DAILY) == [(ann, 3)]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("UPDATE board_scores SET total = 100 WHERE subject = $1", 100),
        ("DELETE FROM board_scores WHERE subject = $1", None),
        ("DELETE FROM users WHERE id = $1", None),
    ],
)
async def test_a_change_that_others_make_reaches_the_board(
    node: TwoBoardNode, statement: str, left: int | None
) -> None:
    """Triggers note it in the outbox under that board's name, and the projector brings it."""
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=4), claim(bob, points=8))
    await node.stores.execute(statement, ann)
    await settle(node.stores)
    await node.converge()
    expected: list[Any] = [(bob, 8)] if left is None else [(ann, left), (bob, 8)]
    assert await node.shown(DAILY) == expected


@pytest.mark.parametrize("table", ["board_scores", "users"])
async def test_emptied_totals_empty_the_board(node: TwoBoardNode, table: str) -> None:
    """TRUNCATE has no rows: every board is built anew."""
    (ann,) = await make_users(node.stores, 1)
    await node.submit(claim(ann))
    await node.stores.execute(f"TRUNCATE {table} CASCADE")
    await settle(node.stores)
    await node.converge()
    assert await node.shown(DAILY) == []


async def test_an_unreadable_redis_shows_each_board_from_its_totals(node: TwoBoardNode, redis: Proxy) -> None:
    """The stale rows of a board are its own, and so are a user's total and rank."""
    ann, bob = await make_users(node.stores, 2)
    await node.submit(claim(ann, points=4), claim(bob, points=8), claim(ann, points=90, action_type=OTHER_TYPE))
    redis.cut()
    node.caches[DAILY].request_repair()
    for board, first in ((LEADERBOARD, ann), (DAILY, bob)):
        node.caches[board].invalidate()
        snapshot = await node.caches[board].read()
        assert snapshot.stale
        assert snapshot.rows[0].userId == str(first)
        standing = await node.caches[board].standing(first)
        assert standing.rank == 1


async def test_a_turn_is_kept_until_every_board_has_it(node: TwoBoardNode) -> None:
    """Housekeeping deletes what all boards have."""
    (ann,) = await make_users(node.stores, 1)
    for _ in range(3):
        await node.submit(claim(ann))
    assert outbox.applied_everywhere([{1: 4, 2: 5}, {1: 3}]) == {1: 3}
    assert outbox.applied_everywhere([{1: 4}]) == {1: 4}
    await node.stores.execute("UPDATE commits SET committed_at = committed_at - interval '2 hours'")
    async with trio.open_nursery() as nursery:
        await nursery.start(run_housekeeping, node.stores, BOARDS)
        nursery.cancel_scope.cancel()
    assert await node.stores.fetchval("SELECT count(*) FROM commits") < 4
    assert await node.converge() == set()
