"""Group commit: whatever has queued goes to the stores as one batch, with no delay added.

`Queue` is where submitters wait; two `commit_batches` tasks drain it, each with a connection of its own, so that one batch is judged while
another is written. A third task, `end_late`, answers for actions whose time is up, since a time-out round each wait would cost more than
its signature check. Never decides about an action: see `storage.commit`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple
from uuid import UUID

import structlog
import trio

from scoreboard.domain.boards import Mark
from scoreboard.domain.errors import Refusal, StorageUnavailable
from scoreboard.domain.outcomes import LOCKED, Claim, Duplicate, Outcome, Recorded, out_of_service
from scoreboard.runtime import observe
from scoreboard.storage.bridge import crossing
from scoreboard.storage.commit import Commit, Committed

log = structlog.get_logger()

COMMITTERS = 2  # two made 25–40 % more than one, three nothing more
BATCH = 256  # actions; PostgreSQL's gain flattens at 64, the board call stays under 10 ms
QUEUE = 4_096  # waiting actions, under a second of work; full: 503
PATIENCE = 3.0  # seconds an action waits for its outcome
LOCKED_INTERVAL = 0.2  # seconds between two tries of actions whose users' rows another session holds
LATE_CHECK = 0.1  # seconds between two looks for late ones
RECONNECT = 0.25  # seconds between two tries while PostgreSQL is away

BUSY = out_of_service("Too many actions are waiting. Try again.")
AWAY = out_of_service("The database is out of reach. Nothing was recorded.")
IN_DOUBT = out_of_service("The database did not answer in time. Send the same actionId again to learn whether it was recorded.")


class Pending:
    """One queued claim, who waits for it, and until when (Trio's clock)."""

    __slots__ = ("_then", "claim", "deadline", "outcome")

    def __init__(self, claim: Claim, deadline: float) -> None:
        self.claim, self.deadline = claim, deadline
        self.outcome: Outcome | None = None
        self._then: Callable[[Outcome], None] | None = None

    def end(self, outcome: Outcome) -> None:
        """The first outcome counts: a late one has been answered already."""
        if self.outcome is None:
            self.outcome = outcome
            if self._then is not None:
                then, self._then = self._then, None  # who is told lets go of this one, and this one of it
                then(outcome)

    def then(self, tell: Callable[[Outcome], None]) -> None:
        """Has the outcome told by whoever ends it, once, without a task that waits. `tell` must not raise: it is the committer that calls.

        Not for one that has ended already.
        """
        assert self.outcome is None
        self._then = tell

    async def wait(self) -> Outcome:
        """The outcome, once there is one. Cancelling leaves the claim queued."""
        if self.outcome is None:
            ended = trio.Event()
            self.then(lambda _: ended.set())
            await ended.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.outcome is not None  # set before anybody is told
        return self.outcome


class Batch(NamedTuple):
    """What goes to the stores together. `cautious`: other sessions held the rows of these users the last time; nobody waits for them."""

    pending: list[Pending]
    cautious: bool = False


class Queue:
    """Bounded, first in, first out. `available`: whether a committer has a connection; without one actions are refused at once.

    Users whose rows another session of the database holds are set apart, so that nobody else waits: their actions are tried together, now
    and then, without waiting for a lock, until they are recorded or their time is up.
    """

    __slots__ = ("_apart", "_apart_at", "_idle", "_locked", "_outstanding", "_waiting", "available")

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._apart: deque[Pending] = deque()  # of locked users; at most QUEUE together with those that wait
        self._locked: set[UUID] = set()
        self._apart_at = inf  # when those set apart are tried again, Trio's clock
        self._outstanding: deque[Pending] = deque()  # by deadline, not answered when last looked at; at most what comes in within PATIENCE
        self._idle = trio.lowlevel.ParkingLot()
        self.available = 0

    def submit(self, claim: Claim) -> Pending | Refusal:
        """Queues the claim, whose outcome is there within PATIENCE, whoever still waits for it."""
        if not self.available:
            return AWAY
        if len(self._waiting) + len(self._apart) >= QUEUE:
            return BUSY
        pending = Pending(claim, trio.current_time() + PATIENCE)
        self._waiting.append(pending)
        self._outstanding.append(pending)
        if self._idle:
            self._idle.unpark()
        return pending

    async def take(self) -> Batch:
        """The next batch, as soon as there is one. Late ones are dropped unseen, so that "nothing was recorded" is true of them."""
        while True:
            while not self._waiting and trio.current_time() < self._apart_at:
                await self._idle.park()
            cautious = trio.current_time() >= self._apart_at
            if cautious:
                self._apart_at = inf
            source = self._apart if cautious else self._waiting
            batch: list[Pending] = []
            while source and len(batch) < BATCH:
                pending = source.popleft()
                if pending.outcome is not None:
                    continue
                if not cautious and pending.claim.user in self._locked:
                    self._set_apart(pending)
                else:
                    batch.append(pending)
            if self._apart:
                self._apart_at = min(self._apart_at, trio.current_time() + LOCKED_INTERVAL)  # more than a batch was set apart
            if cautious:
                self._locked = {pending.claim.user for pending in (*batch, *self._apart)}
            if batch:
                observe.COMMIT_QUEUE.set(len(self._waiting))
                return Batch(batch, cautious)

    def postpone(self, pending: Pending) -> None:
        """Another session holds the user's rows; nothing was recorded. It is tried again until its time is up."""
        if pending.outcome is None:
            self._locked.add(pending.claim.user)
            self._set_apart(pending)

    def unlocked(self, user: UUID) -> None:
        """The user's rows are free again."""
        self._locked.discard(user)

    def _set_apart(self, pending: Pending) -> None:
        self._apart.append(pending)
        self._apart_at = min(self._apart_at, trio.current_time() + LOCKED_INTERVAL)

    def end_late(self, now: float) -> None:
        """Answers for whatever has waited too long. Has those who were set apart tried again when it is time."""
        if now >= self._apart_at and self._idle:
            self._idle.unpark()
        while self._outstanding and (self._outstanding[0].outcome is not None or self._outstanding[0].deadline <= now):
            self._outstanding.popleft().end(IN_DOUBT)

    def refuse_waiting(self) -> None:
        """Nobody can commit: whoever waits is told at once."""
        for waiting in (self._waiting, self._apart):
            while waiting:
                waiting.popleft().end(AWAY)


def unique(batch: Sequence[Pending]) -> tuple[list[Pending], list[tuple[Pending, Pending]]]:
    """The first of equal (user, action id), and each later one with its first."""
    first: dict[tuple[bytes, str], Pending] = {}
    again = []
    for pending in batch:
        key = (pending.claim.user.bytes, pending.claim.action_id)
        leader = first.setdefault(key, pending)
        if leader is not pending:
            again.append((pending, leader))
    return list(first.values()), again


def follow(follower: Claim, leader: Claim, outcome: Outcome) -> Outcome:
    """What becomes of the second of two equal (user, action id) in one batch: a duplicate of what counted, else the same refusal."""
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
    on_mark: Callable[[Mark], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """One committer, for ever. `on_mark` hears of the board's newest mark before anybody is answered: so clients read their own writes.

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
                batch = await queue.take()
                try:
                    await _commit(batch, queue, commit, on_mark)
                except StorageUnavailable as exc:
                    log.warning("commit_failed", why=exc.why, actions=len(batch.pending))
                    if not commit.writer.is_connected:
                        connected = False
                        queue.available -= 1
            if not queue.available:
                queue.refuse_waiting()
            await trio.sleep(RECONNECT)
    finally:
        queue.available -= connected
        commit.writer.close()


async def _connect(queue: Queue, commit: Commit) -> bool:
    try:
        await crossing(commit.writer.ready)
    except StorageUnavailable as exc:
        log.warning("postgresql_away", why=exc.why)
        return False
    queue.available += 1
    return True


async def _commit(batch: Batch, queue: Queue, commit: Commit, on_mark: Callable[[Mark], None]) -> None:
    """One batch, answered to the last: with outcomes, or 503 when PostgreSQL went away (which is raised again).

    But for those whose rows another session holds: they go back to the queue.
    """
    leaders, followers = unique(batch.pending)
    observe.COMMIT_BATCH_SIZE.observe(len(leaders))
    try:
        with observe.COMMIT_SECONDS.time():
            claims = [pending.claim for pending in leaders]
            committed: Committed = await crossing(commit.run, claims, cautious=batch.cautious)
    except BaseException:
        for pending in batch.pending:
            pending.end(IN_DOUBT)
        raise
    if committed.mark is not None:
        on_mark(committed.mark)
    became = dict(zip(leaders, committed.outcomes, strict=True))
    for pending, outcome in became.items():
        if outcome is LOCKED:
            queue.postpone(pending)
        else:
            if batch.cautious:
                queue.unlocked(pending.claim.user)
            pending.end(outcome)
    for pending, leader in followers:  # by what became of the leader, not by what it was told: it may have been late
        if became[leader] is LOCKED:
            queue.postpone(pending)
        else:
            pending.end(follow(pending.claim, leader.claim, became[leader]))


async def end_late(queue: Queue, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answers late actions, for ever. Cancelling leaves them to whoever ends the committers."""
    task_status.started()
    while True:
        await trio.sleep(LATE_CHECK)
        queue.end_late(trio.current_time())
