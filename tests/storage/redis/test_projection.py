"""A board in Redis: rows by version, exact ranks for every total, one epoch, and a message only for news."""

import json
from collections.abc import AsyncIterator
from random import Random
from uuid import UUID

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoreboard.domain.boards import LEADERBOARD, NEVER, BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.redis.projection import Applied, Projection
from tests.storage.seeds import NAMES, UPDATES, open_board, order_in_redis

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # a projection asks Redis alone
ADA, BOB, CARL = UUID(int=1), UUID(int=2), UUID(int=3)
HIGHEST = 2**53 - 1  # the largest total


class ProjectedBoard:
    """One board of epoch 1 and one node's projection of it. Each call is the next batch of writer 9 unless it says
    another span."""

    def __init__(self, stores: Stores) -> None:
        self.stores, self.repair_requests, self.sequence = stores, 0, 0
        self.projection = self.another_node()

    def another_node(self) -> Projection:
        return Projection(self.stores.redis_direct, LEADERBOARD, self.request_repair)

    def request_repair(self) -> None:
        self.repair_requests += 1

    async def apply(
        self,
        *rows: LedgerRow,
        sequences: SequenceRange | None = None,
        events: tuple[ScoreEvent, ...] = (),
        by: Projection | None = None,
    ) -> Applied | None:
        self.sequence += sequences is None
        return await run_in_asyncio(
            (by or self.projection).apply_aio, sequences or SequenceRange(9, self.sequence, self.sequence), rows, events
        )

    async def meta(self, field: str) -> int:
        return int(await self.stores.command("HGET", NAMES.meta, field) or 0)

    async def applied(self) -> dict[int, int]:
        return {
            int(writer): int(sequence)
            for writer, sequence in (await self.stores.command("HGETALL", NAMES.applied)).items()
        }


@pytest.fixture
async def projected(redis_url: str) -> AsyncIterator[ProjectedBoard]:
    async with open_stores(NOWHERE, redis_url) as stores:
        await open_board(stores)
        yield ProjectedBoard(stores)


async def test_rows_are_ranked_by_total_then_by_who_was_first(projected: ProjectedBoard) -> None:
    """Ranks come in the order of the rows, exact and unique."""
    applied = await projected.apply(
        LedgerRow(LEADERBOARD, ADA, 10, 2, 1),
        LedgerRow(LEADERBOARD, BOB, 10, 1, 1),
        LedgerRow(LEADERBOARD, CARL, 11, 3, 1),
    )
    assert applied is not None
    assert applied.ranks == (3, 2, 1)
    assert await order_in_redis(projected.stores) == [(str(CARL), 11), (str(BOB), 10), (str(ADA), 10)]


async def test_the_largest_total_is_exact_in_the_sorted_set(projected: ProjectedBoard) -> None:
    """`ZSCORE leaderboard` gives 2^53 − 1 to the last digit, and its neighbours are different."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, HIGHEST - 1, 1, 1), LedgerRow(LEADERBOARD, BOB, HIGHEST, 2, 1))
    scores = [await projected.stores.command("ZSCORE", "leaderboard", str(user)) for user in (ADA, BOB)]
    assert [int(score) for score in scores] == [HIGHEST - 1, HIGHEST]


async def test_an_older_version_changes_nothing(projected: ProjectedBoard) -> None:
    """Repetition and reordering are harmless: no change, no version, no message; the ranks are the present ones."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, 30, 5, 3), LedgerRow(LEADERBOARD, BOB, 20, 1, 1))
    version, shown_version = await projected.meta("version"), await projected.meta("top")
    for old in (
        LedgerRow(LEADERBOARD, ADA, 10, 1, 1),
        LedgerRow(LEADERBOARD, ADA, 20, 3, 2),
        LedgerRow(LEADERBOARD, ADA, 30, 5, 3),
    ):
        applied = await projected.apply(old)
        assert applied == Applied(BoardVersion(1, version), shown_version, projected.sequence, True, (1,))
    assert await order_in_redis(projected.stores) == [(str(ADA), 30), (str(BOB), 20)]


async def test_totals_may_fall(projected: ProjectedBoard) -> None:
    """A newer version replaces the row, also with a smaller total."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, 30, 1, 1), LedgerRow(LEADERBOARD, BOB, 20, 2, 1))
    applied = await projected.apply(LedgerRow(LEADERBOARD, ADA, 5, 9, 2))
    assert applied is not None
    assert applied.ranks == (2,)
    assert await order_in_redis(projected.stores) == [(str(BOB), 20), (str(ADA), 5)]


async def test_versions_are_compared_as_64_bit_numbers(projected: ProjectedBoard) -> None:
    """Across 2^32 and beyond 2^53, where a double would lose count."""
    for total, version in enumerate((2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1)):
        await projected.apply(LedgerRow(LEADERBOARD, ADA, total, 1, version))
        await projected.apply(LedgerRow(LEADERBOARD, ADA, 999, 1, version - 1))
        assert await order_in_redis(projected.stores) == [(str(ADA), total)]


async def test_a_removed_user_stays_removed(projected: ProjectedBoard) -> None:
    """A removal deletes the entry from both orders, and a late older row does not restore it."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, 30, 1, 1), LedgerRow(LEADERBOARD, BOB, 20, 2, 1))
    applied = await projected.apply(LedgerRow(LEADERBOARD, ADA, None, 0, 3), LedgerRow(LEADERBOARD, BOB, 20, 2, 1))
    assert applied is not None
    assert applied.ranks == (None, 1)
    version = await projected.meta("version")
    for late in (LedgerRow(LEADERBOARD, ADA, 40, 3, 2), LedgerRow(LEADERBOARD, ADA, None, 0, 3)):
        await projected.apply(late)
    assert await order_in_redis(projected.stores) == [(str(BOB), 20)]
    assert await projected.meta("version") == version


async def test_a_removed_user_comes_back_with_a_newer_score(projected: ProjectedBoard) -> None:
    """Whose score was deleted and who acts again is on the board again; an older removal that comes late changes
    nothing."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, 30, 1, 1), LedgerRow(LEADERBOARD, BOB, 20, 2, 1))
    await projected.apply(LedgerRow(LEADERBOARD, ADA, None, 0, 5))
    applied = await projected.apply(LedgerRow(LEADERBOARD, ADA, 3, 9, 8))
    assert applied is not None
    assert applied.ranks == (2,)
    await projected.apply(LedgerRow(LEADERBOARD, ADA, None, 0, 5))
    assert await order_in_redis(projected.stores) == [(str(BOB), 20), (str(ADA), 3)]
    assert [await projected.meta(field) for field in ("size", "removed")] == [2, 0]


async def test_the_top_moves_only_with_the_first_ten(projected: ProjectedBoard) -> None:
    """`version` rises with every change, `top` and its times only when the first ten are others or in another order."""
    users = [UUID(int=100 + number) for number in range(12)]
    await projected.apply(*[LedgerRow(LEADERBOARD, user, 1000 - place, place, 1) for place, user in enumerate(users)])
    assert (await projected.meta("version"), await projected.meta("top")) == (1, 1)
    updated = await projected.meta("updated")
    assert await projected.meta("top_at") == updated
    assert abs(updated - int((await projected.stores.command("TIME"))[0]) * 1000) < 60_000
    await projected.apply(LedgerRow(LEADERBOARD, users[11], 990, 20, 2))
    assert (await projected.meta("version"), await projected.meta("top"), await projected.meta("updated")) == (
        2,
        1,
        updated,
    )
    await projected.apply(LedgerRow(LEADERBOARD, users[11], 991, 21, 3))  # a tie with the tenth, who was first
    assert await projected.meta("top") == 1
    await projected.apply(LedgerRow(LEADERBOARD, users[11], 992, 22, 4))
    assert (await projected.meta("version"), await projected.meta("top")) == (4, 4)
    await projected.apply(LedgerRow(LEADERBOARD, users[0], 2000, 30, 2))  # the same order, another total
    assert await projected.meta("top") == 5


async def test_another_epoch_does_nothing(projected: ProjectedBoard) -> None:
    """An emptied board is not written to, so nobody gets a rank on it. A repair is requested."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, 30, 1, 1))
    await projected.stores.command("FLUSHALL")
    assert await projected.apply(LedgerRow(LEADERBOARD, BOB, 1, 2, 1)) is None
    assert await projected.stores.command("DBSIZE") == 0
    assert projected.repair_requests == 1


async def test_a_newer_epoch_is_taken_up_at_once(projected: ProjectedBoard) -> None:
    """A board that was rebuilt meanwhile is whole: the same call goes to it, and an older one is never trusted
    again."""
    await projected.apply(LedgerRow(LEADERBOARD, ADA, 30, 1, 1))
    await projected.stores.command("HSET", NAMES.meta, "epoch", 5)
    applied = await projected.apply(LedgerRow(LEADERBOARD, BOB, 1, 2, 1))
    assert applied is not None
    assert applied.version.epoch == projected.projection.known.epoch == 5
    await projected.stores.command("HSET", NAMES.meta, "epoch", 4)
    assert await projected.apply(LedgerRow(LEADERBOARD, CARL, 1, 3, 1)) is None
    assert projected.repair_requests == 1


async def test_a_fallen_version_is_suspect(projected: ProjectedBoard) -> None:
    """A board that came back with an older content gives no ranks, and a repair is requested."""
    for version in range(1, 4):
        await projected.apply(LedgerRow(LEADERBOARD, ADA, 10 * version, version, version))
    await projected.stores.command("HSET", NAMES.meta, "version", 1)
    assert await projected.apply(LedgerRow(LEADERBOARD, BOB, 1, 9, 1)) is None
    assert projected.repair_requests == 1
    assert projected.projection.known == BoardVersion(1, 3)


async def test_two_committers_of_a_node_do_not_suspect_each_other(projected: ProjectedBoard) -> None:
    """Answers that come back in another order than the calls went in are no fallen version."""

    async def commit(seed: int) -> None:
        chance = Random(seed)
        for number in range(1, 30):
            rows = [LedgerRow(LEADERBOARD, UUID(int=seed * 1000 + chance.randrange(10)), number, number, number)]
            assert await projected.apply(*rows, sequences=SequenceRange(seed, number, number)) is not None

    async with trio.open_nursery() as nursery:
        for seed in range(4):
            nursery.start_soon(commit, seed)
    assert projected.repair_requests == 0
    assert await projected.applied() == dict.fromkeys(range(4), 29)


async def test_a_first_call_knows_no_epoch_and_finds_it(projected: ProjectedBoard) -> None:
    """A node that has just started needs no reading before its first commit."""
    assert projected.projection.known == NEVER
    applied = await projected.apply(LedgerRow(LEADERBOARD, ADA, 1, 1, 1))
    assert applied is not None
    assert applied.version == projected.projection.known == BoardVersion(1, 1)


async def test_applied_advances_only_without_a_gap(projected: ProjectedBoard) -> None:
    """A writer's watermark is the last batch before which none is missing; a call that covers the gap closes it."""
    row = LedgerRow(LEADERBOARD, ADA, 1, 1, 1)
    for sequences, expected in [
        (SequenceRange(9, 1, 1), 1),
        (SequenceRange(9, 3, 3), 1),
        (SequenceRange(9, 4, 5), 1),
        (SequenceRange(9, 2, 2), 2),
        (SequenceRange(9, 3, 5), 5),
        (SequenceRange(9, 2, 4), 5),
        (SequenceRange(9, 4, 7), 7),
        (SequenceRange(9, 8, 7), 7),
    ]:
        await projected.apply(row, sequences=sequences)
        assert await projected.applied() == {9: expected}
    await projected.apply(row, sequences=SequenceRange(2**63 - 1, 1, 1))
    assert await projected.applied() == {9: 7, 2**63 - 1: 1}


async def test_the_message_says_what_happened(projected: ProjectedBoard) -> None:
    """Board, epoch, version, top, ranks and the actions, on the specification's channel, for news alone."""
    messages: list[bytes] = []
    events = (
        ScoreEvent(str(BOB), 0, 20, 20, 1_700_000_000_000, "r-1", 1),
        ScoreEvent(str(ADA), 5, 10, 5, 1_700_000_000_000, 'r "2"', 0),
    )

    async def listen() -> None:
        client = projected.stores.subscriber()
        async with client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(UPDATES)
            ready.set()
            while len(messages) < 2:
                message = await subscription.get_message(timeout=10)
                messages.extend([message["data"]] if message else [])
        await client.aclose()

    ready = trio.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_in_asyncio, listen)
            await ready.wait()
            await projected.apply(
                LedgerRow(LEADERBOARD, ADA, 10, 1, 1), LedgerRow(LEADERBOARD, BOB, 20, 2, 1), events=events
            )
            await projected.apply(LedgerRow(LEADERBOARD, ADA, 10, 1, 1))  # no news
            await projected.apply(LedgerRow(LEADERBOARD, ADA, None, 0, 2))
    first, second = (message.split(b"\n") for message in messages)
    assert first[:7] == [b"board", b"", b"leaderboard", b"1", b"1", b"1", b"2,1"]
    assert json.loads(first[7]) == [list(each) for each in events]
    assert second == [b"board", b"", b"leaderboard", b"1", b"2", b"2", b"0", b"[]"]


async def test_redis_away_is_storage_unavailable() -> None:
    """Whether the call went through is not known then; nothing is remembered of it."""
    async with open_stores(NOWHERE, "redis://127.0.0.1:1/0") as stores:
        projected = ProjectedBoard(stores)
        with pytest.raises(StorageUnavailable, match="redis"):
            await projected.apply(LedgerRow(LEADERBOARD, ADA, 1, 1, 1))
    assert projected.projection.known == NEVER


# ---- any history ----------------------------------------------------------------------------------------------------

totals = st.integers(0, 3) | st.integers(HIGHEST - 2, HIGHEST)
rows = st.builds(
    lambda user, total, reached, version: LedgerRow(LEADERBOARD, UUID(int=user), total, reached, version),
    st.integers(1, 14),
    st.one_of(totals, totals, totals, st.none()),
    st.integers(0, 3) | st.integers(2**63 - 3, 2**63 - 1),
    st.integers(1, 6),
)


@given(st.lists(st.lists(rows, min_size=1, max_size=12, unique_by=lambda row: row.subject), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_calls_leave_the_newest_rows_in_their_exact_order(
    redis_url: str, calls: list[list[LedgerRow]]
) -> None:
    """Random rows in random order: each user's newest version counts, ranks are those of `sorted`, and every change is
    news."""
    newest: dict[UUID, LedgerRow] = {}
    async with open_stores(NOWHERE, redis_url) as stores:
        await stores.command("FLUSHALL")
        await open_board(stores)
        projected, changes = ProjectedBoard(stores), 0
        for call in calls:
            before = dict(newest)
            for row in call:
                old = newest.get(row.subject)
                if old is None or row.version > old.version:
                    newest[row.subject] = row
            changes += newest != before
            board = sorted(
                (row for row in newest.values() if row.total is not None),
                key=lambda row: (-(row.total or 0), row.reached, row.subject.bytes),
            )
            places = {row.subject: place for place, row in enumerate(board, start=1)}
            applied = await projected.apply(*call)
            assert applied is not None
            assert applied.ranks == tuple(places.get(row.subject) for row in call)
            assert applied.version.version == changes
        assert await order_in_redis(stores) == [(str(row.subject), row.total) for row in board]
