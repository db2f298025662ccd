"""Group commit: each action is resolved exactly once, whatever happens to the batch, the stores or the committer."""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

import pytest
import trio
import trio.testing
import trio_asyncio

from scoreboard.domain.boards import LEADERBOARD, Board, BoardVersion
from scoreboard.domain.errors import Code, StorageUnavailable
from scoreboard.domain.outcomes import USER_DELETED, Duplicate, Outcome, Recorded, SubmittedAction, too_many_actions
from scoreboard.operations import action_queue
from scoreboard.operations.action_queue import (
    ACTION_TIMEOUT_SECONDS,
    COMMIT_TIMED_OUT,
    DATABASE_UNAVAILABLE,
    LOCKED_RETRY_INTERVAL_SECONDS,
    MAX_BATCH_ACTIONS,
    QUEUE_FULL,
    Pending,
    Queue,
)
from scoreboard.storage.commit import Committed
from scoreboard.workers import committer as module
from scoreboard.workers.committer import commit_batches, deduplicate, duplicate_outcome, expire_task
from tests.operations.outcomes import submit
from tests.storage.seeds import claim

ADA, BOB = UUID(int=1), UUID(int=2)
POINTS = Recorded(ADA, 0, 10, 10, 1, 0)


def pending(each: SubmittedAction) -> Pending:
    return Pending(each, 0)


# ---- pure -----------------------------------------------------------------------------------------------------------


def test_the_first_of_equal_actions_leads() -> None:
    """Equal means the same user and actionId; the order of the batch stays."""
    batch = [
        pending(claim(user, action_id=action))
        for user, action in [(ADA, "a"), (ADA, "b"), (BOB, "a"), (ADA, "a"), (ADA, "a")]
    ]
    leaders, followers = deduplicate(batch)
    assert leaders == batch[:3]
    assert followers == [(batch[3], batch[0]), (batch[4], batch[0])]


@pytest.mark.parametrize(
    ("outcome", "same", "other"),
    [
        (POINTS, Duplicate(POINTS), Duplicate(None)),
        (Duplicate(POINTS), Duplicate(POINTS), Duplicate(None)),
        (Duplicate(None), Duplicate(None), Duplicate(None)),
        (USER_DELETED, USER_DELETED, USER_DELETED),
        (too_many_actions(5), too_many_actions(5), too_many_actions(5)),
    ],
)
def test_a_follower_gets_what_became_of_its_leader(outcome: Outcome, same: Outcome, other: Outcome) -> None:
    """A duplicate of what counted, with its outcome only for the same body; else the same refusal."""
    leader = claim(ADA, action_id="a")
    assert duplicate_outcome(claim(ADA, action_id="a"), leader, outcome) == same
    assert duplicate_outcome(claim(ADA, action_id="a", body=b"other"), leader, outcome) == other


def test_only_the_first_outcome_counts() -> None:
    """An expired action keeps its first outcome."""
    late = pending(claim(ADA))
    late.resolve(COMMIT_TIMED_OUT)
    late.resolve(POINTS)
    assert late.outcome is COMMIT_TIMED_OUT


def test_every_answer_of_the_queue_is_a_503() -> None:
    """Each 503 has a Retry-After."""
    assert {refusal.code for refusal in (DATABASE_UNAVAILABLE, QUEUE_FULL, COMMIT_TIMED_OUT)} == {
        Code.SERVICE_UNAVAILABLE
    }
    assert all(refusal.retry_after == 1 for refusal in (DATABASE_UNAVAILABLE, QUEUE_FULL, COMMIT_TIMED_OUT))


# ---- the queue, on a clock of its own --------------------------------------------------------------------------------


async def submitted(
    queue: Queue, claims: Sequence[SubmittedAction], outcomes: list[Outcome], nursery: trio.Nursery
) -> None:
    async def one(each: SubmittedAction) -> None:
        outcomes.append(await submit(queue, each))

    for each in claims:
        nursery.start_soon(one, each)
        await trio.testing.wait_all_tasks_blocked()


async def test_without_a_committer_actions_are_refused_at_once() -> None:
    """Without a connected committer actions are refused at once."""
    assert await submit(Queue(), claim(ADA)) is DATABASE_UNAVAILABLE


async def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound a new action is refused; batches are in the order of arrival."""
    monkeypatch.setattr(action_queue, "MAX_QUEUED_ACTIONS", 3)
    queue, outcomes, claims = Queue(), list[Outcome](), [claim(ADA) for _ in range(4)]
    queue.available = 1
    async with trio.open_nursery() as nursery:
        await submitted(queue, claims, outcomes, nursery)
        assert outcomes == [QUEUE_FULL]
        batch, *_ = await queue.next_batch()
        assert [each.action for each in batch] == claims[:3]
        for each in batch:
            each.resolve(POINTS)
    assert outcomes[1:] == [POINTS] * 3


async def test_a_batch_is_bounded() -> None:
    """More than a batch waits for the next one; a committer that comes to an empty queue waits for the first."""
    queue, outcomes = Queue(), list[Outcome]()
    queue.available = 1
    async with trio.open_nursery() as nursery:
        sizes: list[int] = []

        async def take() -> None:
            while sum(sizes) < MAX_BATCH_ACTIONS + 5:
                batch, *_ = await queue.next_batch()
                sizes.append(len(batch))
                for each in batch:
                    each.resolve(POINTS)

        for _ in range(MAX_BATCH_ACTIONS + 4):
            nursery.start_soon(partial(submitted, queue, [claim(ADA)], outcomes, nursery))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert sizes == [MAX_BATCH_ACTIONS, 4]
        await submitted(queue, [claim(ADA)], outcomes, nursery)
    assert sizes == [MAX_BATCH_ACTIONS, 4, 1]


async def test_a_late_action_is_answered_and_never_taken(autojump_clock: trio.testing.MockClock) -> None:
    """After ACTION_TIMEOUT_SECONDS an action is resolved with COMMIT_TIMED_OUT; if it is still queued, it is dropped
    before the stores."""
    queue, outcomes = Queue(), list[Outcome]()
    queue.available = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire_task, queue)
        async with trio.open_nursery() as waiting:
            begun = trio.current_time()
            await submitted(queue, [claim(ADA), claim(BOB)], outcomes, waiting)
            ((under_way, _), *_) = await queue.next_batch()
            await submitted(queue, [claim(ADA)], outcomes, waiting)
        assert outcomes == [COMMIT_TIMED_OUT] * 3
        assert ACTION_TIMEOUT_SECONDS <= trio.current_time() - begun <= ACTION_TIMEOUT_SECONDS + 0.5
        under_way.resolve(POINTS)
        async with trio.open_nursery() as waiting:
            await submitted(queue, [fresh := claim(BOB)], outcomes, waiting)
            ((taken,), *_) = await queue.next_batch()
            assert taken.action is fresh
            taken.resolve(POINTS)
        nursery.cancel_scope.cancel()


# ---- committers with a fake commit ------------------------------------------------------------------------------


async def test_whose_rows_are_locked_keeps_nobody_waiting(autojump_clock: trio.testing.MockClock) -> None:
    """They are set apart with all that comes after, and tried together now and then, without waiting for the lock."""
    queue, outcomes = Queue(), list[Outcome]()
    queue.available = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire_task, queue)
        await submitted(queue, [claim(ADA), claim(BOB)], outcomes, nursery)
        ((ada, bob), skip_locked, _) = await queue.next_batch()
        assert not skip_locked
        queue.postpone(ada)
        bob.resolve(POINTS)
        await submitted(queue, [claim(ADA), claim(BOB)], outcomes, nursery)
        ((another,), skip_locked, _) = await queue.next_batch()
        assert (another.action.user, skip_locked) == (BOB, False)
        another.resolve(POINTS)
        begun = trio.current_time()
        (batch, skip_locked, _) = await queue.next_batch()
        assert ([each.action.user for each in batch], skip_locked) == ([ADA, ADA], True)
        assert (
            LOCKED_RETRY_INTERVAL_SECONDS <= trio.current_time() - begun + 0.001 <= LOCKED_RETRY_INTERVAL_SECONDS + 0.2
        )
        for each in batch:
            queue.mark_unlocked(each.action.user)
            each.resolve(POINTS)
        await submitted(queue, [claim(ADA)], outcomes, nursery)
        ((again,), skip_locked, _) = await queue.next_batch()
        assert not skip_locked
        again.resolve(POINTS)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert outcomes == [POINTS] * 5


async def test_more_than_a_batch_set_apart_is_tried_to_the_last(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that had locked many users for a moment: each of them has its turn."""
    monkeypatch.setattr(action_queue, "MAX_BATCH_ACTIONS", 2)
    queue, outcomes = Queue(), list[Outcome]()
    queue.available = 1
    users = [UUID(int=n) for n in range(10, 15)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire_task, queue)
        await submitted(queue, [claim(user) for user in users], outcomes, nursery)
        for _ in range(3):
            for each in (await queue.next_batch()).pending:
                queue.postpone(each)
        while len(outcomes) < len(users):
            with trio.fail_after(ACTION_TIMEOUT_SECONDS):
                batch, skip_locked, _ = await queue.next_batch()
            assert skip_locked
            for each in batch:
                queue.mark_unlocked(each.action.user)
                each.resolve(POINTS)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert outcomes == [POINTS] * len(users)


async def test_who_is_set_apart_is_answered_in_time_and_counts_for_the_bound(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that lasts: COMMIT_TIMED_OUT after the usual time, and nobody grows a queue of them."""
    monkeypatch.setattr(action_queue, "MAX_QUEUED_ACTIONS", 2)
    queue, outcomes = Queue(), list[Outcome]()
    queue.available = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire_task, queue)
        await submitted(queue, [claim(ADA), claim(ADA)], outcomes, nursery)
        (batch, *_) = await queue.next_batch()
        for each in batch:
            queue.postpone(each)
        assert queue.submit(claim(BOB)) is QUEUE_FULL
        await trio.sleep(ACTION_TIMEOUT_SECONDS + 0.2)
        assert outcomes == [COMMIT_TIMED_OUT, COMMIT_TIMED_OUT]
        nursery.cancel_scope.cancel()


class FakeWriter:
    def __init__(self) -> None:
        self.is_connected = False
        self.there = True

    async def connection_aio(self) -> None:
        if not self.there:
            raise StorageUnavailable("postgresql", "on purpose")
        self.is_connected = True

    def close(self) -> None:
        self.is_connected = False


class FakeCommit:
    """Everything counts, unless `fails` is raised."""

    def __init__(self) -> None:
        self.writer = FakeWriter()
        self.batches: list[Sequence[SubmittedAction]] = []
        self.fails: Callable[[], Exception] | None = None

    async def run_aio(
        self, claims: Sequence[SubmittedAction], *, skip_locked: bool = False, has_unlimited: bool = False
    ) -> Committed:
        self.batches.append(claims)
        if self.fails is not None:
            raise self.fails()
        return Committed(
            [Recorded(each.user, 0, 1, 1, 1, 0) for each in claims], {LEADERBOARD: BoardVersion(1, len(self.batches))}
        )


async def test_a_crash_answers_everybody_and_ends_the_committer() -> None:
    """A bug is not swallowed: its batch is told that it is not known, the task ends, and a committer less is
    available."""
    queue, outcomes, commit = Queue(), list[Outcome](), FakeCommit()
    commit.fails = lambda: RuntimeError("a bug")
    async with trio_asyncio.open_loop():
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug"), flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(commit_batches, queue, commit, lambda *_: None)
                assert queue.available == 1
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as waiting:
                        await submitted(queue, [claim(ADA), claim(BOB)], outcomes, waiting)
    assert outcomes == [COMMIT_TIMED_OUT, DATABASE_UNAVAILABLE]
    assert queue.available == 0
    assert not commit.writer.is_connected


async def test_a_reply_that_refuses_keeps_the_committer() -> None:
    """StorageUnavailable over a connection that lives (a statement was cancelled, memory was short): 503, and the next
    batch goes on."""
    queue, commit = Queue(), FakeCommit()
    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        await nursery.start(commit_batches, queue, commit, lambda *_: None)
        commit.fails = lambda: StorageUnavailable("postgresql", "cancelled")
        assert await submit(queue, claim(ADA)) is COMMIT_TIMED_OUT
        commit.fails = None
        assert isinstance(await submit(queue, claim(ADA)), Recorded)
        assert queue.available == 1
        nursery.cancel_scope.cancel()


async def test_waiting_actions_are_refused_when_the_last_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last committer ends, queued and new actions get DATABASE_UNAVAILABLE, until one is connected again."""
    queue, outcomes, commit = Queue(), list[Outcome](), FakeCommit()
    monkeypatch.setattr(action_queue, "MAX_BATCH_ACTIONS", 1)
    monkeypatch.setattr(module, "RECONNECT_INTERVAL_SECONDS", 0.01)

    def lose() -> Exception:
        commit.writer.is_connected = commit.writer.there = False
        return StorageUnavailable("postgresql", "lost")

    commit.fails = lose
    with trio.fail_after(10):
        async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
            await nursery.start(commit_batches, queue, commit, lambda *_: None)
            async with trio.open_nursery() as waiting:
                for each in (claim(ADA), claim(BOB), claim(ADA)):
                    waiting.start_soon(partial(submitted, queue, [each], outcomes, waiting))
            assert sorted(outcomes, key=str) == sorted(
                [COMMIT_TIMED_OUT, DATABASE_UNAVAILABLE, DATABASE_UNAVAILABLE], key=str
            )
            assert await submit(queue, claim(ADA)) is DATABASE_UNAVAILABLE
            commit.fails, commit.writer.there = None, True
            while not queue.available:
                await trio.sleep(0.005)
            assert isinstance(await submit(queue, claim(ADA)), Recorded)
            nursery.cancel_scope.cancel()


async def test_the_board_has_changed_before_the_answer() -> None:
    """So a client that reads after its 200 reads its own write."""
    queue, commit, heard = Queue(), FakeCommit(), list[tuple[Board, BoardVersion, bool]]()
    mine = Pending(claim(ADA), float("inf"))

    def on_board_changed(board: Board, version: BoardVersion) -> None:
        heard.append((board, version, mine.outcome is None))

    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        await nursery.start(commit_batches, queue, commit, on_board_changed)
        queue._waiting.append(mine)
        await submit(queue, claim(BOB))
        assert mine.outcome is not None
        nursery.cancel_scope.cancel()
    assert heard == [(LEADERBOARD, BoardVersion(1, 1), True)]
