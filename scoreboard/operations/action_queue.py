"""The queue of actions between requests and committers: bounded, first in, first out, each action with a deadline.

`submit_action` queues an action. `workers.committer` gets batches, commits them, and resolves the actions. Never
decides about an action: see `storage.commit`.

Tested in tests/workers/test_committer.py.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple
from uuid import UUID

import trio

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import Outcome, SubmittedAction, out_of_service
from scoreboard.telemetry import metrics

MAX_BATCH_ACTIONS = 256  # more than 64 hardly help PostgreSQL; the call to the board stays under 10 ms
MAX_QUEUED_ACTIONS = 4_096  # under a second of work; full: 503
ACTION_TIMEOUT_SECONDS = 3.0  # how long an action waits for its outcome
LOCKED_RETRY_INTERVAL_SECONDS = 0.2  # between two tries of actions whose users' rows another session holds

QUEUE_FULL = out_of_service("Too many actions are waiting. Try again.")
DATABASE_UNAVAILABLE = out_of_service("The database is out of reach. Nothing was recorded.")
COMMIT_TIMED_OUT = out_of_service(
    "The database did not answer in time. Send the same actionId again to learn whether it was recorded."
)


class Pending:
    """One queued action, the callback that waits for its outcome, and the deadline (Trio's clock)."""

    __slots__ = ("_on_done", "action", "deadline", "outcome")

    def __init__(self, action: SubmittedAction, deadline: float) -> None:
        self.action, self.deadline = action, deadline
        self.outcome: Outcome | None = None
        self._on_done: Callable[[Outcome], None] | None = None

    def resolve(self, outcome: Outcome) -> None:
        """Sets the outcome and calls the callback. A second outcome is ignored: the client has been answered."""
        if self.outcome is None:
            self.outcome = outcome
            if self._on_done is not None:
                on_done, self._on_done = self._on_done, None  # no reference cycle is left
                on_done(outcome)

    def add_done_callback(self, on_done: Callable[[Outcome], None]) -> None:
        """`resolve` will call `on_done` once, so that no task has to wait. It must not raise, since the committer calls
        it.

        The action must not be resolved yet.
        """
        assert self.outcome is None
        self._on_done = on_done

    async def wait(self) -> Outcome:
        """Waits for the outcome and returns it. Cancelling leaves the action queued."""
        if self.outcome is None:
            resolved = trio.Event()
            self.add_done_callback(lambda _: resolved.set())
            await resolved.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.outcome is not None  # set before any callback
        return self.outcome


class Batch(NamedTuple):
    """Actions that are committed together. `skip_locked`: at the last try other sessions held the rows of these users,
    so the batch must not wait for locks."""

    pending: list[Pending]
    skip_locked: bool = False


class Queue:
    """Bounded, first in, first out. `available`: how many committers have a connection; at 0 actions are refused at
    once.

    Actions of users whose rows another database session holds are kept in a second queue, so that they delay no other
    action. They are tried together every LOCKED_RETRY_INTERVAL_SECONDS, without waiting for locks, until they are
    recorded or expire.
    """

    __slots__ = (
        "_idle",
        "_locked_users",
        "_of_locked_users",
        "_outstanding",
        "_retry_locked_at",
        "_waiting",
        "available",
    )

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        # at most MAX_QUEUED_ACTIONS together with `_waiting`
        self._of_locked_users: deque[Pending] = deque()
        self._locked_users: set[UUID] = set()
        self._retry_locked_at = inf  # when actions of locked users are tried again, Trio's clock
        # in the order of their deadlines; resolved ones are removed later. At most the actions of
        # ACTION_TIMEOUT_SECONDS
        self._outstanding: deque[Pending] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self.available = 0

    def submit(self, action: SubmittedAction) -> Pending | Refusal:
        """Queues the action, or refuses it at once. A queued action is resolved within ACTION_TIMEOUT_SECONDS."""
        if not self.available:
            return DATABASE_UNAVAILABLE
        if len(self._waiting) + len(self._of_locked_users) >= MAX_QUEUED_ACTIONS:
            return QUEUE_FULL
        pending = Pending(action, trio.current_time() + ACTION_TIMEOUT_SECONDS)
        self._waiting.append(pending)
        self._outstanding.append(pending)
        if self._idle:
            self._idle.unpark()
        return pending

    async def next_batch(self) -> Batch:
        """Waits for the next batch and returns it. Actions that are resolved already (expired or refused) are dropped.
        Cancelling while it waits loses nothing."""
        while True:
            while not self._waiting and trio.current_time() < self._retry_locked_at:
                await self._idle.park()
            skip_locked = trio.current_time() >= self._retry_locked_at
            if skip_locked:
                self._retry_locked_at = inf
            source = self._of_locked_users if skip_locked else self._waiting
            batch: list[Pending] = []
            while source and len(batch) < MAX_BATCH_ACTIONS:
                pending = source.popleft()
                if pending.outcome is not None:
                    continue
                if not skip_locked and pending.action.user in self._locked_users:
                    self._set_apart(pending)
                else:
                    batch.append(pending)
            if self._of_locked_users:
                # there are more than one batch
                self._retry_locked_at = min(self._retry_locked_at, trio.current_time() + LOCKED_RETRY_INTERVAL_SECONDS)
            if skip_locked:
                self._locked_users = {pending.action.user for pending in (*batch, *self._of_locked_users)}
            if batch:
                metrics.COMMIT_QUEUE.set(len(self._waiting))
                return Batch(batch, skip_locked)

    def postpone(self, pending: Pending) -> None:
        """Another session holds the user's rows, and nothing was recorded. The action is tried again until it
        expires."""
        if pending.outcome is None:
            self._locked_users.add(pending.action.user)
            self._set_apart(pending)

    def mark_unlocked(self, user: UUID) -> None:
        """The user's rows are free again."""
        self._locked_users.discard(user)

    def _set_apart(self, pending: Pending) -> None:
        self._of_locked_users.append(pending)
        self._retry_locked_at = min(self._retry_locked_at, trio.current_time() + LOCKED_RETRY_INTERVAL_SECONDS)

    def expire(self, now: float) -> None:
        """Resolves actions whose deadline has passed with COMMIT_TIMED_OUT. Wakes a committer when actions of locked
        users are to be tried again."""
        if now >= self._retry_locked_at and self._idle:
            self._idle.unpark()
        while self._outstanding and (self._outstanding[0].outcome is not None or self._outstanding[0].deadline <= now):
            self._outstanding.popleft().resolve(COMMIT_TIMED_OUT)

    def refuse_waiting(self) -> None:
        """No committer has a connection: all waiting actions are refused at once."""
        for waiting in (self._waiting, self._of_locked_users):
            while waiting:
                waiting.popleft().resolve(DATABASE_UNAVAILABLE)
