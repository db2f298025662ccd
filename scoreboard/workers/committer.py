"""Group commit: whatever has queued goes to the stores as one batch, with no delay added.

`Queue` is where submitters wait; two `commit_batches` tasks drain it, each with a connection of its own, so that one
batch is judged while another is written. A third task, `expire_task`, answers for actions whose time is up, since a
time-out round each wait would cost more than its signature check. Never decides about an action: see `storage.commit`.
"""

from collections.abc import Callable, Sequence

import structlog
import trio

from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.outcomes import LOCKED, Duplicate, Outcome, Recorded, SubmittedAction
from scoreboard.operations.action_queue import COMMIT_TIMED_OUT, Batch, Pending, Queue
from scoreboard.storage.commit import Commit, Committed
from scoreboard.storage.connections.bridge import run_in_asyncio
from scoreboard.telemetry import metrics

log = structlog.get_logger()

COMMITTERS = 2  # two made 25–40 % more than one, three nothing more
EXPIRY_INTERVAL_SECONDS = 0.1  # seconds between two looks for late ones
RECONNECT_INTERVAL_SECONDS = 0.25  # seconds between two tries while PostgreSQL is away


def deduplicate(batch: Sequence[Pending]) -> tuple[list[Pending], list[tuple[Pending, Pending]]]:
    """The first of equal (user, action id), and each later one with its first."""
    first: dict[tuple[bytes, str], Pending] = {}
    again = []
    for pending in batch:
        key = (pending.action.user.bytes, pending.action.action_id)
        leader = first.setdefault(key, pending)
        if leader is not pending:
            again.append((pending, leader))
    return list(first.values()), again


def duplicate_outcome(follower: SubmittedAction, leader: SubmittedAction, outcome: Outcome) -> Outcome:
    """What becomes of the second of two equal (user, action id) in one batch: a duplicate of what counted, else the
    same refusal."""
    same = follower.body_sha256 == leader.body_sha256
    match outcome:
        case Recorded():
            return Duplicate(outcome if same else None)
        case Duplicate():
            return outcome if same else Duplicate(None)
        case _:
            return outcome


async def commit_batches(
    queue: Queue,
    commit: Commit,
    on_board_changed: Callable[[Board, BoardVersion], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """One committer, for ever. `on_board_changed` is called with each board's newest version before anybody is
    answered: so clients read their own writes.

    Started once it has tried to connect. Cancelling ends the batch under way with its connection.
    """
    connected = started = False
    try:
        while True:
            connected = await _connect(queue, commit)
            if not started:
                started = True
                task_status.started()
            while connected:
                batch = await queue.next_batch()
                try:
                    await _commit(batch, queue, commit, on_board_changed)
                except StorageUnavailable as exc:
                    log.warning("commit_failed", why=exc.why, actions=len(batch.pending))
                    if not commit.writer.is_connected:
                        connected = False
                        queue.available -= 1
            if not queue.available:
                queue.refuse_waiting()
            await trio.sleep(RECONNECT_INTERVAL_SECONDS)
    finally:
        queue.available -= connected
        commit.writer.close()


async def _connect(queue: Queue, commit: Commit) -> bool:
    try:
        await run_in_asyncio(commit.writer.ready_aio)
    except StorageUnavailable as exc:
        log.warning("postgres_unavailable", why=exc.why)
        return False
    queue.available += 1
    return True


async def _commit(
    batch: Batch, queue: Queue, commit: Commit, on_board_changed: Callable[[Board, BoardVersion], None]
) -> None:
    """One batch, answered to the last: with outcomes, or 503 when PostgreSQL went away (which is raised again).

    But for those whose rows another session holds: they go back to the queue.
    """
    leaders, followers = deduplicate(batch.pending)
    metrics.COMMIT_BATCH_SIZE.observe(len(leaders))
    try:
        with metrics.COMMIT_SECONDS.time():
            actions = [pending.action for pending in leaders]
            committed: Committed = await run_in_asyncio(commit.run_aio, actions, skip_locked=batch.skip_locked)
    except BaseException:
        for pending in batch.pending:
            pending.resolve(COMMIT_TIMED_OUT)
        raise
    for board, version in committed.versions.items():
        on_board_changed(board, version)
    became = dict(zip(leaders, committed.outcomes, strict=True))
    for pending, outcome in became.items():
        if outcome is LOCKED:
            queue.postpone(pending)
        else:
            if batch.skip_locked:
                queue.mark_unlocked(pending.action.user)
            pending.resolve(outcome)
    # by what became of the leader, not by what its client was answered: that may have been a time-out
    for pending, leader in followers:
        if became[leader] is LOCKED:
            queue.postpone(pending)
        else:
            pending.resolve(duplicate_outcome(pending.action, leader.action, became[leader]))


async def expire_task(queue: Queue, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answers late actions, for ever. Cancelling leaves them to whoever ends the committers."""
    task_status.started()
    while True:
        await trio.sleep(EXPIRY_INTERVAL_SECONDS)
        queue.expire(trio.current_time())
