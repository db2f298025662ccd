"""Group commit: all queued actions go to the stores as one batch, with no delay added.

1. Requests wait in `Queue` (operations.action_queue).
2. Two `commit_batches` tasks drain it, each with its own connection: one batch is decided on while another is written.
3. A third task, `expire_task`, resolves actions whose deadline has passed. A time-out for each wait would cost more
   than the action's signature check.

Never decides about an action: see `storage.commit`.
"""

from collections.abc import Callable, Sequence

import structlog
import trio

from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.outcomes import LOCKED, Duplicate, Held, Outcome, Recorded, SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.operations.action_queue import COMMIT_TIMED_OUT, Batch, Pending, Queue
from scoreboard.storage.commit import Commit, Committed
from scoreboard.telemetry import metrics

log = structlog.get_logger()

COMMITTERS = 2  # two had 25–40 % more throughput than one; three had no more
EXPIRY_INTERVAL_SECONDS = 0.1  # between two checks for expired actions
RECONNECT_INTERVAL_SECONDS = 0.25  # between two tries while PostgreSQL is away


def deduplicate(batch: Sequence[Pending]) -> tuple[list[Pending], list[tuple[Pending, Pending]]]:
    """The leaders, which are the first with their (user, action id); and each later one (a follower) with its
    leader."""
    leaders: dict[tuple[bytes, str], Pending] = {}
    followers = []
    for pending in batch:
        key = (pending.action.user.bytes, pending.action.action_id)
        leader = leaders.setdefault(key, pending)
        if leader is not pending:
            followers.append((pending, leader))
    return list(leaders.values()), followers


def duplicate_outcome(follower: SubmittedAction, leader: SubmittedAction, outcome: Outcome) -> Outcome:
    """The outcome of a follower, given its leader's: a duplicate if the leader was recorded, else the same refusal."""
    same = follower.body_sha256 == leader.body_sha256
    match outcome:
        case Recorded():
            return Duplicate(outcome if same else None)
        case Duplicate() | Held():
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
    """Runs one committer for ever. `on_board_changed` is called with each board's newest version before the actions are
    resolved. So clients read their own writes.

    Started once it has tried to connect. Cancelling terminates the connection: the actions of the running batch are
    resolved with COMMIT_TIMED_OUT, since their outcome is unknown.
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
        await run_in_asyncio(commit.writer.connection_aio)
    except StorageUnavailable as exc:
        log.warning("postgres_unavailable", why=exc.why)
        return False
    queue.available += 1
    return True


async def _commit(
    batch: Batch, queue: Queue, commit: Commit, on_board_changed: Callable[[Board, BoardVersion], None]
) -> None:
    """Commits one batch, and resolves every action of it: with its outcome, or with COMMIT_TIMED_OUT (503) when the
    commit raises. The exception is raised again.

    Only LOCKED actions stay unresolved: they go back to the queue.
    """
    leaders, followers = deduplicate(batch.pending)
    metrics.COMMIT_BATCH_SIZE.observe(len(leaders))
    try:
        with metrics.COMMIT_SECONDS.time():
            actions = [pending.action for pending in leaders]
            committed: Committed = await run_in_asyncio(
                commit.run_aio, actions, skip_locked=batch.skip_locked, has_unlimited=batch.has_unlimited
            )
    except BaseException:
        for pending in batch.pending:
            pending.resolve(COMMIT_TIMED_OUT)
        raise
    for board, version in committed.versions.items():
        on_board_changed(board, version)
    outcomes = dict(zip(leaders, committed.outcomes, strict=True))
    for pending, outcome in outcomes.items():
        if outcome is LOCKED:
            queue.postpone(pending)
        else:
            if batch.skip_locked:
                queue.mark_unlocked(pending.action.user)
            pending.resolve(outcome)
    # by the leader's outcome in the stores; its client may have been answered before, with a time-out
    for pending, leader in followers:
        if outcomes[leader] is LOCKED:
            queue.postpone(pending)
        else:
            pending.resolve(duplicate_outcome(pending.action, leader.action, outcomes[leader]))


async def expire_task(queue: Queue, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Resolves expired actions, for ever. After a cancellation they stay unresolved until a committer resolves them."""
    task_status.started()
    while True:
        await trio.sleep(EXPIRY_INTERVAL_SECONDS)
        queue.expire(trio.current_time())
