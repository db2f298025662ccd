"""Actions of server keys in the queue: a request is one batch, and users' actions get their turn beside it."""

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
import trio.testing

from scoreboard.domain.outcomes import Recorded, SubmittedAction
from scoreboard.operations import action_queue
from scoreboard.operations.action_queue import (
    ACTION_TIMEOUT_SECONDS,
    COMMIT_TIMED_OUT,
    DATABASE_UNAVAILABLE,
    LOCKED_RETRY_INTERVAL_SECONDS,
    MAX_BULK_BATCH_ACTIONS,
    QUEUE_FULL,
    Batch,
    Pending,
    PendingGroup,
    Queue,
)
from tests.storage.seeds import claim

ADA, BOB = UUID(int=1), UUID(int=2)


def open_queue() -> Queue:
    queue = Queue()
    queue.available = 1
    return queue


def group_of(queue: Queue, count: int, user: UUID = ADA) -> PendingGroup:
    group = queue.submit_group([claim(user, is_limited=False) for _ in range(count)])
    assert isinstance(group, PendingGroup)
    return group


def single(queue: Queue, user: UUID = ADA) -> Pending:
    pending = queue.submit(claim(user))
    assert isinstance(pending, Pending)
    return pending


async def next_batch(queue: Queue) -> Batch:
    """The next batch, which must be there."""
    with trio.fail_after(1):
        return await queue.next_batch()


def actions(pending: Sequence[Pending]) -> list[SubmittedAction]:
    return [one.action for one in pending]


async def test_a_request_is_one_batch() -> None:
    """Of the largest size too; small requests share a batch, and none is divided."""
    queue = open_queue()
    groups = [group_of(queue, size) for size in (500, 20, 3, 500)]
    batches = [await next_batch(queue) for _ in range(3)]
    assert [actions(batch.pending) for batch in batches] == [
        actions(groups[0].pending),
        actions([*groups[1].pending, *groups[2].pending]),
        actions(groups[3].pending),
    ]
    assert all(batch.has_unlimited for batch in batches)


async def test_small_requests_fill_a_batch_and_no_more() -> None:
    """A batch has at most MAX_BULK_BATCH_ACTIONS."""
    queue = open_queue()
    for _ in range(8):
        group_of(queue, 200)
    sizes = [len((await next_batch(queue)).pending) for _ in range(4)]
    assert sizes == [400] * 4
    assert max(sizes) <= MAX_BULK_BATCH_ACTIONS


async def test_users_and_server_keys_take_turns() -> None:
    """A queue full of bulk requests delays a user's action by one batch, and the other way round."""
    queue = open_queue()
    groups = [group_of(queue, 500) for _ in range(3)]
    first = await next_batch(queue)
    waiting = single(queue)
    order = [(await next_batch(queue)) for _ in range(3)]
    assert first.pending == groups[0].pending
    assert [batch.pending for batch in order] == [[waiting], groups[1].pending, groups[2].pending]
    assert order[0] == Batch([waiting])  # the limits of users apply


async def test_a_full_queue_refuses_the_whole_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is queued, and users' own actions are still taken."""
    monkeypatch.setattr(action_queue, "MAX_QUEUED_BULK_ACTIONS", 10)
    queue = open_queue()
    group = group_of(queue, 6)
    assert queue.submit_group([claim(ADA) for _ in range(5)]) is QUEUE_FULL
    waiting = single(queue)
    assert [(await next_batch(queue)).pending for _ in range(2)] == [[waiting], group.pending]
    group_of(queue, 10)


async def test_without_a_committer_a_request_is_refused_at_once() -> None:
    """503, and all that wait are answered when the last committer is lost."""
    assert Queue().submit_group([claim(ADA)]) is DATABASE_UNAVAILABLE
    queue = open_queue()
    group = group_of(queue, 2)
    queue.available = 0
    queue.refuse_waiting()
    assert await group.wait() == [DATABASE_UNAVAILABLE] * 2
    queue.available = 1
    group_of(queue, action_queue.MAX_QUEUED_BULK_ACTIONS)  # the places are free again


async def test_a_group_waits_for_its_last_outcome() -> None:
    """In the order of the actions; an empty one waits for nothing."""
    queue = open_queue()
    assert await group_of(queue, 0).wait() == []
    group, seen = group_of(queue, 3), []
    points = [Recorded(ADA, 0, 1, 1, number, 0) for number in range(3)]

    async def wait() -> None:
        seen.extend(await group.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for number in (2, 0, 1):
            await trio.testing.wait_all_tasks_blocked()
            assert seen == []
            group.pending[number].resolve(points[number])
    assert seen == points


async def test_actions_of_locked_users_leave_the_group(autojump_clock: trio.abc.Clock) -> None:
    """The others are recorded without them; they are tried again without the limits of users, until they expire."""
    queue = open_queue()
    locked = single(queue, BOB)
    await next_batch(queue)
    queue.postpone(locked)
    group = queue.submit_group([claim(ADA, is_limited=False), claim(BOB, is_limited=False)])
    assert isinstance(group, PendingGroup)
    assert (await next_batch(queue)).pending == group.pending[:1]
    await trio.sleep(LOCKED_RETRY_INTERVAL_SECONDS)
    assert await next_batch(queue) == Batch([locked, group.pending[1]], skip_locked=True, has_unlimited=True)
    queue.postpone(group.pending[1])
    await trio.sleep(ACTION_TIMEOUT_SECONDS)
    queue.expire(trio.current_time())
    assert await group.wait() == [COMMIT_TIMED_OUT] * 2


async def test_an_expired_request_is_not_committed(autojump_clock: trio.abc.Clock) -> None:
    """Its client was answered 503; the next batch is the next request."""
    queue = open_queue()
    late = group_of(queue, 2)
    await trio.sleep(ACTION_TIMEOUT_SECONDS)
    queue.expire(trio.current_time())
    assert await late.wait() == [COMMIT_TIMED_OUT] * 2
    group = group_of(queue, 1)
    assert (await next_batch(queue)).pending == group.pending
